"""``GradNormLoss``: GradNorm, in its original and its textbook variant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from gabactl.balancers.gradnorm import GradNorm
from gabactl.nn.losses.base import BalancedLoss
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.gradients import (
    combine_gradients,
    each_task,
    leaves_of,
    shared_first,
    total_with_gradients,
)
from gabactl.nn.sensors.norms import Tensors, is_sharded, norm_of

__all__ = ["GradNormLoss"]

#: What adds 1e-8 to the initial losses in the published comparison.
_TINY = 1e-8


class GradNormLoss(BalancedLoss):
    """Learns the weights by gradient steps on sum_i |G_i - T_i|, with G_i = ||grad w_i L_i||.

    The target is T_i = mean(G) r_i^alpha, held constant, with r_i the training rate. Nothing
    bounds these weights: a step larger than a weight makes it negative. That is GradNorm; the
    analysis of it is what this package is for.

    Parameters
    ----------
    variant : {"chen2018", "textbook"}
        ``chen2018``: r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0)), auxiliary weight 1, weights
        renormalised to sum K after each step. ``textbook``: r_i = L_i / L_i(0), auxiliary weight
        0.1, no renormalisation.
    alpha : float, at least 0
        Restoring force. A positive value gives the lagging task MORE weight.
    lr : float, positive
        Step size of the weights (plain gradient descent).
    auxiliary_weight : float, optional
        Factor of the auxiliary loss; default: the variant's.
    n_tasks, task_names
        As in :class:`gabactl.nn.GABALoss`.
    create_graph : bool
        True differentiates through the gradient norms, as published, at the cost of a second-order
        graph. False uses the closed form d G_i / d w_i = sign(w_i) ||grad L_i||: the same weights
        for the price of first-order gradients (and the only way on cuDNN's recurrent layers,
        which have no second derivative). Where ``shared_params`` are all that the losses share,
        the gradients measured are also the update: K backbone passes, and the losses' graphs are
        freed by ``forward_k`` (see ``keep_graph``).

    Attributes
    ----------
    task_weights : Tensor, shape (K,)
        The learnt weights, 1 each at first; a buffer.
    initial_losses : Tensor, shape (K,)
        Losses of the first step, NaN before; a buffer.

    Raises
    ------
    InputError
        An unknown variant, fewer than two tasks, or a value out of its range.

    Notes
    -----
    Source: Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: gradient normalization for
    adaptive loss balancing in deep multitask networks", ICML 2018, algorithm 1. The auxiliary
    gradients reach the weights only, never the model. The weights of a step are those learnt
    until the step before.

    Examples
    --------
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> loss_fn = GradNormLoss("textbook", lr=0.05, auxiliary_weight=1.0)
    >>> _ = loss_fn(76.5335 * w[0], 0.36654 * w[1], shared_params=[w])
    >>> loss_fn.task_weights
    tensor([-2.8267,  1.0183])
    """

    record_name = "gradnorm"
    measure_every = 1
    task_weights: Tensor
    initial_losses: Tensor

    def __init__(
        self,
        variant: Literal["chen2018", "textbook"] = "chen2018",
        alpha: float = 1.5,
        lr: float = 0.025,
        auxiliary_weight: float | None = None,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        create_graph: bool = True,
    ) -> None:
        rule = GradNorm(variant, alpha, lr, auxiliary_weight, n_tasks=n_tasks)
        super().__init__(n_tasks, task_names)
        self.variant, self.alpha, self.lr = rule.variant, rule.alpha, rule.lr
        self.auxiliary_weight = rule.auxiliary_weight
        self.create_graph = create_graph
        self.register_buffer("task_weights", torch.ones(n_tasks))
        self.register_buffer("initial_losses", torch.full((n_tasks,), math.nan))

    def forward_k(self, losses: Tensors, shared_params: Iterable[Tensor] | None = None) -> Tensor:
        """The weighted sum under the present weights, which then learn from this step.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Task losses.
        shared_params : iterable of Tensor, optional
            Parameters to measure on (the original takes the last shared layer). None leaves the
            weights as they are.
        """
        parameters = self._check(losses, shared_params)
        self.measured_this_step = False
        applied = self.task_weights.clone()
        if not self._frozen:
            step = self._steps() + 1
            self._refuse_capture(step, alike=True)
            if parameters is not None:
                self.measured_this_step = True
                if not self.create_graph and _are_all_shared(losses, parameters):
                    return self._reusing(losses, parameters, applied, step)
                self._learn(losses, parameters)
            self._advance(step)
        return self._combine(losses, applied)

    def _reusing(
        self, losses: Tensors, parameters: list[Tensor], applied: Tensor, step: int
    ) -> Tensor:
        """The total, with the gradients that were measured as its derivatives."""
        every = shared_first(parameters, leaves_of(losses))
        gradients = list(each_task(losses, every, Context(), retain_last=self.keep_graph))
        device = parameters[0].device
        norms = [norm_of(task[: len(parameters)], device).to(device) for task in gradients]
        self._learn(losses, parameters, torch.stack(norms))
        self._advance(step)
        total = self._combine(losses, applied).detach()
        return total_with_gradients(total, every, combine_gradients(gradients, applied))

    def _learn(
        self, losses: Tensors, parameters: list[Tensor], known: Tensor | None = None
    ) -> None:
        values = torch.stack([loss.detach().reshape(()) for loss in losses])
        if self.task_weights.device != values.device:
            self.to(values.device)
        self.initial_losses.copy_(
            torch.where(self.initial_losses.isnan(), values, self.initial_losses)
        )
        if self.create_graph:
            gradient, norms = self._by_autograd(losses, parameters, values)
        else:
            norms = self._norms(losses, parameters) if known is None else known
            gradient = self._by_closed_form(norms, values)
        weights = self.task_weights - self.lr * gradient
        if self.variant == "chen2018":
            weights = weights * (len(losses) / weights.sum())
        self.task_weights.copy_(weights)
        self._last_grad_norms = norms

    def _targets(self, weighted_norms: Tensor, values: Tensor) -> Tensor:
        rates = values / (self.initial_losses + _TINY)
        if self.variant == "chen2018":
            rates = rates / rates.mean()
        return weighted_norms.mean() * rates**self.alpha

    def _by_autograd(
        self, losses: Tensors, parameters: list[Tensor], values: Tensor
    ) -> tuple[Tensor, Tensor]:
        weights = self.task_weights.clone().requires_grad_(True)
        weighted_norms = []
        for weight, loss in zip(weights, losses, strict=True):
            gradients = torch.autograd.grad(
                weight * loss.reshape(()), parameters, create_graph=True, allow_unused=True
            )
            weighted_norms.append(_differentiable_norm(gradients, loss))
        norms = torch.stack(weighted_norms)
        targets = self._targets(norms.detach(), values)
        auxiliary = self.auxiliary_weight * (norms - targets).abs().sum()
        (gradient,) = torch.autograd.grad(auxiliary, [weights], retain_graph=True)
        return gradient, norms.detach() / self.task_weights.abs()

    def _by_closed_form(self, norms: Tensor, values: Tensor) -> Tensor:
        weighted = self.task_weights.abs() * norms
        above = torch.sign(weighted - self._targets(weighted, values))
        return self.auxiliary_weight * norms * torch.sign(self.task_weights) * above

    def _weights_of_state(self) -> Tensor:
        return self.task_weights


def _are_all_shared(losses: Tensors, parameters: list[Tensor]) -> bool:
    """Whether every leaf that more than one loss reaches is among the parameters."""
    if any(not p.is_leaf or is_sharded(p) for p in parameters):
        return False
    own = {id(p) for p in parameters}
    seen: set[int] = set()
    for loss in losses:
        reached = {id(leaf) for leaf in leaves_of([loss])}
        if (reached & seen) - own:
            return False
        seen |= reached
    return True


def _differentiable_norm(gradients: Sequence[Tensor | None], loss: Tensor) -> Tensor:
    squares: Any = torch.zeros((), dtype=loss.dtype, device=loss.device)
    for gradient in gradients:
        if gradient is not None:
            squares = squares + gradient.pow(2).sum()
    return squares.sqrt()
