"""Torch losses as fuzz targets: readings become losses with exactly those gradients.

Each task's loss is a node whose value is the given loss and whose gradient on the shared
parameter is the given norm along the task's own axis, so any sensor built on autograd reads what
the case says. A second input, private to the task, brings the applied weight back out: it is the
derivative of the combined loss with respect to it. Nothing inside the module is looked at.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gabactl.base.errors import InputError
from gabactl.fuzzing.target import RuleRun, Target
from gabactl.law.spec import GabaSpec

Array = NDArray[np.float64]

#: What the published class calls beta, warmup, floor and n_tasks.
_PUBLISHED_NAMES = ("beta", "warmup_steps", "min_weight", "n_tasks")


class TaskLoss(torch.autograd.Function):
    """A scalar with a chosen value and a chosen gradient on the shared parameter.

    Examples
    --------
    >>> shared, probe = torch.zeros(2, requires_grad=True), torch.zeros((), requires_grad=True)
    >>> loss = TaskLoss.apply(shared, probe, torch.tensor(1.5), torch.tensor([3.0, 4.0]))
    >>> loss.item(), torch.autograd.grad(loss, [shared])[0].norm().item()
    (1.5, 5.0)
    """

    @staticmethod
    def forward(ctx: Any, shared: Tensor, probe: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """The value; ``gradient`` is kept for the way back."""
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient on the shared parameter, and 1 on the probe."""
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0] * gradient, grad_outputs[0], None, None


def task_losses(
    grad_norms: Array, losses: Array, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Losses with these values and gradient norms, the shared parameter, and the probes.

    Parameters
    ----------
    grad_norms, losses : arrays, shape (K,)
        What a sensor shall read.
    dtype : torch.dtype
        Of the model.

    Examples
    --------
    >>> losses, shared, probes = task_losses(np.array([3.0, 1.0]), np.ones(2), torch.float32)
    >>> [torch.autograd.grad(x, [shared])[0].tolist() for x in losses]
    [[3.0, 0.0], [0.0, 1.0]]
    """
    k = len(grad_norms)
    shared = torch.zeros(k, dtype=dtype, requires_grad=True)
    probes = [torch.zeros((), dtype=dtype, requires_grad=True) for _ in range(k)]
    # Norms beyond the range of the type become infinite, as they would in a model of that type.
    gradients = torch.from_numpy(np.diag(grad_norms)).to(dtype)
    values = torch.from_numpy(np.asarray(losses, dtype=np.float64)).to(dtype)
    out = [
        TaskLoss.apply(shared, probe, values[i], gradients[i])  # type: ignore[no-untyped-call]
        for i, probe in enumerate(probes)
    ]
    return out, shared, probes


class TorchRun(RuleRun):
    """A run of a torch loss module."""

    def __init__(self, loss: nn.Module, n_tasks: int, dtype: torch.dtype = torch.float32) -> None:
        self._loss, self._k, self._dtype = loss, n_tasks, dtype

    def step(self, grad_norms: Array, losses: Array) -> Array:
        """One training step."""
        values, shared, probes = task_losses(grad_norms, losses, self._dtype)
        total = call_loss(self._loss, values, [shared])
        return applied(total, probes)

    def average(self) -> Array | None:
        """The buffer ``ema_weights``, where the module has one."""
        ema = getattr(self._loss, "ema_weights", None)
        if not isinstance(ema, Tensor) or ema.shape != (self._k,):
            return None
        return ema.detach().double().cpu().numpy().copy()

    def save(self) -> Any:
        """The ``state_dict`` as bytes, as a training script would write it."""
        buffer = io.BytesIO()
        torch.save(self._loss.state_dict(), buffer)
        return buffer.getvalue()

    def load(self, state: Any) -> None:
        """Into a module just made, through ``weights_only`` loading."""
        self._loss.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))


def applied(total: Tensor, probes: list[Tensor]) -> Array:
    """The weights in a combined loss: its slopes along the probes.

    Examples
    --------
    >>> losses, _, probes = task_losses(np.ones(2), np.ones(2), torch.float32)
    >>> applied(0.25 * losses[0], probes).tolist()
    [0.25, 0.0]
    """
    weights = torch.autograd.grad(total, probes, allow_unused=True)
    return np.array([0.0 if w is None else float(w) for w in weights])


def call_loss(loss: nn.Module, values: list[Tensor], shared: list[Tensor] | None) -> Tensor:
    """Call a loss by ``forward_k(losses, shared_params)`` or the two-task signature.

    Examples
    --------
    >>> from gabactl.nn import GABALoss
    >>> values, shared, _ = task_losses(np.ones(2), np.ones(2), torch.float32)
    >>> call_loss(GABALoss(), values, [shared]).item()
    1.0
    """
    forward_k = getattr(loss, "forward_k", None)
    if callable(forward_k):
        return forward_k(values, shared)
    return loss(*values, shared_params=shared)


def module(
    make: Callable[[int], Any], n_tasks: int, name: str, *, fixed_tasks: bool = True
) -> Target:
    """A target from a factory of torch losses.

    Parameters
    ----------
    make : callable
        ``make(n_tasks)`` gives a fresh module.
    n_tasks : int
        Used where the module does not state its own.
    name : str
        Shown in results.
    fixed_tasks : bool
        Whether the module exists for one number of tasks only.

    Examples
    --------
    >>> from gabactl.nn import GABALoss
    >>> module(lambda k: GABALoss(n_tasks=k), 2, "mine").spec.beta
    0.99
    """
    first = make(n_tasks)
    if not isinstance(first, nn.Module):
        raise InputError(f"{name}: the factory returned no torch module")
    stated = getattr(first, "n_tasks", n_tasks)
    k = stated if isinstance(stated, int) else n_tasks
    if not callable(getattr(first, "forward_k", None)):
        parameters = inspect.signature(first.forward).parameters.values()
        if not any(p.name == "shared_params" or p.kind is p.VAR_KEYWORD for p in parameters):
            raise InputError(
                f"{name}: forward() takes no shared_params: give it the signature "
                "forward(loss_0, loss_1, shared_params=None), or forward_k(losses, shared_params)"
            )
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            losses = [p for p in parameters if p.name != "shared_params"]
            k = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in losses)
    spec = _claimed(first)
    total = float(k) if getattr(first, "normalise_to", 1) == "n_tasks" else 1.0
    return _target(
        name, k, make, spec, fixed_tasks=fixed_tasks, total=None if spec is None else total
    )


def _target(
    name: str,
    n_tasks: int,
    make: Callable[[int], nn.Module],
    spec: GabaSpec | None,
    **claims: Any,
) -> Target:
    return Target(
        name,
        n_tasks,
        lambda k: TorchRun(make(k), k),
        spec=spec,
        resolution=2.0**-23,
        largest=1e18,
        smallest=1e-18,
        **{"uses_losses": spec is None, "total": None if spec is None else 1.0, **claims},
    )


def _claimed(loss: nn.Module) -> GabaSpec | None:
    """The settings of a module that is GABA by its ``spec`` or by the published attributes."""
    spec = getattr(loss, "spec", None)
    if isinstance(spec, GabaSpec):
        return spec
    if all(hasattr(loss, name) for name in _PUBLISHED_NAMES):
        beta, warmup, floor, n_tasks = (getattr(loss, name) for name in _PUBLISHED_NAMES)
        return GabaSpec.published(n_tasks, beta=beta, warmup=warmup, floor=floor)
    return None


def gaba(spec: GabaSpec) -> Target:
    """:class:`gabactl.nn.GABALoss`.

    Examples
    --------
    >>> gaba(GabaSpec()).name
    'gaba-torch'
    """
    from gabactl.nn.losses.gaba import GABALoss

    def make(n_tasks: int) -> nn.Module:
        return GABALoss.from_spec(spec.replace(n_tasks=n_tasks))

    return _target("gaba-torch", spec.n_tasks, make, spec)


def gradnorm(n_tasks: int) -> Target:
    """:class:`gabactl.nn.GradNormLoss`, the original variant.

    Examples
    --------
    >>> gradnorm(2).uses_losses
    True
    """
    from gabactl.nn.losses.gradnorm import GradNormLoss

    def make(n_tasks: int) -> nn.Module:
        return GradNormLoss(n_tasks=n_tasks)

    return _target("gradnorm-torch", n_tasks, make, None, total=float(n_tasks))
