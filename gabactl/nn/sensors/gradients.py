"""Each task's gradients: taken, summed over micro-batches, and used as the update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gabactl.base.errors import InputError
from gabactl.nn.sensors.context import Context, norm_of_task
from gabactl.nn.sensors.norms import Tensors, is_sharded, task_gradients

#: By task, then by parameter; None where the task does not reach the parameter.
TaskGradients = list[list[Tensor | None]]


def leaves_of(losses: Tensors) -> list[Tensor]:
    """The leaf tensors whose ``.grad`` a backward pass of these losses would fill, as they are met.

    Examples
    --------
    >>> a, b = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    >>> [leaf is a or leaf is b for leaf in leaves_of([a * b, 2.0 * a])]
    [True, True]
    """
    found: dict[int, Tensor] = {}
    seen = set()
    # A loss that is itself a leaf has no grad_fn.
    stack = [loss.grad_fn for loss in reversed(losses) if loss.grad_fn is not None]
    found.update({id(loss): loss for loss in losses if loss.is_leaf and loss.requires_grad})
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.setdefault(id(leaf), leaf)
        stack.extend(parent for parent, _ in reversed(node.next_functions) if parent is not None)
    return list(found.values())


def shared_first(shared: Tensors, others: Tensors) -> list[Tensor]:
    """The shared parameters, and after them those of the others that are not shared.

    Examples
    --------
    >>> a, b = torch.zeros(1), torch.zeros(2)
    >>> [len(p) for p in shared_first([b], [a, b])]
    [2, 1]
    """
    own = {id(p) for p in shared}
    return [*shared, *(p for p in others if id(p) not in own)]


def refuse_hooked(parameters: Tensors, sharded: bool = False) -> None:
    """Refuse parameters whose owner expects to see a backward pass.

    Parameters
    ----------
    parameters : sequence of Tensor
        Whose ``.grad`` is to be written.
    sharded : bool
        The sharded module is known.

    Raises
    ------
    InputError
        Parameters of an unknown sharded module, or parameters with a post-accumulate-grad hook.

    Examples
    --------
    >>> w = torch.ones(1, requires_grad=True)
    >>> refuse_hooked([w])
    >>> _ = w.register_post_accumulate_grad_hook(lambda parameter: None)
    >>> refuse_hooked([w])
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: a parameter has a post-accumulate-grad hook, ...
    """
    for parameter in parameters:
        if is_sharded(parameter) and not sharded:
            raise InputError(
                "the parameters are sharded, and FSDP reduces their gradients in its own backward "
                "pass: pass the module, as in GABALoss(reduce='norm_of_mean', sharded=model)"
            )
        if getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise InputError(
                "a parameter has a post-accumulate-grad hook, which backward() would not run: use "
                "forward_k() and call backward() on its result"
            )


def each_task(
    losses: Tensors,
    parameters: Tensors,
    context: Context,
    *,
    retain_last: bool,
    module: nn.Module | None = None,
) -> Iterator[list[Tensor | None]]:
    """The gradients of one task after the other, scaled as the context says.

    Parameters
    ----------
    losses : sequence of K scalar tensors
        Task losses, of this rank.
    parameters : sequence of P Tensors
        What to differentiate by.
    context : Context
        Scaling; with a module, a reducer with ``norm_of_mean``.
    retain_last : bool
        Keep the graph after the last task too.
    module : torch.nn.Module, optional
        The whole module that ``fully_shard`` was applied to, where the parameters are its shards:
        gradients are then averaged over the ranks, every rank with its shard.

    Yields
    ------
    list of P Tensors or None
        None where the task does not reach; ``.grad`` is untouched.

    Raises
    ------
    InputError
        With a module: another reduction was asked for, or ``samples`` given.

    Examples
    --------
    >>> w, b = torch.ones(2, requires_grad=True), torch.ones((), requires_grad=True)
    >>> list(each_task([3.0 * w.sum(), w.sum() + b], [w, b], Context(), retain_last=False))
    [[tensor([3., 3.]), None], [tensor([1., 1.]), tensor(1.)]]

    In one process, with nothing sharded, a module changes nothing:

    >>> model = nn.Linear(2, 2, bias=False)
    >>> y, w = model(torch.tensor([3.0, 4.0])), list(model.parameters())
    >>> list(each_task([y[0], y[1]], w, Context(), retain_last=False, module=model))[1]
    [tensor([[0., 0.],
            [3., 4.]])]
    >>> model.weight.grad is None
    True
    """
    last = len(losses) - 1
    if module is not None:
        yield from _through_module(losses, parameters, context, retain_last, module)
        return
    for i, loss in enumerate(losses):
        yield list(task_gradients(context.scaled(loss), parameters, retain_last or i < last))


def _through_module(
    losses: Tensors, parameters: Tensors, context: Context, retain_last: bool, module: nn.Module
) -> Iterator[list[Tensor | None]]:
    """``torch.autograd.grad`` does not see sharded parameters: the graph holds gathered copies.

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


def norms_of_tasks(gradients: TaskGradients, shared: Tensors, context: Context) -> Tensor:
    """Norms of the losses' gradients, shape (K,), as the context's ranks agree on them.

    With ``reduce="norm_of_mean"`` the shared gradients are replaced by their means over the ranks.

    Parameters
    ----------
    gradients : K lists of P Tensors or None
        The tasks' gradients; the shared parameters come first.
    shared : sequence of Tensor
        The shared parameters.
    context : Context
        Scaling and reduction.

    Returns
    -------
    Tensor, shape (K,)

    Examples
    --------
    Parameters after the shared ones, here a head's, do not count:

    >>> w = torch.ones(2)
    >>> norms_of_tasks([[torch.tensor([3.0, 4.0]), torch.ones(9)]], [w], Context())
    tensor([5.])
    """
    norms = []
    for task in gradients:
        part = task[: len(shared)]
        norms.append(norm_of_task(part, shared, context))
        task[: len(shared)] = part
    return context.agree(context.unscale(torch.stack(norms)), averaged=True)


def add_up(total: TaskGradients | None, more: TaskGradients) -> TaskGradients:
    """Sum of the tasks' gradients over micro-batches; None where neither reaches.

    Parameters
    ----------
    total : K lists of P Tensors or None, or None
        So far.
    more : K lists of P Tensors or None
        Of one micro-batch.

    Examples
    --------
    >>> one = [[torch.ones(1), None]]
    >>> add_up(add_up(None, one), one)
    [[tensor([2.]), None]]
    """
    if total is None:
        return more
    return [
        [b if a is None else a if b is None else a + b for a, b in zip(old, new, strict=True)]
        for old, new in zip(total, more, strict=True)
    ]


@torch.no_grad()
def combine_gradients(gradients: TaskGradients, weights: Tensor) -> list[Tensor | None]:
    """Sum over tasks of w_i g_i, per parameter, every rank on its own shard; None where none reaches.

    Parameters
    ----------
    gradients : K lists of P Tensors or None
        The tasks' gradients; consumed.
    weights : Tensor, shape (K,)
        Applied weights.

    Examples
    --------
    >>> combine_gradients([[torch.ones(2), None], [torch.ones(2), None]], torch.tensor([1.0, 2.0]))
    [tensor([3., 3.]), None]
    """
    combined: list[Tensor | None] = [None] * len(gradients[0])
    for weight, task in zip(weights, gradients, strict=True):
        for i, gradient in enumerate(task):
            if gradient is None:
                continue
            part = _weighed(gradient, weight)
            so_far = combined[i]
            if so_far is None:
                combined[i] = part
            else:
                _local(so_far).add_(_local(part))
        task.clear()
    return combined


def _weighed(gradient: Tensor, weight: Tensor) -> Tensor:
    """A shard is ours alone and multiplied where it is; other gradients may share their memory."""
    if is_sharded(gradient):
        _local(gradient).mul_(weight)
        return gradient
    return gradient * weight.to(gradient.device)


def _local(gradient: Any) -> Tensor:
    """The storage of this rank's shard."""
    local: Tensor = gradient.to_local() if is_sharded(gradient) else gradient
    return local


@torch.no_grad()
def add_to_grad(parameters: Tensors, gradients: Sequence[Tensor | None]) -> None:
    """Accumulate into ``.grad``, as a backward pass does; None leaves it as it is.

    Parameters
    ----------
    parameters : sequence of P Tensors
        Leaves.
    gradients : sequence of P Tensors or None
        What to add.

    Examples
    --------
    >>> w = torch.ones(2, requires_grad=True)
    >>> add_to_grad([w], [torch.tensor([1.0, 2.0])])
    >>> add_to_grad([w], [torch.tensor([1.0, 2.0])])
    >>> w.grad
    tensor([2., 4.])
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.add_(gradient)


def total_with_gradients(
    total: Tensor, parameters: Tensors, gradients: Sequence[Tensor | None]
) -> Tensor:
    """A total whose ``backward()`` gives these gradients, without passing through the network.

    Hooks of the parameters run, and scaling the total scales the gradients, as in any backward pass.

    Parameters
    ----------
    total : Tensor, 0-dimensional
        The value, detached.
    parameters : sequence of P Tensors
        Leaves.
    gradients : sequence of P Tensors or None
        Their derivatives.

    Examples
    --------
    >>> w = torch.zeros(2, requires_grad=True)
    >>> (2 * total_with_gradients(torch.tensor(7.0), [w], [torch.tensor([1.0, 3.0])])).backward()
    >>> w.grad
    tensor([2., 6.])
    """
    result: Tensor = _KnownGradients.apply(total, gradients, *parameters)  # type: ignore[no-untyped-call]
    return result


class _KnownGradients(torch.autograd.Function):
    """Saved as autograd saves its own, so that a backward pass frees them."""

    @staticmethod
    def forward(
        ctx: Any, total: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*(g for g in gradients if g is not None))
        ctx.there = [g is not None for g in gradients]
        return total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        scale = outer[0]
        return None, None, *(next(saved) * scale if there else None for there in ctx.there)
