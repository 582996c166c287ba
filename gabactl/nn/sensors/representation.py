"""``representation``: the gradient at the end of the backbone instead of the gradient of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gabactl.base.errors import InputError
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.norms import Tensors, norm_of, task_gradients
from gabactl.nn.sensors.proxy import ProxySensor

__all__ = ["RepresentationSensor"]


class _Watch:
    """The hook on the module: hands its output to the sensor, and watches no copy of the module."""

    def __init__(self, sensor: RepresentationSensor | None) -> None:
        self._sensor = sensor

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._sensor is not None and torch.is_grad_enabled():
            self._sensor._features = output

    def __deepcopy__(self, memo: Any) -> _Watch:
        return _Watch(None)


class RepresentationSensor(ProxySensor):
    """Norm of each loss's gradient with respect to the shared features.

    Costs K passes through the heads, none through the backbone: about 1.00 to 1.10 plain steps.
    Biased, because the backbone's Jacobian is left out: on a small network on C-MAPSS it follows
    the exact log-ratio with correlation 0.20 to 0.85, and is off by -2.3 to +0.4, by how much
    depending on the epoch (docs: "Sensors on C-MAPSS"). Measure yours with
    :func:`gabactl.nn.calibrate`.

    Parameters
    ----------
    features : torch.nn.Module
        The module whose output the heads share. Its last output is what counts, so one forward
        of the model per step.
    n_tasks, recalibrate_every
        As in :class:`ProxySensor`.

    Notes
    -----
    With several ranks the ranks' norms are averaged, whatever ``reduce`` is (except ``local``):
    features of different samples have no common gradient. With a compiled model, watch a module
    outside the compiled part.

    Examples
    --------
    >>> from gabactl.nn import GABALoss
    >>> backbone, heads = nn.Linear(4, 3), nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    >>> sensor = RepresentationSensor(backbone, recalibrate_every=None)
    >>> loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
    >>> features = backbone(torch.ones(8, 4))
    >>> losses = [head(features).pow(2).mean() for head in heads]
    >>> _ = loss_fn.forward_k(losses, backbone.parameters())
    >>> expected = torch.autograd.grad(losses[0], features)[0].norm()
    >>> torch.allclose(loss_fn._last_grad_norms[0], expected)
    True
    """

    name = "representation"

    def __init__(
        self, features: nn.Module, n_tasks: int = 2, recalibrate_every: int | None = 10
    ) -> None:
        super().__init__(n_tasks, recalibrate_every)
        self._features: Tensor | None = None
        # The module belongs to the model: registering it here would put it into two state_dicts.
        self._hook = features.register_forward_hook(_Watch(self))

    def cheap_norms(self, losses: Tensors, parameters: Tensors, context: Context) -> Tensor:
        """Norms of the losses' gradients at the features, shape (K,).

        Raises
        ------
        InputError
            The watched module gave no feature tensor since the last step.
        """
        features, self._features = self._features, None
        if not isinstance(features, Tensor) or not features.requires_grad:
            raise InputError(
                "the watched module gave no feature tensor since the last step: run the model once "
                "per step, and watch a module that returns one tensor"
            )
        norms = torch.stack(
            [
                norm_of(task_gradients(context.scaled(loss), [features]), features.device)
                for loss in losses
            ]
        )
        return context.agree(context.unscale(norms))

    def remove(self) -> None:
        """Stop watching the module."""
        self._hook.remove()

    def __deepcopy__(self, memo: Any) -> RepresentationSensor:
        raise InputError(
            "this sensor watches a module of the original model: build a new sensor for the copy"
        )
