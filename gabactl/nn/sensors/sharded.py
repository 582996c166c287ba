"""Exact norms where parameters are sharded (FSDP2): measured through the module's own backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gabactl.errors import InputError
from gabactl.nn.sensors.base import Context
from gabactl.nn.sensors.norms import norm_of

__all__ = ["sharded_norms"]


def sharded_norms(
    losses: Sequence[Tensor], parameters: Sequence[Tensor], module: nn.Module, context: Context
) -> Tensor:
    """Norms of the tasks' gradients on sharded parameters, shape (K,), equal on all ranks.

    ``torch.autograd.grad`` does not see sharded parameters: the graph holds their gathered
    copies. So each loss's backward pass runs as in training, reduce-scatter included, into an
    emptied ``.grad``, which is put back afterwards. What is measured is the joint batch.

    Parameters
    ----------
    losses : sequence of K scalar tensors
        Task losses of this rank.
    parameters : sequence of Tensor
        Shared parameters of the module.
    module : torch.nn.Module
        The whole module, heads included: the one ``fully_shard`` was applied to.
    context : Context
        Scaling, and a reducer with ``norm_of_mean``.

    Raises
    ------
    InputError
        Another reduction was asked for, or ``samples`` given: the module reduces by itself.
    """
    reducer = context.reducer
    if reducer is not None and (reducer.reduce != "norm_of_mean" or reducer.weighted):
        raise InputError(
            "sharded parameters are reduced by their module, all ranks alike: set "
            "reduce='norm_of_mean' and leave samples out"
        )
    every = list(module.parameters())
    saved = [p.grad for p in every]
    norms = []
    try:
        for loss in losses:
            for p in every:
                p.grad = None
            context.scaled(loss).backward(retain_graph=True)  # type: ignore[no-untyped-call]
            with torch.no_grad():
                norm: Any = norm_of([p.grad for p in parameters], parameters[0].device)
            norms.append(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    finally:
        for p, gradient in zip(every, saved, strict=True):
            p.grad = gradient
    return context.unscale(torch.stack(norms))
