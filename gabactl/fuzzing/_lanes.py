"""Many controllers side by side: the compiled loop of the searcher, one SIMD lane per controller.

Every stage is a loop over lanes of a block, so the compiler turns it into vector instructions.
In float64 the result is that of :class:`gabactl.law.controller.Controller`, to the last bit: sums in
NumPy's order, no fused or reassociated arithmetic.

A lane runs a *program*: a few readings, each held for some steps, multiplied by a random factor
at every step where the lane asks for one. The programs are plain arrays, so a lane that found
something can be replayed alone and its readings written down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from gabactl.law.laws import PUBLISHED_EPSILON

__all__ = ["N_STATS", "STATS", "emit_readings", "run_block"]

#: Rows of the statistics of a block: least and largest weight, largest deviation of the sum of
#: the weights and of the averages from 1, steps with a non-finite weight, steps held by the guard.
STATS = ("low", "high", "weight_sum_error", "ema_sum_error", "non_finite", "held")
N_STATS = len(STATS)

_INVERSE = 1
_AFFINE, _PROJECT, _CLAMP_STATE = 1, 2, 3
_PUBLISHED = 1

_LARGEST = np.finfo(np.float64).max
_ONE_EXPONENT = np.uint64(1023)
_SHIFT_EXPONENT = np.uint64(52)


def _njit(function: Callable[..., Any]) -> Any:
    """Compile without the GIL; keep the machine code on disk where some folder can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


@_njit
def _sum_rows(rows: Any, out: Any, eight: Any) -> None:
    """Column sums of (K, lanes), rounded as NumPy rounds the sum of K numbers."""
    k, lanes = rows.shape
    if k < 8:
        first = rows[0]
        for lane in range(lanes):
            out[lane] = first[lane]
        for i in range(1, k):
            row = rows[i]
            for lane in range(lanes):
                out[lane] += row[lane]
        return
    for i in range(8):
        row, sums = rows[i], eight[i]
        for lane in range(lanes):
            sums[lane] = row[lane]
    done = 8
    while done + 8 <= k:
        for i in range(8):
            row, sums = rows[done + i], eight[i]
            for lane in range(lanes):
                sums[lane] += row[lane]
        done += 8
    a, b, c, d = eight[0], eight[1], eight[2], eight[3]
    e, f, g, h = eight[4], eight[5], eight[6], eight[7]
    for lane in range(lanes):
        out[lane] = ((a[lane] + b[lane]) + (c[lane] + d[lane])) + (
            (e[lane] + f[lane]) + (g[lane] + h[lane])
        )
    for i in range(done, k):
        row = rows[i]
        for lane in range(lanes):
            out[lane] += row[lane]


@_njit
def _read(base: Any, state: Any, exponents: Any, mantissas: Any, bits: Any, out: Any) -> None:
    """Readings of one step: the program's values times a random factor (1 where none is asked)."""
    k, lanes = out.shape
    factor = bits.view(np.float64)
    for i in range(k):
        values, row = base[i], out[i]
        for lane in range(lanes):
            x = state[lane]
            x ^= x << np.uint64(13)
            x ^= x >> np.uint64(7)
            x ^= x << np.uint64(17)
            state[lane] = x
            mask = exponents[lane]
            exponent = _ONE_EXPONENT + (x & mask) - (mask >> np.uint64(1))
            bits[lane] = (exponent << _SHIFT_EXPONENT) | ((x >> np.uint64(12)) & mantissas[lane])
        for lane in range(lanes):
            row[lane] = values[lane] * factor[lane]


@_njit
def _raw(g: Any, law: int, guard: int, raw: Any, total: Any, ok: Any, eight: Any) -> None:
    """Raw weights of the readings, and which lanes may use them."""
    k, lanes = g.shape
    if law == _INVERSE:
        if guard == _PUBLISHED:
            for i in range(k):
                row, values = raw[i], g[i]
                for lane in range(lanes):
                    row[lane] = 1.0 / (values[lane] + PUBLISHED_EPSILON)
            for lane in range(lanes):
                ok[lane] = 1.0
        else:
            _sum_rows(g, total, eight)
            least = raw[k - 1]
            first = g[0]
            for lane in range(lanes):
                least[lane] = first[lane]
            for i in range(1, k):
                values = g[i]
                for lane in range(lanes):
                    least[lane] = values[lane] if values[lane] < least[lane] else least[lane]
            # The sum is finite only where every norm is, since none is negative.
            for lane in range(lanes):
                ok[lane] = 1.0 if least[lane] > 0.0 and total[lane] <= _LARGEST else 0.0
            for i in range(k):
                row, values = raw[i], g[i]
                for lane in range(lanes):
                    row[lane] = least[lane] / values[lane]
        _sum_rows(raw, total, eight)
        for i in range(k):
            row = raw[i]
            for lane in range(lanes):
                row[lane] = row[lane] / total[lane]
        return
    _sum_rows(g, total, eight)
    gain = float(k - 1)
    if guard == _PUBLISHED:
        for lane in range(lanes):
            total[lane] += PUBLISHED_EPSILON
            ok[lane] = 1.0
        for i in range(k):
            row, values = raw[i], g[i]
            for lane in range(lanes):
                row[lane] = (total[lane] - values[lane]) / (gain * total[lane])
        return
    for lane in range(lanes):
        ok[lane] = 1.0 if total[lane] > 0.0 and total[lane] <= _LARGEST else 0.0
    for i in range(k):
        row, values = raw[i], g[i]
        if k == 2:
            for lane in range(lanes):
                row[lane] = (total[lane] - values[lane]) / total[lane]
        else:
            for lane in range(lanes):
                row[lane] = (total[lane] - values[lane]) / total[lane] / gain


@_njit
def _project(point: Any, floor: float, out: Any, sort: Any, total: Any, threshold: Any) -> None:
    """Projection on {w >= floor, sum w = 1}, lane by lane; ``out`` may be ``point``."""
    k, lanes = point.shape
    for i in range(k):
        row, values = sort[i], point[i]
        for lane in range(lanes):
            row[lane] = values[lane] - floor
    # A bubble network puts each column into descending order without branches.
    for last in range(k - 1, 0, -1):
        for i in range(last):
            upper, lower = sort[i], sort[i + 1]
            for lane in range(lanes):
                a, b = upper[lane], lower[lane]
                upper[lane] = a if a > b else b
                lower[lane] = b if a > b else a
    budget = 1.0 - k * floor
    row = sort[0]
    for lane in range(lanes):
        total[lane] = row[lane]
        threshold[lane] = row[lane] - budget
    # The active ranks come first, so the last one that passes has the threshold.
    for i in range(1, k):
        row = sort[i]
        rank = float(i + 1)
        for lane in range(lanes):
            total[lane] += row[lane]
            candidate = (total[lane] - budget) / rank
            threshold[lane] = candidate if row[lane] > candidate else threshold[lane]
    for lane in range(lanes):
        total[lane] = 0.0
    for i in range(k):
        values = point[i]
        for lane in range(lanes):
            total[lane] += values[lane] * 0.0  # NaN where some value is not finite
    for i in range(k):
        row, values = out[i], point[i]
        for lane in range(lanes):
            x = values[lane] - floor - threshold[lane]
            row[lane] = (floor + (x if x > 0.0 else 0.0)) + total[lane]


@_njit
def _saturate(
    ema: Any, floor: float, mode: int, w: Any, sort: Any, total: Any, spare: Any, eight: Any
) -> None:
    k, lanes = ema.shape
    if mode >= _PROJECT:
        _project(ema, floor, w, sort, total, spare)
        return
    if mode == _AFFINE:
        _sum_rows(ema, total, eight)
        span = 1.0 - k * floor
        for i in range(k):
            row, values = w[i], ema[i]
            for lane in range(lanes):
                row[lane] = floor + span * (values[lane] / total[lane])
        return
    for i in range(k):
        row, values = w[i], ema[i]
        for lane in range(lanes):
            row[lane] = floor if values[lane] < floor else values[lane]
    _sum_rows(w, total, eight)
    for i in range(k):
        row = w[i]
        for lane in range(lanes):
            row[lane] = row[lane] / total[lane]


@_njit
def run_block(
    base: Any,
    ends: Any,
    state: Any,
    exponents: Any,
    mantissas: Any,
    pole: float,
    floor: float,
    law: int,
    mode: int,
    guard: int,
    stats: Any,
    floored: Any,
    trail: Any,
) -> None:
    """Run one block of lanes through their programs, from the end of the warm-up.

    Parameters
    ----------
    base : array, shape (segments, K, lanes)
        Readings of the programs.
    ends : array of int, shape (segments,)
        Step at which each segment ends, ascending; the last one is the number of readings.
    state : array of uint64, shape (lanes,)
        Random states, not 0; changed.
    exponents, mantissas : arrays of uint64, shape (lanes,)
        Bits of the random factor: 0 and 0 give the factor 1, an exponent mask of 2^b - 1 gives
        powers of two between 2^-(2^(b-1)) and 2^(2^(b-1)).
    pole, floor, law, mode, guard
        As in ``gabactl.loops.kernels.controller.Codes``.
    stats : array, shape (N_STATS, lanes)
        Output, see :data:`STATS`.
    floored : array, shape (K, lanes)
        Output: steps with the average under the floor, by task.
    trail : array, shape (steps or 0, K, lanes)
        Output: the weights of the first steps, as many as fit.
    """
    segments, k, lanes = base.shape
    g, raw, w = np.empty((k, lanes)), np.empty((k, lanes)), np.empty((k, lanes))
    ema = np.full((k, lanes), 1.0 / k)
    sort, eight = np.empty((k, lanes)), np.empty((8, lanes))
    bits = np.empty(lanes, np.uint64)
    total, spare, ok = np.empty(lanes), np.empty(lanes), np.empty(lanes)
    low, high, weight_error, ema_error = stats[0], stats[1], stats[2], stats[3]
    non_finite, held = stats[4], stats[5]
    for lane in range(lanes):
        low[lane], high[lane] = np.inf, -np.inf
        weight_error[lane] = ema_error[lane] = non_finite[lane] = held[lane] = 0.0
    floored[:] = 0.0
    keep = 1.0 - pole
    step = 0
    for segment in range(segments):
        while step < ends[segment]:
            _read(base[segment], state, exponents, mantissas, bits, g)
            _raw(g, law, guard, raw, total, ok, eight)
            for i in range(k):
                row, new = ema[i], raw[i]
                for lane in range(lanes):
                    moved = pole * row[lane] + keep * new[lane]
                    row[lane] = moved if ok[lane] > 0.0 else row[lane]
            if mode == _CLAMP_STATE:
                _project(ema, floor, w, sort, total, spare)
                # A held reading leaves the average alone, projection included.
                for i in range(k):
                    row, new = ema[i], w[i]
                    for lane in range(lanes):
                        row[lane] = new[lane] if ok[lane] > 0.0 else row[lane]
            _saturate(ema, floor, mode, w, sort, total, spare, eight)
            for lane in range(lanes):
                total[lane] = 0.0
                spare[lane] = 0.0
            for i in range(k):
                row, average, count = w[i], ema[i], floored[i]
                for lane in range(lanes):
                    x, e = row[lane], average[lane]
                    low[lane] = x if x < low[lane] else low[lane]
                    high[lane] = x if x > high[lane] else high[lane]
                    total[lane] += x
                    spare[lane] += e
                    count[lane] += 1.0 if e < floor else 0.0
            for lane in range(lanes):
                off, off_ema = abs(total[lane] - 1.0), abs(spare[lane] - 1.0)
                weight_error[lane] = off if off > weight_error[lane] else weight_error[lane]
                ema_error[lane] = off_ema if off_ema > ema_error[lane] else ema_error[lane]
                non_finite[lane] += 0.0 if off <= _LARGEST else 1.0
                held[lane] += 0.0 if ok[lane] > 0.0 else 1.0
            if step < trail.shape[0]:
                trail[step] = w
            step += 1


@_njit
def emit_readings(base: Any, ends: Any, state: Any, exponents: Any, mantissas: Any) -> Any:
    """The readings that :func:`run_block` feeds, shape (readings, K, lanes)."""
    segments, k, lanes = base.shape
    out = np.empty((ends[segments - 1], k, lanes))
    bits = np.empty(lanes, np.uint64)
    step = 0
    for segment in range(segments):
        while step < ends[segment]:
            _read(base[segment], state, exponents, mantissas, bits, out[step])
            step += 1
    return out
