"""The stateful NumPy reference, which every other implementation is tested against.

Source of the law: GABA, as stated in "Gradient-Aware Multi-Task Learning for Predictive
Maintenance", sections 17.2 and 17.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, raw_weights, saturate, usable

__all__ = ["Controller"]

Array = NDArray[Any]


class Controller:
    """GABA in NumPy: the stateful reference the other implementations are tested against.

    Parameters
    ----------
    spec : GabaSpec, optional
        Settings; the default is the published setting with ``guard="hold"``.

    Attributes
    ----------
    ema_weights : array, shape (K,)
        Stored average, 1/K at first.
    step_count : int
        Steps taken, warm-up included.
    last_grad_norms, last_raw_weights : array, shape (K,), or None
        The last reading, and its raw weights (NaN where the guard held).

    Examples
    --------
    The five steps of the published check (section 17.4):

    >>> controller = Controller(GabaSpec(warmup=2))
    >>> for losses, norms in [((5000, 1.10), None), ((4900, 1.08), None),
    ...                       ((4800, 1.06), (250, 0.20)), ((4700, 1.04), (300, 0.22)),
    ...                       ((4600, 1.02), (350, 0.24))]:
    ...     total, weights = controller.step(losses, norms)
    >>> controller.ema_weights.round(6).tolist()
    [0.485171, 0.514829]
    """

    def __init__(self, spec: GabaSpec | None = None) -> None:
        self.spec = GabaSpec() if spec is None else spec
        self.reset()

    def reset(self) -> None:
        """Back to step 0 and weights 1/K.

        Examples
        --------
        >>> controller = Controller(GabaSpec(warmup=0))
        >>> _ = controller.step([1.0, 1.0], [9.0, 1.0])
        >>> controller.reset()
        >>> controller.ema_weights.tolist()
        [0.5, 0.5]
        """
        k = self.spec.n_tasks
        self.ema_weights: Array = np.full(k, 1.0 / k)
        self.step_count: int = 0
        self.last_grad_norms: Array | None = None
        self.last_raw_weights: Array | None = None

    @property
    def will_measure(self) -> bool:
        """Whether the next step takes a reading (past the warm-up, and on the interval)."""
        return self.spec.measures_at(self.step_count + 1)

    @property
    def weights(self) -> Array:
        """Weights after the last step that had a reading to act on, shape (K,)."""
        if self.step_count <= self.spec.warmup:
            return np.full(self.spec.n_tasks, 1.0 / self.spec.n_tasks)
        return saturate(self.ema_weights, self.spec.floor, self.spec.floor_mode)

    def step(
        self, losses: Sequence[float] | Array, grad_norms: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """One optimisation step.

        Parameters
        ----------
        losses : sequence of K floats
            Task losses.
        grad_norms : array, shape (K,), optional
            Gradient norms. Ignored during warm-up and between readings. At a reading, None gives
            uniform weights and leaves the state alone, as published without shared parameters.

        Returns
        -------
        total : float
            Sum of w_i * loss_i, accumulated from 0.0 in task order.
        weights : array, shape (K,)
            Applied weights; they sum to 1.

        Raises
        ------
        InputError
            Wrong number of losses or norms, or a negative norm. The state has not moved then.

        Examples
        --------
        >>> total, weights = Controller(GabaSpec(warmup=0, beta=0)).step([2.0, 2.0], [3.0, 1.0])
        >>> total, weights.tolist()
        (2.0, [0.25, 0.75])
        """
        k = self.spec.n_tasks
        if len(losses) != k:
            raise InputError(f"got {len(losses)} losses for n_tasks = {k}: pass one loss per task")
        weights = self.observe(grad_norms)
        total = 0.0
        for weight, loss in zip(weights, losses, strict=True):
            total += float(weight) * float(loss)
        return total, weights

    def observe(self, grad_norms: ArrayLike | None) -> Array:
        """Advance one step on a reading alone, and return the applied weights, shape (K,).

        As :meth:`step`, for callers that have no losses (replays, simulations).

        Parameters
        ----------
        grad_norms : array_like, shape (K,), or None
            As for :meth:`step`.

        Returns
        -------
        array, shape (K,)
            Applied weights; they sum to 1.

        Raises
        ------
        InputError
            Wrong number of norms, or a negative norm. The state has not moved then.

        Examples
        --------
        >>> Controller(GabaSpec(warmup=0, beta=0)).observe([3.0, 1.0]).tolist()
        [0.25, 0.75]
        """
        spec = self.spec
        reading = None if grad_norms is None else self._checked(grad_norms)
        self.step_count += 1
        if self.step_count <= spec.warmup:
            return np.full(spec.n_tasks, 1.0 / spec.n_tasks)
        if spec.measures_at(self.step_count):
            if reading is None:
                return np.full(spec.n_tasks, 1.0 / spec.n_tasks)
            self._take(reading)
        return saturate(self.ema_weights, spec.floor, spec.floor_mode)

    def _checked(self, grad_norms: ArrayLike) -> Array:
        reading = np.asarray(grad_norms, dtype=np.float64)
        if reading.shape != (self.spec.n_tasks,):
            raise InputError(
                f"got grad_norms of shape {reading.shape} for n_tasks = {self.spec.n_tasks}: "
                "pass one gradient norm per task"
            )
        if (reading < 0).any():
            raise InputError(f"grad_norms = {reading.tolist()} has a negative norm: norms are >= 0")
        return reading

    def _take(self, reading: Array) -> None:
        spec = self.spec
        raw = raw_weights(reading, spec.law, spec.guard)
        self.last_grad_norms, self.last_raw_weights = reading, raw
        if spec.guard == "hold" and not usable(reading, spec.law):
            return
        self.ema_weights = follow(
            self.ema_weights, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode
        )
