"""``full``: the published sensor."""

from __future__ import annotations

from torch import Tensor

from gabactl.law.spec import GabaSpec
from gabactl.nn.sensors.base import Sensor, exact_norms
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.norms import Tensors

__all__ = ["FullSensor"]


class FullSensor(Sensor):
    """Norm of each task's gradient on the shared parameters, at the steps the spec names.

    Measures what the law asks for, without bias. Costs K backward passes through the backbone
    per reading (K - 1 with ``GABALoss.backward``); an ``interval`` of N divides that by N.

    Notes
    -----
    Source: "Gradient-Aware Multi-Task Learning for Predictive Maintenance", section 17.4.

    Examples
    --------
    >>> import torch
    >>> w = torch.ones(2, requires_grad=True)
    >>> FullSensor().read([3.0 * w[0], 4.0 * w[1]], [w], Context())
    tensor([3., 4.])
    """

    name = "full"
    exact = True

    def reads_every_step(self, spec: GabaSpec) -> bool:
        """Without an interval."""
        return spec.interval == 1

    def read(self, losses: Tensors, parameters: Tensors, context: Context) -> Tensor:
        """Gradient norms, shape (K,)."""
        return exact_norms(losses, parameters, context)
