"""A python-control system as a plant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gabactl.base.errors import InputError, packages_for
from gabactl.plants.base import Array, PlantState, logits, split_disturbance

__all__ = ["LtiPlant"]


@dataclass(frozen=True, eq=False)
class LtiPlant:
    """A python-control discrete system from u = log(w_1/w_2) to y = log(g_1/g_2).

    Parameters
    ----------
    system : control.TransferFunction or control.StateSpace
        One input, one output, discrete with dt = 1 (or True), strictly proper: the weights of a
        step cannot change the norms they were computed from.

    Attributes
    ----------
    n_tasks : int
        2.

    Raises
    ------
    InputError
        Another kind of system than stated.

    Examples
    --------
    >>> import control
    >>> state = LtiPlant(control.TransferFunction([-0.5], [1, 0], 1)).start()
    >>> state.apply([0.2, 0.8])
    >>> (state.measure()[0] / state.measure()[1]).round(12)  # (0.2/0.8)^-0.5
    np.float64(2.0)
    """

    system: Any
    n_tasks: int = field(default=2, init=False)
    _matrices: tuple[Array, Array, Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        with packages_for("a python-control system"):
            import control

        system = self.system
        if not isinstance(system, (control.TransferFunction, control.StateSpace)):
            raise InputError(
                f"plant of type {type(system).__name__}: give a control.TransferFunction or "
                "control.StateSpace"
            )
        if system.ninputs != 1 or system.noutputs != 1:
            raise InputError(
                f"plant with {system.ninputs} inputs and {system.noutputs} outputs: give one of "
                "each, from log(w_1/w_2) to log(g_1/g_2)"
            )
        if system.dt is not True and system.dt != 1:
            raise InputError(
                f"plant with dt = {system.dt!r}: time is counted in optimisation steps; give a "
                "discrete system with dt = 1"
            )
        a, b, c, d = _realisation(system)
        if np.any(d != 0):
            raise InputError(
                f"plant with direct feed-through {float(d.item()):g}: the weights of a step cannot "
                "change the norms they came from; multiply by 1/z"
            )
        object.__setattr__(self, "_matrices", (a, b[:, 0], c[0]))

    def start(self, seed: int = 0) -> PlantState:
        """A running copy at rest.

        Parameters
        ----------
        seed : int
            Does not count: this plant has no noise.
        """
        return _LtiState(*self._matrices)

    def to_control(self) -> Any:
        """The system itself."""
        return self.system


def _realisation(system: Any) -> tuple[Array, Array, Array, Array]:
    """State-space matrices; a transfer function in controller form, without python-control's slycot."""
    if hasattr(system, "A"):
        return tuple(np.asarray(getattr(system, m), dtype=np.float64) for m in "ABCD")  # type: ignore[return-value]
    from scipy import signal

    numerator = np.asarray(system.num[0][0], dtype=np.float64)
    denominator = np.asarray(system.den[0][0], dtype=np.float64)
    if np.trim_zeros(numerator, "f").size > np.trim_zeros(denominator, "f").size:
        raise InputError("plant with more zeros than poles: it would answer before it is asked")
    a, b, c, d = signal.tf2ss(numerator, denominator)
    return a, b, c, d


class _LtiState:
    def __init__(self, a: Array, b: Array, c: Array) -> None:
        self._a, self._b, self._c = a, b, c
        self._x = np.zeros(len(b))

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        half = 0.5 * float(self._c @ self._x) if self._x.size else 0.0
        d = split_disturbance(log_disturbance, 2)
        return np.asarray(np.exp(d + np.array([half, -half])), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        u = 2.0 * logits(weights, 2)[0]
        self._x = self._a @ self._x + self._b * u
