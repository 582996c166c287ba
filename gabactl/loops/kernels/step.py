"""One step of a block of loops, as vector instructions: what the fast kernel is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

from gabactl.loops.kernels.random import PHILOX, PHILOX_ROUNDS, WEYL
from gabactl.loops.kernels.rows import STRIDE, row_names
from gabactl.loops.kernels.vectors import Lanes, Vector, cos_sin_turn, exp2, log2, together

__all__ = ["STEADY", "Step"]

#: Every loop takes a reading. Else those that are due (1), or none (2).
STEADY = 0

_INT64 = ir.IntType(64)
_LN2 = 0.6931471805599453


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
        offset = ir.Constant(_INT64, self.rows[name] * STRIDE)
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
        """The low-pass and the floor, where a reading is due (all, if ``STEADY``)."""
        pole = self.get("pole")
        old = [self.get(f"ema {i}") for i in range(self.k)]
        ema = [pole.fma(e, self.get(f"drive {i}")) for i, e in enumerate(old)]
        if mode != STEADY:
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
        """Standard normal numbers of this step: those of :mod:`gabactl.loops.kernels.random`."""
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
