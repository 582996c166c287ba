"""One step of the controller, compiled: every law, floor mode and guard, to the last bit of
:class:`gabactl.law.controller.Controller` in float64.

All functions are scalar over one loop, allocate nothing, and can be called from other compiled
functions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gabactl.law.floors import FLOORS
from gabactl.law.laws import GUARDS, LAWS, PUBLISHED_EPSILON
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.loops.kernels.jit import compiled

__all__ = [
    "AFFINE",
    "CLAMP_STATE",
    "COMPLEMENT",
    "HOLD",
    "INVERSE",
    "MAX_TASKS",
    "NONE",
    "PROJECT",
    "RENORMALISE",
    "Codes",
    "codes",
    "is_reading",
    "observe",
    "project_into",
    "raw_into",
    "saturate_into",
    "sum_as_numpy",
    "take_reading",
    "usable_reading",
]

#: The rows of the laws, the floors and the guards, counted from 0.
COMPLEMENT, INVERSE = range(len(LAWS))
RENORMALISE, AFFINE, PROJECT, CLAMP_STATE = range(len(FLOORS))
HOLD, NONE = range(len(GUARDS))

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


@compiled
def sum_as_numpy(values: Any) -> Any:
    """Sum of a contiguous vector of at most 128, rounded as NumPy rounds it (8 accumulators).

    Examples
    --------
    >>> x = np.linspace(0.1, 1.7, 21)
    >>> bool(sum_as_numpy(x) == x.sum())
    True
    """
    n = values.size
    if n < 8:
        # NumPy starts from -0.0, which changes no sum of norms or weights.
        total = values[0]
        for i in range(1, n):
            total += values[i]
        return total
    r0, r1, r2, r3 = values[0], values[1], values[2], values[3]
    r4, r5, r6, r7 = values[4], values[5], values[6], values[7]
    i = 8
    while i + 8 <= n:
        r0 += values[i]
        r1 += values[i + 1]
        r2 += values[i + 2]
        r3 += values[i + 3]
        r4 += values[i + 4]
        r5 += values[i + 5]
        r6 += values[i + 6]
        r7 += values[i + 7]
        i += 8
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    while i < n:
        total += values[i]
        i += 1
    return total


@compiled
def usable_reading(grad_norms: Any, law: int) -> bool:
    """Whether ``guard="hold"`` acts on a reading (see :func:`gabactl.law.stages.usable`).

    Examples
    --------
    >>> usable_reading(np.array([1.0, np.nan]), COMPLEMENT)
    False
    """
    for i in range(grad_norms.size):
        if not np.isfinite(grad_norms[i]):
            return False
        if law == INVERSE and not grad_norms[i] > 0:
            return False
    total = sum_as_numpy(grad_norms)
    return total > 0 and np.isfinite(total)


@compiled
def raw_into(out: Any, grad_norms: Any, law: int, guard: int) -> None:
    """Raw weights of a reading; with HOLD the caller has checked :func:`usable_reading`.

    Examples
    --------
    >>> out = np.empty(2)
    >>> raw_into(out, np.array([3.0, 1.0]), COMPLEMENT, HOLD)
    >>> out.tolist()
    [0.25, 0.75]
    """
    k = grad_norms.size
    if law == INVERSE:
        if guard == NONE:
            for i in range(k):
                out[i] = 1.0 / (grad_norms[i] + PUBLISHED_EPSILON)
        else:
            least = grad_norms[0]
            for i in range(1, k):
                least = min(least, grad_norms[i])
            for i in range(k):
                out[i] = least / grad_norms[i]
        total = sum_as_numpy(out)
        for i in range(k):
            out[i] = out[i] / total
        return
    if guard == NONE:
        total = sum_as_numpy(grad_norms) + PUBLISHED_EPSILON
        for i in range(k):
            out[i] = (total - grad_norms[i]) / ((k - 1) * total)
    else:
        total = sum_as_numpy(grad_norms)
        for i in range(k):
            out[i] = (total - grad_norms[i]) / total / (k - 1)


@compiled
def project_into(out: Any, point: Any, floor: float, scratch: Any) -> None:
    """Euclidean projection of ``point`` on {w >= floor, sum w = 1}; ``out`` may be ``point``.

    ``scratch`` has room for K numbers.

    Examples
    --------
    >>> out = np.empty(3)
    >>> project_into(out, np.array([0.02, 0.38, 0.6]), 0.1, np.empty(3))
    >>> out.round(6).tolist()
    [0.1, 0.34, 0.56]
    """
    k = point.size
    for i in range(k):
        if np.isnan(point[i]):
            for j in range(k):
                out[j] = np.nan
            return
        # Insertion into descending order.
        excess = point[i] - floor
        j = i
        while j > 0 and scratch[j - 1] < excess:
            scratch[j] = scratch[j - 1]
            j -= 1
        scratch[j] = excess
    budget = 1 - k * floor
    total = scratch[0]
    active = 0
    # As NumPy does it: count the active ranks, then take the threshold of the last of them.
    for i in range(k):
        if i > 0:
            total += scratch[i]
        if scratch[i] > (total - budget) / (i + 1):
            active += 1
    total = scratch[0]
    for i in range(1, active):
        total += scratch[i]
    threshold = (total - budget) / max(active, 1)
    for i in range(k):
        out[i] = floor + max(point[i] - floor - threshold, 0.0)


@compiled
def saturate_into(out: Any, ema: Any, floor: float, floor_mode: int, scratch: Any) -> None:
    """Applied weights of an average (see :func:`gabactl.law.stages.saturate`).

    ``scratch`` has room for K numbers and is used by the projections alone.

    Examples
    --------
    >>> out = np.empty(2)
    >>> saturate_into(out, np.array([0.0, 1.0]), 0.05, RENORMALISE, np.empty(2))
    >>> out.round(6).tolist()
    [0.047619, 0.952381]
    """
    k = ema.size
    if floor_mode == RENORMALISE:
        for i in range(k):
            # Written so that a NaN stays a NaN, as in NumPy.
            out[i] = floor if ema[i] < floor else ema[i]
        total = sum_as_numpy(out)
        for i in range(k):
            out[i] = out[i] / total
    elif floor_mode == AFFINE:
        total = sum_as_numpy(ema)
        for i in range(k):
            out[i] = floor + (1 - k * floor) * (ema[i] / total)
    else:
        project_into(out, ema, floor, scratch)


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
def take_reading(
    grad_norms: Any,
    ema: Any,
    scratch: Any,
    pole: float,
    floor: float,
    law: int,
    floor_mode: int,
    guard: int,
) -> bool:
    """Update ``ema`` in place on a reading; False where the guard held it.

    ``scratch`` has room for 2 K numbers; its first K are then the raw weights.

    Examples
    --------
    >>> ema = np.array([0.5, 0.5])
    >>> take_reading(np.array([3.0, 1.0]), ema, np.empty(4), 0.5, 0.05, COMPLEMENT, RENORMALISE, HOLD)
    True
    >>> ema.tolist()
    [0.375, 0.625]
    """
    k = ema.size
    if guard == HOLD and not usable_reading(grad_norms, law):
        return False
    raw = scratch[:k]
    raw_into(raw, grad_norms, law, guard)
    for i in range(k):
        ema[i] = pole * ema[i] + (1 - pole) * raw[i]
    if floor_mode == CLAMP_STATE:
        project_into(ema, ema, floor, scratch[k:])
    return True


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
        moved = take_reading(grad_norms, ema, scratch, pole, floor, law, floor_mode, guard)
    saturate_into(weights, ema, floor, floor_mode, scratch[k:])
    return moved
