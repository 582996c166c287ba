"""The floors, one row each: what a floor makes of the average, its slope, its range, its habits.

A new floor is a row here (and, to run compiled, a branch in
:func:`gabactl.loops.kernels.controller.saturate_into`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gabactl.law._arrays import as_array, at_least, counting, descending, largest, over_total

FloorMode = Literal["renormalise", "affine", "project", "clamp_state"]

Array = NDArray[Any]


@dataclass(frozen=True)
class FloorRow:
    """What a floor does, and what follows from it.

    Attributes
    ----------
    note : str
        A word for people, may be empty.
    apply : callable (average, floor) -> weights
        On arrays and tensors of shape (..., K).
    slope : callable (average of the louder task, floor) -> float
        -d log(w_1/w_2)/d log(g_1/g_2), settled, of two tasks.
    jacobian : callable (average, weights, floor) -> array, shape (K, K)
        d(log w_i)/d(ema_j), up to what centring takes out.
    range : callable (floor, K, sharers, smaller=min) -> (lowest, highest)
        Infimum and supremum of a weight, in the arithmetic of ``floor``: floats, fractions, or a
        solver's terms with a ``smaller`` of their own. ``sharers`` is the law's.
    keeps_the_floor : bool
        Whether the floor itself is a value of the weights (else a bound is only approached, unless
        the average gets to the edge of its range).
    replaces_state : bool
        Whether the stored average is replaced by what the floor makes of it.
    has_knee : bool
        Whether the weights are those of the average until one of them meets the floor.
    narrows_ratios : bool
        Whether every ratio of two weights is between 1 and that of their averages, for any K.
    """

    note: str
    apply: Callable[[Any, Any], Any]
    slope: Callable[[float, float], float]
    jacobian: Callable[[Array, Array, float], Array]
    range: Callable[..., tuple[Any, Any]]
    keeps_the_floor: bool
    replaces_state: bool
    has_knee: bool
    narrows_ratios: bool

    def attained(self, floor: float, n_tasks: int, sharers: int, edge: bool) -> tuple[bool, bool]:
        """Whether the lowest and the highest weight are values, not only limits.

        Parameters
        ----------
        floor, n_tasks, sharers
            As for ``range``.
        edge : bool
            Whether the average gets to the edge of its range, 0 and 1/sharers.
        """
        if not self.keeps_the_floor or floor == 0.0:
            return edge, edge
        floor_binds_above = sharers == 1 or 1.0 - (n_tasks - 1) * floor < 1.0 / sharers
        return True, floor_binds_above or edge


def _renormalise(ema: Any, floor: Any) -> Any:
    return over_total(at_least(ema, floor))


def _renormalise_range(m: Any, k: int, sharers: int, smaller: Any = min) -> tuple[Any, Any]:
    """Lowest where the sharers hold everything, highest where the others hold least.

    A weight is least where its average is at the floor or below and the other clipped ones sum to
    their most; it is largest where its average is and the others sum, clipped, to their least.
    """
    one = m * 0 + 1
    loudest = one / (one + sharers * (k - 1) * m)
    return m / (one + (k - sharers) * m), smaller(one / sharers, loudest)


def _affine(ema: Any, floor: Any) -> Any:
    return floor + (1 - ema.shape[-1] * floor) * over_total(ema)


def _affine_slope(x: float, m: float) -> float:
    w = m + (1.0 - 2.0 * m) * x
    return (1.0 - 2.0 * m) * (x * (1.0 - x)) / (w * (1.0 - w))


def _affine_range(m: Any, k: int, sharers: int, smaller: Any = min) -> tuple[Any, Any]:
    return m, (m * 0 + 1 - (k - sharers) * m) / sharers


def project(ema: Any, floor: Any) -> Any:
    """Euclidean projection onto {w : w_i >= floor, sum w = 1}.

    Parameters
    ----------
    ema : array or tensor, shape (..., K)
        Any point.
    floor : float in [0, 1/K)
        Lower bound of every component.

    Returns
    -------
    array, shape (..., K)
        The nearest point of the set; NaN where the input has one.

    Notes
    -----
    Sort and threshold: Held, Wolfe and Crowder, "Validation of subgradient optimization",
    Mathematical Programming 6 (1974).

    Examples
    --------
    >>> project([0.02, 0.38, 0.6], 0.1).round(6).tolist()
    [0.1, 0.34, 0.56]
    """
    e = as_array(ema)
    excess = e - floor
    # The mean excess over the budget of the j largest grows with j while they stay above it and
    # falls afterwards, so the largest of these means is the threshold (and NaN stays NaN).
    sums = descending(excess).cumsum(-1)
    means = (sums - (1 - e.shape[-1] * floor)) / counting(e)
    return floor + at_least(excess - largest(means), 0)


def _projected_jacobian(ema: Array, weights: Array, m: float) -> Array:
    active = weights > m * (1.0 + 1e-12)
    spread = np.diag(active.astype(float)) - np.outer(active, active) / active.sum()
    return np.asarray(spread / weights[:, None])


def _projected_range(m: Any, k: int, sharers: int, smaller: Any = min) -> tuple[Any, Any]:
    one = m * 0 + 1
    return m, smaller(one / sharers, one - (k - 1) * m)


_PROJECT = FloorRow(
    note="",
    apply=project,
    slope=lambda x, m: 1.0 if x >= m else 0.0,
    jacobian=_projected_jacobian,
    range=_projected_range,
    keeps_the_floor=True,
    replaces_state=False,
    has_knee=True,
    narrows_ratios=False,
)

FLOORS: dict[FloorMode, FloorRow] = {
    "renormalise": FloorRow(
        note="published",
        apply=_renormalise,
        slope=lambda x, m: 1.0 if x >= m else x,
        jacobian=lambda e, w, m: np.diag((e > m) / np.maximum(e, m)),
        range=_renormalise_range,
        keeps_the_floor=False,
        replaces_state=False,
        has_knee=True,
        narrows_ratios=True,
    ),
    "affine": FloorRow(
        note="",
        apply=_affine,
        slope=_affine_slope,
        jacobian=lambda e, w, m: np.diag((1.0 - len(e) * m) / w),
        range=_affine_range,
        keeps_the_floor=False,
        replaces_state=False,
        has_knee=False,
        narrows_ratios=True,
    ),
    "project": _PROJECT,
    "clamp_state": replace(_PROJECT, note="anti-windup", replaces_state=True),
}
