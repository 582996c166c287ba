"""``ExcitedLoss``: any of our losses, with a known perturbation on its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from gabactl.nn.excitation import Excitation
from gabactl.nn.losses.base import BalancedLoss
from gabactl.nn.sensors.norms import Tensors


class ExcitedLoss(BalancedLoss):
    """Adds an :class:`Excitation` to the weights another loss chooses.

    The controller inside measures and averages as ever; only what is applied is perturbed, and
    ``applied_weights`` (what a recorder writes) are the perturbed ones.

    Parameters
    ----------
    inner : BalancedLoss
        The loss whose weights are perturbed.
    excitation : Excitation
        The sequence; its first value acts at the first training step.

    Attributes
    ----------
    excitation_now : float
        What was added at the last training step, in logit units; 0 before.

    Examples
    --------
    >>> import torch
    >>> from gabactl.nn import FixedLoss
    >>> loss = ExcitedLoss(FixedLoss([0.5, 0.5]), Excitation(amplitude=1.0, seed=0))
    >>> _ = loss(torch.tensor(1.0), torch.tensor(1.0))
    >>> torch.logit(loss.applied_weights[0]).item(), loss.excitation_now
    (1.0, 1.0)
    """

    def __init__(self, inner: BalancedLoss, excitation: Excitation) -> None:
        super().__init__(len(inner.task_names), inner.task_names)
        self.inner = inner
        inner.keep_graph = True  # the losses are summed again, under other weights
        self.excitation = excitation
        self.excitation_now = 0.0
        self._sequence = excitation.sequence(excitation.period)
        self.spec = inner.spec

    def forward_k(self, losses: Tensors, shared_params: Iterable[Tensor] | None = None) -> Tensor:
        """The sum of the losses under the perturbed weights.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Task losses.
        shared_params : iterable of Tensor, optional
            Passed on to the loss inside.
        """
        total = self.inner.forward_k(losses, shared_params)
        self.measured_this_step = self.inner.measured_this_step
        self._last_grad_norms = self.inner._last_grad_norms
        self._last_raw_weights = self.inner._last_raw_weights
        if self._frozen:
            self._last_applied = self.inner.applied_weights
            return total
        step = self._steps() + 1
        if step > len(self._sequence):
            self._sequence = self.excitation.sequence(2 * step)
        self.excitation_now = float(self._sequence[step - 1])
        self._advance(step)
        return self._combine(losses, self._perturbed(self.inner.applied_weights))

    def _perturbed(self, weights: Tensor) -> Tensor:
        scale = weights.new_ones(len(weights))
        scale[0] = math.exp(self.excitation_now)
        pushed = weights * scale
        return pushed * (weights.sum() / pushed.sum())

    @property
    def balancer(self) -> BalancedLoss:
        """The loss inside, which chooses the weights."""
        return self.inner.balancer

    def _weights_of_state(self) -> Tensor:
        return self.inner.applied_weights

    @property
    def ema_weights(self) -> Any:
        """The stored average of the loss inside, where it has one."""
        return getattr(self.inner, "ema_weights", None)
