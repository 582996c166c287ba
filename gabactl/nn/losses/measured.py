"""The step machine of a rule that acts on gradient norms: when to read, how, and what to do between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.nn.distributed import Reduce, check_reduce, reducer_for
from gabactl.nn.losses.base import BalancedLoss
from gabactl.nn.sensors.base import Sensor
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.full import FullSensor
from gabactl.nn.sensors.norms import Tensors

NormaliseTo = Literal[1, "n_tasks"]

#: Readings between two checks that all ranks hold the same state.
_CHECK_EVERY = 100


class MeasuredLoss(BalancedLoss):
    """Base of the losses whose rule turns gradient norms into weights.

    This class decides when a reading is due, takes it through a sensor and on all ranks alike,
    counts the step, and scales what the rule answers. The rule is three methods of the subclass,
    ``_take``, ``_weights`` and ``_coast``, on a state in buffers, of which the first has shape (K,).

    Parameters
    ----------
    spec : GabaSpec
        Number of tasks, warm-up, interval and guard; what else is in it is the rule's.
    task_names : sequence of K str, optional
        As of :class:`BalancedLoss`.
    normalise_to, sensor, reduce, process_group, sharded
        As of :class:`gabactl.nn.GABALoss`.
    """

    spec: GabaSpec

    def __init__(
        self,
        spec: GabaSpec,
        task_names: Sequence[str] | None = None,
        normalise_to: NormaliseTo = 1,
        sensor: Sensor | None = None,
        reduce: Reduce | None = None,
        process_group: Any = None,
        sharded: nn.Module | None = None,
    ) -> None:
        if normalise_to not in (1, "n_tasks") or isinstance(normalise_to, bool):
            raise InputError(f"normalise_to = {normalise_to!r} is unknown: choose 1 or 'n_tasks'")
        check_reduce(reduce)
        super().__init__(spec.n_tasks, task_names)
        self.normalise_to: NormaliseTo = normalise_to
        self.sensor: Sensor = FullSensor() if sensor is None else sensor
        self._set_spec(spec)
        self.reduce = reduce
        self._group = process_group
        self._sharded = (sharded,)  # in a tuple: the model is no part of the loss
        self._readings = 0

    def _set_spec(self, spec: GabaSpec) -> None:
        self.sensor.check(spec)
        self.spec = spec

    # -- the rule ----------------------------------------------------------------------------

    def _take(self, norms: Tensor) -> Tensor:
        """Let the state follow a reading of shape (K,); the weights, summing to 1."""
        raise NotImplementedError

    def _weights(self) -> Tensor:
        """The weights of the state as it is, summing to 1."""
        raise NotImplementedError

    def _coast(self) -> None:
        """Let the state go on between the readings of a sensor that coasts."""
        raise NotImplementedError

    # -- the call ----------------------------------------------------------------------------

    _options = ("grad_scaler", "samples")

    def forward_k(
        self,
        losses: Tensors,
        shared_params: Iterable[Tensor] | None = None,
        *,
        grad_scaler: Any = None,
        samples: int | None = None,
    ) -> Tensor:
        """Take a reading if one is due, and return the weighted sum.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            In the order of ``task_names``.
        shared_params : iterable of Tensor, optional
            Parameters to measure the gradients on; None applies uniform weights and leaves the
            average alone.
        grad_scaler : torch.amp.GradScaler, optional
            The one that scales your loss: gradients are then measured on scaled losses, where
            half precision does not lose them, and the norms divided by the scale.
        samples : int, optional
            Samples in this rank's batch, to weigh the ranks by; default: all ranks alike.

        Returns
        -------
        Tensor, 0-dimensional
            Sum of w_i loss_i. The graph is retained, and ``.grad`` untouched: call ``backward()``.

        Raises
        ------
        InputError
            Wrong number of losses, a loss that is no scalar or needs no gradient, or no shared
            parameter that requires one. No state has moved then.
        """
        parameters = self._check(losses, shared_params)
        step = self._begin(parameters)
        if not self._due(step, losses, parameters):
            return self._combine(losses, self._pass_by(step, parameters))
        assert parameters is not None
        context = self._context(parameters, grad_scaler, samples)
        norms = self._norms(losses, parameters, context)
        return self._combine(losses, self._act_on(norms, step, context))

    def describe_sensor(self) -> dict[str, Any]:
        """Name and settings of the sensor, for records.

        Examples
        --------
        >>> from gabactl.nn import GABALoss
        >>> GABALoss(interval=10).describe_sensor()
        {'name': 'full', 'coasts': False, 'interval': 10}
        """
        found = {**self.sensor.describe(), "interval": self.spec.interval}
        return found if self.reduce is None else {**found, "reduce": self.reduce}

    # -- the step ----------------------------------------------------------------------------

    def _begin(self, parameters: list[Tensor] | None) -> int:
        """The step about to be taken, unless it cannot be captured."""
        self.measured_this_step = False
        step = self._steps() + 1
        self._refuse_capture(step, self._alike(step, parameters))
        return step

    def _alike(self, step: int, parameters: list[Tensor] | None) -> bool:
        """Whether all steps from this one on do the same on the device."""
        if parameters is None:
            return self.spec.interval == 1  # uniform weights
        return step > self.spec.warmup and self.sensor.reads_every_step(self.spec)

    def _due(self, step: int, losses: Tensors, parameters: list[Tensor] | None) -> bool:
        if self._frozen or parameters is None:
            return False
        alone = self.reduce is None or self.reduce == "local"
        return self.sensor.due(step, self.spec, losses, alone)

    def _context(self, parameters: list[Tensor], grad_scaler: Any, samples: int | None) -> Context:
        reducer = reducer_for(self.reduce, self._group, samples)
        fast = self.spec.guard == "hold" and bool(parameters) and parameters[0].is_cuda
        return Context(grad_scaler, reducer, fast, self._sharded[0])

    def _norms(
        self, losses: Tensors, parameters: list[Tensor], context: Context | None = None
    ) -> Tensor:
        return self.sensor.read(losses, parameters, Context() if context is None else context)

    def _act_on(self, norms: Tensor, step: int, context: Context) -> Tensor:
        """A step with a reading: its weights, scaled."""
        self._advance(step)
        self._follow(norms.device)
        weights = self._scale(self._take(norms))
        self._last_grad_norms = norms
        self.measured_this_step = True
        self.sensor.took(step, norms)
        if context.reducer is not None and context.reducer.reduce != "local":
            if self._readings % _CHECK_EVERY == 0:
                context.reducer.refuse_disagreement(self._state(), step)
            self._readings += 1
        return weights

    def _pass_by(self, step: int, parameters: list[Tensor] | None) -> Tensor:
        """A step without a reading: its weights, scaled."""
        if not self._frozen or self.spec.guard == "none":
            self._advance(step)
        # Without shared parameters a due reading is missed, and uniform weights are applied, as
        # published. Between the readings of a sampled sensor nothing is missed, given or not.
        if parameters is None and (self._frozen or self.spec.measures_at(step)):
            return self._uniform()
        watching = parameters is not None and not self._frozen
        if watching and self.sensor.coasts and step > self.spec.warmup:
            self._coast()
        return self._weights_of_state()

    def _follow(self, device: torch.device) -> None:
        """Move the buffers to where the gradients are, if the caller forgot to."""
        if self._state().device != device:
            self.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # In half precision a slow state would stall (1 - beta is below its resolution near 1):
        # half() and bfloat16() move the module, but leave the state as precise as it was.
        before = {n: b for n, b in self._buffers.items() if b is not None}
        super()._apply(fn, recurse)
        for name, value in before.items():
            after = getattr(self, name)
            if after.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, value.to(after.device))
        self._last_applied = None
        return self

    def _weights_of_state(self) -> Tensor:
        if self._steps() <= self.spec.warmup:
            return self._uniform()
        return self._scale(self._weights())

    def _uniform(self) -> Tensor:
        return self._scale(torch.full_like(self._state(), 1.0 / self.spec.n_tasks))

    def _scale(self, weights: Tensor) -> Tensor:
        return weights if self.normalise_to == 1 else weights * self.spec.n_tasks
