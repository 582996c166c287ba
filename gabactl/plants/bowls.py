"""Gradient descent under quadratic losses: a plant with real parameters and gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gabactl.base.checks import check_real
from gabactl.base.errors import InputError
from gabactl.plants.base import Array, PlantState, split_disturbance

__all__ = ["QuadraticBowls"]


@dataclass(frozen=True)
class QuadraticBowls:
    """Gradient descent on shared parameters under K quadratic losses.

    L_i = 1/2 sum_j h_ij (theta_j - c_ij)^2, theta <- theta - step_size sum_i w_i (grad L_i + noise).
    The norm measured is that of the noisy gradient, as in training, so that its square is
    |grad L_i|^2 + noise_i^2 in the mean. A log disturbance scales a loss, hence both its norm and
    its pull.

    Without noise, two bowls end where w_1 grad L_1 + w_2 grad L_2 = 0, which holds w_1 g_1 = w_2 g_2
    for every w: the loop is then exactly neutral.

    Parameters
    ----------
    curvatures : sequence of K floats > 0, or of K sequences of n
        h_i (or its diagonal).
    minimisers : sequence of K floats, or of K sequences of n
        c_i; all of the same length n.
    noise : float or sequence of K floats, at least 0
        Root mean square norm of each task's gradient noise.
    step_size : float > 0
        Learning rate; stable below 2/max h.
    start_at : sequence of n floats, optional
        First theta; default the mean of the minimisers.

    Raises
    ------
    InputError
        Shapes that do not fit, fewer than two tasks, or values out of range.

    Examples
    --------
    >>> state = QuadraticBowls(curvatures=(500, 1), minimisers=(0, 1), step_size=1e-3).start()
    >>> state.measure().tolist()
    [250.0, 0.5]
    """

    curvatures: Sequence[Any]
    minimisers: Sequence[Any]
    noise: Any = 0.0
    step_size: float = 1e-3
    start_at: Sequence[float] | None = None
    _arrays: tuple[Array, Array, Array, Array] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        centres = _matrix("minimisers", self.minimisers)
        k, n = centres.shape
        if k < 2:
            raise InputError(f"minimisers of {k} task(s): balancing needs at least two losses")
        h = _matrix("curvatures", self.curvatures)
        if h.shape not in {(k, 1), (k, n)} or not (h > 0).all():
            raise InputError(
                f"curvatures of shape {h.shape} for minimisers of shape {(k, n)}: "
                "give one positive number per task, or one per task and parameter"
            )
        noise = np.asarray(self.noise, dtype=np.float64)
        if noise.shape not in {(), (k,)} or not (np.isfinite(noise) & (noise >= 0)).all():
            raise InputError(f"noise = {self.noise!r}: give one number >= 0, or one per task")
        check_real("step_size", self.step_size, "give a learning rate, such as 1e-3")
        if self.step_size <= 0:
            raise InputError(f"step_size = {self.step_size!r} is not positive: such as 1e-3")
        first = centres.mean(axis=0)
        if self.start_at is not None:
            first = np.asarray(self.start_at, dtype=np.float64)
            if first.shape != (n,) or not np.isfinite(first).all():
                raise InputError(f"start_at = {self.start_at!r}: give {n} finite number(s)")
        arrays = (np.broadcast_to(h, (k, n)), centres, np.broadcast_to(noise, (k,)), first)
        object.__setattr__(self, "_arrays", arrays)

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return len(self._arrays[1])

    def start(self, seed: int = 0) -> PlantState:
        """A running copy.

        Parameters
        ----------
        seed : int
            At least 0; draws the gradient noise.

        Examples
        --------
        >>> plant = QuadraticBowls((1, 1), (0, 1), noise=0.1)
        >>> bool((plant.start(1).measure() == plant.start(1).measure()).all())
        True
        """
        return _BowlsState(self, seed)


class _BowlsState:
    def __init__(self, plant: QuadraticBowls, seed: int) -> None:
        self._curvatures, self._centres, self._noise, self.theta = plant._arrays
        self._step_size = plant.step_size
        self._random = np.random.default_rng(seed)
        self._gradients: Array | None = None

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        k, n = self._centres.shape
        gradients = self._curvatures * (self.theta - self._centres)
        if self._noise.any():
            draws = self._random.standard_normal((k, n)) / math.sqrt(n)
            gradients = gradients + self._noise[:, None] * draws
        gradients = gradients * np.exp(split_disturbance(log_disturbance, k))[:, None]
        self._gradients = gradients
        return np.asarray(np.linalg.norm(gradients, axis=1), dtype=np.float64)

    @property
    def gradients(self) -> Array:
        """Task gradients of this step, shape (K, n), for balancers that act on directions."""
        if self._gradients is None:
            self.measure()
        assert self._gradients is not None
        return self._gradients

    @property
    def losses(self) -> Array:
        """Task losses at the present parameters, shape (K,), without the log disturbance."""
        away = self.theta - self._centres
        return np.asarray(0.5 * (self._curvatures * away**2).sum(axis=1), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        if self._gradients is None:
            self.measure()
        assert self._gradients is not None
        w = np.asarray(weights, dtype=np.float64)
        self.theta = self.theta - self._step_size * (w @ self._gradients)
        self._gradients = None


def _matrix(name: str, rows: Sequence[Any]) -> Array:
    try:
        values = np.array([np.atleast_1d(np.asarray(row, dtype=np.float64)) for row in rows])
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(
            f"{name} = {rows!r}: give one finite number (or equally long list of them) per task"
        )
    return values
