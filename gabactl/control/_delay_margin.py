"""How many extra steps of delay a loop stands: closed-loop poles counted, delay by delay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gabactl.control._rational import Rational, root_counter

__all__ = ["delay_margin"]

_MOST_DELAY = 1_000_000
#: A loop whose gain only touches 1 does so at single frequencies: a few delays tell.
_MOST_DELAY_TOUCHING = 256
#: A closed-loop pole this close to the circle, as |1 + L z^-n| at a gain crossing, is on it; and a
#: loop gain this close to 1 touches it.
_TOUCHING = 1e-9


def delay_margin(delayed: Callable[[int], Rational], interval: int) -> tuple[float, str | None]:
    """Largest n such that 0, 1, ..., n extra steps are all stable, or infinity with the reason.

    Parameters
    ----------
    delayed : callable
        From extra steps, 0 to ``interval`` - 1, to the loop at its readings. ``interval`` more
        steps are one more reading, z^-1.
    interval : int
        Steps between readings.

    Examples
    --------
    >>> loop = Rational.of([], [0.5], 1.0)  # 1/(z - 1/2), unstable with one step more
    >>> delay_margin(loop.delayed, 1)
    (0, None)
    """
    failing: list[int] = []
    loudest = 0.0
    for extra in range(interval):
        loop = delayed(extra)
        peak = loop.peak()[0]
        loudest = max(loudest, peak)
        if peak < 1.0 - _TOUCHING:
            continue  # small gain: |L| < 1 everywhere, and delays do not change |L|
        most = _MOST_DELAY if peak > 1.0 + _TOUCHING else _MOST_DELAY_TOUCHING
        bad = _first_unstable(root_counter(loop), most)
        if bad is not None:
            failing.append(bad * interval + extra)
    if failing:
        return min(failing) - 1, None
    if loudest <= 1.0 + _TOUCHING:
        return math.inf, "the loop gain does not exceed 1 at any frequency"
    return math.inf, f"stable with any delay up to {_MOST_DELAY} readings"


def _first_unstable(count: Callable[..., Any], most: int) -> int | None:
    """Least delay with a closed-loop pole outside or on the circle."""
    start, size = 0, 64
    while start <= most:
        n = np.arange(start, start + size)
        outside, gap = count(n)
        bad = np.flatnonzero((outside > 0) | (gap < _TOUCHING))
        if bad.size:
            return int(n[bad[0]])
        start, size = start + size, min(size * 4, 65_536)
    return None
