"""What the estimate means: the sign of the feedback, and whether the loop is stable with it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from gabactl.control.linear import open_loop
from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio

__all__ = ["LoopVerdict", "judge_loop"]

Sign = Literal["negative", "positive", "none"]


@dataclass(frozen=True)
class LoopVerdict:
    """Stability of the unsaturated loop for every plant in the intervals' corners.

    Parameters
    ----------
    verdict : {"stable", "unstable", "not settled"}
        ``not settled``: some of the plants that the data allow are stable, others are not.
    radius_low, radius_high : float
        Smallest and largest spectral radius among them (per step; below 1 is stable).

    Examples
    --------
    >>> judge_loop(GabaSpec(), (-0.3, -0.1), (0.8, 0.95), (0,)).verdict
    'stable'
    """

    verdict: Literal["stable", "unstable", "not settled"]
    radius_low: float
    radius_high: float


def judge_sign(rho_interval: tuple[float, float]) -> Sign:
    """Sign of the feedback by an interval for rho.

    Parameters
    ----------
    rho_interval : (float, float)
        Lower and upper end.

    Returns
    -------
    {"negative", "positive", "none"}
        "none" where the interval covers 0.

    Examples
    --------
    >>> judge_sign((-0.3, -0.1)), judge_sign((-0.1, 0.2))
    ('negative', 'none')
    """
    low, high = rho_interval
    return "negative" if high < 0 else "positive" if low > 0 else "none"


def judge_loop(
    spec: GabaSpec,
    rho_interval: tuple[float, float],
    a_interval: tuple[float, float],
    delays: tuple[int, ...],
) -> LoopVerdict:
    """Stability over the corners of the intervals.

    Parameters
    ----------
    spec : GabaSpec
        The controller to close the loop with.
    rho_interval, a_interval : pairs of floats
        Lowest and highest value.
    delays : tuple of int
        Extra delays not rejected.

    Returns
    -------
    LoopVerdict
        "not settled" where some corners are stable and some are not.

    Notes
    -----
    The least and the largest of :func:`loop_radius` over the ends of the intervals and all delays; what
    lies between the corners is not looked at.

    Examples
    --------
    >>> judge_loop(GabaSpec(), (0.8, 1.2), (0.9, 0.9), (0,)).verdict
    'not settled'
    """
    corners = itertools.product(rho_interval, a_interval, delays)
    radii = [loop_radius(spec, *corner) for corner in corners]
    low, high = min(radii), max(radii)
    return LoopVerdict(
        "stable" if high < 1 else "unstable" if low >= 1 else "not settled", low, high
    )


def loop_radius(spec: GabaSpec, rho: float, a: float, delay: int = 0) -> float:
    """Spectral radius, per step, of the linear loop around a point inside the floor.

    Exact for sparse readings too: the plant is lifted to them.

    Parameters
    ----------
    spec : GabaSpec
        Controller; beta and interval matter.
    rho, a, delay : float, float, int
        Log-ratio plant.

    Returns
    -------
    float
        Below 1 is stable.

    Examples
    --------
    rho = 1 puts a pole at z = 1; at a = 0 and delay 1 the lower limit is -100 (beta = 0.99):

    >>> round(loop_radius(GabaSpec(), 1.0, 0.5), 9)
    1.0
    >>> [loop_radius(GabaSpec(), rho, 0.0, 1) < 1 for rho in (-99.9, -100.1)]
    [True, False]
    """
    # Around balance every floor but an affine one leaves the average as it is: that one is meant.
    sampled = GabaSpec(beta=spec.beta, interval=spec.interval)
    return float(open_loop(sampled, LogRatio(rho, a, delay)).spectral_radius ** (1 / spec.interval))
