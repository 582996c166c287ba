"""Certificates checked in rational arithmetic: positive definiteness and Lyapunov functions.

Exact elimination on :class:`fractions.Fraction`; nothing here rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError

Matrix = list[list[Fraction]]


def is_positive_definite(matrix: Sequence[Sequence[Fraction]] | NDArray[Any]) -> bool:
    """Whether a symmetric rational matrix is positive definite, by its exact pivots.

    Parameters
    ----------
    matrix : sequence of rows
        Symmetric.

    Raises
    ------
    InputError
        A matrix that is not symmetric.

    Examples
    --------
    >>> is_positive_definite([[Fraction(2), Fraction(1)], [Fraction(1), Fraction(1)]])
    True
    """
    left = _exact(matrix)
    if (left != left.T).any():
        raise InputError("the matrix is not symmetric: pass the symmetric part")
    while len(left):
        if left[0, 0] <= 0:
            return False
        left = left[1:, 1:] - np.outer(left[1:, 0], left[0, 1:]) / left[0, 0]
    return True


def decreases(
    dynamics: Sequence[Sequence[Fraction]],
    certificate: Sequence[Sequence[Fraction]],
    rate: Fraction = Fraction(1),
) -> bool:
    """Whether V(x) = x'Px is positive and V(Ax) < rate^2 V(x) for every x != 0.

    Parameters
    ----------
    dynamics : sequence of rows
        A of x+ = A x.
    certificate : sequence of rows
        P, symmetric.
    rate : Fraction
        Contraction rate per step to check.

    Examples
    --------
    >>> decreases([[Fraction(1, 2)]], [[Fraction(1)]], Fraction(3, 5))
    True
    """
    a, p = _exact(dynamics), _exact(certificate)
    gap = rate * rate * p - a.T @ p @ a
    return is_positive_definite(p) and is_positive_definite(gap)


def lyapunov(dynamics: Sequence[Sequence[Fraction]], rate: Fraction = Fraction(1)) -> Matrix | None:
    """P with rate^2 P - A'PA = I, exactly.

    The solution is positive definite just when every eigenvalue of A is below ``rate`` in
    modulus; :func:`decreases` checks it.

    Parameters
    ----------
    dynamics : n rows of n Fractions
        A.
    rate : Fraction, positive
        What the eigenvalues are held against; 1 asks for stability.

    Returns
    -------
    n rows of n Fractions, or None
        P; None where the equation has no unique solution.

    Examples
    --------
    >>> lyapunov([[Fraction(1, 2)]])
    [[Fraction(4, 3)]]
    """
    import sympy
    from sympy.matrices.exceptions import NonInvertibleMatrixError

    a = _exact(dynamics)
    n = len(a)
    system = rate * rate * np.eye(n * n, dtype=object) - np.kron(a.T, a.T)
    try:
        found = sympy.Matrix(system).LUsolve(sympy.eye(n).reshape(n * n, 1))
    except NonInvertibleMatrixError:
        return None
    return [[Fraction(str(x)) for x in row] for row in found.reshape(n, n).tolist()]


def _exact(matrix: Sequence[Sequence[Any]] | NDArray[Any]) -> NDArray[Any]:
    return np.array([[Fraction(x) for x in row] for row in matrix], dtype=object)
