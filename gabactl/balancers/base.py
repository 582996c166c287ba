"""The one interface of the balancers."""

from __future__ import annotations

import abc
import inspect
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError

__all__ = ["Balancer"]

Array = NDArray[np.float64]
#: What a step is given of each task: its norm (or gradient), its loss; nothing where it was not read.
Reading = Array | None


class Balancer(abc.ABC):
    """A rule from gradient norms and losses to weights, with a memory.

    Subclasses implement :meth:`reset` and :meth:`_step` and set :attr:`name`. The weights a step
    returns are the ones applied in that step, whatever the method learns from it for the next.

    Parameters
    ----------
    n_tasks : int, at least 2
        Number of tasks K.

    Attributes
    ----------
    name : str
        The name it is chosen by.
    needs_losses : bool
        Whether ``step`` must be given losses.
    needs_gradients : bool
        Whether ``step`` takes whole gradients, shape (K, n), in the place of their norms.

    Raises
    ------
    InputError
        Fewer than two tasks.
    """

    name: ClassVar[str] = ""
    needs_losses: ClassVar[bool] = False
    needs_gradients: ClassVar[bool] = False

    def __init__(self, n_tasks: int = 2) -> None:
        if n_tasks < 2:
            raise InputError(f"n_tasks = {n_tasks} is below 2: balancing needs at least two losses")
        self.n_tasks = int(n_tasks)
        self.reset()

    def step(self, grad_norms: ArrayLike | None, losses: ArrayLike | None = None) -> Array:
        """Advance one optimisation step and return the weights applied in it.

        Parameters
        ----------
        grad_norms : array, shape (K,), or None
            Gradient norms; None where nothing was measured.
        losses : array, shape (K,), optional
            Task losses.

        Returns
        -------
        array, shape (K,)
            Applied weights.

        Raises
        ------
        InputError
            Wrong shapes, a negative norm, or losses missing where the method needs them.
        """
        reading = None if grad_norms is None else np.asarray(grad_norms, dtype=np.float64)
        if reading is not None:
            if reading.shape[:1] != (self.n_tasks,) or reading.ndim != 1 + self.needs_gradients:
                what = "gradients (tasks, parameters)" if self.needs_gradients else "norms (tasks,)"
                raise InputError(
                    f"{self.name} got a reading of shape {reading.shape}: give {what} "
                    f"for n_tasks = {self.n_tasks}"
                )
            if not self.needs_gradients and (reading < 0).any():
                raise InputError(
                    f"grad_norms = {reading.tolist()} has a negative norm: norms are >= 0"
                )
        values = None if losses is None else np.asarray(losses, dtype=np.float64)
        if values is None and self.needs_losses:
            raise InputError(f"{self.name} works on losses: pass losses, one per task")
        if values is not None and values.shape != (self.n_tasks,):
            raise InputError(
                f"got losses of shape {values.shape} for n_tasks = {self.n_tasks}: "
                "pass one loss per task"
            )
        return self._step(reading, values)

    @abc.abstractmethod
    def reset(self) -> None:
        """Back to the state before the first step."""

    @abc.abstractmethod
    def _step(self, grad_norms: Reading, losses: Reading) -> Array: ...

    def settings(self) -> Mapping[str, Any]:
        """What it is set to: the arguments that it keeps under their names as plain values."""
        kept = {
            name: getattr(self, name, None) for name in inspect.signature(type(self)).parameters
        }
        return {n: v for n, v in kept.items() if isinstance(v, (bool, int, float, str))}

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.settings().items())
        return f"{type(self).__name__}({inside})"


def number(owner: str, name: str, value: float, *, zero: bool) -> float:
    """A finite setting >= 0 (or > 0), or an error that says so.

    Parameters
    ----------
    owner, name : str
        The balancer and its setting, for the message.
    value : float
        What was given.
    zero : bool
        Whether 0 is allowed.

    Returns
    -------
    float
        The value.

    Raises
    ------
    InputError
        No number, infinite or NaN, negative, or 0 where that is not allowed.

    Examples
    --------
    >>> number("gradnorm", "alpha", 1.5, zero=True)
    1.5
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0 or (value == 0 and not zero):
        raise InputError(
            f"{owner}: {name} = {value!r} is not a number {'>=' if zero else '>'} 0: "
            "give one, or leave it out for the default"
        )
    return float(value)
