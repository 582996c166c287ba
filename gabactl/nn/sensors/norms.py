"""Which parameters are shared, and how large a task's gradient on them is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from gabactl.base.errors import InputError

__all__ = ["compute_task_grad_norm", "get_shared_params"]


#: Of the tasks, or parameters.
Tensors = Sequence[Tensor]

_WIDE = (torch.float32, torch.float64)


def get_shared_params(
    model: nn.Module, head_names: Sequence[str] = ("rul_head", "health_head")
) -> list[nn.Parameter]:
    """Parameters that all tasks share: those outside the heads.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    head_names : sequence of str
        A parameter whose dotted name contains one of these substrings belongs to a head.

    Returns
    -------
    list of torch.nn.Parameter
        Those that require a gradient, in ``named_parameters`` order.

    Raises
    ------
    InputError
        ``head_names`` is one string.

    Examples
    --------
    >>> model = nn.ModuleDict({"backbone": nn.Linear(14, 32), "rul_head": nn.Linear(32, 1),
    ...                        "health_head": nn.Linear(32, 3)})
    >>> sum(p.numel() for p in get_shared_params(model))
    480
    """
    if isinstance(head_names, str):
        raise InputError(
            f"head_names = {head_names!r} is one string: pass a tuple, ({head_names!r},)"
        )
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(head in name for head in head_names)
    ]


def compute_task_grad_norm(
    loss: Tensor, shared_params: Iterable[Tensor], retain_graph: bool = True
) -> Tensor:
    """Euclidean norm of one loss's gradient on the shared parameters.

    Never touches ``.grad``. Half-precision gradients are squared and summed in float32, where an
    entry of 256 and more would overflow float16.

    Parameters
    ----------
    loss : Tensor, 0-dimensional
        A task's loss, with its graph.
    shared_params : iterable of Tensor
        Any iterable, a generator included.
    retain_graph : bool
        Keep the graph, for the next measurement or the backward pass to come.

    Returns
    -------
    Tensor, 0-dimensional
        Square root of the sum over parameters of the sum of squares, on the parameters' device;
        0 where the loss depends on none of them.

    Raises
    ------
    InputError
        The loss needs no gradient, or there are no parameters.

    Examples
    --------
    >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> compute_task_grad_norm((w * w).sum() / 2, [w])
    tensor(5.)
    """
    parameters = list(shared_params)
    if not parameters:
        raise InputError("shared_params is empty: pass the parameters that the tasks share")
    if not loss.requires_grad:
        raise InputError("the loss needs no gradient: compute it from the model, without detach()")
    return norm_of(task_gradients(loss, parameters, retain_graph), parameters[0].device)


def task_gradients(
    loss: Tensor, parameters: Tensors, retain_graph: bool = True
) -> tuple[Tensor | None, ...]:
    """One loss's gradients, None for parameters it does not reach; ``.grad`` stays untouched.

    Parameters
    ----------
    loss : Tensor, 0-dimensional or of one element
        A task's loss, with its graph.
    parameters : sequence of Tensor
        What to differentiate by.
    retain_graph : bool
        Keep the graph for another pass.

    Returns
    -------
    tuple of P Tensors or None
        Of the shapes of the parameters.

    Raises
    ------
    InputError
        The model was compiled with donated buffers, which allow one backward pass only. Or
        parameters are sharded: the graph holds their gathered copies, not them.

    Examples
    --------
    >>> a, b = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    >>> task_gradients(3.0 * a, [a, b])
    (tensor(3.), None)
    """
    if any(is_sharded(p) for p in parameters):
        raise InputError(
            "the gradients of sharded parameters cannot be taken here: use the full or the event "
            "sensor, as in GABALoss(reduce='norm_of_mean', sharded=model), or the representation "
            "sensor without recalibration"
        )
    try:
        return torch.autograd.grad(
            loss, parameters, retain_graph=retain_graph, create_graph=False, allow_unused=True
        )
    except RuntimeError as error:
        if "donated buffer" not in str(error):
            raise
        raise InputError(
            "the compiled model gave its buffers away after one backward pass: set "
            "torch._functorch.config.donated_buffer = False before the first compiled call"
        ) from error


def norm_of(gradients: Iterable[Tensor | None], device: torch.device | None = None) -> Tensor:
    """Euclidean norm over several gradients, None entries skipped.

    Parameters
    ----------
    gradients : iterable of Tensor or None
        Dense or sparse, of any floating dtype.
    device : torch.device, optional
        Where a norm of nothing lives.

    Returns
    -------
    Tensor, 0-dimensional
        In float32, or float64 where a gradient is.

    Examples
    --------
    >>> norm_of([torch.full((4,), 300.0, dtype=torch.float16), None])
    tensor(600.)
    """
    squares: Tensor | None = None
    for gradient in gradients:
        if gradient is None:
            continue
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        square = values.pow(2).sum()
        squares = square if squares is None else squares + square.to(squares.device)
    return torch.zeros((), device=device) if squares is None else squares.sqrt()


def fused_norm_of(gradients: Iterable[Tensor | None], device: torch.device | None = None) -> Tensor:
    """As :func:`norm_of`, with one kernel for all parameters where the device has one.

    Equal within rounding, not to the last bit: the sums run in another order.

    Parameters
    ----------
    gradients : sequence of Tensor or None
        Sparse, half-precision or scattered ones are measured by :func:`norm_of`.
    device : torch.device, optional
        Where a norm of nothing lives.

    Returns
    -------
    Tensor, 0-dimensional

    Examples
    --------
    >>> fused_norm_of([torch.full((4,), 3.0), None, torch.full((1,), 8.0)])
    tensor(10.)
    """
    present = [g for g in gradients if g is not None]
    kinds = {(g.is_sparse, g.dtype, g.device) for g in present}
    if len(kinds) != 1 or present[0].is_sparse or present[0].dtype not in _WIDE:
        return norm_of(present, device)
    norms = torch._foreach_norm(present)
    return torch.linalg.vector_norm(torch.stack(list(norms)))


def is_sharded(tensor: Tensor) -> bool:
    """Whether this is a ``DTensor``, each rank holding a part of it.

    Parameters
    ----------
    tensor : Tensor, any shape
        A parameter or a gradient.

    Examples
    --------
    >>> is_sharded(torch.ones(3))
    False
    """
    return hasattr(tensor, "device_mesh")


def inner_product(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> Tensor:
    """Inner product of two gradients, a None entry counting as zero.

    Parameters
    ----------
    a, b : sequence of P Tensors or None
        Per parameter, of equal shapes.

    Returns
    -------
    Tensor, 0-dimensional
        In float32, or float64 where a gradient is.

    Examples
    --------
    >>> inner_product([torch.ones(3), None], [torch.full((3,), 2.0), torch.ones(1)])
    tensor(6.)
    """
    total: Tensor | None = None
    for x, y in zip(a, b, strict=True):
        if x is None or y is None:
            continue
        left, right = (_dense(x).reshape(-1), _dense(y).reshape(-1))
        product = torch.dot(left, right)
        total = product if total is None else total + product.to(total.device)
    return torch.zeros(()) if total is None else total


def _dense(gradient: Tensor) -> Tensor:
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    return dense.float() if dense.dtype in (torch.float16, torch.bfloat16) else dense
