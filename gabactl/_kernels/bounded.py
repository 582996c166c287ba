"""Many closed loops whose signals are known to stay within bounds: the fast kernel.

Most loops cannot overflow whatever they do: the disturbance, the floor and the plant bound every
logarithm in advance. Then only differences from the last task matter (shares, contributions and
the plant know no common factor), no reading can be unusable, and a product of eight contribution
ratios is still a float, so that one logarithm serves eight steps.

``state`` holds rows of ``LANES`` numbers, one block of loops after another, and is input and
output in one. A block stays in the fastest cache through all steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import typeof, types
from numba.extending import intrinsic

from gabactl._kernels.jit import compiled
from gabactl._kernels.random import PHILOX, PHILOX_ROUNDS, WEYL
from gabactl._kernels.vectors import (
    Lanes,
    Vector,
    cos_sin_turn,
    exp_bounded,
    inverse,
    log,
    use_wide_vectors,
)

__all__ = ["LANES", "LIMITS", "MAX_TASKS", "layout", "operations", "row_names", "run_bounded"]

#: Loops that share a block.
LANES = 64

#: A step is unrolled over the tasks, so that more of them would take long to compile.
MAX_TASKS = 8

#: Per type: largest log of a contribution ratio, largest log of a reading's ratio, steps that share
#: a logarithm (a product of so many largest ratios is still a float).
LIMITS = {"float64": (85.0, 300.0, 8), "float32": (40.0, 40.0, 2)}

#: Bits of the vectors a step is written in: four of 512, so that some work while others wait.
_AT_ONCE = 2048

_INT64 = ir.IntType(64)
_PLAIN, _WATCH = 0, 1

_SINGLE = (
    "pole",
    "gain",
    "floor",
    "interval",
    "minus_rho",
    "a",
    "one_minus_a",
    "noise",
    "amplitude",
    "next",
    "saturated",
    "worst",
    "largest",
    "worst_high",
    "worst_low",
    "product_high",
    "product_low",
    "error",
    "high",
    "low",
    "peak",
    "early_peak",
    "start",
    "sum",
    "square",
)
_PER_TASK = ("ema", "lag")
_SETTLING = ("spread_above", "spread_below", "last_weights", "last_spread")
_SETTLING_PER_TASK = ("weight_above", "weight_below")


def row_names(n_tasks: int, settling: bool = False) -> list[str]:
    """Names of the rows of ``state``: those of a loop, those of its tasks, those of settling.

    Examples
    --------
    >>> row_names(2)[-2:]
    ['lag 0', 'lag 1']
    """

    def of_tasks(names: tuple[str, ...]) -> list[str]:
        return [f"{name} {i}" for name in names for i in range(n_tasks)]

    names = [*_SINGLE, *of_tasks(_PER_TASK)]
    return [*names, *_SETTLING, *of_tasks(_SETTLING_PER_TASK)] if settling else names


def layout(
    n_tasks: int, feedback: bool, delayed: bool, noisy: bool, settling: bool
) -> tuple[tuple[int, ...], ...]:
    """What a kernel is compiled for, as lengths of tuples, which a compiler sees as types.

    Examples
    --------
    >>> layout(2, True, False, False, False)
    ((0, 0), (0,), (), (), ())
    """
    return ((0,) * n_tasks, *((0,) * int(b) for b in (feedback, delayed, noisy, settling)))


class _Step:
    """Writes one step of ``width`` loops."""

    def __init__(self, lanes: Lanes, shape: Any, mode: int, inputs: dict[str, Any]) -> None:
        self.lanes = lanes
        k, feedback, delayed, noisy, settling = (kind.count for kind in shape)
        self.k: int = k
        self.feedback, self.delayed, self.noisy = bool(feedback), bool(delayed), bool(noisy)
        self.settling = bool(settling)
        self.watching = mode == _WATCH
        self.inputs = inputs
        self.rows = {name: n for n, name in enumerate(row_names(k, self.settling))}

    def _place(self, name: str) -> Any:
        offset = ir.Constant(_INT64, self.rows[name] * LANES)
        return self.lanes.builder.add(self.inputs["lane"], offset)

    def get(self, name: str) -> Vector:
        return self.lanes.load(self.inputs["state"], self._place(name))

    def put(self, name: str, value: Vector) -> None:
        self.lanes.store(value, self.inputs["state"], self._place(name))

    def tasks(self, name: str) -> list[Vector]:
        return [self.get(f"{name} {i}") for i in range(self.k)]

    def write(self) -> None:
        one = self.lanes.constant(1.0)
        norms, readings = self._sense(one)
        ema = self._smooth(readings)
        floor = self.get("floor")
        values = [e.largest(floor) for e in ema]
        contributions = [v * g for v, g in zip(values, norms, strict=True)]
        high, low = _extremes(contributions)
        # A true division: nothing waits for it but the figures, so that it runs beside the rest.
        scale = 1.0 / _sum(values)
        if self.settling:
            self._compare(values, scale, high, low)
        else:
            self._account(ema, floor, high, low, scale)
        if self.feedback:
            self._answer(values)

    def _sense(self, one: Vector) -> tuple[list[Vector], list[Vector]]:
        """Norms and readings as multiples of the last task's."""
        amplitude = self.get("amplitude")
        levels = []
        for i in range(self.k - 1):
            level = amplitude * self.lanes.spread(self.inputs["logs"](i))
            if self.feedback:
                level = self.get(f"lag {i}").fma(self.get("minus_rho"), level)
            levels.append(level)
        norms = [exp_bounded(x) for x in levels]
        if not self.noisy:
            return [*norms, one], [*norms, one]
        draws = list(self._normals())
        noise = self.get("noise")
        readings = [
            exp_bounded(noise.fma(z - draws[-1], x))
            for z, x in zip(draws[:-1], levels, strict=True)
        ]
        return [*norms, one], [*readings, one]

    def _smooth(self, readings: list[Vector]) -> list[Vector]:
        """The low-pass where a reading is due; raw weights from the sums over the other tasks."""
        now = self.lanes.spread(self.inputs["now"])
        next_one = self.get("next")
        due = next_one <= now
        self.put("next", due.where(now + self.get("interval"), next_one))
        due = due & self.lanes.spread(self.inputs["usable"])
        before, after = [readings[0]], [readings[-1]]
        for r in readings[1:-1]:
            before.append(before[-1] + r)
        for r in readings[-2:0:-1]:
            after.append(after[-1] + r)
        after.reverse()
        others = [
            after[0],
            *(before[i - 1] + after[i] for i in range(1, self.k - 1)),
            before[-1],
        ]
        scale = self.get("gain") * inverse(before[-1] + readings[-1])
        pole = self.get("pole")
        ema = []
        for i, other in enumerate(others):
            old = self.get(f"ema {i}")
            new = due.where(pole.fma(old, other * scale), old)
            self.put(f"ema {i}", new)
            ema.append(new)
        return ema

    def _account(
        self, ema: list[Vector], floor: Vector, high: Vector, low: Vector, scale: Vector
    ) -> None:
        """Extremes of weights and contributions, saturation, and the product for the mean."""
        top, bottom = _extremes(ema)
        below = (bottom < floor).where(self.lanes.constant(1.0), self.lanes.constant(0.0))
        self.put("saturated", self.get("saturated") + below)
        least, most = bottom.largest(floor) * scale, top.largest(floor) * scale
        self.put("worst", least.least(self.get("worst")))
        self.put("largest", most.largest(self.get("largest")))
        if self.watching:
            self._watch(ema[0].largest(floor) * scale, least, most)
        # high / low > worst_high / worst_low, without a division.
        worst_high, worst_low = self.get("worst_high"), self.get("worst_low")
        worse = high * worst_low > worst_high * low
        self.put("worst_high", worse.where(high, worst_high))
        self.put("worst_low", worse.where(low, worst_low))
        self.put("product_high", self.get("product_high") * high)
        self.put("product_low", self.get("product_low") * low)
        self.put("high", high)
        self.put("low", low)

    def _watch(self, weight: Vector, least: Vector, most: Vector) -> None:
        """Peak distance of the weights from 1/K; sums for mean and variance of task 0's."""
        uniform = 1.0 / self.k
        self.put("peak", (most - uniform).largest(uniform - least).largest(self.get("peak")))
        x = weight - self.get("start")
        self.put("sum", self.get("sum") + x)
        self.put("square", x.fma(x, self.get("square")))

    def _compare(self, values: list[Vector], scale: Vector, high: Vector, low: Vector) -> None:
        """The last step outside each band."""
        now = self.lanes.spread(self.inputs["now"])
        outside = None
        for i, v in enumerate(values):
            w = v * scale
            far = (w > self.get(f"weight_above {i}")) | (w < self.get(f"weight_below {i}"))
            outside = far if outside is None else outside | far
        assert outside is not None
        self.put("last_weights", outside.where(now, self.get("last_weights")))
        far = (high > self.get("spread_above") * low) | (high < self.get("spread_below") * low)
        self.put("last_spread", far.where(now, self.get("last_spread")))

    def _answer(self, values: list[Vector]) -> None:
        """The plant takes the log weights, as differences from the last task's."""
        reference = inverse(values[-1])
        a, rest = self.get("a"), self.get("one_minus_a")
        for i, v in enumerate(values[:-1]):
            told = log(v * reference)
            if self.delayed:
                place = self.inputs["queue place"](i)
                waited = self.lanes.load(self.inputs["queue"], place)
                self.lanes.store(told, self.inputs["queue"], place)
                told = waited
            self.put(f"lag {i}", a.fma(self.get(f"lag {i}"), rest * told))

    def fold(self) -> None:
        """The logarithm of the products, into the integrated error."""
        ratio = self.get("product_high") / self.get("product_low")
        self.put("error", self.get("error") + log(ratio))
        self.put("product_high", self.lanes.constant(1.0))
        self.put("product_low", self.lanes.constant(1.0))

    def _normals(self) -> Iterator[Vector]:
        """Standard normal numbers of this step: those of :mod:`gabactl._kernels.random`."""
        double = self.lanes.of(64)
        loop = double.spread(self.inputs["loop"]) + double.counting()
        for group in range((self.k + 3) // 4):
            words = [
                double.spread(self.inputs["t"]),
                double.whole(group),
                loop & 0xFFFFFFFF,
                double.spread(self.inputs["loop high"]),
            ]
            words = _philox(double, words, self.inputs["key"])
            wanted = min(4, self.k - 4 * group)
            for pair in range((wanted + 1) // 2):
                both = _normal_pair(words[2 * pair], words[2 * pair + 1])
                for z in both[: wanted - 2 * pair]:
                    yield z.rounded_to(self.lanes)


def _philox(lanes: Lanes, words: list[Vector], key: tuple[Any, Any]) -> list[Vector]:
    c0, c1, c2, c3 = words
    mask = 0xFFFFFFFF
    k0, k1 = lanes.spread(key[0]), lanes.spread(key[1])
    for n in range(PHILOX_ROUNDS):
        p0, p1 = c0 * PHILOX[0], c2 * PHILOX[1]
        key0, key1 = (k0 + n * WEYL[0]) & mask, (k1 + n * WEYL[1]) & mask
        c0, c1, c2, c3 = (
            ((p1 >> 32) & mask) ^ c1 ^ key0,
            p1 & mask,
            ((p0 >> 32) & mask) ^ c3 ^ key1,
            p0 & mask,
        )
    return [c0, c1, c2, c3]


def _normal_pair(radius_word: Vector, angle_word: Vector) -> tuple[Vector, Vector]:
    # A whole number below 2^52 as a float: put it into the low bits of 2^52 and take 2^52 off.
    number = (radius_word | 0x4330000000000000).as_float() - 4503599627370496.0
    uniform = (number + 0.5) * 2.3283064365386963e-10
    radius = (log(uniform) * -2.0).sqrt()
    cosine, sine = cos_sin_turn(angle_word)
    return radius * cosine, radius * sine


def _sum(values: list[Vector]) -> Vector:
    total = values[0]
    for v in values[1:]:
        total = total + v
    return total


def _extremes(values: list[Vector]) -> tuple[Vector, Vector]:
    high = low = values[0]
    for v in values[1:]:
        high, low = v.largest(high), v.least(low)
    return high, low


def _lanes_of(builder: Any, kind: Any) -> Lanes:
    use_wide_vectors(builder)
    bits = kind.dtype.bitwidth
    return Lanes(builder, _AT_ONCE // bits, bits)


def operations(
    n_tasks: int, feedback: bool, noisy: bool, dtype: str = "float64"
) -> dict[str, float]:
    """What one step of one loop costs, counted in the instructions that are written for it.

    Parameters
    ----------
    n_tasks, feedback, noisy, dtype
        Kind of loop.

    Returns
    -------
    dict
        ``flop``: floating-point operations (a fused multiply-add is two, a division one);
        ``instructions``: those, comparisons, choices and integer operations, one each; a largest or
        smallest of two is one. Loads and stores run beside them.

    Examples
    --------
    >>> operations(3, True, False)["flop"] > operations(3, False, False)["flop"] > 100
    True
    """
    totals = {"flop": 0.0, "instructions": 0.0}
    shape = typeof(layout(n_tasks, feedback, False, noisy, False))
    # Half the steps watch the weights; the logarithm of the products is shared by some.
    for mode, share in ((_PLAIN, 0.5), (_WATCH, 0.5), (None, 1 / LIMITS[dtype][2])):
        bits = 64 if dtype == "float64" else 32
        scalar = ir.DoubleType() if bits == 64 else ir.FloatType()
        one = ir.IntType(1)
        kinds = [scalar.as_pointer(), scalar, _INT64, one]
        function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), kinds), "step")
        builder = ir.IRBuilder(function.append_basic_block())
        state, number, whole, truth = function.args
        inputs = {
            **dict.fromkeys(("state", "queue"), state),
            **dict.fromkeys(("lane", "t", "loop", "loop high"), whole),
            "logs": lambda i, number=number: number,
            "now": number,
            "usable": truth,
            "key": (whole, whole),
        }
        step = _Step(Lanes(builder, 512 // bits, bits), shape, mode or _PLAIN, inputs)
        if mode is None:
            step.fold()
        else:
            step.write()
        for instruction in builder.block.instructions:
            name = instruction.opname
            fused = name == "call" and instruction.callee.name.startswith("llvm.fma")
            flop = 2 if fused else int(name in ("fadd", "fsub", "fmul", "fdiv", "call"))
            # A comparison and its choice are one instruction for the larger of two.
            other = name in (
                "fneg",
                "select",
                "and",
                "or",
                "xor",
                "add",
                "sub",
                "mul",
                "shl",
                "ashr",
            )
            vector = isinstance(instruction.type, ir.VectorType)
            totals["flop"] += share * flop * vector
            totals["instructions"] += share * vector * (flop > 0 or other)
    return totals


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _step(
    typing_context: Any,
    shape: Any,
    mode: Any,
    state: Any,
    lane: Any,
    logs: Any,
    t: Any,
    usable: Any,
    queue: Any,
    slot: Any,
    first_loop: Any,
    k0: Any,
    k1: Any,
) -> Any:
    """One step of the loops from ``lane`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = _lanes_of(builder, state)
        given = dict(
            zip(
                ("state", "lane", "logs", "t", "usable", "queue", "slot", "loop", "k0", "k1"),
                arguments[2:],
                strict=True,
            )
        )
        k = shape[0].count

        def data(name: str, kind: Any) -> Any:
            return context.make_array(kind)(context, builder, given[name]).data

        def row(number: Any, i: int) -> Any:
            start = builder.mul(number, ir.Constant(_INT64, k - 1))
            return builder.add(start, ir.Constant(_INT64, i))

        disturbance = data("logs", logs)
        lanes_from = builder.add(given["loop"], given["lane"])
        inputs = {
            "state": data("state", state),
            "lane": given["lane"],
            "logs": lambda i: builder.load(builder.gep(disturbance, [row(given["t"], i)])),
            "now": builder.sitofp(given["t"], lanes.scalar),
            "t": given["t"],
            "usable": builder.trunc(given["usable"], ir.IntType(1)),
            "queue": data("queue", queue),
            "queue place": lambda i: builder.add(
                builder.mul(row(given["slot"], i), ir.Constant(_INT64, LANES)), given["lane"]
            ),
            "loop": lanes_from,
            "loop high": builder.lshr(lanes_from, ir.Constant(_INT64, 32)),
            "key": (given["k0"], given["k1"]),
        }
        _Step(lanes, shape, mode.literal_value, inputs).write()
        return context.get_dummy_value()

    whole = types.int64
    return types.void(
        shape, mode, state, whole, logs, whole, types.int64, queue, whole, whole, whole, whole
    ), generate


@intrinsic  # type: ignore[untyped-decorator]
def _fold(typing_context: Any, shape: Any, state: Any, lane: Any) -> Any:
    """Adds the logarithm of the products to the integrated error, and starts new ones."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = _lanes_of(builder, state)
        data = context.make_array(state)(context, builder, arguments[1]).data
        step = _Step(lanes, shape, _PLAIN, {"state": data, "lane": arguments[2]})
        step.fold()
        return context.get_dummy_value()

    return types.void(shape, state, types.int64), generate


def _row(name: str) -> int:
    return _SINGLE.index(name) * LANES


_PEAK, _EARLY_PEAK, _FLOOR = _row("peak"), _row("early_peak"), _row("floor")
_START, _SUM, _SQUARE, _EMA = _row("start"), _row("sum"), _row("square"), len(_SINGLE) * LANES


@compiled
def _begin_late_window(rows: Any, n_tasks: int) -> None:
    """The peak so far was that of the early window; sums are taken about the weight as it is."""
    for n in range(LANES):
        total = rows[_PEAK + n] - rows[_PEAK + n]
        for i in range(n_tasks):
            total += max(rows[_EMA + i * LANES + n], rows[_FLOOR + n])
        rows[_START + n] = max(rows[_EMA + n], rows[_FLOOR + n]) / total
        rows[_EARLY_PEAK + n] = rows[_PEAK + n]
        rows[_PEAK + n] = rows[_SUM + n] = rows[_SQUARE + n] = 0


@compiled
def run_bounded(
    shape: Any,
    logs: Any,
    lost: Any,
    state: Any,
    delay: int,
    first_loops: Any,
    seed: int,
    early: int,
    late: int,
    group: int,
) -> None:
    """Blocks of loops, one after another, through all steps.

    Parameters
    ----------
    shape
        :func:`layout`.
    logs : array, shape (steps, K - 1)
        Disturbance, as differences from the last task's; multiplied by each loop's amplitude.
    lost : array of bool, shape (steps,)
        Steps without a usable reading.
    state : array, shape (blocks, rows * LANES)
        Rows as in :func:`row_names`; changed in place.
    delay : int
        Of the plant.
    first_loops : array of int, shape (blocks,)
        Number of each block's first loop, which its noise depends on.
    seed : int
        Of the noise.
    early, late : int
        First step (from 0) of the early and of the late window.
    group : int
        Steps that share a logarithm.
    """
    steps, others = logs.shape
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    stride = _AT_ONCE // (8 * state.itemsize)
    queue = np.zeros(max(delay, 1) * others * LANES, dtype=state.dtype)
    for block in range(state.shape[0]):
        rows, loop = state[block], first_loops[block]
        queue[:] = 0
        slot = 0
        for t in range(steps):
            usable = np.int64(not lost[t])
            if t == late:
                _begin_late_window(rows, others + 1)
            # Two calls, because what a step watches is compiled into it.
            if t < early:
                for n in range(0, LANES, stride):
                    _step(shape, 0, rows, n, logs, t, usable, queue, slot, loop, k0, k1)
            else:
                for n in range(0, LANES, stride):
                    _step(shape, 1, rows, n, logs, t, usable, queue, slot, loop, k0, k1)
            if (t + 1) % group == 0 or t == steps - 1:
                for n in range(0, LANES, stride):
                    _fold(shape, rows, n)
            if delay > 0:
                slot = slot + 1 if slot + 1 < delay else 0
