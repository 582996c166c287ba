"""The moving average of a model's weights that training evaluates."""

from __future__ import annotations

import copy

from gabactl.base.errors import packages_for

with packages_for("gabactl.nn.training.loop"):
    import torch
    from torch import nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average of the weights (and of the floating buffers), in eval mode."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.decay = decay
        pairs = list(
            zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        )
        self._floats = [(a, m) for a, m in pairs if a.is_floating_point()]
        self._others = [(a, m) for a, m in pairs if not a.is_floating_point()]

    def update(self, step: int) -> None:
        """Take in the weights after ``step`` (counted from 1)."""
        decay = min(self.decay, step / (9.0 + step))
        averages, current = zip(*self._floats, strict=True)
        with torch.no_grad():
            torch._foreach_lerp_(averages, current, 1.0 - decay)
            for average, value in self._others:
                average.copy_(value)
