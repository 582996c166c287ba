"""``GABALoss``: the controller as a drop-in PyTorch loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from gabactl.base.errors import InputError
from gabactl.law.floors import FLOORS
from gabactl.law.spec import FloorMode, GabaSpec, Guard, Law
from gabactl.law.stages import follow, raw_weights, saturate, usable
from gabactl.nn.base import BalancedLoss, NormaliseTo
from gabactl.nn.distributed import Reduce, check_reduce, reducer_for
from gabactl.nn.sensors import reuse, sharded
from gabactl.nn.sensors.base import Sensor
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.full import FullSensor
from gabactl.nn.sensors.norms import task_gradients

__all__ = ["GABALoss"]


#: Readings between two checks that all ranks hold the same average.
_CHECK_EVERY = 100


@dataclass
class _Pending:
    """An optimiser step whose micro-batches are not all there yet."""

    step: int
    micro_batches: int
    due: bool
    calls: int = 0
    weights: Tensor | None = None
    gradients: list[list[Tensor | None]] | None = None


class GABALoss(BalancedLoss):
    """Weighs K losses by the GABA controller, from their gradient norms on shared parameters.

    Constructor, methods, buffers and snapshots are those of the published class, and its
    checkpoints load. ``guard="none"`` reproduces it to the last bit in training; the default
    guard holds the average where a reading is unusable.

    Parameters
    ----------
    beta, warmup_steps, min_weight, n_tasks
        The published names of ``GabaSpec``'s beta, warmup, floor and n_tasks.
    task_names : sequence of K str, optional
        Default: rul and health for two tasks, else task_0, task_1, ...
    law, floor_mode, guard, interval
        As in :class:`gabactl.GabaSpec`.
    normalise_to : 1 or "n_tasks"
        What the applied weights sum to. With 1 (published) the combined loss is a mean, and the
        effective learning rate K times smaller than that of a plain sum of the losses.
    sensor : Sensor, optional
        How gradients are measured: see :mod:`gabactl.nn.sensors`. Default: the published one.
    reduce : {"norm_of_mean", "mean_of_norms", "local"}, optional
        What the ranks of a data-parallel run agree on: see :mod:`gabactl.nn.distributed`. Has to
        be chosen where ``torch.distributed`` runs with more than one rank.
    process_group : torch.distributed.ProcessGroup, optional
        The ranks that train together; default: all.
    sharded : torch.nn.Module, optional
        The whole model, where ``fully_shard`` has sharded its parameters: it has to be measured
        through its own backward passes. Needs ``reduce="norm_of_mean"``.

    Attributes
    ----------
    ema_weights : Tensor, shape (K,)
        Stored average; a buffer, float32 unless the module is made float64.
    step_count : Tensor, int64, 0-dimensional
        A buffer.

    Raises
    ------
    InputError
        A setting out of range, or one that the sensor cannot serve.

    Notes
    -----
    In evaluation (``eval()`` or ``torch.no_grad()``) nothing is measured and no state moves; the
    last weights are applied, or uniform ones without ``shared_params``. The published class
    advances ``step_count`` on every call, evaluation included, so validation shortens the
    warm-up; ``guard="none"`` keeps that quirk, the default does not.

    Source: "Gradient-Aware Multi-Task Learning for Predictive Maintenance", section 17.4.

    Examples
    --------
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> loss_fn = GABALoss(warmup_steps=0)
    >>> total = loss_fn(250.0 * w[0], 0.5 * w[1], shared_params=[w])
    >>> total.backward()
    >>> loss_fn.applied_weights
    tensor([0.4950, 0.5050])
    >>> round(loss_fn.get_gradient_stats()["grad_ratio_rul_over_health"], 6)
    500.0
    """

    ema_weights: Tensor
    held_raw: Tensor
    spec: GabaSpec

    def __init__(
        self,
        beta: float = 0.99,
        warmup_steps: int = 100,
        min_weight: float = 0.05,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        law: Law = GabaSpec.law,
        floor_mode: FloorMode = GabaSpec.floor_mode,
        guard: Guard = GabaSpec.guard,
        interval: int = 1,
        normalise_to: NormaliseTo = 1,
        sensor: Sensor | None = None,
        reduce: Reduce | None = None,
        process_group: Any = None,
        sharded: nn.Module | None = None,
    ) -> None:
        spec = GabaSpec(n_tasks, beta, min_weight, warmup_steps, law, floor_mode, guard, interval)
        if normalise_to not in (1, "n_tasks") or isinstance(normalise_to, bool):
            raise InputError(f"normalise_to = {normalise_to!r} is unknown: choose 1 or 'n_tasks'")
        check_reduce(reduce)
        super().__init__(spec.n_tasks, task_names)
        self.spec = spec
        self.normalise_to: NormaliseTo = normalise_to
        self.sensor: Sensor = FullSensor() if sensor is None else sensor
        self.sensor.check(spec)
        self.reduce = reduce
        self._group = process_group
        self._sharded = (sharded,)  # in a tuple: the model is no part of the loss
        self._readings = 0
        self._pending: _Pending | None = None
        self.register_buffer("ema_weights", torch.full((spec.n_tasks,), 1.0 / spec.n_tasks))
        if self.sensor.coasts:
            self.register_buffer("held_raw", self.ema_weights.clone())

    @classmethod
    def from_spec(
        cls,
        spec: GabaSpec,
        task_names: Sequence[str] | None = None,
        normalise_to: NormaliseTo = 1,
        **more: Any,
    ) -> GABALoss:
        """A loss with the settings of a spec.

        Parameters
        ----------
        spec : GabaSpec
            The settings; its ``n_tasks`` is the number of losses.
        task_names : sequence of K str, optional
            As of the constructor.
        normalise_to : {1, "n_tasks"}
            What the weights sum to.
        **more
            For the constructor: ``sensor``, ``reduce``, ``process_group``, ``sharded``.

        Examples
        --------
        >>> GABALoss.from_spec(GabaSpec(floor=0.01)).min_weight
        0.01
        """
        settings = spec.to_dict()
        return cls(
            warmup_steps=settings.pop("warmup"),
            min_weight=settings.pop("floor"),
            task_names=task_names,
            normalise_to=normalise_to,
            **settings,
            **more,
        )

    beta = property(
        lambda self: self.spec.beta, lambda self, value: self._set(beta=value), doc="Pole."
    )
    warmup_steps = property(
        lambda self: self.spec.warmup, lambda self, value: self._set(warmup=value), doc="Warm-up."
    )
    min_weight = property(
        lambda self: self.spec.floor, lambda self, value: self._set(floor=value), doc="Floor."
    )
    n_tasks = property(lambda self: self.spec.n_tasks, doc="Number of tasks K.")

    def _set(self, **changes: Any) -> None:
        spec = self.spec.replace(**changes)
        self.sensor.check(spec)
        self.spec = spec

    def forward(
        self,
        rul_loss: Tensor,
        health_loss: Tensor,
        shared_params: Iterable[Tensor] | None = None,
        *,
        grad_scaler: Any = None,
        samples: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The published call for two tasks.

        Parameters
        ----------
        rul_loss, health_loss : Tensor, 0-dimensional
            The losses of task 1 and task 2.
        shared_params : iterable of Tensor, optional
            As of :meth:`forward_k`.
        grad_scaler : torch.amp.GradScaler, optional
            As of :meth:`forward_k`.
        samples : int, optional
            As of :meth:`forward_k`.
        **kwargs
            Ignored.

        Returns
        -------
        Tensor, 0-dimensional
            w_1 ``rul_loss`` + w_2 ``health_loss``.
        """
        return self.forward_k(
            [rul_loss, health_loss], shared_params, grad_scaler=grad_scaler, samples=samples
        )

    def forward_k(
        self,
        losses: Sequence[Tensor],
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
        self._refuse_unfinished()
        self.measured_this_step = False
        step = self._steps() + 1
        self._refuse_capture(step, self._alike(step, parameters))
        if not self._due(step, losses, parameters):
            return self._combine(losses, self._pass_by(step, parameters))
        assert parameters is not None
        context = self._context(parameters, grad_scaler, samples)
        norms = self._norms(losses, parameters, context)
        return self._combine(losses, self._act_on(norms, step, context))

    def backward(
        self,
        losses: Sequence[Tensor],
        shared_params: Iterable[Tensor] | None = None,
        parameters: Iterable[Tensor] | None = None,
        *,
        micro_batches: int = 1,
        grad_scaler: Any = None,
        samples: int | None = None,
    ) -> Tensor:
        """Take a reading if one is due, and leave ``.grad`` as ``forward_k(...).backward()`` would.

        The gradients that were measured become the update: K backward passes through the backbone
        instead of K + 1, and at steps without a reading one, as ever.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            In the order of ``task_names``.
        shared_params : iterable of Tensor, optional
            As for :meth:`forward_k`.
        parameters : iterable of Tensor, optional
            All parameters whose ``.grad`` is wanted, heads included; default: every leaf the
            losses reach, found by walking their graphs.
        micro_batches : int, at least 1
            Calls that make up one optimiser step. The losses are means over their micro-batch;
            the reading is taken on the gradient of the mean over all of them, at the last call,
            which is also when ``.grad`` is complete.
        grad_scaler : torch.amp.GradScaler, optional
            ``.grad`` is then scaled, for its ``step(optimizer)``.
        samples : int, optional
            As for :meth:`forward_k`; weighs the update too.

        Returns
        -------
        Tensor, 0-dimensional
            Sum of w_i loss_i of this call, detached, for the log. (Before the last micro-batch of
            a step with a reading, under the weights of the step before.)

        Raises
        ------
        InputError
            As :meth:`forward_k`; also for parameters with post-accumulate-grad hooks, and for
            sharded ones without ``sharded=``. Neither state nor ``.grad`` has changed then.

        Notes
        -----
        The losses' graphs are freed, as by any backward pass; set ``keep_graph`` to keep them.

        With more than one rank this method averages the gradients itself, after the weights are
        known (norms, weights, sum of w_i g_i, all-reduce): DistributedDataParallel's own reduction
        never starts, and the model may as well be a bare one.

        Examples
        --------
        >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> loss_fn = GABALoss(warmup_steps=0, beta=0.0)
        >>> _ = loss_fn.backward([3.0 * w[0], 1.0 * w[1]], [w])
        >>> w.grad
        tensor([0.7500, 0.7500])
        """
        shared = self._check(losses, shared_params)
        if (
            isinstance(micro_batches, bool)
            or not isinstance(micro_batches, int)
            or micro_batches < 1
        ):
            raise InputError(f"micro_batches = {micro_batches!r} is not a whole number >= 1: try 1")
        module = self._sharded[0]
        if parameters is not None:
            wanted = list(parameters)
        else:
            wanted = reuse.leaves_of(losses) if module is None else list(module.parameters())
        wanted = [p for p in wanted if p.requires_grad]
        reuse.refuse_hooked([*wanted, *(shared or [])], sharded=module is not None)
        pending = self._pending
        if pending is None:
            self.measured_this_step = False
            step = self._steps() + 1
            self._refuse_capture(step, self._alike(step, shared))
            pending = _Pending(step, micro_batches, self._due(step, losses, shared))
        elif pending.micro_batches != micro_batches:
            raise InputError(
                f"micro_batches = {micro_batches} in the middle of a step of "
                f"{pending.micro_batches}: keep it, or call reset_accumulation()"
            )
        context = self._context(wanted, grad_scaler, samples)
        if micro_batches > 1:
            losses = [loss / micro_batches for loss in losses]
        if pending.weights is None and not (pending.due and self.sensor.exact):
            pending.weights = self._weights_of_step(losses, shared, pending, context)
        if pending.weights is None:
            assert shared is not None
            total = self._reusing_backward(losses, shared, wanted, pending, context)
        else:
            total = self._plain_backward(losses, pending.weights, wanted, context)
            pending.calls += 1
        self._pending = None if pending.calls == micro_batches else pending
        return total * micro_batches if micro_batches > 1 else total

    def describe_sensor(self) -> dict[str, Any]:
        """Name and settings of the sensor, for records.

        Examples
        --------
        >>> GABALoss(interval=10).describe_sensor()
        {'name': 'full', 'coasts': False, 'interval': 10}
        """
        found = {**self.sensor.describe(), "interval": self.spec.interval}
        return found if self.reduce is None else {**found, "reduce": self.reduce}

    @property
    def accumulating(self) -> bool:
        """Whether :meth:`backward` waits for more micro-batches of a step."""
        return self._pending is not None

    def reset_accumulation(self) -> None:
        """Forget the micro-batches of an unfinished step, say after a skipped batch."""
        self._pending = None

    def _weights_of_step(
        self,
        losses: Sequence[Tensor],
        shared: list[Tensor] | None,
        pending: _Pending,
        context: Context,
    ) -> Tensor:
        """Weights that need no task's whole gradient: of the state, or of a proxy's reading."""
        if not pending.due:
            return self._pass_by(pending.step, shared)
        if pending.micro_batches > 1:
            raise InputError(
                f"{type(self.sensor).__name__} reads one batch, not {pending.micro_batches} "
                "micro-batches: use the full or the event sensor"
            )
        assert shared is not None
        return self._act_on(self._norms(losses, shared, context), pending.step, context)

    def _plain_backward(
        self, losses: Sequence[Tensor], weights: Tensor, wanted: list[Tensor], context: Context
    ) -> Tensor:
        """One combined backward pass, under weights that are known."""
        total = self._combine(losses, weights)
        if context.module is not None:
            context.scaled(total).backward()  # type: ignore[no-untyped-call]
        elif context.reducer is None:
            context.scaled(total).backward(inputs=wanted)  # type: ignore[no-untyped-call]
        else:
            gradients = list(task_gradients(context.scaled(total), wanted, False))
            reuse.add_to_grad(wanted, context.reducer.mean_gradients(gradients, wanted))
        return total.detach()

    def _reusing_backward(
        self,
        losses: Sequence[Tensor],
        shared: list[Tensor],
        wanted: list[Tensor],
        pending: _Pending,
        context: Context,
    ) -> Tensor:
        """Each task's gradients, summed up; at the last micro-batch the reading and the update."""
        own = {id(p) for p in shared}
        every = [*shared, *(p for p in wanted if id(p) not in own)]
        keep, module = self.keep_graph, context.module
        gradients = (
            reuse.gradients_of_tasks(losses, every, context, keep)
            if module is None
            else sharded.gradients_of_tasks(losses, every, module, context, keep)
        )
        if pending.gradients is not None and len(pending.gradients[0]) != len(every):
            raise InputError(
                "the micro-batches of one step reach different parameters: pass parameters="
            )
        gradients = reuse.add_up(pending.gradients, gradients)
        pending.calls += 1
        if pending.calls < pending.micro_batches:
            pending.gradients = gradients
            return self._combine(losses, self.applied_weights).detach()
        norms = reuse.norms_of_tasks(gradients, shared, context)
        weights = self._act_on(norms, pending.step, context)
        combine = reuse.combine_gradients if module is None else sharded.combine_sharded
        update = combine(gradients, weights)
        if context.reducer is not None and module is None:
            # With norm_of_mean the shared part is averaged already, and averaging is linear.
            done = len(shared) if context.reducer.reduce == "norm_of_mean" else 0
            update[done:] = context.reducer.mean_gradients(update[done:], every[done:])
        asked = {id(p) for p in wanted}
        reuse.add_to_grad(
            [p for p in every if id(p) in asked],
            [g for p, g in zip(every, update, strict=True) if id(p) in asked],
        )
        return self._combine(losses, weights).detach()

    def _refuse_unfinished(self) -> None:
        if self._pending is not None and not self._frozen:
            raise InputError(
                f"{self._pending.calls} of {self._pending.micro_batches} micro-batches of a step "
                "are accumulated: finish it with backward(), or call reset_accumulation()"
            )

    def _alike(self, step: int, parameters: list[Tensor] | None) -> bool:
        """Whether all steps from this one on do the same on the device."""
        if parameters is None:
            return self.spec.interval == 1  # uniform weights
        return step > self.spec.warmup and self.sensor.reads_every_step(self.spec)

    def _due(self, step: int, losses: Sequence[Tensor], parameters: list[Tensor] | None) -> bool:
        if self._frozen or parameters is None:
            return False
        alone = self.reduce is None or self.reduce == "local"
        return self.sensor.due(step, self.spec, losses, alone)

    def _context(self, parameters: list[Tensor], grad_scaler: Any, samples: int | None) -> Context:
        reducer = reducer_for(self.reduce, self._group, samples)
        fast = self.spec.guard == "hold" and bool(parameters) and parameters[0].is_cuda
        return Context(grad_scaler, reducer, fast, self._sharded[0])

    def _norms(
        self,
        losses: Sequence[Tensor],
        parameters: list[Tensor],
        context: Context | None = None,
    ) -> Tensor:
        return self.sensor.read(losses, parameters, Context() if context is None else context)

    def _act_on(self, norms: Tensor, step: int, context: Context) -> Tensor:
        """A step with a reading: its weights, scaled."""
        self._advance(step)
        weights = self._scale(self._take(norms))
        self.sensor.took(step, norms)
        if context.reducer is not None and context.reducer.reduce != "local":
            if self._readings % _CHECK_EVERY == 0:
                context.reducer.refuse_disagreement(self.ema_weights, step)
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

    @torch.no_grad()
    def _coast(self) -> None:
        """Let the average go on following the last raw weights."""
        # As the stage `smooth`, in place: this runs at nearly every step of the event sensor.
        pole = self.spec.beta
        self.ema_weights.mul_(pole).add_(self.held_raw, alpha=1.0 - pole)
        if FLOORS[self.spec.floor_mode].replaces_state:
            self.ema_weights.copy_(self._saturated(self.ema_weights))

    @torch.no_grad()
    def _take(self, norms: Tensor) -> Tensor:
        """Let the average follow a reading; the weights, summing to 1."""
        spec = self.spec
        self._follow(norms.device)
        self._refuse_a_pole_of_one()
        raw = raw_weights(norms, spec.law, spec.guard)
        ema = follow(self.ema_weights, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode)
        if spec.guard == "hold":
            ema = torch.where(usable(norms, spec.law), ema, self.ema_weights)
        self.ema_weights.copy_(ema)
        if self.sensor.coasts:
            self.held_raw.copy_(torch.where(torch.isfinite(raw).all(), raw, self.held_raw))
        self._last_grad_norms, self._last_raw_weights = norms, raw
        self.measured_this_step = True
        return self._saturated(ema)

    def _saturated(self, ema: Tensor) -> Tensor:
        return cast(Tensor, saturate(ema, self.spec.floor, self.spec.floor_mode))

    def _refuse_a_pole_of_one(self) -> None:
        """In float32 a pole within 2^-25 of 1 is 1: the average would only ever grow."""
        spec = self.spec
        if 1.0 - spec.beta**spec.interval <= 2.0**-25 and self.ema_weights.dtype == torch.float32:
            raise InputError(
                f"beta = {spec.beta} is 1 in float32, in which this loss keeps its average: call "
                "double() on the loss, or choose at most 0.9999999"
            )

    def _weights_of_state(self) -> Tensor:
        if self._steps() <= self.spec.warmup:
            return self._uniform()
        return self._scale(self._saturated(self.ema_weights))

    def _uniform(self) -> Tensor:
        k = self.spec.n_tasks
        return self._scale(torch.full_like(self.ema_weights, 1.0 / k))

    def _scale(self, weights: Tensor) -> Tensor:
        return weights if self.normalise_to == 1 else weights * self.spec.n_tasks

    def _follow(self, device: torch.device) -> None:
        """Move the buffers to where the gradients are, if the caller forgot to."""
        if self.ema_weights.device != device:
            self.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # In half precision the average would stall (1 - beta is below its resolution near 1):
        # half() and bfloat16() move the module but leave the average in float32. And double() of
        # an average that has not moved is 1/K again, not 1/K rounded to float32. (One on the meta
        # device has no values; to_empty() gives it room for those of a state_dict.)
        k = self.spec.n_tasks
        before = {
            name: getattr(self, name)
            for name in ("ema_weights", "held_raw")
            if name in self._buffers
        }
        unmoved = {
            name: not v.is_meta and torch.equal(v, torch.full_like(v, 1.0 / k))
            for name, v in before.items()
        }
        super()._apply(fn, recurse)
        for name, value in before.items():
            after = getattr(self, name)
            if after.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, value.to(after.device))
            elif unmoved[name] and after.dtype != value.dtype:
                after.fill_(1.0 / k)
        self._last_applied = None
        return self

    def get_weights(self) -> dict[str, float]:
        """The stored average (not the applied weights), under ``<task>_weight``.

        Returns
        -------
        dict of str to float
            From 0 to 1 each; reading them waits for the device.

        Examples
        --------
        >>> GABALoss().get_weights()
        {'rul_weight': 0.5, 'health_weight': 0.5}
        """
        values = self.ema_weights.tolist()
        return {
            f"{name}_weight": value for name, value in zip(self.task_names, values, strict=True)
        }

    def get_gradient_stats(self) -> dict[str, float]:
        """The last reading: norms, raw weights and, for two tasks, the ratio of the norms.

        Returns
        -------
        dict of str to float
            ``grad_norm_<task>``, ``raw_weight_<task>`` and ``grad_ratio_<first>_over_<second>``; empty before
            the first reading. Reading them waits for the device.

        Examples
        --------
        >>> GABALoss().get_gradient_stats()
        {}
        """
        if self._last_grad_norms is None or self._last_raw_weights is None:
            return {}
        norms, raws = self._last_grad_norms.tolist(), self._last_raw_weights.tolist()
        stats = {f"grad_norm_{n}": g for n, g in zip(self.task_names, norms, strict=True)}
        if self.spec.n_tasks == 2:
            first, second = self.task_names
            stats[f"grad_ratio_{first}_over_{second}"] = norms[0] / (norms[1] + 1e-12)
        return stats | {f"raw_weight_{n}": r for n, r in zip(self.task_names, raws, strict=True)}

    def extra_repr(self) -> str:
        """The settings, for ``print(loss)``."""
        return f"{self.spec}, tasks={list(self.task_names)}"
