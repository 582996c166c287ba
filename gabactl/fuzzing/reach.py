"""Which weights GABA can reach in n readings: the exact interval, in rational arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.floors import FLOORS
from gabactl.law.laws import LAWS
from gabactl.law.spec import GabaSpec

__all__ = ["Reach", "reachable"]


@dataclass(frozen=True)
class Reach(Result):
    """The weights some sequence of readings can reach, and sequences that do.

    Attributes
    ----------
    spec : GabaSpec
        The controller.
    readings : int
        Readings taken, n.
    low, high : fractions.Fraction
        Infimum and supremum of a weight over the n readings, for the numbers beta and floor as
        stored (binary fractions).
    low_is_exact : bool
        False where ``low`` is only an outer bound (``clamp_state`` with three tasks or more,
        before the average has reached the floor).
    low_reading, high_reading : tuple of float
        The reading that, held, gives task 0 its least and its largest weight. The inverse law
        refuses a norm of 0, so there it only comes within 1e-29 of them.
    """

    spec: GabaSpec
    readings: int
    low: Fraction
    high: Fraction
    low_is_exact: bool
    low_reading: tuple[float, ...]
    high_reading: tuple[float, ...]

    title = "Reachable weights"

    def facts(self) -> dict[str, Any]:
        """Keys: spec, readings, low, high, low_is_exact, low_reading, high_reading."""
        return {
            **super().facts(),
            "spec": self.spec.to_dict(),
            "low": float(self.low),
            "high": float(self.high),
            "low_reading": list(self.low_reading),
            "high_reading": list(self.high_reading),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Low and high, with the readings that lead there."""
        note = "" if self.low_is_exact else " (outer bound)"
        return [
            ("readings", str(self.readings)),
            ("low", f"{float(self.low):.9f}{note}", f"hold {list(self.low_reading)}"),
            ("high", f"{float(self.high):.9f}", f"hold {list(self.high_reading)}"),
        ]


def reachable(spec: GabaSpec, readings: int) -> Reach:
    """The exact interval of weights reachable within some readings from the start.

    Parameters
    ----------
    spec : GabaSpec
        The controller; its warm-up does not count.
    readings : int, at least 0
        Readings n taken.

    Returns
    -------
    Reach
        Interval and extremal readings.

    Raises
    ------
    InputError
        ``readings`` below 0.

    Notes
    -----
    Derivation. The raw weights of one reading fill a convex set R: the simplex cut at
    1/(K-1) (``complement``) or the open simplex (``inverse``). The average is a convex
    combination with fixed coefficients, so after n readings with pole b it fills
    b^n/K + (1 - b^n) R exactly, and the interval only grows with n. A weight of every floor mode
    grows with its own average and falls with the others'; it is therefore least at the vertex
    where its raw weight is always 0 and the clipped others sum to their most (a convex function,
    hence at a vertex), and largest where its raw weight is always at its limit and the clipped
    others sum to their least (by convexity where they are equal). ``clamp_state`` moves the
    average itself: upwards that costs nothing, downwards its subtraction can help when K > 2, so
    there ``low`` is only a bound until the floor is reached. The published 1e-12 adds
    readings with S = 0 to R, which moves no extreme.

    Examples
    --------
    >>> from gabactl.law.spec import GabaSpec
    >>> reach = reachable(GabaSpec(), 5000)
    >>> round(float(reach.low), 6), round(float(reach.high), 6)
    (0.047619, 0.952381)
    >>> reachable(GabaSpec(beta=0.5), 1).low
    Fraction(1, 4)
    """
    if readings < 0:
        raise InputError(f"readings = {readings} is below 0: give a number of readings")
    k, floor = spec.n_tasks, Fraction(spec.floor)
    pole = Fraction(spec.beta**spec.interval) ** readings
    law, row = LAWS[spec.law], FLOORS[spec.floor_mode]
    sharers = law.sharers(k)
    limit = Fraction(1, sharers)
    start = pole / k
    least, most = start, start + (1 - pole) * limit
    nothing = 1e-30 if law.needs_positive else 0.0
    # Where task 0 is least, as few others as can hold the rest of the average, each at its limit.
    others = [most] * sharers + [start] * (k - 1 - sharers)
    low_reading = (1.0,) + (nothing,) * sharers + (1.0,) * (k - 1 - sharers)
    high_reading = (nothing,) + (1.0,) * (k - 1)
    low = row.apply(np.array([least, *others]), floor)[0]
    high = row.apply(np.array([most] + [(1 - most) / (k - 1)] * (k - 1)), floor)[0]
    exact = True
    if row.replaces_state and k > 2 and low > floor:
        exact, low = False, floor
    return Reach(spec, readings, low, high, exact, low_reading, high_reading)
