"""A plant of the user's own, from a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError
from gabactl.plants.base import Array, PlantState, split_disturbance

__all__ = ["CallablePlant"]


@dataclass(frozen=True, eq=False)
class CallablePlant:
    """A plant of the user's own.

    Parameters
    ----------
    factory : callable (seed) -> callable (weights) -> grad_norms
        Called once per run; what it returns is called once per step with the weights of the step
        before (1/K at first) and returns K gradient norms. Keep state in the closure.
    n_tasks : int, at least 2
        Number of tasks K.

    Raises
    ------
    InputError
        ``factory`` is not callable, or fewer than two tasks.

    Examples
    --------
    >>> plant = CallablePlant(lambda seed: lambda weights: [5.0 * weights[0], 1.0])
    >>> plant.start().measure().tolist()
    [2.5, 1.0]
    """

    factory: Callable[[int], Callable[[Array], ArrayLike]]
    n_tasks: int = 2

    def __post_init__(self) -> None:
        if not callable(self.factory):
            raise InputError(
                f"plant of type {type(self.factory).__name__}: give a function of the seed that "
                "returns a function from weights to gradient norms"
            )
        check_int("n_tasks", self.n_tasks, 2, "balancing needs at least two losses")

    def start(self, seed: int = 0) -> PlantState:
        """A running copy: the factory called with the seed.

        Parameters
        ----------
        seed : int
            Handed to the factory.
        """
        return _CallableState(self.factory(seed), self.n_tasks)


class _CallableState:
    def __init__(self, respond: Callable[[Array], ArrayLike], n_tasks: int) -> None:
        self._respond = respond
        self._n_tasks = n_tasks
        self._weights = np.full(n_tasks, 1.0 / n_tasks)
        self._norms: Array | None = None

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        if self._norms is None:
            norms = np.asarray(self._respond(self._weights), dtype=np.float64)
            if norms.shape != (self._n_tasks,):
                raise InputError(
                    f"the plant returned norms of shape {norms.shape} for n_tasks = "
                    f"{self._n_tasks}: return one per task"
                )
            self._norms = norms
        d = split_disturbance(log_disturbance, self._n_tasks)
        return np.asarray(self._norms * np.exp(d), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        if self._norms is None:
            self.measure()
        self._weights = np.array(weights, dtype=np.float64)
        self._norms = None
