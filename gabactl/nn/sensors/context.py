"""What a reading takes place in, and the norm of one task's gradients there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gabactl.nn.sensors.norms import Tensors, fused_norm_of, is_sharded, norm_of

if TYPE_CHECKING:
    from gabactl.nn.distributed import Reducer


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


def norm_of_task(gradients: list[Tensor | None], parameters: Tensors, context: Context) -> Tensor:
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
