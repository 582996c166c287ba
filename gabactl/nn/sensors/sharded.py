"""Gradients of tasks where parameters are sharded (FSDP2): through the module's own backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gabactl.base.errors import InputError
from gabactl.nn.sensors.context import Context, norm_of_task
from gabactl.nn.sensors.norms import is_sharded

__all__ = ["combine_sharded", "gradients_of_tasks", "sharded_norms"]

TaskGradients = list[list[Tensor | None]]


def sharded_norms(
    losses: Sequence[Tensor], parameters: Sequence[Tensor], module: nn.Module, context: Context
) -> Tensor:
    """Norms of the tasks' gradients on sharded parameters, shape (K,), equal on all ranks.

    What is measured is the joint batch. The graphs are kept, and ``.grad`` untouched.

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

    Returns
    -------
    Tensor, shape (K,)

    Raises
    ------
    InputError
        Another reduction was asked for, or ``samples`` given: the module reduces by itself.

    Examples
    --------
    In one process, with nothing sharded, it reads what :func:`exact_norms` reads:

    >>> model = nn.Linear(2, 2, bias=False)
    >>> y = model(torch.tensor([3.0, 4.0]))
    >>> sharded_norms([y[0], 2.0 * y[1]], list(model.parameters()), model, Context())
    tensor([ 5., 10.])
    """
    norms = [
        norm_of_task(gradients, parameters, context)
        for gradients in _each_task(losses, parameters, module, context, retain_last=True)
    ]
    return context.unscale(torch.stack(norms))


def gradients_of_tasks(
    losses: Sequence[Tensor],
    parameters: Sequence[Tensor],
    module: nn.Module,
    context: Context,
    retain_last: bool,
) -> TaskGradients:
    """Each task's gradients, averaged over the ranks, every rank with its shard.

    Parameters
    ----------
    losses : sequence of K scalar tensors
        Task losses of this rank.
    parameters : sequence of P Tensors
        Of the module.
    module : torch.nn.Module
        The whole module, heads included: the one ``fully_shard`` was applied to.
    context : Context
        Scaling, and a reducer with ``norm_of_mean``.
    retain_last : bool
        Keep the graph after the last task too.

    Returns
    -------
    K lists of P Tensors or None

    Raises
    ------
    InputError
        Another reduction was asked for, or ``samples`` given: the module reduces by itself.

    Examples
    --------
    >>> model = nn.Linear(2, 2, bias=False)
    >>> y = model(torch.tensor([3.0, 4.0]))
    >>> w = list(model.parameters())
    >>> gradients_of_tasks([y[0], y[1]], w, model, Context(), retain_last=False)[1]
    [tensor([[0., 0.],
            [3., 4.]])]
    >>> model.weight.grad is None
    True
    """
    return list(_each_task(losses, parameters, module, context, retain_last))


def _each_task(
    losses: Sequence[Tensor],
    parameters: Sequence[Tensor],
    module: nn.Module,
    context: Context,
    retain_last: bool,
) -> Iterator[list[Tensor | None]]:
    """The gradients of one task after the other.

    ``torch.autograd.grad`` does not see sharded parameters: the graph holds their gathered copies.
    So each backward pass runs as in training, reduce-scatter included, into an emptied ``.grad``,
    which is put back afterwards.
    """
    reducer = context.reducer
    if reducer is not None and (reducer.reduce != "norm_of_mean" or reducer.weighted):
        raise InputError(
            "sharded parameters are reduced by their module, all ranks alike: set "
            "reduce='norm_of_mean' and leave samples out"
        )
    every = list(module.parameters())
    saved = [p.grad for p in every]
    last = len(losses) - 1
    try:
        for i, loss in enumerate(losses):
            for p in every:
                p.grad = None
            keep = retain_last or i < last
            context.scaled(loss).backward(retain_graph=keep)  # type: ignore[no-untyped-call]
            yield [p.grad for p in parameters]
    finally:
        for p, gradient in zip(every, saved, strict=True):
            p.grad = gradient


@torch.no_grad()
def combine_sharded(gradients: TaskGradients, weights: Tensor) -> list[Tensor | None]:
    """Sum over tasks of w_i g_i, per parameter, on every rank's own shard.

    Parameters
    ----------
    gradients : K lists of P Tensors or None
        The tasks' gradients; consumed.
    weights : Tensor, shape (K,)
        Applied weights, the same on all ranks.

    Returns
    -------
    list of P Tensors or None
        None where no task reaches.

    Examples
    --------
    >>> combine_sharded([[torch.ones(2), None], [torch.ones(2), None]], torch.tensor([1.0, 2.0]))
    [tensor([3., 3.]), None]
    """
    combined: list[Tensor | None] = [None] * len(gradients[0])
    for weight, task in zip(weights, gradients, strict=True):
        for i, gradient in enumerate(task):
            if gradient is None:
                continue
            _local(gradient).mul_(weight)
            so_far = combined[i]
            if so_far is None:
                combined[i] = gradient
            else:
                _local(so_far).add_(_local(gradient))
        task.clear()
    return combined


def _local(gradient: Any) -> Tensor:
    """The storage of this rank's shard."""
    local: Tensor = gradient.to_local() if is_sharded(gradient) else gradient
    return local
