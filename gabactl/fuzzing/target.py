"""What is fuzzed: a target starts fresh runs of a weighting rule, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gabactl.fuzzing.cases import Case
from gabactl.law.spec import GabaSpec

__all__ = ["Target"]

Array = NDArray[np.float64]


class RuleRun(Protocol):
    """A weighting rule in use: the state of one training run. Only :meth:`step` is a must."""

    def step(self, grad_norms: Array, losses: Array) -> Array:
        """One step.

        Parameters
        ----------
        grad_norms : array, shape (K,)
            Gradient norms, as read; NaN and infinities occur.
        losses : array, shape (K,)
            Task losses.

        Returns
        -------
        array, shape (K,)
            Applied weights.
        """
        ...

    def average(self) -> Array | None:
        """The stored average, shape (K,), where the rule has one."""
        return None

    def save(self) -> Any:
        """The checkpoint; raise NotImplementedError where the rule has none."""
        raise NotImplementedError

    def load(self, state: Any) -> None:
        """Continue from a checkpoint, in a run just started.

        Parameters
        ----------
        state
            What :meth:`save` of another run gave.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Target:
    """A weighting rule under test.

    Attributes
    ----------
    name : str
        For the result and the corpus.
    n_tasks : int
        Number of tasks K.
    start : callable
        ``start(n_tasks)`` gives a fresh :class:`RuleRun`.
    spec : GabaSpec or None
        Settings of the GABA controller this claims to be, if it claims to be one.
    resolution : float
        Spacing of its numbers at 1 (``2**-52`` in double precision).
    largest, smallest : float
        Norms its sensor can read: beyond ``largest`` squares overflow, below ``smallest`` they
        vanish.
    exact : bool
        Whether it claims to equal :class:`gabactl.Controller` to the last bit.
    fixed_tasks : bool
        Whether it exists for this number of tasks only.
    uses_losses : bool
        Whether the weights depend on the losses' values.
    total : float or None
        What the weights sum to; None where the rule does not say.
    lanes : bool
        Whether the vectorised searcher computes the same thing (our own controllers).
    expression : str
        How a pasted snippet names it; default its name as a string.
    """

    name: str
    n_tasks: int
    start: Callable[[int], RuleRun]
    spec: GabaSpec | None = None
    resolution: float = 2.0**-52
    largest: float = 1e300
    smallest: float = 5e-324
    exact: bool = False
    fixed_tasks: bool = False
    uses_losses: bool = False
    total: float | None = 1.0
    lanes: bool = False
    expression: str = ""

    @property
    def scale(self) -> float:
        """What weights of GABA, which sum to 1, are multiplied by here."""
        return 1.0 if self.total is None else self.total

    @property
    def memory(self) -> float:
        """Readings in the average, over which rounding adds up; 1 for a rule that is not GABA."""
        return 1.0 if self.spec is None else 1.0 / (1.0 - self.spec.beta**self.spec.interval)

    @property
    def slack(self) -> float:
        """How far rounding may take the weights of two runs that agree apart."""
        return self.scale * self.resolution * (8 * self.memory + 32 * self.n_tasks)

    def with_tasks(self, n_tasks: int) -> Target | None:
        """The same rule for another number of tasks.

        Parameters
        ----------
        n_tasks : int
            At least 2.

        Returns
        -------
        Target or None
            None where the rule exists for its own number of tasks only.
        """
        if n_tasks == self.n_tasks:
            return self
        if self.fixed_tasks:
            return None
        spec = None if self.spec is None else self.spec.replace(n_tasks=n_tasks)
        total = float(n_tasks) if self.total == self.n_tasks else self.total
        return replace(self, n_tasks=n_tasks, spec=spec, total=total)


@dataclass(frozen=True)
class Trajectory:
    """What a run did.

    Attributes
    ----------
    weights : array, shape (steps, K)
        Applied weights.
    averages : array, shape (steps, K), or None
        The stored average; None for a rule without one.
    """

    weights: Array
    averages: Array | None


def run_case(target: Target, case: Case, save_after: int | None = None) -> Trajectory:
    """Feed a case to a fresh run.

    Parameters
    ----------
    target : Target
        The rule.
    case : Case
        Its input.
    save_after : int, optional
        After so many steps, continue in a new run loaded from a checkpoint of the old one.

    Examples
    --------
    >>> from gabactl.fuzzing import resolve
    >>> target = resolve("gaba", GabaSpec(warmup=0, beta=0))
    >>> run_case(target, Case.from_readings([[3.0, 1.0]])).weights
    array([[0.25, 0.75]])
    """
    return run_readings(target, case.readings(), case.losses(), save_after)


def run_readings(
    target: Target, readings: Array, losses: Array, save_after: int | None = None
) -> Trajectory:
    """As :func:`run_case`, on arrays of shape (steps, K)."""
    k = target.n_tasks
    run = target.start(k)
    weights = np.empty((len(readings), k))
    averages: Array | None = np.empty((len(readings), k))
    for t, (norms, values) in enumerate(zip(readings, losses, strict=True)):
        if t == save_after:
            state = run.save()
            run = target.start(k)
            run.load(state)
        weights[t] = run.step(norms, values)
        average = run.average()
        if average is None:
            averages = None
        elif averages is not None:
            averages[t] = average
    return Trajectory(weights, averages)
