"""What every plant is: a frozen description that can be started, and what the starting shares."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError

__all__ = ["Plant"]

Array = NDArray[np.float64]

# A weight of exactly 0 has no logarithm; the smallest normal float stands in for it.
_TINY = float(np.finfo(np.float64).tiny)


class PlantState(Protocol):
    """A running plant."""

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        """Gradient norms of this step, shape (K,).

        Parameters
        ----------
        log_disturbance : float or array, shape (K,), optional
            Added to the natural logarithm of the norms. With two tasks a single number is a
            disturbance of the log ratio, split evenly.
        """

    def apply(self, weights: ArrayLike) -> None:
        """Take the weights of this step, and advance by one step.

        Parameters
        ----------
        weights : array_like, shape (K,)
            Applied weights, not negative.
        """


@runtime_checkable
class Plant(Protocol):
    """Anything with a number of tasks that can be started."""

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""

    def start(self, seed: int = 0) -> PlantState:
        """A fresh running copy.

        Parameters
        ----------
        seed : int
            At least 0; matters only for plants with noise.
        """


def split_disturbance(log_disturbance: ArrayLike | None, n_tasks: int) -> Array:
    """A log disturbance per task, from what :meth:`PlantState.measure` accepts.

    Parameters
    ----------
    log_disturbance : float or array_like, shape (K,), or None
        Natural logarithm of a factor on the norms; None is none. For two tasks a single number is a
        disturbance of the log ratio, split evenly.
    n_tasks : int
        Number of tasks K.

    Returns
    -------
    array, shape (K,)

    Raises
    ------
    InputError
        Another shape.

    Examples
    --------
    >>> split_disturbance(2.0, 2).tolist()
    [1.0, -1.0]
    """
    if log_disturbance is None:
        return np.zeros(n_tasks)
    d = np.asarray(log_disturbance, dtype=np.float64)
    if d.ndim == 0 and n_tasks == 2:
        return np.array([0.5, -0.5]) * d
    if d.shape != (n_tasks,):
        raise InputError(
            f"log_disturbance of shape {d.shape} for n_tasks = {n_tasks}: "
            "give one number per task (or, for two tasks, one number for the log ratio)"
        )
    return d


def logits(weights: ArrayLike, n_tasks: int) -> Array:
    """``log w_i - mean_j log w_j``.

    Parameters
    ----------
    weights : array_like, shape (K,)
        Not negative; 0 counts as the smallest normal float.
    n_tasks : int
        Number of tasks K.

    Returns
    -------
    array, shape (K,)

    Raises
    ------
    InputError
        Another shape.

    Examples
    --------
    >>> logits([0.5, 0.5], 2).tolist()
    [0.0, 0.0]
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n_tasks,):
        raise InputError(f"weights of shape {w.shape} for n_tasks = {n_tasks}: give one per task")
    logs = np.log(np.maximum(w, _TINY))
    return np.asarray(logs - logs.mean(), dtype=np.float64)
