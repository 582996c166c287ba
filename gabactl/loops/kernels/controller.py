"""The stages of the controller, compiled: every law, floor mode and guard, to the last bit of
:class:`gabactl.law.controller.Controller` in float64.

For one controller (a *lane*), or for many side by side: arrays are flat, the numbers of the first
task, lane by lane, then those of the second. With one lane the loops over lanes vanish; with many
they become vector instructions. Counters are unsigned, because numba guards signed indices against
negative values, and the guard would keep the loops scalar.

Nothing is allocated; all can be called from other compiled functions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gabactl.law.floors import FLOORS
from gabactl.law.laws import GUARDS, LAWS, PUBLISHED_EPSILON
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.loops.kernels.jit import compiled, inlined

#: The rows of the laws, the floors and the guards, counted from 0.
COMPLEMENT, INVERSE = range(len(LAWS))
RENORMALISE, AFFINE, PROJECT, CLAMP_STATE = range(len(FLOORS))
HOLD, NONE = range(len(GUARDS))

#: One lane, and the first.
ONE, FIRST = np.uint64(1), np.uint64(0)

_LARGEST = float(np.finfo(np.float64).max)

#: The compiled loops take at most this many tasks.
MAX_TASKS = 64


class Codes(NamedTuple):
    """A :class:`GabaSpec` as numbers, in the order the compiled functions take them."""

    pole: float
    floor: float
    warmup: int
    interval: int
    law: int
    floor_mode: int
    guard: int


def codes(spec: GabaSpec) -> Codes:
    """The numbers of a setting; ``pole`` is beta**interval.

    Parameters
    ----------
    spec : GabaSpec
        The setting.

    Examples
    --------
    >>> codes(GabaSpec(beta=0.5, interval=2)).pole
    0.25
    """
    return Codes(
        spec.beta**spec.interval,
        spec.floor,
        spec.warmup,
        spec.interval,
        *(allowed.index(getattr(spec, name)) for name, allowed in CHOICES.items()),
    )


@inlined
def _tasks(rows: Any, lanes: Any) -> int:
    return rows.size // np.int64(lanes)


@inlined
def _row(i: int, lanes: Any) -> Any:
    return np.uint64(i) * lanes


@inlined
def sums_into(out: Any, rows: Any, lanes: Any = ONE) -> None:
    """Sum over at most 128 tasks, rounded as NumPy rounds it (8 accumulators), into a first row.

    Examples
    --------
    >>> x, out = np.linspace(0.1, 1.7, 21), np.empty(1)
    >>> sums_into(out, x)
    >>> bool(out[0] == x.sum())
    True
    """
    k = _tasks(rows, lanes)
    if k < 8:
        # NumPy starts from -0.0, which changes no sum of norms or weights.
        for lane in range(lanes):
            out[lane] = rows[lane]
        for i in range(1, k):
            b = _row(i, lanes)
            for lane in range(lanes):
                out[lane] += rows[b + lane]
        return
    for lane in range(lanes):
        r0, r1 = rows[lane], rows[_row(1, lanes) + lane]
        r2, r3 = rows[_row(2, lanes) + lane], rows[_row(3, lanes) + lane]
        r4, r5 = rows[_row(4, lanes) + lane], rows[_row(5, lanes) + lane]
        r6, r7 = rows[_row(6, lanes) + lane], rows[_row(7, lanes) + lane]
        i = 8
        while i + 8 <= k:
            b = _row(i, lanes) + lane
            r0 += rows[b]
            r1 += rows[b + _row(1, lanes)]
            r2 += rows[b + _row(2, lanes)]
            r3 += rows[b + _row(3, lanes)]
            r4 += rows[b + _row(4, lanes)]
            r5 += rows[b + _row(5, lanes)]
            r6 += rows[b + _row(6, lanes)]
            r7 += rows[b + _row(7, lanes)]
            i += 8
        out[lane] = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(k - k % 8, k):
        b = _row(i, lanes)
        for lane in range(lanes):
            out[lane] += rows[b + lane]


@inlined
def _divide(rows: Any, totals: Any, lanes: Any) -> None:
    for i in range(_tasks(rows, lanes)):
        b = _row(i, lanes)
        for lane in range(lanes):
            rows[b + lane] = rows[b + lane] / totals[lane]


@inlined
def raw_into(
    out: Any, grad_norms: Any, law: int, guard: int, scratch: Any, lanes: Any = ONE
) -> None:
    """Raw weights of a reading; NaN where the guard holds (:func:`gabactl.law.stages.raw_weights`).

    ``scratch`` has room for one row.

    Examples
    --------
    >>> out = np.empty(2)
    >>> raw_into(out, np.array([3.0, 1.0]), COMPLEMENT, HOLD, np.empty(1))
    >>> out.tolist()
    [0.25, 0.75]
    """
    k = _tasks(grad_norms, lanes)
    if law == INVERSE:
        if guard == NONE:
            for j in range(np.uint64(grad_norms.size)):
                out[j] = 1.0 / (grad_norms[j] + PUBLISHED_EPSILON)
        else:
            _inverse_of_usable(out, grad_norms, scratch, lanes)
        sums_into(scratch, out, lanes)
        _divide(out, scratch, lanes)
        return
    sums_into(scratch, grad_norms, lanes)
    others = float(k - 1)
    if guard == NONE:
        for lane in range(lanes):
            scratch[lane] += PUBLISHED_EPSILON
        for i in range(k):
            b = _row(i, lanes)
            for lane in range(lanes):
                total = scratch[lane]
                out[b + lane] = (total - grad_norms[b + lane]) / (others * total)
        return
    for lane in range(lanes):
        total = scratch[lane]
        scratch[lane] = total if (total > 0.0) & (total <= _LARGEST) else np.nan
    for i in range(k):
        b = _row(i, lanes)
        for lane in range(lanes):
            out[b + lane] = (scratch[lane] - grad_norms[b + lane]) / scratch[lane]
    if k > 2:
        for j in range(np.uint64(out.size)):
            out[j] = out[j] / others


@inlined
def _inverse_of_usable(out: Any, grad_norms: Any, scratch: Any, lanes: Any) -> None:
    """Smallest norm over each; not a number where a norm is 0, or some norm or their sum is not
    finite."""
    k = _tasks(grad_norms, lanes)
    last = _row(k - 1, lanes)
    sums_into(scratch, grad_norms, lanes)
    for lane in range(lanes):
        out[last + lane] = grad_norms[lane]
    for i in range(1, k):
        b = _row(i, lanes)
        for lane in range(lanes):
            g, least = grad_norms[b + lane], out[last + lane]
            out[last + lane] = g if g < least else least
    for lane in range(lanes):
        least = out[last + lane]
        out[last + lane] = least if (least > 0.0) & (scratch[lane] <= _LARGEST) else np.nan
    for i in range(k):
        b = _row(i, lanes)
        for lane in range(lanes):
            out[b + lane] = out[last + lane] / grad_norms[b + lane]


@inlined
def was_held(raw: Any, guard: int, lane: Any = FIRST) -> bool:
    """Whether the guard held a lane, from its raw weights.

    Examples
    --------
    >>> was_held(np.array([np.nan, np.nan]), HOLD), was_held(np.array([np.nan, np.nan]), NONE)
    (True, False)
    """
    return guard == HOLD and raw[lane] != raw[lane]


@inlined
def project_into(out: Any, point: Any, floor: float, scratch: Any, lanes: Any = ONE) -> None:
    """Euclidean projection of ``point`` on {w >= floor, sum w = 1}; ``out`` may be ``point``.

    ``scratch`` is as large as they.

    Examples
    --------
    >>> out = np.empty(3)
    >>> project_into(out, np.array([0.02, 0.38, 0.6]), 0.1, np.empty(3))
    >>> out.round(6).tolist()
    [0.1, 0.34, 0.56]
    """
    k = _tasks(point, lanes)
    for j in range(np.uint64(point.size)):
        scratch[j] = point[j] - floor
    # Into descending order, without branches; NaN stays somewhere.
    for last in range(k - 1, 0, -1):
        for i in range(last):
            b, c = _row(i, lanes), _row(i + 1, lanes)
            for lane in range(lanes):
                x, y = scratch[b + lane], scratch[c + lane]
                scratch[b + lane] = x if x > y else y
                scratch[c + lane] = y if x > y else x
    # The threshold is the largest mean excess over the budget of the first, the first two, ...
    budget = 1 - k * floor
    for i in range(1, k):
        b, c = _row(i - 1, lanes), _row(i, lanes)
        for lane in range(lanes):
            scratch[c + lane] += scratch[b + lane]
    for lane in range(lanes):
        scratch[lane] = scratch[lane] - budget
    for i in range(1, k):
        b = _row(i, lanes)
        for lane in range(lanes):
            mean, threshold = (scratch[b + lane] - budget) / (i + 1), scratch[lane]
            scratch[lane] = threshold if mean <= threshold else mean
    for i in range(k):
        b = _row(i, lanes)
        for lane in range(lanes):
            x = point[b + lane] - floor - scratch[lane]
            out[b + lane] = floor + (0.0 if x <= 0.0 else x)


@inlined
def saturate_into(
    out: Any, ema: Any, floor: float, floor_mode: int, scratch: Any, lanes: Any = ONE
) -> None:
    """Applied weights of an average (see :func:`gabactl.law.stages.saturate`).

    ``scratch`` is as large as they.

    Examples
    --------
    >>> out = np.empty(2)
    >>> saturate_into(out, np.array([0.0, 1.0]), 0.05, RENORMALISE, np.empty(2))
    >>> out.round(6).tolist()
    [0.047619, 0.952381]
    """
    if floor_mode == RENORMALISE:
        for j in range(np.uint64(ema.size)):
            # Written so that a NaN stays a NaN, as in NumPy.
            out[j] = floor if ema[j] < floor else ema[j]
        sums_into(scratch, out, lanes)
        _divide(out, scratch, lanes)
    elif floor_mode == AFFINE:
        k = _tasks(ema, lanes)
        sums_into(scratch, ema, lanes)
        for i in range(k):
            b = _row(i, lanes)
            for lane in range(lanes):
                out[b + lane] = floor + (1 - k * floor) * (ema[b + lane] / scratch[lane])
    else:
        project_into(out, ema, floor, scratch, lanes)


@inlined
def follow_into(
    ema: Any,
    raw: Any,
    pole: float,
    floor: float,
    floor_mode: int,
    guard: int,
    scratch: Any,
    lanes: Any = ONE,
) -> None:
    """The average after a reading; a held one leaves it. Uses up ``raw``, which becomes the new.

    ``scratch`` is as large as they.

    Examples
    --------
    >>> ema, raw = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    >>> follow_into(ema, raw, 0.5, 0.05, RENORMALISE, HOLD, np.empty(2))
    >>> ema.tolist()
    [0.375, 0.625]
    """
    for j in range(np.uint64(ema.size)):
        raw[j] = pole * ema[j] + (1 - pole) * raw[j]
    if floor_mode == CLAMP_STATE:
        project_into(raw, raw, floor, scratch, lanes)
    for j in range(np.uint64(ema.size)):
        ema[j] = raw[j] if (raw[j] == raw[j]) | (guard == NONE) else ema[j]


@compiled
def is_reading(step: int, warmup: int, interval: int) -> bool:
    """Whether step (counted from 1) takes a reading: W + 1, W + 1 + N, ...

    Examples
    --------
    >>> [is_reading(t, 2, 3) for t in range(1, 8)]
    [False, False, True, False, False, True, False]
    """
    # The remainder costs more than the rest of a step, and most loops read at every step.
    return step > warmup and (interval == 1 or (step - warmup - 1) % interval == 0)


@compiled
def observe(
    grad_norms: Any,
    step: int,
    ema: Any,
    weights: Any,
    scratch: Any,
    pole: float,
    floor: float,
    warmup: int,
    interval: int,
    law: int,
    floor_mode: int,
    guard: int,
) -> bool:
    """One whole step: ``step`` counts from 1 (this one), ``ema`` and ``weights`` change in place.

    Parameters
    ----------
    grad_norms : array, shape (K,)
        Reading; not looked at during warm-up and between readings.
    step : int
        Number of this step, from 1.
    ema, weights : arrays, shape (K,)
        State (1/K at first) and applied weights (output).
    scratch : array, shape (2 K,)
        Work space.
    pole, floor, warmup, interval, law, floor_mode, guard
        As in :class:`Codes`.

    Returns
    -------
    bool
        True where the average moved on a reading.

    Examples
    --------
    >>> ema, weights = np.full(2, 0.5), np.empty(2)
    >>> settings = codes(GabaSpec(warmup=0, beta=0))
    >>> observe(np.array([3.0, 1.0]), 1, ema, weights, np.empty(4), *settings)
    True
    >>> weights.tolist()
    [0.25, 0.75]
    """
    k = ema.size
    if step <= warmup:
        for i in range(k):
            weights[i] = 1.0 / k
        return False
    moved = False
    if is_reading(step, warmup, interval):
        raw = scratch[:k]
        raw_into(raw, grad_norms, law, guard, scratch[k:])
        moved = not was_held(raw, guard)
        follow_into(ema, raw, pole, floor, floor_mode, guard, scratch[k:])
    saturate_into(weights, ema, floor, floor_mode, scratch[k:])
    return moved
