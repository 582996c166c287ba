"""How often GradNorm breaks down where GABA does not: small regressions, many seeds.

    python simulations/gradnorm_divergence.py -o simulations/results/gradnorm_divergence.json

Each seed draws its own network (14 -> 32 -> 16, two heads: 1,008 shared numbers), data, RUL targets
in cycles and classes, as in the published toy; every method trains the same one. Counted are runs
in which a parameter, a weight or the plain mean of the losses stops being finite, and runs in which
some weight turned negative, which trains the network to make that loss larger. About five minutes
on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gabactl
from gabactl.base.files import write_text
from gabactl.nn import FixedLoss, GABALoss, GradNormLoss, get_shared_params

_STEPS = 1000


class Toy(nn.Module):
    """The published toy with 1,008 shared parameters, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = nn.Sequential(nn.Linear(14, 32), nn.ReLU(), nn.Linear(32, 16))
        self.rul_head, self.health_head = nn.Linear(16, 1), nn.Linear(16, 3)
        self.x = torch.randn(64, 14)
        self.rul, self.health = torch.rand(64, 1) * 125, torch.randint(0, 3, (64,))

    def losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared error in cycles^2, and cross-entropy."""
        shared = self.backbone(self.x)
        return (
            nn.functional.mse_loss(self.rul_head(shared), self.rul),
            nn.functional.cross_entropy(self.health_head(shared), self.health),
        )


def gradnorm(variant: str, lr: float, auxiliary: float | None = None) -> Callable[[], nn.Module]:
    """A GradNorm loss in the closed form: the published weights without the second-order graph."""
    return lambda: GradNormLoss(
        variant,  # type: ignore[arg-type]
        lr=lr,
        auxiliary_weight=auxiliary,
        create_graph=False,
    )


METHODS: dict[str, Callable[[], nn.Module]] = {
    "fixed": lambda: FixedLoss([0.5, 0.5]),
    "gaba": lambda: GABALoss(guard="none"),
    "gradnorm chen2018, lr 0.025": gradnorm("chen2018", 0.025),
    "gradnorm chen2018, lr 0.001": gradnorm("chen2018", 0.001),
    "gradnorm textbook, lr 0.025": gradnorm("textbook", 0.025),
    "gradnorm textbook, lr 0.05, auxiliary weight 1": gradnorm("textbook", 0.05, 1.0),
}
OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw, lr 1e-3": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-4),
    "sgd, lr 1e-4": lambda p: torch.optim.SGD(p, lr=1e-4),
}


def train(method: str, optimiser: str, seed: int) -> dict[str, Any]:
    """One run: when it stopped being finite, and whether a weight turned negative."""
    toy = Toy(seed)
    balancer = METHODS[method]()
    optimise = OPTIMISERS[optimiser](toy.parameters())
    shared = get_shared_params(toy)
    first = float(sum(toy.losses()).detach())  # type: ignore[union-attr]
    negative = False
    for step in range(1, _STEPS + 1):
        losses = toy.losses()
        total = balancer(*losses, shared_params=shared)
        optimise.zero_grad()
        total.backward()
        optimise.step()
        if isinstance(balancer, GradNormLoss):
            negative = negative or bool((balancer.task_weights < 0).any())
        plain = float(sum(losses).detach())  # type: ignore[union-attr]
        if not math.isfinite(plain) or not math.isfinite(float(total.detach())):
            return {"not_finite_at": step, "negative_weight": negative, "loss_growth": None}
    return {"not_finite_at": None, "negative_weight": negative, "loss_growth": plain / first}


def main() -> None:
    """Run every method under both optimisers and every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=12, metavar="N", help="seeds 0 to N-1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started, begun = time.strftime("%Y-%m-%d", time.gmtime()), time.perf_counter()
    rows = []
    for optimiser in OPTIMISERS:
        for method in METHODS:
            runs = [train(method, optimiser, seed) for seed in range(arguments.seeds)]
            stopped = [run["not_finite_at"] for run in runs if run["not_finite_at"]]
            grown = [run["loss_growth"] for run in runs if run["loss_growth"] is not None]
            rows.append(
                {
                    "method": method,
                    "optimiser": optimiser,
                    "runs": len(runs),
                    "not_finite": len(stopped),
                    "not_finite_at": sorted(stopped),
                    "negative_weight": sum(run["negative_weight"] for run in runs),
                    "ended_above_start": sum(growth > 1.0 for growth in grown),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    found = {
        "steps": _STEPS,
        "seeds": arguments.seeds,
        "rows": rows,
        "provenance": {
            "command": f"python simulations/gradnorm_divergence.py -o simulations/results/gradnorm_divergence.json "
            f"--seeds {arguments.seeds}",
            "date": started,
            "device": "CPU, 1 thread",
            "versions": f"gabactl {gabactl.__version__}, torch {torch.__version__}, "
            f"Python {platform.python_version()}",
            "seconds": f"{time.perf_counter() - begun:.0f}",
        },
    }
    write_text(arguments.output, json.dumps(found, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
