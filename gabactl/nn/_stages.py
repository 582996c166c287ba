"""The controller's stages on tensors: as in :mod:`gabactl.law.controller`, without host synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor

from gabactl.law.controller import PUBLISHED_EPSILON
from gabactl.law.spec import GabaSpec


def usable(g: Tensor, spec: GabaSpec) -> Tensor:
    """Whether the reading g, shape (K,), can be acted on (0-dimensional bool)."""
    total = g.sum()
    ok = torch.isfinite(g).all() & torch.isfinite(total) & (total > 0)
    return ok & (g > 0).all() if spec.law == "inverse" else ok


def raw_weights(g: Tensor, spec: GabaSpec) -> Tensor:
    """Raw weights, shape (K,); not finite or off the simplex where g is not usable."""
    k = g.shape[-1]
    if spec.law == "inverse":
        inverse = 1.0 / (g + PUBLISHED_EPSILON) if spec.guard == "none" else g.min() / g
        return inverse / inverse.sum()
    if spec.guard == "none":
        total = g.sum() + PUBLISHED_EPSILON
        return (total - g) / ((k - 1) * total)
    total = g.sum()
    return (total - g) / total / (k - 1)


def smooth(ema: Tensor, raw: Tensor, spec: GabaSpec) -> Tensor:
    """The average after a reading."""
    pole = spec.beta**spec.interval
    return pole * ema + (1.0 - pole) * raw


def saturate(ema: Tensor, spec: GabaSpec) -> Tensor:
    """Applied weights, summing to 1."""
    if spec.floor_mode == "renormalise":
        weights = ema.clamp_min(spec.floor)
        return weights / weights.sum()
    if spec.floor_mode == "affine":
        return spec.floor + (1.0 - spec.n_tasks * spec.floor) * (ema / ema.sum())
    return project(ema, spec.floor)


def project(ema: Tensor, floor: float) -> Tensor:
    """Euclidean projection onto {w >= floor, sum w = 1}; NaN where ema has one."""
    k = ema.shape[-1]
    excess = ema - floor
    ranks = torch.arange(1, k + 1, device=ema.device, dtype=ema.dtype)
    largest_first = excess.sort(descending=True).values.cumsum(0)
    # As in gabactl.law.controller.project: the largest of these means is the threshold.
    threshold = ((largest_first - (1.0 - k * floor)) / ranks).max()
    return floor + (excess - threshold).clamp_min(0.0)
