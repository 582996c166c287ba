"""How good a prognosis is: root mean square error and the PHM08 score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError


def rmse(predicted: ArrayLike, true: ArrayLike) -> float:
    """Root mean square error, in the units of the input (cycles).

    Parameters
    ----------
    predicted, true : arrays, shape (engines,)
        Remaining useful lives.

    Returns
    -------
    float
        At least 0.

    Examples
    --------
    >>> rmse([3.0, 5.0], [0.0, 1.0])
    3.5355339059327378
    """
    d = _differences(predicted, true)
    return float(np.sqrt(np.mean(d * d)))


def nasa_score(predicted: ArrayLike, true: ArrayLike) -> float:
    """The asymmetric score of the PHM08 challenge: late predictions cost more than early ones.

    With d = predicted - true: the sum of exp(-d/13) - 1 where d < 0 and exp(d/10) - 1 where
    d >= 0. Lower is better, 0 is perfect.

    Parameters
    ----------
    predicted, true : arrays, shape (engines,)
        Remaining useful lives, in cycles.

    Returns
    -------
    float
        May be infinite: an error of 7,000 cycles overflows.

    Notes
    -----
    Saxena et al., "Damage Propagation Modeling for Aircraft Engine Run-to-Failure Simulation",
    PHM08, equation (11).

    Examples
    --------
    >>> round(nasa_score([10.0, 0.0], [0.0, 13.0]), 6)
    3.436564
    """
    d = _differences(predicted, true)
    with np.errstate(over="ignore"):
        return float(np.expm1(np.where(d < 0, -d / 13.0, d / 10.0)).sum())


def _differences(predicted: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InputError(
            f"predicted has shape {a.shape} and true {b.shape}: pass two lists of the same length"
        )
    return a - b
