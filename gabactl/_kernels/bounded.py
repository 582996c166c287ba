"""Many closed loops whose signals are known to stay within bounds: the fast kernel.

Most loops cannot overflow whatever they do: the disturbance, the floor and the plant bound every
logarithm in advance. Then only differences from the last task matter (shares, contributions and
the plant know no common factor), and no reading can be unusable.

What a step costs is counted in vector instructions, so a loop is given the shortest step that its
own settings allow (its numbers never depend on the loops beside it):

* With feedback, the plant needs the logarithms of the weights anyway, and norms have theirs for
  nothing: the log spread is a sum and a difference. Logarithms are binary, so that powers and
  exponents need no constant.
* Without feedback, no logarithm is taken of a step at all: contribution ratios are multiplied, and
  every few steps the exponents of the products go into a sum of their own. Where the disturbance
  stays what it was, so do norms and raw weights.
* One division gives both what normalises the weights and what divides them by the last one.
* Extremes are followed in three windows of steps, from which peaks follow at their ends.

A block of ``LANES`` loops goes through all steps while its rows of numbers stay in the fastest
cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from gabactl._kernels.jit import compiled
from gabactl._kernels.random import PHILOX, PHILOX_ROUNDS, WEYL
from gabactl._kernels.vectors import (
    Lanes,
    Vector,
    cos_sin_turn,
    exp2,
    log2,
    together,
    use_wide_vectors,
)

__all__ = [
    "LANES",
    "LIMITS",
    "MAX_TASKS",
    "OUTPUTS",
    "Step",
    "initial_rows",
    "layout",
    "row_names",
    "run_bounded",
]

#: Loops that share a block: in flight together, so that some work while others wait.
LANES = 64

#: Numbers from one row to the next: rows a multiple of 4 kB apart look like one to the processor.
_STRIDE = LANES + 16

#: A step is unrolled over the tasks, so that more of them would take long to compile.
MAX_TASKS = 8

#: Per type: largest log of a contribution ratio, largest log of a reading's ratio, steps that share
#: a product (a product of so many largest ratios is still a float).
LIMITS = {"float64": (85.0, 300.0, 8), "float32": (40.0, 40.0, 2)}

_INT64 = ir.IntType(64)
#: Whether every loop takes a reading, those that are due, or none.
_STEADY, _DUE, _LOST = 0, 1, 2
_WIDEST = 512
_LN2 = 0.6931471805599453

#: A loop's settings.
_SETTINGS = (
    "pole",
    "gain",
    "floor",
    "interval",
    "response",
    "a",
    "noise",
    "amplitude",
    "next",
    "spread_above",
    "spread_below",
)

#: What comes back of a loop, beside the averages of its tasks.
OUTPUTS = (
    "saturated",
    "worst_before",
    "largest_before",
    "early_peak",
    "late_peak",
    "start",
    "sum",
    "square",
    "last_weights",
    "last_spread",
    "error",
    "worst_spread",
    "spread",
)

#: Extremes of the weights in this window, and what the contributions are multiplied up to.
_WORKING = (
    "worst",
    "largest",
    "scale",
    "product_high",
    "product_low",
    "doublings",
    "worst_high",
    "worst_low",
    "high",
    "low",
)

_SINGLE = (*_SETTINGS, *OUTPUTS, *_WORKING)
_PER_TASK = (
    "ema",
    "lag",
    "level",
    "norm",
    "draw",
    "drive",
    "told",
    "weight_above",
    "weight_below",
)


def row_names(n_tasks: int) -> list[str]:
    """Names of the rows of a block: those of a loop, then those of its tasks.

    Examples
    --------
    >>> row_names(2)[-2:]
    ['weight_below 0', 'weight_below 1']
    """
    return [*_SINGLE, *(f"{name} {i}" for name in _PER_TASK for i in range(n_tasks))]


def initial_rows(n_tasks: int) -> list[float]:
    """What the rows hold before the first step, where no setting says otherwise.

    Examples
    --------
    >>> initial_rows(2)[row_names(2).index("ema 1")]
    0.5
    """
    start = {
        **dict.fromkeys(("worst", "worst_before"), np.inf),
        **dict.fromkeys(("largest", "largest_before"), -np.inf),
        **dict.fromkeys(("last_weights", "last_spread"), -1.0),
        **dict.fromkeys(("product_high", "product_low", "worst_high", "worst_low"), 1.0),
        **{f"ema {i}": 1.0 / n_tasks for i in range(n_tasks)},
    }
    return [start.get(name, 0.0) for name in row_names(n_tasks)]


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


class Step:
    """Writes one step of a block, or a part of what goes on between steps.

    Parameters
    ----------
    lanes : Lanes
        The loops.
    shape : types of :func:`layout`
        Kind of loop.
    inputs : dict
        Of the program being built: ``state`` and ``lane`` (place in a row); ``logs`` (task ->
        disturbance, in octaves), ``t``, ``now`` (the same as a float), ``usable``; ``queue`` and
        ``queue place`` (task -> place); ``loops`` (numbers of the loops) and ``key`` of the noise.
    """

    def __init__(self, lanes: Lanes, shape: Any, inputs: dict[str, Any]) -> None:
        self.lanes = lanes
        k, feedback, delayed, noisy, settling = (kind.count for kind in shape)
        self.k: int = k
        self.feedback, self.delayed, self.noisy = bool(feedback), bool(delayed), bool(noisy)
        self.settling = bool(settling)
        self.inputs = inputs
        self.rows = {name: n for n, name in enumerate(row_names(k))}

    def _place(self, name: str) -> Any:
        offset = ir.Constant(_INT64, self.rows[name] * _STRIDE)
        return self.lanes.builder.add(self.inputs["lane"], offset)

    def get(self, name: str) -> Vector:
        return self.lanes.load(self.inputs["state"], self._place(name))

    def put(self, name: str, value: Vector) -> None:
        self.lanes.store(value, self.inputs["state"], self._place(name))

    def disturb(self) -> None:
        """Without feedback: norms of a new disturbance, and without noise the raw weights."""
        if self.feedback:
            return
        amplitude = self.get("amplitude")
        levels = [amplitude * self._disturbance(i) for i in range(self.k - 1)]
        norms = together(exp2, levels)
        for i, (level, norm) in enumerate(zip(levels, norms, strict=True)):
            self.put(f"level {i}", level)
            self.put(f"norm {i}", norm)
        if not self.noisy:
            self._drive(norms)

    def sense(self) -> None:
        """With feedback or noise: readings of this step, and the raw weights."""
        if not (self.feedback or self.noisy):
            return
        levels = []
        for i in range(self.k - 1):
            if self.feedback:
                level = self.get("amplitude").fma(self._disturbance(i), self.get(f"lag {i}"))
                self.put(f"level {i}", level)
            else:
                level = self.get(f"level {i}")
            if self.noisy:
                level = self.get("noise").fma(self.get(f"draw {i}"), level)
            levels.append(level)
        self._drive(together(exp2, levels))

    def smooth(self, mode: int) -> None:
        """The low-pass and the floor, where a reading is due (all, if ``_STEADY``)."""
        pole = self.get("pole")
        old = [self.get(f"ema {i}") for i in range(self.k)]
        ema = [pole.fma(e, self.get(f"drive {i}")) for i, e in enumerate(old)]
        if mode != _STEADY:
            now = self.lanes.spread(self.inputs["now"])
            next_one = self.get("next")
            due = next_one <= now
            self.put("next", due.where(now + self.get("interval"), next_one))
            due = due & self.lanes.spread(self.inputs["usable"])
            ema = [due.where(new, e) for new, e in zip(ema, old, strict=True)]
        for i, e in enumerate(ema):
            self.put(f"ema {i}", e)
        floor = self.get("floor")
        values = [e.largest(floor) for e in ema]
        total = _sum(values)
        if self.feedback:
            # One division for two: of the weights by their sum, and by the last of them.
            both = 1.0 / (total * values[-1])
            scale, reference = both * values[-1], both * total
            for i, v in enumerate(values[:-1]):
                self.put(f"told {i}", v * reference)
        else:
            scale = 1.0 / total
        if self.settling:
            self._compare_weights(values, scale)
        else:
            self._account(ema, values, scale)
        if not self.feedback:
            self._contribute(values)

    def answer(self) -> None:
        """With feedback: logs of the weights, for the plant and for the spread."""
        if not self.feedback:
            return
        told = together(log2, [self.get(f"told {i}") for i in range(self.k - 1)])
        contributions = [self.get(f"level {i}") + u for i, u in enumerate(told)]
        a, response = self.get("a"), self.get("response")
        for i, u in enumerate(told):
            if self.delayed:
                place = self.inputs["queue place"](i)
                waited = self.lanes.load(self.inputs["queue"], place)
                self.lanes.store(u, self.inputs["queue"], place)
                u = waited
            self.put(f"lag {i}", a.fma(self.get(f"lag {i}"), response * u))
        # The last task's is 0.
        high, low = _extremes(contributions)
        zero = self.lanes.constant(0.0)
        spread = high.largest(zero) - low.least(zero)
        if self.settling:
            self._compare_spread(
                (spread > self.get("spread_above")) | (spread < self.get("spread_below"))
            )
        else:
            self.put("spread", spread)
            self.put("error", self.get("error") + spread)
            self.put("worst_spread", spread.largest(self.get("worst_spread")))

    def _disturbance(self, i: int) -> Vector:
        return self.lanes.spread(self.inputs["logs"](i))

    def _drive(self, readings: list[Vector]) -> None:
        """(1 - pole) raw: the sums over the other tasks, by K - 1 times the sum over all."""
        before, after = [readings[0]], [self.lanes.constant(1.0)]
        for r in readings[1:]:
            before.append(before[-1] + r)
        for r in readings[:0:-1]:
            after.append(after[-1] + r)
        after.reverse()
        sums = [
            after[0],
            *(before[i - 1] + after[i] for i in range(1, self.k - 1)),
            before[-1],
        ]
        scale = self.get("gain") / (before[-1] + 1.0)
        for i, others in enumerate(sums):
            self.put(f"drive {i}", others * scale)

    def _account(self, ema: list[Vector], values: list[Vector], scale: Vector) -> None:
        """Extremes of the weights, saturation."""
        _, bottom = _extremes(ema)
        top, _ = _extremes(values)
        floor = self.get("floor")
        saturated = self.get("saturated")
        self.put("saturated", (bottom < floor).where(saturated + 1.0, saturated))
        self.put("worst", (bottom.largest(floor) * scale).least(self.get("worst")))
        self.put("largest", (top * scale).largest(self.get("largest")))
        self.put("scale", scale)

    def _contribute(self, values: list[Vector]) -> None:
        """Without feedback: extremes of the contributions, their products for the mean."""
        norms = [self.get(f"norm {i}") for i in range(self.k - 1)]
        high, low = _extremes([*(v * g for v, g in zip(values, norms, strict=False)), values[-1]])
        if self.settling:
            above, below = self.get("spread_above") * low, self.get("spread_below") * low
            self._compare_spread((high > above) | (high < below))
            return
        # high / low > worst_high / worst_low, without a division.
        worst_high, worst_low = self.get("worst_high"), self.get("worst_low")
        worse = high * worst_low > worst_high * low
        self.put("worst_high", worse.where(high, worst_high))
        self.put("worst_low", worse.where(low, worst_low))
        self.put("product_high", self.get("product_high") * high)
        self.put("product_low", self.get("product_low") * low)
        self.put("high", high)
        self.put("low", low)

    def _compare_weights(self, values: list[Vector], scale: Vector) -> None:
        """The last step outside the band."""
        now = self.lanes.spread(self.inputs["now"])
        last = self.get("last_weights")
        for i, v in enumerate(values):
            w = v * scale
            far = (w > self.get(f"weight_above {i}")) | (w < self.get(f"weight_below {i}"))
            last = far.where(now, last)
        self.put("last_weights", last)

    def _compare_spread(self, far: Vector) -> None:
        now = self.lanes.spread(self.inputs["now"])
        self.put("last_spread", far.where(now, self.get("last_spread")))

    def watch(self) -> None:
        """Sums for mean and variance of the weight of task 0."""
        weight = self.get("ema 0").largest(self.get("floor")) * self.get("scale")
        x = weight - self.get("start")
        self.put("sum", self.get("sum") + x)
        self.put("square", x.fma(x, self.get("square")))

    def fold(self) -> None:
        """The exponents of the products go into a sum of their own, in units of a bit."""
        if self.feedback or self.settling:
            return
        mantissa = 52 if self.lanes.bits == 64 else 23
        one = self.lanes.constant(1.0).bits()
        exponents = []
        for name in ("product_high", "product_low"):
            bits = self.get(name).bits()
            exponents.append(bits & (-1 << mantissa))
            self.put(name, ((bits & ~(-1 << mantissa)) | one).as_float())
        moved = (exponents[0] - exponents[1]).to_float()
        self.put("doublings", self.get("doublings") + moved)

    def finish(self) -> None:
        """Logarithms of what was multiplied."""
        if self.feedback or self.settling:
            return
        unit = 2.0 ** (-52 if self.lanes.bits == 64 else -23)
        ratio = log2(self.get("product_high") / self.get("product_low"))
        self.put("error", self.get("doublings").fma(unit, ratio))
        self.put("worst_spread", log2(self.get("worst_high") / self.get("worst_low")))
        self.put("spread", log2(self.get("high") / self.get("low")))

    def draw(self) -> None:
        """With noise: standard normal numbers, as differences from the last task's."""
        if not self.noisy:
            return
        draws = list(self._normals())
        for i, z in enumerate(draws[:-1]):
            self.put(f"draw {i}", z - draws[-1])

    def _normals(self) -> Iterator[Vector]:
        """Standard normal numbers of this step: those of :mod:`gabactl._kernels.random`."""
        double = self.lanes.of(64)
        loop = double.load(self.inputs["loops"], self.inputs["lane"], whole=True)
        for group in range((self.k + 3) // 4):
            words = [
                double.spread(self.inputs["t"]),
                double.whole(group),
                loop,
                loop >> 32,
            ]
            words = _philox(double, words, self.inputs["key"])
            wanted = min(4, self.k - 4 * group)
            for pair in range((wanted + 1) // 2):
                both = _normal_pair(words[2 * pair], words[2 * pair + 1])
                for z in both[: wanted - 2 * pair]:
                    yield z.rounded_to(self.lanes)


def _philox(lanes: Lanes, words: list[Vector], key: tuple[Any, Any]) -> list[Vector]:
    """Only the lower halves of the words count until the last round."""
    c0, c1, c2, c3 = words
    mask = 0xFFFFFFFF
    k0, k1 = lanes.spread(key[0]), lanes.spread(key[1])
    for n in range(PHILOX_ROUNDS):
        p0, p1 = (c0 & mask) * PHILOX[0], (c2 & mask) * PHILOX[1]
        key0, key1 = k0 + n * WEYL[0], k1 + n * WEYL[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ key0, p1, (p0 >> 32) ^ c3 ^ key1, p0
    return [c & mask for c in (c0, c1, c2, c3)]


def _normal_pair(radius_word: Vector, angle_word: Vector) -> tuple[Vector, Vector]:
    # (word + 1/2) / 2^32: the word goes into the low bits of 2^20, and that is taken off again.
    number = (radius_word | 0x4130000000000000).as_float()
    uniform = number - (1048576.0 - 2.0**-33)
    radius = (log2(uniform) * (-2.0 * _LN2)).sqrt()
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


def _part(name: str) -> Any:
    """An intrinsic that writes a part of a step for the loops from ``lane`` on."""

    @intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
    def write(
        typing_context: Any,
        shape: Any,
        mode: Any,
        rows: Any,
        lane: Any,
        logs: Any,
        t: Any,
        queue: Any,
        slot: Any,
        loops: Any,
        key: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            use_wide_vectors(builder)
            names = ("rows", "lane", "logs", "t", "queue", "slot", "loops", "key")
            given = dict(zip(names, arguments[2:], strict=True))
            others = shape[0].count - 1
            bits = rows.dtype.bitwidth
            features = context.codegen().magic_tuple()[2]
            lanes = Lanes(builder, _WIDEST // bits, bits, 1, features)

            def data(name: str, kind: Any) -> Any:
                return context.make_array(kind)(context, builder, given[name]).data

            def at(row: Any, length: int, place: Any) -> Any:
                return builder.add(builder.mul(row, ir.Constant(_INT64, length)), place)

            def entry(i: int) -> Any:
                place = at(given["t"], others, ir.Constant(_INT64, i))
                return builder.load(builder.gep(data("logs", logs), [place]))

            def queue_place(i: int) -> Any:
                row = at(given["slot"], others, ir.Constant(_INT64, i))
                return at(row, LANES, given["lane"])

            inputs = {
                "state": data("rows", rows),
                "lane": given["lane"],
                "logs": entry,
                "now": builder.sitofp(given["t"], lanes.scalar),
                "t": given["t"],
                "usable": ir.Constant(ir.IntType(1), int(mode.literal_value != _LOST)),
                "queue": data("queue", queue),
                "queue place": queue_place,
                "loops": data("loops", loops),
                "key": tuple(builder.extract_value(given["key"], place) for place in range(2)),
            }
            step = Step(lanes, shape, inputs)
            if name == "smooth":
                step.smooth(mode.literal_value)
            else:
                getattr(step, name)()
            return context.get_dummy_value()

        whole = types.int64
        return types.void(shape, mode, rows, whole, logs, whole, queue, whole, loops, key), generate

    return write


_disturb, _draw, _sense, _smooth, _answer, _watch, _fold, _finish = (
    _part(name)
    for name in ("disturb", "draw", "sense", "smooth", "answer", "watch", "fold", "finish")
)


@compiled
def _aligned(count: int, like: Any) -> Any:
    """Zeros that begin on a line of the cache, so that no vector lies across two."""
    extra = 64 // like.itemsize
    memory = np.zeros(count + extra, dtype=like.dtype)
    skip = (-(memory.ctypes.data // like.itemsize)) % extra
    return memory[skip : skip + count]


def _row(name: str) -> int:
    return _SINGLE.index(name) * _STRIDE


_WORST, _LARGEST, _FLOOR, _NEXT = _row("worst"), _row("largest"), _row("floor"), _row("next")
_WORST_BEFORE, _LARGEST_BEFORE = _row("worst_before"), _row("largest_before")
_EARLY_PEAK, _LATE_PEAK, _START = _row("early_peak"), _row("late_peak"), _row("start")
_INTERVAL, _EMA = _row("interval"), len(_SINGLE) * _STRIDE


@compiled
def _close_window(rows: Any, peaks: int, uniform: Any) -> None:
    """Extremes of the weights so far; of the window that ends, the peak distance from 1/K."""
    for n in range(LANES):
        low, high = rows[_WORST + n], rows[_LARGEST + n]
        rows[_WORST_BEFORE + n] = min(rows[_WORST_BEFORE + n], low)
        rows[_LARGEST_BEFORE + n] = max(rows[_LARGEST_BEFORE + n], high)
        rows[_WORST + n], rows[_LARGEST + n] = np.inf, -np.inf
        if peaks > 0:
            rows[peaks + n] = max(max(high - uniform, uniform - low), 0)


@compiled
def _begin_sums(rows: Any, n_tasks: int) -> None:
    """Sums for the mean are taken about the weight as it is."""
    for n in range(LANES):
        total = max(rows[_EMA + n], rows[_FLOOR + n])
        first = total
        for i in range(1, n_tasks):
            total += max(rows[_EMA + i * _STRIDE + n], rows[_FLOOR + n])
        rows[_START + n] = first / total


@compiled
def _all_read_from(rows: Any, steps: int) -> int:
    """The step from which on every loop of the block takes a reading, ``steps`` if none."""
    start = 0
    for n in range(LANES):
        if rows[_INTERVAL + n] != 1:
            return steps
        start = max(start, int(rows[_NEXT + n]))
    return start


@compiled
def run_bounded(
    shape: Any,
    logs: Any,
    lost: Any,
    given: Any,
    settings: Any,
    initial: Any,
    numbers: Any,
    delay: int,
    seed: int,
    group: int,
    wanted: Any,
    out: Any,
) -> None:
    """Blocks of loops, one after another, through all steps.

    Parameters
    ----------
    shape
        :func:`layout`.
    logs : array, shape (steps, K - 1)
        Disturbance in octaves, as differences from the last task's; multiplied by each loop's
        amplitude.
    lost : array of bool, shape (steps,)
        Steps without a usable reading.
    given, settings : arrays, shapes (n,) and (n, loops)
        Rows that hold the settings, and these. ``response`` is -rho (1 - a) in octaves; ``gain``
        (1 - pole)/(K - 1); ``next`` the step of the first reading.
    initial : array, shape (rows,)
        :func:`initial_rows`.
    numbers : array of int, shape (loops,)
        The loops' own, which their noise depends on.
    delay : int
        Of the plant.
    seed : int
        Of the noise.
    group : int
        Steps that share a product.
    wanted, out : arrays, shapes (m,) and (m, loops)
        Rows that come back, and what they hold at last. Logarithms are binary.
    """
    steps, others = logs.shape
    loops = settings.shape[1]
    early, late = steps // 2, 3 * steps // 4
    uniform = initial[_EMA // _STRIDE]
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    at_once = 64 // settings.itemsize
    rows = _aligned(len(initial) * _STRIDE, settings)
    queue = _aligned(max(delay, 1) * others * LANES, settings)
    who = _aligned(LANES, numbers)
    moved = np.ones(steps, dtype=np.bool_)
    for t in range(1, steps):
        moved[t] = False
        for i in range(others):
            moved[t] |= logs[t, i] != logs[t - 1, i]
    for first in range(0, loops, LANES):
        # Lanes without a loop of their own repeat the last one.
        here = min(LANES, loops - first)
        for n in range(LANES):
            who[n] = numbers[min(first + n, loops - 1)]
        for row in range(len(initial)):
            value = initial[row]
            for n in range(LANES):
                rows[row * _STRIDE + n] = value
        for j in range(len(given)):
            place = given[j] * _STRIDE
            for n in range(here):
                rows[place + n] = settings[j, first + n]
            for n in range(here, LANES):
                rows[place + n] = settings[j, loops - 1]
        queue[:] = 0
        slot = 0
        steady = _all_read_from(rows, steps)
        for t in range(steps):
            if t == early:
                _close_window(rows, 0, uniform)
            if t == late:
                _close_window(rows, _EARLY_PEAK, uniform)
                _begin_sums(rows, others + 1)
            if moved[t]:
                for n in range(0, LANES, at_once):
                    _disturb(shape, 0, rows, n, logs, t, queue, slot, who, key)
            for n in range(0, LANES, at_once):
                _draw(shape, 0, rows, n, logs, t, queue, slot, who, key)
            for n in range(0, LANES, at_once):
                _sense(shape, 0, rows, n, logs, t, queue, slot, who, key)
            # One call per mode, which is compiled into it.
            if lost[t]:
                for n in range(0, LANES, at_once):
                    _smooth(shape, 2, rows, n, logs, t, queue, slot, who, key)
            elif t < steady:
                for n in range(0, LANES, at_once):
                    _smooth(shape, 1, rows, n, logs, t, queue, slot, who, key)
            else:
                for n in range(0, LANES, at_once):
                    _smooth(shape, 0, rows, n, logs, t, queue, slot, who, key)
            for n in range(0, LANES, at_once):
                _answer(shape, 0, rows, n, logs, t, queue, slot, who, key)
            if t >= late:
                for n in range(0, LANES, at_once):
                    _watch(shape, 0, rows, n, logs, t, queue, slot, who, key)
            if (t + 1) % group == 0:
                for n in range(0, LANES, at_once):
                    _fold(shape, 0, rows, n, logs, t, queue, slot, who, key)
            if delay > 0:
                slot = slot + 1 if slot + 1 < delay else 0
        _close_window(rows, _LATE_PEAK, uniform)
        for n in range(0, LANES, at_once):
            _finish(shape, 0, rows, n, logs, 0, queue, slot, who, key)
        for j in range(len(wanted)):
            place = wanted[j] * _STRIDE
            for n in range(here):
                out[j, first + n] = rows[place + n]
