"""Back end for floating-point statements: two sound models of rounding to nearest.

* Relative error: fl(x) = x (1 + d) with abs(d) <= u, the unit roundoff (IEEE 754, no underflow).
* Monotone: x <= p implies fl(x) <= p for every representable p, and the same from below. It gives
  bounds that hold to the last bit, and needs no solver: the extreme run of a monotone recursion
  can be computed in the float type itself (:func:`highest`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

#: Unit roundoff u of rounding to nearest: half the machine epsilon.
UNIT_ROUNDOFF = {"float32": Fraction(1, 2**24), "float64": Fraction(1, 2**53)}


def ulp(x: float, dtype: str = "float64") -> Fraction:
    """Spacing of the floats at a number, exactly.

    Parameters
    ----------
    x : float
        Finite; rounded to the type.
    dtype : {"float64", "float32", "float16"}
        Which floats.

    Examples
    --------
    >>> ulp(1.0) == Fraction(1, 2**52)
    True
    """
    return Fraction(float(np.spacing(np.dtype(dtype).type(x))))


def monotone(exact: Any, rounded: Any, representable: Sequence[Any]) -> Any:
    """Solver constraint: ``rounded`` = fl(``exact``) for a rounding that is monotone and leaves
    every ``representable`` number alone.

    Parameters
    ----------
    exact, rounded : z3 real terms
        A number, and what it is rounded to.
    representable : sequence of z3 terms or numbers
        Those that rounding keeps, such as the ends of a range.

    Returns
    -------
    z3 Boolean

    Examples
    --------
    >>> import z3
    >>> x, r = z3.Reals("x r")
    >>> z3.prove(z3.Implies(z3.And(x <= 1, monotone(x, r, [1])), r <= 1))
    proved
    """
    import z3

    return z3.And(
        *[
            z3.And(z3.Implies(exact <= p, rounded <= p), z3.Implies(exact >= p, rounded >= p))
            for p in representable
        ]
    )


def highest(step: Callable[[Any], Any], start: Any, limit: int = 10_000) -> Any | None:
    """The highest value a monotone recursion of floats reaches from ``start`` or below.

    ``step`` must not decrease in its argument (compositions of rounded operations do not); then
    no run that starts at or below ``start`` and uses no larger inputs goes above the result.

    Parameters
    ----------
    step : callable
        One step in the float type, with its other inputs at their highest.
    start : float scalar
        Where it starts.
    limit : int
        Give up (None) after so many steps.

    Returns
    -------
    float scalar or None
        Of the float type; None where the recursion has not come to rest.

    Examples
    --------
    >>> highest(lambda e: 0.5 * e + 0.5, 1.0)
    1.0
    """
    top, here = start, start
    for _ in range(limit):
        after = step(here)
        top = max(top, after)
        if after <= here:
            return top
        here = after
    return None


def enclose(
    expression: Callable[..., Any], *values: Fraction, digits: int = 40
) -> tuple[Fraction, Fraction]:
    """Exact bounds of a real expression, by outward-rounded interval arithmetic.

    Parameters
    ----------
    expression : callable
        Takes the interval context (``iv.log``, ``iv.cos``, ``iv.sqrt``, ...) and the values as
        intervals.
    *values : Fraction
        Exact arguments.
    digits : int
        Working precision.

    Returns
    -------
    (low, high) : tuple of Fraction

    Examples
    --------
    >>> low, high = enclose(lambda iv, beta: -1 / iv.log(beta), Fraction(99, 100))
    >>> round(float(low), 4), high - low < Fraction(1, 10**30)
    (99.4992, True)
    """
    from mpmath import iv

    before = iv.dps
    iv.dps = digits
    try:
        arguments = [iv.mpf(v.numerator) / iv.mpf(v.denominator) for v in values]
        result = iv.mpf(expression(iv, *arguments))
        return _exact(result.a), _exact(result.b)
    finally:
        iv.dps = before


def _exact(endpoint: Any) -> Fraction:
    sign, mantissa, exponent, _ = (
        endpoint._mpi_[0] if hasattr(endpoint, "_mpi_") else endpoint._mpf_
    )
    number = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return -number if sign else number
