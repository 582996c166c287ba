"""Where the settled loop can rest: the solutions of y = d - rho U(y).

y is the log ratio of the gradient norms, d the disturbance, rho the plant's settled gain, and U(y)
the log ratio of the weights with which a settled controller answers.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from gabactl.control.linear import floor_slope
from gabactl.law.authority import settled_weights
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec

__all__ = ["LARGEST_LOG_RATIO", "rest_points", "settled_log_weights"]

Array = NDArray[np.float64]

#: Beyond this the norms' ratio has no float64 form; no balance point of interest lies there.
LARGEST_LOG_RATIO = 600.0


def settled_log_weights(spec: GabaSpec, log_ratio: ArrayLike) -> Array:
    """u = log(w_1/w_2) that a settled controller answers an imbalance with.

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2.
    log_ratio : array
        y = log(g_1/g_2).

    Examples
    --------
    >>> settled_log_weights(GabaSpec(), [1.0, 8.0]).round(4).tolist()
    [-1.0, -2.9954]
    """
    y = np.clip(np.asarray(log_ratio, dtype=np.float64), -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    if spec.floor == 0.0:
        return -y
    w = settled_weights(spec, np.exp(y))
    return np.asarray(np.log(w[..., 0] / w[..., 1]))


def rest_points(
    spec: GabaSpec, rho: float, d: float, knee: float, continuum: tuple[float, float] | None
) -> list[float]:
    """All y at which the settled loop rests, in order; points inside a continuum are left out.

    Parameters
    ----------
    spec : GabaSpec
        Settings with n_tasks = 2.
    rho, d : float
        Settled gain of the plant, and the disturbance in nats.
    knee : float
        Log ratio at which the floor begins to bind; infinite without one.
    continuum : (float, float) or None
        Range of y in which every point is one.

    Notes
    -----
    y - d + rho U(y) is monotone between the knees and the points where the floor's slope equals
    1/rho, so a sign change there is found or excluded.

    Examples
    --------
    >>> [round(y, 3) for y in rest_points(GabaSpec(), 1.1, 0.0, math.log(19), None)]
    [-3.254, 0.0, 3.254]
    """

    def excess(y: float) -> float:
        return y - d + rho * float(settled_log_weights(spec, y))

    if spec.floor == 0.0:
        # u = -y: linear.
        return [] if continuum is not None or rho == 1.0 else [d / (1.0 - rho)]
    largest = abs(float(settled_log_weights(spec, LARGEST_LOG_RATIO)))
    reach = min(abs(d) + abs(rho) * largest + 1.0, LARGEST_LOG_RATIO)
    breaks = {-reach, reach}
    has_knee = FLOORS[spec.floor_mode].has_knee
    if has_knee:
        breaks |= {s * knee for s in (-1.0, 1.0) if knee < reach}
    start = knee * (1 + 1e-12) if has_knee else 0.0
    if rho * floor_slope(spec, start) > 1.0 > rho * floor_slope(spec, reach):
        turn = optimize.brentq(lambda y: rho * floor_slope(spec, y) - 1.0, start, reach)
        breaks |= {-turn, turn}
    found: list[float] = []
    for lo, hi in pairwise(sorted(breaks)):
        if continuum is not None and continuum[0] <= lo and hi <= continuum[1]:
            continue
        f_lo, f_hi = excess(lo), excess(hi)
        tiny = 1e-12 * (1.0 + abs(d) + abs(rho) * largest)
        if abs(f_lo) <= tiny and abs(f_hi) <= tiny:
            continue
        if -knee <= lo and hi <= knee and has_knee:
            # Between the knees the loop is linear, and the point has a closed form.
            y = d / (1.0 - rho) if rho != 1.0 else math.inf
            if lo <= y <= hi:
                found.append(y)
        elif f_lo * f_hi < 0.0:
            found.append(optimize.brentq(excess, lo, hi, xtol=1e-14, rtol=1e-14))
    distinct: list[float] = []
    for y in sorted(found):
        if not distinct or y - distinct[-1] > 1e-9:
            distinct.append(0.0 if abs(y) < 1e-15 else float(y))
    return distinct
