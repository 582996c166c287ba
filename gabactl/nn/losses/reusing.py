"""The gradients that were measured, used as the update: K backbone passes instead of K + 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError
from gabactl.nn.losses.measured import MeasuredLoss
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.gradients import (
    TaskGradients,
    add_to_grad,
    add_up,
    combine_gradients,
    each_task,
    leaves_of,
    norms_of_tasks,
    refuse_hooked,
    shared_first,
)
from gabactl.nn.sensors.norms import Tensors, task_gradients


@dataclass
class _Unfinished:
    """An optimiser step whose micro-batches are not all there yet."""

    step: int
    micro_batches: int
    due: bool
    calls: int = 0
    weights: Tensor | None = None
    gradients: TaskGradients | None = None


class ReusingLoss(MeasuredLoss):
    """Adds to :class:`MeasuredLoss` the backward pass that reuses what was measured.

    It also accumulates over micro-batches, so that one reading is taken per optimiser step.
    """

    _unfinished: _Unfinished | None = None

    def backward(
        self,
        losses: Tensors,
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
        >>> import torch
        >>> from gabactl.nn import GABALoss
        >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> loss_fn = GABALoss(warmup_steps=0, beta=0.0)
        >>> _ = loss_fn.backward([3.0 * w[0], 1.0 * w[1]], [w])
        >>> w.grad
        tensor([0.7500, 0.7500])
        """
        shared = self._check(losses, shared_params)
        check_int("micro_batches", micro_batches, 1, "try 1")
        wanted = self._wanted(losses, parameters)
        refuse_hooked([*wanted, *(shared or [])], sharded=self._sharded[0] is not None)
        at = self._unfinished
        if at is None:
            step = self._begin(shared)
            at = _Unfinished(step, micro_batches, self._due(step, losses, shared))
        elif at.micro_batches != micro_batches:
            raise InputError(
                f"micro_batches = {micro_batches} in the middle of a step of "
                f"{at.micro_batches}: keep it, or call reset_accumulation()"
            )
        context = self._context(wanted, grad_scaler, samples)
        if micro_batches > 1:
            losses = [loss / micro_batches for loss in losses]
        if at.weights is None and not (at.due and self.sensor.exact):
            at.weights = self._weights_of_step(losses, shared, at, context)
        if at.weights is None:
            assert shared is not None
            total = self._reusing_backward(losses, shared, wanted, at, context)
        else:
            total = self._plain_backward(losses, at.weights, wanted, context)
            at.calls += 1
        self._unfinished = None if at.calls == micro_batches else at
        return total * micro_batches if micro_batches > 1 else total

    @property
    def accumulating(self) -> bool:
        """Whether :meth:`backward` waits for more micro-batches of a step."""
        return self._unfinished is not None

    def reset_accumulation(self) -> None:
        """Forget the micro-batches of an unfinished step, say after a skipped batch."""
        self._unfinished = None

    def _begin(self, parameters: list[Tensor] | None) -> int:
        at = self._unfinished
        if at is not None and not self._frozen:
            raise InputError(
                f"{at.calls} of {at.micro_batches} micro-batches of a step "
                "are accumulated: finish it with backward(), or call reset_accumulation()"
            )
        return super()._begin(parameters)

    def _wanted(self, losses: Tensors, parameters: Iterable[Tensor] | None) -> list[Tensor]:
        """The parameters whose ``.grad`` is to be filled."""
        module = self._sharded[0]
        if parameters is None:
            parameters = leaves_of(losses) if module is None else module.parameters()
        return [p for p in parameters if p.requires_grad]

    def _weights_of_step(
        self, losses: Tensors, shared: list[Tensor] | None, at: _Unfinished, context: Context
    ) -> Tensor:
        """Weights that need no task's whole gradient: of the state, or of a proxy's reading."""
        if not at.due:
            return self._pass_by(at.step, shared)
        if at.micro_batches > 1:
            raise InputError(
                f"{type(self.sensor).__name__} reads one batch, not {at.micro_batches} "
                "micro-batches: use the full or the event sensor"
            )
        assert shared is not None
        return self._act_on(self._norms(losses, shared, context), at.step, context)

    def _plain_backward(
        self, losses: Tensors, weights: Tensor, wanted: list[Tensor], context: Context
    ) -> Tensor:
        """One combined backward pass, under weights that are known."""
        total = self._combine(losses, weights)
        if context.module is not None:
            context.scaled(total).backward()  # type: ignore[no-untyped-call]
        elif context.reducer is None:
            context.scaled(total).backward(inputs=wanted)  # type: ignore[no-untyped-call]
        else:
            gradients = list(task_gradients(context.scaled(total), wanted, False))
            add_to_grad(wanted, context.reducer.mean_gradients(gradients, wanted))
        return total.detach()

    def _reusing_backward(
        self,
        losses: Tensors,
        shared: list[Tensor],
        wanted: list[Tensor],
        at: _Unfinished,
        context: Context,
    ) -> Tensor:
        """Each task's gradients, summed up; at the last micro-batch the reading and the update."""
        every, module = shared_first(shared, wanted), context.module
        taken = each_task(losses, every, context, retain_last=self.keep_graph, module=module)
        gradients = list(taken)
        if at.gradients is not None and len(at.gradients[0]) != len(every):
            raise InputError(
                "the micro-batches of one step reach different parameters: pass parameters="
            )
        gradients = add_up(at.gradients, gradients)
        at.calls += 1
        if at.calls < at.micro_batches:
            at.gradients = gradients
            return self._combine(losses, self.applied_weights).detach()
        weights = self._act_on(norms_of_tasks(gradients, shared, context), at.step, context)
        update = combine_gradients(gradients, weights)
        if context.reducer is not None and module is None:
            # With norm_of_mean the shared part is averaged already, and averaging is linear.
            done = len(shared) if context.reducer.reduce == "norm_of_mean" else 0
            update[done:] = context.reducer.mean_gradients(update[done:], every[done:])
        asked = {id(p) for p in wanted}
        into = [(p, g) for p, g in zip(every, update, strict=True) if id(p) in asked]
        add_to_grad([p for p, _ in into], [g for _, g in into])
        return self._combine(losses, weights).detach()
