"""The controller, one pure function per stage; the text of the law that all others are held against.

The stages are sensor (:func:`share`), comparator (:func:`error`), proportional law
(:func:`raw_weights`), low-pass (:func:`smooth`) and floor (:func:`saturate`). All work along the
last axis (tasks) and are vectorised over the leading ones: NumPy arrays in float64, arrays of
:class:`fractions.Fraction` (dtype object), which stay exact, and PyTorch tensors in their own
precision and on their own device, without a word to the host.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from gabactl.base.errors import InputError
from gabactl.law._arrays import as_array, is_exact, number, on_arrays, over_total, space, total
from gabactl.law.floors import FLOORS, FloorMode
from gabactl.law.laws import LAWS, Guard, Law, with_epsilon

__all__ = ["raw_weights"]


@on_arrays
def usable(grad_norms: Any, law: Law = "complement") -> Any:
    """Whether a reading can be acted on: the condition of ``guard="hold"``.

    Parameters
    ----------
    grad_norms : array or tensor, shape (..., K)
        Gradient norms, each >= 0.
    law : {"complement", "inverse"}
        The inverse law also needs every norm to be positive.

    Returns
    -------
    array of bool, shape (...)
        False where a norm is NaN or infinite, or their sum is 0 or overflows.

    Examples
    --------
    >>> usable([[250.0, 0.5], [0.0, 0.0], [1.0, float("nan")]]).tolist()
    [True, False, False]
    """
    return _usable(grad_norms, law)[..., 0]


@on_arrays
def share(grad_norms: Any, guard: Guard = "hold") -> Any:
    """Sensor: each task's share of the summed gradient norms, s_i = g_i / S.

    Parameters
    ----------
    grad_norms : array or tensor, shape (..., K)
        Gradient norms, each >= 0.
    guard : {"hold", "none"}
        ``none`` adds the published 1e-12 to S; ``hold`` does not, and gives NaN where the reading
        is not :func:`usable`.

    Returns
    -------
    array, shape (..., K)
        Shares in [0, 1]; with ``hold`` they sum to 1.

    Examples
    --------
    >>> share([250.0, 0.5]).round(6).tolist()
    [0.998004, 0.001996]
    """
    if guard == "none":
        return grad_norms / with_epsilon(total(grad_norms))
    return _where_usable(grad_norms, "complement", over_total)


def error(shares: Any) -> Any:
    """Comparator: e_i = 1/K - s_i, positive for a task that is too quiet.

    Parameters
    ----------
    shares : array or tensor, shape (..., K)
        Shares from :func:`share`.

    Returns
    -------
    array, shape (..., K)
        Errors in [1/K - 1, 1/K]; they sum to 0 when the shares sum to 1.

    Examples
    --------
    >>> error(share([250.0, 0.5])).round(6).tolist()
    [-0.498004, 0.498004]
    """
    s = as_array(shares)
    return number(Fraction(1, s.shape[-1]), s) - s


@on_arrays
def raw_weights(grad_norms: Any, law: Law = "complement", guard: Guard = "hold") -> Any:
    """Proportional law: raw weights from gradient norms.

    ``complement`` (published): raw_i = (S - g_i) / ((K - 1) S) = 1/K + e_i / (K - 1).
    ``inverse``: raw_i = (1/g_i) / sum_j (1/g_j), which equals it for K = 2.

    Parameters
    ----------
    grad_norms : array or tensor, shape (..., K)
        Gradient norms, each >= 0.
    law : {"complement", "inverse"}
        Which law.
    guard : {"hold", "none"}
        ``none`` puts the published 1e-12 into the denominator; ``hold`` leaves it out and gives
        NaN where the reading is not :func:`usable`, for the caller to hold its state.

    Returns
    -------
    array, shape (..., K)
        Raw weights on the simplex; ``complement`` stays below 1/(K-1). With ``guard="none"`` a
        sum of norms of the order of 1e-12 leaves the simplex (all zero: 1/(K-1) each).

    Examples
    --------
    >>> raw_weights([250.0, 0.5]).round(6).tolist()
    [0.001996, 0.998004]
    >>> raw_weights([1.0, 2.0, 7.0]).round(2).tolist()
    [0.45, 0.4, 0.15]
    """
    if guard == "none":
        return LAWS[law].raw(grad_norms, guard)
    return _where_usable(grad_norms, law, lambda g: LAWS[law].raw(g, guard))


def smooth(ema: Any, raw: Any, beta: Any, interval: int = 1) -> Any:
    """Low-pass: beta^N ema + (1 - beta^N) raw, with N the sampling interval.

    Parameters
    ----------
    ema, raw : arrays or tensors, shape (..., K)
        Stored average and the new raw weights.
    beta : float in [0, 1]
        Pole per optimisation step. Unlike :class:`GabaSpec` this pure stage takes 1, which never
        moves.
    interval : int, at least 1
        Steps between readings.

    Returns
    -------
    array, shape (..., K)
        The new average; on the simplex when both inputs are.

    Examples
    --------
    >>> smooth([0.5, 0.5], [0.0, 1.0], 0.99).round(6).tolist()
    [0.495, 0.505]
    """
    pole = beta**interval
    return pole * as_array(ema) + (1 - pole) * as_array(raw)


def saturate(ema: Any, floor: Any, floor_mode: FloorMode = "renormalise") -> Any:
    """Floor: applied weights from the average.

    Parameters
    ----------
    ema : array or tensor, shape (..., K)
        Averaged weights.
    floor : float in [0, 1/K)
        The floor m.
    floor_mode : {"renormalise", "affine", "project", "clamp_state"}
        ``renormalise``: max(ema, m) divided by its sum (published). ``affine``: m + (1 - K m) ema.
        ``project`` and ``clamp_state``: :func:`gabactl.law.floors.project`.

    Returns
    -------
    array, shape (..., K)
        Weights that sum to 1.

    Examples
    --------
    >>> saturate([0.0, 1.0], 0.05).round(6).tolist()
    [0.047619, 0.952381]
    >>> saturate([0.0, 1.0], 0.05, "project").round(6).tolist()
    [0.05, 0.95]
    """
    return FLOORS[floor_mode].apply(as_array(ema), floor)


def follow(ema: Any, raw: Any, beta: Any, interval: int, floor: Any, floor_mode: FloorMode) -> Any:
    """What is stored after a reading: :func:`smooth`, then the floor where that acts on the state.

    Parameters
    ----------
    ema, raw, beta, interval
        As for :func:`smooth`.
    floor, floor_mode
        As for :func:`saturate`; only ``clamp_state`` changes the stored average.

    Returns
    -------
    array, shape (..., K)
        The new average.

    Examples
    --------
    >>> follow([0.1, 0.9], [0.0, 1.0], 0.5, 1, 0.07, "clamp_state").round(6).tolist()
    [0.07, 0.93]
    """
    ema = smooth(ema, raw, beta, interval)
    row = FLOORS[floor_mode]
    return row.apply(ema, floor) if row.replaces_state else ema


def _usable(g: Any, law: Law) -> Any:
    """Shape (..., 1). The sum of norms is finite only where every one is, and NaN compares false."""
    whole = total(g)
    ok = (whole > 0) & (whole < math.inf)
    return ok & (g > 0).all(-1, keepdims=True) if LAWS[law].needs_positive else ok


def _where_usable(g: Any, law: Law, rule: Any) -> Any:
    """``rule(g)`` with NaN in the rows that cannot be used."""
    ok = _usable(g, law)
    if is_exact(g):
        if not ok.all():
            raise InputError("an exact reading has no positive sum (or a zero norm, inverse law)")
        return rule(g)
    return space(g).where(ok, rule(g), math.nan)
