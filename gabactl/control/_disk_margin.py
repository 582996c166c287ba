"""How large a complex factor a loop stands: peaks of S and T, and the disk margin between them."""

from __future__ import annotations

import math

import numpy as np

from gabactl.control._rational import Rational, Stability, roots_of

__all__ = [
    "complementary_peak",
    "disk_contents",
    "disk_delta",
    "disk_factor",
    "disk_margin",
    "sensitivity_peak",
]


def sensitivity_peak(loop: Rational, closed: Stability) -> tuple[float, float]:
    """Largest \\|1/(1 + L)\\| on the circle, and its w."""
    if loop.gain == 0:
        return 1.0, 0.0
    return _over_closed(loop, closed, 1.0, 0.0).peak()


def complementary_peak(loop: Rational, closed: Stability) -> tuple[float, float]:
    """Largest \\|L/(1 + L)\\| on the circle, and its w."""
    return _over_closed(loop, closed, 0.0, 1.0).peak()


def disk_margin(loop: Rational, closed: Stability, skew: float) -> tuple[float, complex, float]:
    """alpha = 1/max|S + (skew - 1)/2|, the factor on its rim that destabilises, and its w.

    Seiler, Packard and Gahinet, "An Introduction to Disk Margins", IEEE Control Systems Magazine
    40(5), 2020. Infinite for an open loop, and for a constant one with S = (1 - skew)/2.
    """
    # S + c = (D + c (D + N))/(D + N)
    c = (skew - 1.0) / 2.0
    height, w = _over_closed(loop, closed, 1.0 + c, c).peak()
    if loop.gain == 0 or height == 0:
        return math.inf, complex(math.inf), 0.0
    delta = 1.0 / (1.0 / (1.0 + complex(loop.at(w))) + c)
    return 1.0 / height, disk_factor(delta, skew), w


def _over_closed(loop: Rational, closed: Stability, d: float, n: float) -> Rational:
    """(d D + n N)/(D + N), with the closed-loop poles for a denominator."""
    combined = np.trim_zeros(np.real(d * loop.denominator + n * loop.numerator), "f")
    if combined.size == 0:
        return Rational.of([], closed.poles, 0.0)
    zeros = loop.poles if n == 0.0 else roots_of(combined)
    leading = np.real(loop.characteristic()[0])
    return Rational.of(zeros, closed.poles, float(combined[0] / leading))


def disk_factor(delta: complex, skew: float) -> complex:
    """The factor (1 + (1-skew)/2 delta)/(1 - (1+skew)/2 delta)."""
    bottom = 1.0 - (1.0 + skew) / 2.0 * delta
    return (1.0 + (1.0 - skew) / 2.0 * delta) / bottom if bottom else complex(math.inf)


def disk_delta(factor: complex, skew: float) -> complex:
    """The delta of a factor: the inverse of :func:`disk_factor`."""
    return (factor - 1.0) / ((1.0 - skew) / 2.0 + (1.0 + skew) / 2.0 * factor)


def disk_contents(alpha: float, skew: float) -> tuple[float, float, float]:
    """Least and greatest real gain, and the angle in degrees, that the disk of factors holds."""
    if math.isinf(alpha):
        return 0.0, math.inf, math.inf
    low, high = (1.0 - skew) / 2.0 * alpha, (1.0 + skew) / 2.0 * alpha
    ends = [
        (1.0 + sign * low) / (1.0 - sign * high) if sign * high != 1.0 else math.inf
        for sign in (1.0, -1.0)
    ]
    # The rim meets the real axis in two places. Where the disk is the outside of a circle
    # (|high| > 1) both are on one side of 1, and the gains on the other side are all in it.
    down = max(end for end in (0.0, *ends) if end < 1.0)
    up = min(end for end in (math.inf, *ends) if end > 1.0)
    return down, up, _disk_phase(alpha, skew)


def _disk_phase(alpha: float, skew: float) -> float:
    """Largest angle x such that e^jx is in the disk."""
    # delta = 2 (f - 1)/((1 - skew) + (1 + skew) f); on f = e^jx: |delta| = 2 t/sqrt(1 + skew^2 t^2),
    # t = tan(x/2).
    rest = 4.0 - (skew * alpha) ** 2
    return math.degrees(2.0 * math.atan(alpha / math.sqrt(rest))) if rest > 0.0 else 180.0
