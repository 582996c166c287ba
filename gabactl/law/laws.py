"""The proportional laws, one row each: from gradient norms to raw weights, and what is known of it.

A new law is a row here (and, to run compiled, a branch in
:func:`gabactl.loops.kernels.controller.raw_into`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gabactl.law._arrays import is_exact, least, over_total, total

Law = Literal["complement", "inverse"]
Guard = Literal["hold", "none"]

#: What the published law adds to the sum of the norms.
PUBLISHED_EPSILON = 1e-12
_EXACT_EPSILON = Fraction(1, 10**12)

GUARDS: tuple[Guard, ...] = get_args(Guard)

Array = NDArray[Any]


@dataclass(frozen=True)
class LawRow:
    """What a law does, and what follows from it.

    Attributes
    ----------
    note : str
        A word for people, may be empty.
    needs_positive : bool
        Whether a reading with a norm of 0 cannot be used.
    raw : callable (norms, guard) -> raw weights
        On arrays and tensors of shape (..., K); off the simplex where a reading cannot be used.
    raw_of_logs : callable (log norms) -> list of float
        The same from K logarithms, in plain floats: for what runs at every step of a training.
    settled : callable (ratio, K) -> array, shape (..., K)
        Raw weights of the norms (ratio, 1, ..., 1).
    jacobian : callable (norms) -> array, shape (K, K)
        d(raw_i)/d(log g_j).
    sharers : callable K -> int
        How many tasks at least hold the whole average; each holds at most 1/sharers.
    knee : callable (floor, K) -> float
        Imbalance of one task against equal others at which its raw weight is the floor.
    """

    note: str
    needs_positive: bool
    raw: Callable[[Any, Guard], Any]
    raw_of_logs: Callable[[Sequence[float]], list[float]]
    settled: Callable[[Array, int], Array]
    jacobian: Callable[[Array], Array]
    sharers: Callable[[int], int]
    knee: Callable[[float, int], float]


def with_epsilon(x: Any) -> Any:
    """``x`` plus the published 1e-12."""
    return x + (_EXACT_EPSILON if is_exact(x) else PUBLISHED_EPSILON)


def _softmax(logs: Sequence[float]) -> list[float]:
    top = max(logs)
    powers = [math.exp(x - top) for x in logs]
    whole = sum(powers)
    return [p / whole for p in powers]


def _spread(shares: Array) -> Array:
    """d(shares)/d(log norms)."""
    return np.asarray(np.diag(shares) - np.outer(shares, shares))


def _complement(g: Any, guard: Guard) -> Any:
    whole, others = total(g), g.shape[-1] - 1
    if guard == "none":
        whole = with_epsilon(whole)
        return (whole - g) / (others * whole)
    # Divided twice, because (K - 1) S can overflow where S does not.
    return (whole - g) / whole / others


def _complement_settled(ratio: Array, n_tasks: int) -> Array:
    # The others' sum over the whole, task by task: S - g_i would cancel where g_i is nearly all.
    whole = ratio + (n_tasks - 1)
    raw = np.repeat(((ratio + (n_tasks - 2)) / (n_tasks - 1) / whole)[..., None], n_tasks, axis=-1)
    raw[..., 0] = 1.0 / whole
    return raw


def _inverse(g: Any, guard: Guard) -> Any:
    if guard == "none":
        return over_total(1 / with_epsilon(g))
    # Scaled by the smallest norm, so that 1/g cannot overflow.
    return over_total(least(g) / g)


def _inverse_settled(ratio: Array, n_tasks: int) -> Array:
    norms = np.ones((*ratio.shape, n_tasks))
    norms[..., 0] = ratio
    return np.asarray(_inverse(norms, "hold"), dtype=np.float64)


LAWS: dict[Law, LawRow] = {
    "complement": LawRow(
        note="published",
        needs_positive=False,
        raw=_complement,
        raw_of_logs=lambda logs: [(1.0 - s) / (len(logs) - 1) for s in _softmax(logs)],
        settled=_complement_settled,
        jacobian=lambda g: -_spread(g / g.sum()) / (len(g) - 1),
        # e_i <= 1/(K-1); with two tasks that limit is 1 and never binds.
        sharers=lambda k: k - 1,
        knee=lambda m, k: 1.0 / m - (k - 1),
    ),
    "inverse": LawRow(
        note="",
        needs_positive=True,
        raw=_inverse,
        raw_of_logs=lambda logs: _softmax([-x for x in logs]),
        settled=_inverse_settled,
        jacobian=lambda g: -_spread(_inverse(g, "hold")),
        sharers=lambda k: 1,
        knee=lambda m, k: (1.0 - m) / ((k - 1) * m),
    ),
}
