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

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from gabactl.loops.kernels.jit import compiled
from gabactl.loops.kernels.rows import LANES, SINGLE, STRIDE
from gabactl.loops.kernels.step import Step
from gabactl.loops.kernels.vectors import Lanes, use_wide_vectors

__all__ = ["run_bounded"]

_INT64 = ir.IntType(64)
#: Mode of a step without a usable reading.
_LOST = 2
_WIDEST = 512


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
    return SINGLE.index(name) * STRIDE


_WORST, _LARGEST, _FLOOR, _NEXT = _row("worst"), _row("largest"), _row("floor"), _row("next")
_WORST_BEFORE, _LARGEST_BEFORE = _row("worst_before"), _row("largest_before")
_EARLY_PEAK, _LATE_PEAK, _START = _row("early_peak"), _row("late_peak"), _row("start")
_INTERVAL, _EMA = _row("interval"), len(SINGLE) * STRIDE


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
            total += max(rows[_EMA + i * STRIDE + n], rows[_FLOOR + n])
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
    uniform = initial[_EMA // STRIDE]
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    at_once = 64 // settings.itemsize
    rows = _aligned(len(initial) * STRIDE, settings)
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
                rows[row * STRIDE + n] = value
        for j in range(len(given)):
            place = given[j] * STRIDE
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
            place = wanted[j] * STRIDE
            for n in range(here):
                out[j, first + n] = rows[place + n]
