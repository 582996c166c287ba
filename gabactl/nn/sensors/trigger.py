"""When a reading is worth its cost: the host-side half of the ``event`` sensor, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.laws import LAWS, Law
from gabactl.law.spec import GabaSpec

#: Readings that may follow each other at once when they have been saved up.
_BURST = 4.0
#: Part of the budget that pays for readings at a fixed pace, whatever the signals say.
_HEARTBEAT = 0.5
#: Gains of the level and trend of the log norms (Holt), of their surprises' mean square, and of the
#: average of the log losses.
_LEVEL, _TREND, _SPREAD, _LOSS = 0.5, 0.2, 0.2, 0.05
#: What is remembered of every task.
_LISTS = ("level", "trend", "surprise", "losses", "losses_then")


@dataclass(frozen=True)
class EventBudget(Result):
    """What an event-triggered sensor costs at most, and how wrong it can be.

    Attributes
    ----------
    budget : float
        Allowed overhead, as a fraction of a plain step, in the long run.
    reading_cost : float
        Cost of a reading, as a fraction of a plain step.
    max_gap : int
        Steps between readings at most.
    burst : float
        Readings that can come on top of the budget in any stretch of steps.
    rate : float
        Assumed bound on how fast any log-ratio of two gradient norms moves, per step.
    ema_error : float
        Bound on the distance from the average that a reading at every step gives.
    """

    budget: float
    reading_cost: float
    max_gap: int
    burst: float
    rate: float
    ema_error: float
    title = "Event-triggered readings"

    def overhead(self, steps: int) -> float:
        """Worst overhead over any stretch of so many steps, as a fraction of plain steps.

        Parameters
        ----------
        steps : int, at least 1
            Length of the stretch.
        """
        return self.budget + self.burst * self.reading_cost / steps

    def rows(self) -> list[tuple[str, ...]]:
        """The budget as a table."""
        return [
            ("budget", f"{100 * self.budget:.3g} % of a plain step"),
            ("a reading costs", f"{self.reading_cost:.3g} plain steps"),
            ("longest gap", f"{self.max_gap} steps"),
            ("worst overhead", f"{100 * self.overhead(1000):.3g} % over 1,000 steps"),
            ("error of the average", f"<= {self.ema_error:.4g} at {self.rate:g} nats per step"),
        ]

    def facts(self) -> dict[str, Any]:
        """Keys as the attributes, and the worst overhead over 1,000 steps."""
        return {**super().facts(), "worst_overhead_1000": self.overhead(1000)}


class EventTrigger:
    """Decides step by step whether to read, from signals that are free.

    Every step earns ``budget``, a reading spends ``reading_cost``, and at most four readings can
    be saved up: any n steps contain at most ``4 + n budget / reading_cost`` readings. Half of the
    budget guarantees a longest gap. The rest is spent where a raw weight is probably off by more than
    ``tolerance``: by the trend of the log norms, by how the losses have moved, or because one
    reading is that noisy. At the floor, where the ratio hardly matters, it is saved.

    Parameters
    ----------
    n_tasks : int
        Number of tasks K.
    budget : float in (0, 1]
        Overhead, as a fraction of a plain step.
    reading_cost : float, positive
        Cost of a reading in plain steps.
    tolerance : float in (0, 1)
        Predicted change of a raw weight that is worth a reading.
    law : {"complement", "inverse"}
        From norms to raw weights.

    Raises
    ------
    InputError
        A value out of its range.

    Notes
    -----
    Source: derived here. Between readings the average goes on following the last raw weights, so
    its error is a mean, over steps, of how far the raw weights have moved since the last reading.
    If no log-ratio moves faster than v per step, none has moved more than v (gap - 1), and a
    softmax share not more than tanh(v (gap - 1) / 4) (the worst case is symmetric about 1/2).

    Examples
    --------
    >>> trigger = EventTrigger(2, budget=0.05, reading_cost=0.65)
    >>> read = []
    >>> for step in range(1, 201):
    ...     if trigger.due(step, warmup=0):
    ...         trigger.took(step, [3.0, 1.0])
    ...         read.append(step)
    >>> read[:4]  # nothing moves: only the fixed pace
    [1, 27, 53, 79]
    """

    def __init__(
        self,
        n_tasks: int,
        budget: float = 0.03,
        reading_cost: float = 1.2,
        tolerance: float = 0.02,
        law: Law = GabaSpec.law,
    ) -> None:
        for name, value, allowed, remedy in (
            ("budget", budget, 0 < budget <= 1, "a fraction of a plain step in (0, 1], say 0.03"),
            ("reading_cost", reading_cost, reading_cost > 0, "plain steps per reading, say 1.2"),
            ("tolerance", tolerance, 0 < tolerance < 1, "a change of weight in (0, 1), say 0.02"),
        ):
            if not math.isfinite(value) or not allowed:
                raise InputError(f"{name} = {value} is not allowed: give {remedy}")
        self.n_tasks = n_tasks
        self.budget = float(budget)
        self.reading_cost = float(reading_cost)
        self.tolerance = float(tolerance)
        self.law: Law = law
        self.max_gap = max(1, math.ceil(self.reading_cost / (_HEARTBEAT * self.budget)))
        self._tokens = 0.0
        self._last = 0
        self._level: list[float] = []
        self._trend = [0.0] * n_tasks
        self._surprise = [0.0] * n_tasks
        self._noisy = False
        self._losses: list[float] = []
        self._losses_then: list[float] = []

    def due(self, step: int, warmup: int, losses: Sequence[float] | None = None) -> bool:
        """Whether ``step`` is worth a reading; call it once per step, in order.

        Parameters
        ----------
        step : int
            From 1.
        warmup : int
            Steps without readings; they earn all the same.
        losses : sequence of K floats, optional
            Task losses; ignored where one is not positive and finite.
        """
        self._tokens = min(self._tokens + self.budget, _BURST * self.reading_cost)
        if losses is not None and all(math.isfinite(x) and x > 0 for x in losses):
            logs = [math.log(x) for x in losses]
            old = self._losses or logs
            self._losses = [a + _LOSS * (b - a) for a, b in zip(old, logs, strict=True)]
        if step <= warmup:
            return False
        gap = step - self._last
        if not self._last or gap >= self.max_gap:
            return True
        if self._tokens < self.reading_cost or not self._level:
            return False
        # The noise of a reading changes with a reading only, and is the cheapest to look up.
        return (
            self._noisy
            or self._moves([gap * x for x in self._trend])
            or self._moves(self._loss_drift())
        )

    def _loss_drift(self) -> list[float]:
        if not self._losses or not self._losses_then:
            return [0.0] * self.n_tasks
        return [now - then for now, then in zip(self._losses, self._losses_then, strict=True)]

    def _moves(self, drift: Sequence[float]) -> bool:
        """Whether log norms that drifted so far would change a raw weight by the tolerance."""
        raw = LAWS[self.law].raw_of_logs
        then = raw(self._level)
        now = raw([a + b for a, b in zip(self._level, drift, strict=True)])
        return any(abs(a - b) > self.tolerance for a, b in zip(then, now, strict=True))

    def _is_noisy(self) -> bool:
        """Whether the usual surprise of one norm would change a raw weight by the tolerance."""
        return any(
            self._moves([math.sqrt(x) if i == j else 0.0 for j in range(self.n_tasks)])
            for i, x in enumerate(self._surprise)
        )

    def took(self, step: int, norms: Sequence[float]) -> None:
        """A reading was taken.

        Parameters
        ----------
        step : int
            When.
        norms : sequence of K floats
            Gradient norms; they teach the trend nothing where one is not positive and finite.
        """
        self._tokens = max(self._tokens - self.reading_cost, 0.0)
        gap, self._last = step - self._last, step
        self._losses_then = list(self._losses)
        if not all(math.isfinite(x) and x > 0 for x in norms):
            return
        logs = [math.log(x) for x in norms]
        if not self._level:
            self._level = logs
            return
        for i, log in enumerate(logs):
            predicted = self._level[i] + gap * self._trend[i]
            surprise = log - predicted
            self._level[i] = predicted + _LEVEL * surprise
            self._trend[i] += _TREND * surprise / gap
            self._surprise[i] += _SPREAD * (surprise * surprise - self._surprise[i])
        self._noisy = self._is_noisy()

    def bound(self, rate: float) -> EventBudget:
        """Cost and worst error, if no log-ratio of two norms moves faster than ``rate``.

        Parameters
        ----------
        rate : float, at least 0
            Nats per step, for the drift; noise from batch to batch comes on top, as it does for
            every sampled sensor.

        Raises
        ------
        InputError
            A negative rate, or one that is not finite.

        Examples
        --------
        >>> print(EventTrigger(2, budget=0.03, reading_cost=0.6).bound(0.002))
        Event-triggered readings
          budget                3 % of a plain step
          a reading costs       0.6 plain steps
          longest gap           40 steps
          worst overhead        3.24 % over 1,000 steps
          error of the average  <= 0.0195 at 0.002 nats per step
        """
        if not math.isfinite(rate) or rate < 0:
            raise InputError(f"rate = {rate} is not a number >= 0: give nats per step, say 0.002")
        share = math.tanh(rate * (self.max_gap - 1) / 4)
        ema_error = share / LAWS[self.law].sharers(self.n_tasks)
        return EventBudget(
            self.budget, self.reading_cost, self.max_gap, _BURST, float(rate), ema_error
        )

    def state(self) -> dict[str, Any]:
        """Everything that changes, as plain values."""
        lists = {name: list(getattr(self, f"_{name}")) for name in _LISTS}
        return {"tokens": self._tokens, "last": self._last, **lists}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`.

        Parameters
        ----------
        state : mapping
            What :meth:`state` gave.

        Raises
        ------
        InputError
            Not such a state, or of another number of tasks.
        """
        k = self.n_tasks
        lists = {name: state.get(name) for name in _LISTS}
        good = all(
            isinstance(v, list) and len(v) in (0, k) and all(isinstance(x, float) for x in v)
            for v in lists.values()
        )
        tokens, last = state.get("tokens"), state.get("last")
        if not good or not isinstance(tokens, float) or not isinstance(last, int):
            raise InputError(
                f"the state of the event sensor does not fit {k} tasks: load the right one"
            )
        self._tokens, self._last = tokens, last
        for name in _LISTS:
            setattr(self, f"_{name}", list(lists[name] or []))
        self._noisy = bool(self._level) and self._is_noisy()
