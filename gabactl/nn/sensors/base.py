"""What every sensor is: when a reading is due, and how it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gabactl.errors import InputError
from gabactl.nn.sensors.norms import (
    compute_task_grad_norm,
    fused_norm_of,
    is_sharded,
    norm_of,
    task_gradients,
)

if TYPE_CHECKING:
    from gabactl.nn.distributed import Reducer
    from gabactl.spec import GabaSpec

__all__ = ["Context", "Sensor", "exact_norms", "norm_of_task"]


@dataclass(frozen=True)
class Context:
    """What a reading takes place in.

    Attributes
    ----------
    grad_scaler : torch.amp.GradScaler, optional
        Gradients are measured on the scaled losses, and the norms divided by the scale.
    reducer : Reducer, optional
        How the ranks of a data-parallel run agree; None in a single process.
    fast : bool
        Norms by fused kernels, equal to the published sum of squares within rounding.
    module : torch.nn.Module, optional
        The module, where its parameters are sharded.
    """

    grad_scaler: Any = None
    reducer: Reducer | None = None
    fast: bool = False
    module: nn.Module | None = None

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as its gradients are taken.

        Parameters
        ----------
        loss : Tensor, 0-dimensional
            A task's loss.
        """
        return loss if self.grad_scaler is None else self.grad_scaler.scale(loss)

    def unscale(self, norms: Tensor) -> Tensor:
        """Norms of the losses themselves, without reading the scale on the host.

        Parameters
        ----------
        norms : Tensor, shape (K,)
            Of the gradients of scaled losses.
        """
        if self.grad_scaler is None:
            return norms
        return norms / self.grad_scaler.scale(torch.ones((), device=norms.device))

    def agree(self, norms: Tensor, averaged: bool = False) -> Tensor:
        """The reading all ranks act on.

        Parameters
        ----------
        norms : Tensor, shape (K,)
            Of this rank.
        averaged : bool
            These are norms of gradients that were averaged over the ranks already.

        Returns
        -------
        Tensor, shape (K,)
            ``norms`` itself in a single process, with ``reduce="local"`` and where they are averaged.
        """
        if self.reducer is None or self.reducer.reduce == "local":
            return norms
        if averaged and self.reducer.reduce == "norm_of_mean":
            return norms
        return self.reducer.mean_norms(norms)


class Sensor(nn.Module):
    """Decides when gradient norms are measured, and measures them.

    A subclass implements :meth:`read`, and :meth:`due` where it chooses its own times. State
    lives in buffers or in ``get_extra_state``, so that a checkpoint of the loss holds it.

    Attributes
    ----------
    name : str
        What records call it.
    exact : bool
        The reading needs the tasks' whole gradients, so ``GABALoss.backward`` can use them.
    coasts : bool
        Between readings the average goes on following the last raw weights.
    """

    name = "custom"
    exact = False
    coasts = False

    def describe(self) -> dict[str, Any]:
        """Name and settings, as plain values: what a recorded trace says of its sensor."""
        return {"name": self.name, "coasts": self.coasts}

    def check(self, spec: GabaSpec) -> None:
        """Refuse settings this sensor cannot serve; called when the loss is made and when they change.

        Parameters
        ----------
        spec : GabaSpec
            The settings.

        Raises
        ------
        InputError
            They do not go together; the sensor says how to mend that.
        """

    def reads_every_step(self, spec: GabaSpec) -> bool:
        """Whether every step past the warm-up does the same, so that it can be captured.

        Parameters
        ----------
        spec : GabaSpec
            The settings.
        """
        return False

    def due(self, step: int, spec: GabaSpec, losses: Sequence[Tensor], alone: bool = True) -> bool:
        """Whether ``step`` (from 1) takes a reading.

        Parameters
        ----------
        step : int
            The step about to be taken.
        spec : GabaSpec
            Warm-up and interval.
        losses : sequence of K scalar tensors
            Of this step.
        alone : bool
            No other rank has to come to the same answer, so local losses may decide.
        """
        return spec.measures_at(step)

    def read(
        self, losses: Sequence[Tensor], parameters: Sequence[Tensor], context: Context
    ) -> Tensor:
        """Gradient norms; the graph is kept and ``.grad`` untouched.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Of this step, with their graph.
        parameters : sequence of Tensor
            Shared parameters.
        context : Context
            Scaling and reduction.

        Returns
        -------
        Tensor, shape (K,)
            Not negative; NaN or infinity is left to the controller's guard.
        """
        raise NotImplementedError

    def took(self, step: int, norms: Tensor) -> None:
        """A reading was taken.

        Parameters
        ----------
        step : int
            At this step, from 1.
        norms : Tensor, shape (K,)
            What was read.
        """


def exact_norms(losses: Sequence[Tensor], parameters: Sequence[Tensor], context: Context) -> Tensor:
    """Norms of the tasks' whole gradients, shape (K,), one backward pass per task.

    Parameters
    ----------
    losses : sequence of K scalar tensors
        Task losses.
    parameters : sequence of Tensor
        Shared parameters.
    context : Context
        Scaling and reduction.

    Returns
    -------
    Tensor, shape (K,)
        The same on all ranks, unless they are to differ.

    Raises
    ------
    InputError
        Sharded parameters without the module they belong to.

    Examples
    --------
    >>> w = torch.ones(2, requires_grad=True)
    >>> exact_norms([3.0 * w[0], 4.0 * w[1]], [w], Context())
    tensor([3., 4.])
    """
    if any(is_sharded(p) for p in parameters):
        if context.module is None:
            raise InputError(
                "the shared parameters are sharded: pass the module, as in "
                "GABALoss(reduce='norm_of_mean', sharded=model)"
            )
        from gabactl.nn.sensors.sharded import sharded_norms

        return sharded_norms(losses, parameters, context.module, context)
    if context.grad_scaler is None and context.reducer is None and not context.fast:
        return torch.stack([compute_task_grad_norm(loss, parameters) for loss in losses])
    norms = [
        norm_of_task(list(task_gradients(context.scaled(loss), parameters)), parameters, context)
        for loss in losses
    ]
    return context.agree(context.unscale(torch.stack(norms)), averaged=True)


def norm_of_task(
    gradients: list[Tensor | None], parameters: Sequence[Tensor], context: Context
) -> Tensor:
    """Norm of one task's gradients, scaled as they are.

    With ``reduce="norm_of_mean"`` the list then holds the gradients averaged over the ranks.
    Sharded ones are averaged already, and the norm is over all shards.

    Parameters
    ----------
    gradients : list of Tensor or None
        On the shared parameters; None counts as 0.
    parameters : sequence of Tensor
        What they are gradients of.
    context : Context
        Reduction, and which kernels.

    Returns
    -------
    Tensor, 0-dimensional
        On the device of the first parameter.

    Examples
    --------
    >>> w, b = torch.ones(2), torch.ones(1)
    >>> norm_of_task([torch.tensor([3.0, 4.0]), None], [w, b], Context())
    tensor(5.)
    """
    if context.module is not None:
        with torch.no_grad():
            norm: Any = norm_of(gradients, parameters[0].device)
        return norm.full_tensor() if is_sharded(norm) else norm
    if context.reducer is not None and context.reducer.reduce == "norm_of_mean":
        gradients[:] = context.reducer.mean_gradients(gradients, parameters)
    device = parameters[0].device
    return (fused_norm_of if context.fast else norm_of)(gradients, device).to(device)
