"""Recorded runs of the published network, and the published protocol in what time is left."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import torch

from gabactl import cmapss
from gabactl.base.files import read_json, write_text
from gabactl.law.spec import GabaSpec
from gabactl.nn import GABALoss
from gabactl.nn.campaigns.plan import load_campaign
from gabactl.nn.excitation import Excitation
from gabactl.nn.training.settings import BalancerName, TrainingSettings
from gpu.checks import Problem, capture
from gpu.plan import Bench
from gpu.training import Job, rate, run_jobs

ROOT = Path(__file__).resolve().parents[2]
SUBSETS = ("FD001", "FD002", "FD003", "FD004")
#: Balancers that need torchjd.
_PEERS = ("uncertainty", "dwa", "pcgrad", "cagrad")
#: File of the scratch folder with what was measured of runs beside each other.
_RATES = "rates.json"


def base(bench: Bench, steps: int) -> TrainingSettings:
    """The published network and protocol, for so many steps."""
    if bench.rehearse:
        return TrainingSettings(
            model="small", steps=12, epochs=2, batch_size=32, device=bench.device
        )
    return TrainingSettings(model="paper", steps=steps, epochs=500, device=bench.device)


def jobs(bench: Bench) -> list[Job]:
    """Every subset under equal weights and GABA, twins for the plant, and other precisions."""
    plain = base(bench, 2400)
    published = replace(plain, spec=GabaSpec(guard="none", warmup=3 if bench.rehearse else 100))
    found = []
    for subset in SUBSETS[:1] if bench.rehearse else SUBSETS:
        name = subset.lower()
        found += [
            Job(f"{name}-gaba", replace(published, subset=subset)),
            Job(f"{name}-equal", replace(plain, subset=subset, balancer="fixed")),
        ]
        if "setpoint" in get_args(BalancerName):
            found.append(
                Job(f"{name}-setpoint", replace(plain, subset=subset, balancer="setpoint"))
            )
        if subset == "FD001":
            found += twins(bench)
    for precision in ("tf32", "bf16"):
        settings = replace(published, precision=precision, steps=12 if bench.rehearse else 600)
        found.append(Job(f"fd001-gaba-{precision}", settings))
    return found


def twins(bench: Bench) -> list[Job]:
    """Constant weights, pushed one way and the other: from these the plant is identified."""
    settings = replace(
        base(bench, 3000), balancer="fixed", weights=(0.05, 0.95), lr_warmup_epochs=0
    )
    excite = Excitation(amplitude=0.5, period=50, seed=0)
    name = "fd001-excited-adamw-w005-seed0"
    return [
        Job(name, replace(settings, excite=excite)),
        Job(f"{name}-inverted", replace(settings, excite=replace(excite, inverted=True))),
    ]


def graphs(bench: Bench, copies: int) -> dict[str, Any]:
    """Steps a second of captured training steps, replayed on as many streams."""
    streams = [torch.cuda.Stream() for _ in range(copies)]
    made = []
    for _ in streams:
        problem = Problem(bench)
        loss_fn = GABALoss(warmup_steps=3).to(problem.device)
        optimiser = torch.optim.AdamW(problem.model.parameters(), lr=1e-5, capturable=True)

        def step(
            problem: Any = problem, loss_fn: Any = loss_fn, optimiser: Any = optimiser
        ) -> None:
            optimiser.zero_grad(set_to_none=True)
            problem.backward(loss_fn, False)
            optimiser.step()

        made.append((capture(step), step))  # the step holds what the graph works on
    torch.cuda.synchronize()
    steps, begin = 100, time.perf_counter()
    for _ in range(steps):
        for (graph, _), stream in zip(made, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    together = copies * steps / (time.perf_counter() - begin)
    return {"steps_per_second": together, "words": f"{together:.0f} steps/s together"}


def graphs_run(bench: Bench) -> None:
    """Captured steps: what running them would be worth, beside the processes of the recordings."""
    for copies in (1, 4, 8):
        label = f"{copies} captured step{'s' * (copies > 1)}"
        bench.item(label, partial(graphs, bench, copies), cuda=True)


def rates(bench: Bench) -> dict[int, float]:
    """Steps a second of 1, 4 and 8 runs at once, measured."""
    steps = 6 if bench.rehearse else 60
    # A quarter of the steps more, to warm up.
    settings = replace(base(bench, 0), steps=steps + max(steps // 4, 1))
    measured: dict[int, float] = {}
    for workers in (1, 2) if bench.rehearse else (1, 4, 8):
        label = f"{workers} process{'es' * (workers > 1)}"
        found = bench.item(label, partial(rate, bench, settings, workers, steps))
        if found:
            measured[workers] = found["steps_per_second"]
    return measured


def recordings(bench: Bench) -> None:
    """Measure how many runs go best together; then the runs."""
    measured = rates(bench)
    write_text(bench.scratch / _RATES, json.dumps(list(measured.items())))
    run_jobs(bench, jobs(bench), max(measured, key=measured.__getitem__, default=1))


def at_once(bench: Bench, settings: TrainingSettings) -> int:
    """As many runs of the protocol as can all end in time: half of one is worth nothing here."""
    file = bench.scratch / _RATES
    if not file.is_file():
        return 1
    windows = len(cmapss.load(bench.data, settings.subset, seed=settings.seed).train)
    steps = settings.epochs * (windows // settings.batch_size)
    fit = [n for n, rate in read_json(file) if n * steps <= rate * bench.left()]
    return max(fit, default=1)


def protocol(bench: Bench) -> None:
    """The published campaign in its own order, as far as the time goes; later leases go on.

    A run whose checkpoint is still in the scratch folder goes on from it; one that an earlier lease
    finished (``--after``) is left out.
    """
    plan = load_campaign(ROOT / "simulations" / "cmapss_campaign.toml")
    planned = []
    for run in plan.runs:
        settings = replace(run.settings, device=bench.device)
        if settings.balancer in _PEERS and find_spec("torchjd") is None:
            bench.left_out(run.name, "needs torchjd")
            continue
        if bench.rehearse:
            settings = replace(settings, model="small", steps=4, epochs=1, batch_size=32)
        planned.append(Job(run.name, settings, resumable=True))
    if bench.rehearse:
        planned = planned[:2]
    first = next(job.settings for job in planned if job.name not in bench.done)
    run_jobs(bench, planned, at_once(bench, first), slim=True)
