"""What every sensor is: when a reading is due, and how it is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gabactl.base.errors import InputError
from gabactl.nn.sensors.context import Context, norm_of_task
from gabactl.nn.sensors.gradients import each_task
from gabactl.nn.sensors.norms import Tensors, is_sharded

if TYPE_CHECKING:
    from gabactl.law.spec import GabaSpec


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

    def due(self, step: int, spec: GabaSpec, losses: Tensors, alone: bool = True) -> bool:
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

    def read(self, losses: Tensors, parameters: Tensors, context: Context) -> Tensor:
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


def exact_norms(losses: Tensors, parameters: Tensors, context: Context) -> Tensor:
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
    sharded = any(is_sharded(p) for p in parameters)
    if sharded and context.module is None:
        raise InputError(
            "the shared parameters are sharded: pass the module, as in "
            "GABALoss(reduce='norm_of_mean', sharded=model)"
        )
    return norms_on(losses, parameters, context, context.module if sharded else None)


def norms_on(
    losses: Tensors, parameters: Tensors, context: Context, module: nn.Module | None = None
) -> Tensor:
    """Norms of the tasks' gradients on any parameters, shape (K,), as the ranks agree on them.

    Parameters
    ----------
    losses, parameters, context
        As for :func:`exact_norms`.
    module : torch.nn.Module, optional
        The one whose shards the parameters are.

    Examples
    --------
    >>> w = torch.ones(2, requires_grad=True)
    >>> norms_on([3.0 * w[0], 4.0 * w[1]], [w], Context())
    tensor([3., 4.])
    """
    norms = [
        norm_of_task(gradients, parameters, context)
        for gradients in each_task(losses, parameters, context, retain_last=True, module=module)
    ]
    return context.agree(context.unscale(torch.stack(norms)), averaged=True)
