"""The published toys, exactly as specified (sections 17.2, 18.1 and 18.5): seed 0 once, then in order."""

import numpy as np
import torch
from torch import nn


class Toy(nn.Module):
    def __init__(self, backbone, width):
        super().__init__()
        self.backbone = backbone
        self.rul_head = nn.Linear(width, 1)
        self.health_head = nn.Linear(width, 3)

    def losses(self, x, rul, health):
        features = self.backbone(x)
        return (
            nn.functional.mse_loss(self.rul_head(features), rul),
            nn.functional.cross_entropy(self.health_head(features), health),
        )


def _data():
    x = torch.randn(64, 14)
    rul = torch.rand(64, 1) * 125
    health = torch.randint(0, 3, (64,))
    return x, rul, health


def t480():
    """480 shared numbers: norms 76.5335 and 0.3665."""
    torch.manual_seed(0)
    model = Toy(nn.Linear(14, 32), 32)
    return model, _data()


def t1008():
    """1,008 shared numbers: norms 114.4296 and 0.2164."""
    torch.manual_seed(0)
    model = Toy(nn.Sequential(nn.Linear(14, 32), nn.ReLU(), nn.Linear(32, 16)), 16)
    return model, _data()


def n23():
    """Two gradients of 23 numbers: norms 26.401602 and 0.0378326."""
    rng = np.random.RandomState(1)
    shapes = [(3, 4), (3,), (2, 3), (2,)]
    loud = [rng.standard_normal(s) * 5.0 for s in shapes]
    quiet = [rng.standard_normal(s) * 0.01 for s in shapes]
    return loud, quiet
