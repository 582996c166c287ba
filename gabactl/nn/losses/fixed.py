"""``FixedLoss``: constant weights, the baseline every balancer has to beat."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gabactl.base.errors import InputError
from gabactl.nn.losses.base import ObservedLoss
from gabactl.nn.sensors.norms import Tensors

__all__ = ["FixedLoss"]


class FixedLoss(ObservedLoss):
    """Combines K losses with constant weights, and can measure gradient norms on the way.

    Parameters
    ----------
    weights : sequence of K floats, optional
        Default: 1/K each.
    n_tasks : int
        Number of tasks, where ``weights`` is not given.
    task_names : sequence of K str, optional
        Names for records.
    measure_every : int, at least 0
        With ``shared_params`` given, take the gradient norms every so many steps, for the record;
        0 never does, and costs nothing.

    Raises
    ------
    InputError
        Fewer than two weights, one that is negative or not finite, all of them 0, or a negative
        ``measure_every``.

    Examples
    --------
    >>> FixedLoss([0.25, 0.75])(torch.tensor(4.0), torch.tensor(8.0))
    tensor(7.)
    """

    record_name = "fixed"
    task_weights: Tensor

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        measure_every: int = 0,
    ) -> None:
        values = [1.0 / n_tasks] * n_tasks if weights is None else [float(w) for w in weights]
        if (
            len(values) < 2
            or not all(math.isfinite(v) and v >= 0 for v in values)
            or sum(values) == 0
        ):
            raise InputError(
                f"weights = {values}: give at least two finite weights >= 0, not all 0"
            )
        super().__init__(len(values), task_names, measure_every)
        self.register_buffer("task_weights", torch.tensor(values))

    def forward_k(self, losses: Tensors, shared_params: Iterable[Tensor] | None = None) -> Tensor:
        """The weighted sum.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Task losses.
        shared_params : iterable of Tensor, optional
            Used for the record only.
        """
        step = self._observe(losses, shared_params)
        if step:
            self._advance(step)
        return self._combine(losses, self.task_weights)

    def _weights_of_state(self) -> Tensor:
        return self.task_weights
