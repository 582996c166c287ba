"""The log-ratio plant: the norms answer to the logits of the weights with a gain, a lag, a delay."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gabactl.base.checks import check_int, check_real
from gabactl.base.errors import InputError, packages_for
from gabactl.plants.base import (
    Array,
    PlantState,
    logits,
    split_disturbance,
)

__all__ = ["LogRatio"]


@dataclass(frozen=True)
class LogRatio:
    """First-order answer of the log norms to the log weights.

    log g_i = d_i - rho lag(log w_i - mean_j log w_j), which for two tasks is y = P(z) u + d with
    y = log(g_1/g_2), u = log(w_1/w_2) and P(z) = -rho (1-a) z^-(1+delay)/(1 - a z^-1).

    Parameters
    ----------
    rho : float
        DC feedback. Positive: weight trains its task's gradient down, which with GABA is positive
        feedback (rho = 1 is neutral, above 1 unstable). Negative: negative feedback; -0.04 to -0.3
        is what training of a small network on C-MAPSS showed.
    a : float in (-1, 1)
        Pole of the lag, per step. 0 answers at once.
    delay : int, at least 0
        Extra steps beyond the one built in.
    n_tasks : int, at least 2
        Number of tasks K.

    Raises
    ------
    InputError
        A value out of its range.

    Examples
    --------
    >>> plant = LogRatio(rho=0.5)
    >>> state = plant.start()
    >>> state.apply([0.2, 0.8])
    >>> (state.measure()[0] / state.measure()[1]).round(12)  # (0.2/0.8)^-0.5
    np.float64(2.0)
    """

    rho: float
    a: float = 0.0
    delay: int = 0
    n_tasks: int = 2

    def __post_init__(self) -> None:
        check_real("rho", self.rho, "give the DC feedback, such as 0.5 or -0.1")
        check_real("a", self.a, "give the pole of the lag, such as 0.9")
        if not -1.0 < self.a < 1.0:
            raise InputError(f"a = {self.a!r} is not in (-1, 1): choose a stable lag, such as 0.9")
        check_int("delay", self.delay, 0, "give extra steps, such as 1")
        check_int("n_tasks", self.n_tasks, 2, "balancing needs at least two losses")

    def start(self, seed: int = 0) -> PlantState:
        """A running copy that has seen uniform weights so far.

        Parameters
        ----------
        seed : int
            Does not count: this plant has no noise.

        Examples
        --------
        >>> LogRatio(rho=0.5).start().measure(2.0).round(4).tolist()
        [2.7183, 0.3679]
        """
        return _LogRatioState(self)

    def to_control(self) -> Any:
        """P(z) as a ``control.TransferFunction`` with dt = 1 (per task, for K > 2).

        Returns
        -------
        control.TransferFunction
            From u to y, or from the log weight of a task less their mean to its log norm.

        Examples
        --------
        >>> float(LogRatio(rho=0.5, a=0.9, delay=2).to_control().dcgain())
        -0.5...
        """
        with packages_for("a python-control system"):
            import control

        gain = -self.rho * (1.0 - self.a)
        return control.TransferFunction([gain], [1.0, -self.a] + [0.0] * self.delay, 1)


class _LogRatioState:
    def __init__(self, plant: LogRatio) -> None:
        self._plant = plant
        self._lag = np.zeros(plant.n_tasks)
        self._queue: deque[Array] = deque(np.zeros(plant.n_tasks) for _ in range(plant.delay))

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        d = split_disturbance(log_disturbance, self._plant.n_tasks)
        return np.asarray(np.exp(d - self._plant.rho * self._lag), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        a = self._plant.a
        self._queue.append(logits(weights, self._plant.n_tasks))
        self._lag = a * self._lag + (1.0 - a) * self._queue.popleft()
