"""``event``: read often while the imbalance moves, rarely while it rests, within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.nn.sensors.base import Sensor, exact_norms
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.norms import Tensors
from gabactl.nn.sensors.trigger import EventBudget, EventTrigger

__all__ = ["EventSensor"]

#: Cost of one more backward pass through the backbone, in plain steps (0.55-0.65 measured).
_PASS = 0.6


class EventSensor(Sensor):
    """Exact norms, at times chosen by an :class:`EventTrigger`.

    Measures what ``full`` does. Costs at most ``budget`` in the long run. Between readings the
    average follows the last raw weights, so its error is bounded where the log-ratio moves at a
    bounded rate: ``bound(rate)`` prints the bound and the worst cost.

    Decides on the host: the losses of the step before are fetched behind the computation, and
    the norms at readings only, which is the one moment a GPU is waited for. With several ranks
    only the agreed readings decide, because all ranks have to decide alike.

    Parameters
    ----------
    budget : float in (0, 1]
        Overhead in the long run, as a fraction of a plain training step.
    reading_cost : float, optional
        Cost of a reading in plain steps. Default: 0.6 K, for K more backward passes; with
        ``GABALoss.backward`` about 0.6 (K - 1), and so more readings for the same budget.
    tolerance : float in (0, 1)
        Predicted change of a raw weight that is worth a reading.

    Examples
    --------
    >>> from gabactl.nn import GABALoss
    >>> loss_fn = GABALoss(warmup_steps=0, sensor=EventSensor(budget=0.1, reading_cost=0.6))
    >>> w = torch.ones(2, requires_grad=True)
    >>> times = []
    >>> for step in range(1, 31):
    ...     _ = loss_fn.forward_k([3.0 * w[0], 1.0 * w[1]], [w])
    ...     times += [step] if loss_fn.measured_this_step else []
    >>> times
    [1, 13, 25]
    """

    name = "event"
    exact = True
    coasts = True

    def __init__(
        self, budget: float = 0.03, reading_cost: float | None = None, tolerance: float = 0.02
    ) -> None:
        super().__init__()
        EventTrigger(2, budget, 1.0 if reading_cost is None else reading_cost, tolerance)
        self.budget = budget
        self.reading_cost = reading_cost
        self.tolerance = tolerance
        self._trigger: EventTrigger | None = None
        # The losses of the last step: on their way from the device with an event, or there.
        self._fetching: tuple[Tensor | list[float], Any] | None = None

    @property
    def trigger(self) -> EventTrigger:
        """The decisions and their state; there once the sensor belongs to a loss.

        Raises
        ------
        InputError
            It belongs to none yet.
        """
        if self._trigger is None:
            raise InputError("this sensor belongs to no loss: GABALoss(sensor=...)")
        return self._trigger

    def bound(self, rate: float) -> EventBudget:
        """Cost and worst error of the average: see :meth:`EventTrigger.bound`.

        Parameters
        ----------
        rate : float, at least 0
            Bound on how fast any log-ratio of two gradient norms moves, in nats per step.
        """
        return self.trigger.bound(rate)

    def check(self, spec: GabaSpec) -> None:
        """Refuse an interval: this sensor chooses its own times.

        Raises
        ------
        InputError
            An interval other than 1.
        """
        if spec.interval != 1:
            raise InputError(
                f"interval = {spec.interval} with the event sensor, which chooses its own times: "
                "set interval = 1, or use the full sensor"
            )
        cost = _PASS * spec.n_tasks if self.reading_cost is None else self.reading_cost
        trigger = EventTrigger(spec.n_tasks, self.budget, cost, self.tolerance, spec.law)
        if self._trigger is not None:
            trigger.load(self._trigger.state())
        self._trigger = trigger

    def due(self, step: int, spec: GabaSpec, losses: Tensors, alone: bool = True) -> bool:
        """Whether this step is worth a reading; judged by the losses of the step before."""
        before = self._fetched() if alone else None
        if alone:
            self._fetch(losses)
        return self.trigger.due(step, spec.warmup, before)

    def _fetch(self, losses: Tensors) -> None:
        device = losses[0].device
        if device.type != "cuda":
            self._fetching = ([loss.item() for loss in losses], None)
            return
        values = torch.stack([loss.detach().reshape(()).to(device) for loss in losses])
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._fetching = (host, arrived)

    def _fetched(self) -> list[float] | None:
        if self._fetching is None:
            return None
        values, arrived = self._fetching
        if arrived is not None:
            arrived.synchronize()
        return [float(x) for x in values]

    def read(self, losses: Tensors, parameters: Tensors, context: Context) -> Tensor:
        """Gradient norms, shape (K,)."""
        return exact_norms(losses, parameters, context)

    def took(self, step: int, norms: Tensor) -> None:
        """Learn the trend, and pay."""
        self.trigger.took(step, [float(x) for x in norms.tolist()])

    def get_extra_state(self) -> dict[str, Any]:
        """State for the ``state_dict``: plain numbers."""
        state = {} if self._trigger is None else self._trigger.state()
        return {**state, "before": self._fetched()}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``.

        Parameters
        ----------
        state : mapping
            What ``get_extra_state`` gave.

        Raises
        ------
        InputError
            Not such a state, or of another number of tasks.
        """
        self.trigger.load(state)
        before = state.get("before")
        self._fetching = None
        if before is not None:
            self._fetching = ([float(x) for x in before], None)

    def describe(self) -> dict[str, Any]:
        """Name, budget, what a reading is taken to cost (plain steps), tolerance."""
        cost = self.reading_cost if self._trigger is None else self._trigger.reading_cost
        return {
            **super().describe(),
            "budget": self.budget,
            "reading_cost": cost,
            "tolerance": self.tolerance,
        }

    def extra_repr(self) -> str:
        """The settings."""
        return f"budget={self.budget}, tolerance={self.tolerance}"
