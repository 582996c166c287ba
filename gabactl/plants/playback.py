"""Recorded norms played back: a plant that does not answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gabactl.base.errors import InputError
from gabactl.plants.base import Array, PlantState, split_disturbance

__all__ = ["Playback"]


@dataclass(frozen=True, eq=False)
class Playback:
    """Recorded gradient norms played back; they do not answer to the weights.

    Parameters
    ----------
    grad_norms : array, shape (steps, K)
        One row per step; NaN where nothing was recorded.

    Raises
    ------
    InputError
        Another shape, fewer than two tasks, or a negative norm.

    Examples
    --------
    >>> state = Playback([[3.0, 1.0], [5.0, 1.0]]).start()
    >>> state.measure().tolist(), state.apply([0.5, 0.5]), state.measure().tolist()
    ([3.0, 1.0], None, [5.0, 1.0])
    """

    grad_norms: Any

    def __post_init__(self) -> None:
        try:
            norms = np.array(self.grad_norms, dtype=np.float64)
        except (TypeError, ValueError):
            norms = np.empty(0)
        if norms.ndim != 2 or norms.shape[0] < 1 or norms.shape[1] < 2:
            raise InputError(
                f"grad_norms of shape {norms.shape}: give an array (steps, tasks) with two tasks or more"
            )
        if (norms < 0).any():
            raise InputError("grad_norms has a negative norm: norms are >= 0")
        norms.setflags(write=False)
        object.__setattr__(self, "grad_norms", norms)

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return int(self.grad_norms.shape[1])

    @property
    def n_steps(self) -> int:
        """Number of recorded steps."""
        return int(self.grad_norms.shape[0])

    @classmethod
    def from_trace(cls, path: Any) -> Playback:
        """The gradient norms of a trace file, at every step from its first to its last.

        Parameters
        ----------
        path : path
            Of any format that :func:`gabactl.traces.read_trace` takes.

        Raises
        ------
        InputError
            It cannot be read.
        """
        from gabactl.traces import read_trace

        return cls(read_trace(path).every_step().grad_norms)

    def start(self, seed: int = 0) -> PlantState:
        """A running copy, at the first row.

        Parameters
        ----------
        seed : int
            Does not count: the record is what it is.

        Examples
        --------
        >>> Playback([[3.0, 1.0]]).start().measure().tolist()
        [3.0, 1.0]
        """
        return _PlaybackState(self)


class _PlaybackState:
    def __init__(self, plant: Playback) -> None:
        self._norms = plant.grad_norms
        self._row = 0

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        if self._row >= len(self._norms):
            raise InputError(
                f"the replay has {len(self._norms)} steps and step {self._row + 1} was asked for: "
                "simulate fewer steps"
            )
        d = split_disturbance(log_disturbance, self._norms.shape[1])
        return np.asarray(self._norms[self._row] * np.exp(d), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        self._row += 1
