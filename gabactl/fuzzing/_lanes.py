"""Many controllers side by side: the compiled loop of the searcher, one SIMD lane per controller.

The stages are those of :mod:`gabactl.loops.kernels.controller`, so that in float64 the result is
that of :class:`gabactl.law.controller.Controller`, to the last bit.

A lane runs a *program*: a few readings, each held for some steps, multiplied by a random factor
at every step where the lane asks for one. The programs are plain arrays, so a lane that found
something can be replayed alone and its readings written down.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gabactl.loops.kernels.controller import follow_into, raw_into, saturate_into, was_held
from gabactl.loops.kernels.jit import compiled

_LARGEST = float(np.finfo(np.float64).max)
_ONE_EXPONENT = np.uint64(1023)
_SHIFT_EXPONENT = np.uint64(52)


@compiled
def _read(base: Any, state: Any, exponents: Any, mantissas: Any, bits: Any, out: Any) -> None:
    """Readings of one step: the program's values times a random factor (1 where none is asked)."""
    k, lanes = base.shape
    factor = bits.view(np.float64)
    for i in range(k):
        values, row = base[i], out[i * lanes : (i + 1) * lanes]
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


@compiled
def _note(
    w: Any, ema: Any, raw: Any, guard: int, floor: float, sums: Any, stats: Any, floored: Any
) -> None:
    """One step in the statistics."""
    k, lanes = floored.shape
    low, high, weight_error, ema_error = stats[0], stats[1], stats[2], stats[3]
    non_finite, held = stats[4], stats[5]
    total, average = sums[0], sums[1]
    total[:] = 0.0
    average[:] = 0.0
    for i in range(k):
        part = slice(i * lanes, (i + 1) * lanes)
        weights, averages, count = w[part], ema[part], floored[i]
        for lane in range(lanes):
            x, e = weights[lane], averages[lane]
            low[lane] = x if x < low[lane] else low[lane]
            high[lane] = x if x > high[lane] else high[lane]
            total[lane] += x
            average[lane] += e
            count[lane] += 1.0 if e < floor else 0.0
    for lane in range(lanes):
        off, off_ema = abs(total[lane] - 1.0), abs(average[lane] - 1.0)
        weight_error[lane] = off if off > weight_error[lane] else weight_error[lane]
        ema_error[lane] = off_ema if off_ema > ema_error[lane] else ema_error[lane]
        non_finite[lane] += 0.0 if off <= _LARGEST else 1.0
        held[lane] += 1.0 if was_held(raw, guard, lane) else 0.0


@compiled
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
    stats : array, shape (6, lanes)
        Output, see :data:`gabactl.fuzzing.lanes.STATS`.
    floored : array, shape (K, lanes)
        Output: steps with the average under the floor, by task.
    trail : array, shape (steps or 0, K, lanes)
        Output: the weights of the first steps, as many as fit.
    """
    segments, k, lanes = base.shape
    many, size = np.uint64(lanes), k * lanes
    g, raw, w, scratch = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    ema = np.full(size, 1.0 / k)
    bits, sums = np.empty(lanes, np.uint64), np.empty((2, lanes))
    stats[:] = 0.0
    stats[0], stats[1] = np.inf, -np.inf
    floored[:] = 0.0
    step = 0
    for segment in range(segments):
        while step < ends[segment]:
            _read(base[segment], state, exponents, mantissas, bits, g)
            raw_into(raw, g, law, guard, scratch, many)
            follow_into(ema, raw, pole, floor, mode, guard, scratch, many)
            saturate_into(w, ema, floor, mode, scratch, many)
            _note(w, ema, raw, guard, floor, sums, stats, floored)
            if step < trail.shape[0]:
                trail[step] = w.reshape(k, lanes)
            step += 1


@compiled
def emit_readings(base: Any, ends: Any, state: Any, exponents: Any, mantissas: Any) -> Any:
    """The readings that :func:`run_block` feeds, shape (readings, K, lanes)."""
    segments, k, lanes = base.shape
    out = np.empty((ends[segments - 1], k * lanes))
    bits = np.empty(lanes, np.uint64)
    step = 0
    for segment in range(segments):
        while step < ends[segment]:
            _read(base[segment], state, exponents, mantissas, bits, out[step])
            step += 1
    return out.reshape(-1, k, lanes)
