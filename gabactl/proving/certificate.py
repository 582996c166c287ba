"""Certificates checked in rational arithmetic: positive definiteness and Lyapunov functions.

Exact elimination on :class:`fractions.Fraction`; nothing here rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from gabactl.base.errors import InputError

__all__ = ["Matrix", "decreases", "is_positive_definite", "lyapunov"]

Matrix = list[list[Fraction]]


def is_positive_definite(matrix: Sequence[Sequence[Fraction]]) -> bool:
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
    rows = [[Fraction(x) for x in row] for row in matrix]
    n = len(rows)
    if any(rows[i][j] != rows[j][i] for i in range(n) for j in range(i)):
        raise InputError("the matrix is not symmetric: pass the symmetric part")
    for k in range(n):
        if rows[k][k] <= 0:
            return False
        for i in range(k + 1, n):
            ratio = rows[i][k] / rows[k][k]
            rows[i] = [a - ratio * b for a, b in zip(rows[i], rows[k], strict=True)]
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
    a, p = _copy(dynamics), _copy(certificate)
    after = _times(_transposed(a), _times(p, a))
    n = len(p)
    gap = [[rate * rate * p[i][j] - after[i][j] for j in range(n)] for i in range(n)]
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
    a = _copy(dynamics)
    n = len(a)
    pairs = [(i, j) for i in range(n) for j in range(n)]
    system = [
        [
            *(
                (rate * rate if (i, j) == (k, m) else Fraction(0)) - a[k][i] * a[m][j]
                for k, m in pairs
            ),
            Fraction(int(i == j)),
        ]
        for i, j in pairs
    ]
    solution = _solve(system)
    if solution is None:
        return None
    return [[solution[i * n + j] for j in range(n)] for i in range(n)]


def _solve(system: Matrix) -> list[Fraction] | None:
    rows = [row[:] for row in system]
    n = len(rows)
    for k in range(n):
        pivot = next((i for i in range(k, n) if rows[i][k] != 0), None)
        if pivot is None:
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(n):
            if i != k and rows[i][k] != 0:
                ratio = rows[i][k]
                rows[i] = [x - ratio * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def _copy(matrix: Sequence[Sequence[Fraction]]) -> Matrix:
    return [[Fraction(x) for x in row] for row in matrix]


def _transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def _times(left: Matrix, right: Matrix) -> Matrix:
    columns = _transposed(right)
    return [
        [sum((x * y for x, y in zip(row, column, strict=True)), Fraction(0)) for column in columns]
        for row in left
    ]
