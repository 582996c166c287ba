"""Measure what the claims ledger reads as recorded results: memory (C36) and step time (C37).

    python simulations/record_claims.py C36 C37 --device cuda -o gabactl/claims/records

writes one JSON record a claim and device, with its provenance. The network is the published one
(3.5 million parameters), the batch 256, the data random: neither memory nor time depends on them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gabactl.nn import GABALoss, GradNormLoss, get_shared_params
from gabactl.nn.training.models import build_model


class Job:
    """The published network, two losses, and a step under a balancer."""

    def __init__(self, device: str, batch: int) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.model = build_model("paper").to(self.device)
        self.x = torch.randn(batch, 30, 14, device=self.device)
        self.rul = torch.rand(batch, device=self.device) * 125
        self.health = torch.randint(0, 3, (batch,), device=self.device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.shared = get_shared_params(self.model)

    def losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        rul, health = self.model(self.x)
        return (
            nn.functional.mse_loss(rul.reshape(-1), self.rul),
            nn.functional.cross_entropy(health, self.health),
        )

    def step(self, balancer: nn.Module | None) -> None:
        first, second = self.losses()
        total = (first + second) / 2
        if balancer is not None:
            total = balancer(first, second, shared_params=self.shared)
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def peak_bytes(device: str, batch: int, create_graph: bool) -> int:
    """Memory one GradNorm step takes at its peak, beyond the model. Call it in a fresh process."""
    job = Job(device, batch)
    balancer = GradNormLoss(create_graph=create_graph).to(job.device)
    # Neither cuDNN's recurrent layers nor fused attention have a second derivative.
    with torch.backends.cudnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            job.step(balancer)
            return torch.cuda.max_memory_allocated() - before
        # Linux: pages in use now, and at most so far.
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        job.step(balancer)
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def memory(device: str, batch: int) -> dict[str, float]:
    """C36: peak with and without a graph of the gradients, each in its own process."""
    found = {}
    for create_graph in (False, True):
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(int(create_graph)), "--device", device,
             "--batch", str(batch)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[create_graph] = int(done.stdout)
    return {
        "memory_ratio": found[True] / found[False],
        "mib_with_graph": found[True] / 2**20,
        "mib_without_graph": found[False] / 2**20,
    }


def step_time(device: str, batch: int, repeats: int) -> dict[str, float]:
    """C37: best times of a plain step and of one under GABA, measured in turn."""
    plain, gaba = Job(device, batch), Job(device, batch)
    balancer = GABALoss(warmup_steps=0).to(gaba.device)

    def timed(run: Callable[[], None], job: Job) -> float:
        job.wait()
        started = time.perf_counter()
        run()
        job.wait()
        return time.perf_counter() - started

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        times[0].append(timed(lambda: plain.step(None), plain))
        times[1].append(timed(lambda: gaba.step(balancer), gaba))
    best = [min(found[1:]) for found in times]  # the first is a warm-up
    return {
        "step_time_ratio": best[1] / best[0],
        "ms_plain": 1000 * best[0],
        "ms_gaba": 1000 * best[1],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claims", nargs="*", metavar="C36|C37")
    parser.add_argument("-o", "--output", type=Path, default=Path("."))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.device == "cpu":
        torch.set_num_threads(1)
    if given.child is not None:
        print(peak_bytes(given.device, given.batch, bool(given.child)))
        return
    if not set(given.claims) <= {"C36", "C37"}:
        parser.error(f"{given.claims}: choose from C36, C37")
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU, 1 thread"
    for claim in given.claims:
        values = (
            memory(given.device, given.batch)
            if claim == "C36"
            else step_time(given.device, given.batch, given.repeats)
        )
        record = {
            "claim": claim,
            "values": values,
            "note": f"published network, batch {given.batch}, random data, {name}",
            "provenance": {
                "command": f"python simulations/record_claims.py {claim} --device {given.device} "
                f"--batch {given.batch} --repeats {given.repeats}",
                "date": datetime.date.today().isoformat(),
                "device": name,
                "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
            },
        }
        file = given.output / f"{claim}-{given.device}.json"
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(file, values)


if __name__ == "__main__":
    main()
