"""Accelerate: one call that does what ``accelerator.backward`` does, with the losses balanced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gabactl.base.errors import InputError, packages_for

with packages_for(__name__):
    from torch import Tensor

from gabactl.nn.losses.gaba import GABALoss
from gabactl.nn.sensors.norms import Tensors

__all__ = ["backward"]


def backward(
    accelerator: Any,
    loss_fn: GABALoss,
    losses: Tensors,
    shared_params: Iterable[Tensor] | None = None,
    *,
    reuse: bool = False,
) -> Tensor:
    """Weigh the losses and run the backward pass through the accelerator.

    Gradients are measured on scaled losses where the accelerator scales. Register the loss with
    ``accelerator.register_for_checkpointing(loss_fn)``, and its state is saved and loaded.

    Parameters
    ----------
    accelerator : accelerate.Accelerator
        Yours.
    loss_fn : GABALoss
        The balancer.
    losses : sequence of K scalar tensors
        Task losses of this micro-batch.
    shared_params : iterable of Tensor, optional
        As for :meth:`gabactl.nn.GABALoss.forward_k`.
    reuse : bool
        Use :meth:`gabactl.nn.GABALoss.backward`: faster, and with gradient accumulation one
        reading per optimiser step, on the accumulated gradient.

    Returns
    -------
    Tensor, 0-dimensional
        The weighted sum, detached.

    Raises
    ------
    InputError
        ``reuse`` with DeepSpeed or Megatron, which have their own backward pass; or where the
        data end in the middle of an accumulated step.

    Examples
    --------
    >>> import torch
    >>> from types import SimpleNamespace
    >>> accelerator = SimpleNamespace(backward=lambda loss: loss.backward())  # or Accelerator()
    >>> w = torch.ones(2, requires_grad=True)
    >>> balancer = GABALoss(beta=0.0, warmup_steps=0)
    >>> backward(accelerator, balancer, [3.0 * w[0], w[1]], [w])
    tensor(1.5000)
    >>> w.grad  # 3 and 1, weighed by 1/4 and 3/4
    tensor([0.7500, 0.7500])
    """
    scaler = getattr(accelerator, "scaler", None)
    if not reuse:
        total = loss_fn.forward_k(losses, shared_params, grad_scaler=scaler)
        accelerator.backward(total)
        return total.detach()
    kind = str(getattr(accelerator, "distributed_type", ""))
    if "DEEPSPEED" in kind or "MEGATRON" in kind:
        raise InputError(
            f"reuse does not work with {kind}, which runs backward itself: reuse=False"
        )
    total = loss_fn.backward(
        losses,
        shared_params,
        micro_batches=accelerator.gradient_accumulation_steps,
        grad_scaler=scaler,
    )
    if accelerator.sync_gradients and loss_fn.accumulating:
        raise InputError(
            "the optimiser steps before all "
            f"{accelerator.gradient_accumulation_steps} micro-batches are there, at the end of the "
            "data: make the number of batches a multiple, or use reuse=False"
        )
    return total
