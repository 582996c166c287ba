"""What a training step costs under each balancer, as a ratio to plain equal-weight training.

``python benchmarks/step_overhead.py`` prints the table and writes it to
simulations/results/step_overhead.json. All contenders take turns in one process, so that a slow
moment of the machine hits them alike; a ratio is between medians. Peers are measured where they
are installed (torchjd, gradnorm-pytorch, LibMTL). ``--memory`` adds the peak memory of a step,
each contender in a process of its own on a CPU.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gabactl.nn import FixedLoss, GABALoss, GradNormLoss, get_shared_params
from gabactl.nn.models import CnnBiLstmAttention
from gabactl.nn.peers import peer_loss
from gabactl.nn.sensors import EventSensor, LastLayerSensor, RepresentationSensor

RESULT = Path(__file__).resolve().parent.parent / "simulations" / "results" / "step_overhead.json"
PACKAGES = ("torch", "torchjd", "gradnorm-pytorch", "LibMTL")


class Mlp(nn.Module):
    """14-256-256-128 with two linear heads."""

    def __init__(self):
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Linear(14, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 128)
        )
        self.rul_head, self.health_head = nn.Linear(128, 1), nn.Linear(128, 3)

    def features(self, x):
        """Shared features."""
        return self.reduce(x)

    def forward(self, x):
        """Both heads."""
        z = self.features(x)
        return self.rul_head(z).squeeze(-1), self.health_head(z)


def problem(name, device):
    """Model, losses of a step, shared parameters, the module that ends the backbone."""
    torch.manual_seed(0)
    if name == "mlp":
        model, shape, batch = Mlp(), (14,), 256
    else:
        model, shape, batch = CnnBiLstmAttention(14, dropout=0.2), (30, 14), 64
    model.to(device)
    x = torch.randn(batch, *shape, device=device)
    rul = torch.rand(batch, device=device) * 125
    health = torch.randint(0, 3, (batch,), device=device)

    def losses():
        predicted, logits = model(x)
        return [
            nn.functional.mse_loss(predicted, rul),
            nn.functional.cross_entropy(logits, health),
        ]

    return model, losses, get_shared_params(model), model.reduce


def with_loss(loss_fn, model, losses, shared, reuse=False):
    """A step through one of our losses."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step():
        optimiser.zero_grad()
        if reuse:
            loss_fn.backward(losses(), shared, list(model.parameters()))
        else:
            loss_fn.forward_k(losses(), shared).backward()
        optimiser.step()

    return step


def twice_differentiable(step):
    """The step with an attention that has second derivatives."""

    def wrapped():
        with sdpa_kernel(SDPBackend.MATH):
            step()

    return wrapped


def torchjd_step(method, model, losses, shared):
    """A step as torchjd's own documentation writes it."""
    import torchjd.aggregation as aggregation
    from torchjd.autojac import jac_to_grad, mtl_backward

    aggregator = getattr(aggregation, method)()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    seen = []
    model.reduce.register_forward_hook(lambda m, i, o: seen.append(o))
    ids = {id(p) for p in shared}
    heads = [
        [p for n, p in model.named_parameters() if id(p) not in ids and n.startswith(h)]
        for h in ("rul_head", "health_head")
    ]

    def step():
        optimiser.zero_grad()
        seen.clear()
        values = losses()
        # One row at a time: recurrent layers cannot be batched over, and it is as fast.
        mtl_backward(
            values,
            features=seen[-1],
            tasks_params=heads,
            shared_params=shared,
            parallel_chunk_size=1,
        )
        jac_to_grad(shared, aggregator)
        optimiser.step()

    return step


def gradnorm_pytorch_step(model, losses, layer):
    """A step of gradnorm-pytorch on the last shared layer."""
    from gradnorm_pytorch import GradNormLossWeighter

    weighter = GradNormLossWeighter(
        num_losses=2, learning_rate=1e-4, restoring_force_alpha=1.5, grad_norm_parameters=layer
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step():
        optimiser.zero_grad()
        weighter.backward(losses())
        optimiser.step()

    return step


def libmtl_step(model, losses, shared, device):
    """A step of LibMTL's GradNorm."""
    from LibMTL.weighting import GradNorm

    class Weighting(GradNorm):
        def __init__(self):
            super().__init__()
            self.task_num, self.device, self.rep_grad, self.epoch = 2, device, False, 1
            self.train_loss_buffer = torch.ones(2, 1).numpy()
            self.init_param()
            self._compute_grad_dim()

        def get_share_params(self):
            return shared

        def zero_grad_share_params(self):
            for p in shared:
                p.grad = None

    weighting = Weighting()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step():
        optimiser.zero_grad()
        weighting.backward(torch.stack(losses()), alpha=1.5)
        optimiser.step()

    return step


def contenders(name, device):
    """Label to (how to build a step function, steps per turn)."""

    def ours(make, reuse=False, wrap=lambda step: step):
        def build():
            model, losses, shared, end = problem(name, device)
            return wrap(with_loss(make(model, end).to(device), model, losses, shared, reuse))

        return build

    def theirs(function, *extra):
        def build():
            model, losses, shared, end = problem(name, device)
            linear = [m for m in end.modules() if isinstance(m, nn.Linear)][-1]
            given = {
                "torchjd": lambda: torchjd_step(*extra, model, losses, shared),
                "gradnorm-pytorch": lambda: gradnorm_pytorch_step(model, losses, linear.weight),
                "libmtl": lambda: libmtl_step(model, losses, shared, device),
            }
            return given[function]()

        return build

    def gaba(**settings):
        return lambda model, end: GABALoss(warmup_steps=0, guard="none", **settings)

    def last(end):
        return [m for m in end.modules() if isinstance(m, nn.Linear)][-1].parameters()

    every, pace, long = 1, 10, 80  # 80 steps: the longest gap of the event sensor at 0.03
    return {
        "plain": (ours(lambda m, e: FixedLoss()), every),
        "full": (ours(gaba()), every),
        "reuse": (ours(gaba(), True), every),
        "full, interval 10": (ours(gaba(interval=10)), pace),
        "reuse, interval 10": (ours(gaba(interval=10), True), pace),
        "event 0.03": (ours(lambda m, e: GABALoss(warmup_steps=0, sensor=EventSensor(0.03))), long),
        "event 0.03, reuse": (
            ours(lambda m, e: GABALoss(warmup_steps=0, sensor=EventSensor(0.03, 0.65)), True),
            long,
        ),
        "representation": (
            ours(
                lambda m, e: GABALoss(
                    warmup_steps=0, sensor=RepresentationSensor(e, recalibrate_every=None)
                )
            ),
            every,
        ),
        "last layer": (
            ours(
                lambda m, e: GABALoss(
                    warmup_steps=0, sensor=LastLayerSensor(last(e), recalibrate_every=None)
                )
            ),
            every,
        ),
        "GradNorm, create_graph": (
            ours(lambda m, e: GradNormLoss(lr=1e-6), wrap=twice_differentiable),
            every,
        ),
        "GradNorm, closed form": (
            ours(lambda m, e: GradNormLoss(lr=1e-6, create_graph=False)),
            every,
        ),
        "UPGrad weights (ours)": (ours(lambda m, e: peer_loss("upgrad")), every),
        "torchjd UPGrad": (theirs("torchjd", "UPGrad"), every),
        "torchjd IMTL-G": (theirs("torchjd", "IMTLG"), every),
        "gradnorm-pytorch": (theirs("gradnorm-pytorch"), every),
        "LibMTL GradNorm": (theirs("libmtl"), every),
    }


def synchronise(device):
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(name, device, seconds, event, clock):
    """Rows of the table for one model."""
    steps, skipped = {}, {}
    for label, (build, per_turn) in contenders(name, device).items():
        if label.startswith("event") and not event:
            skipped[label] = "turns of 80 steps: pass --event"
            continue
        try:
            step = build()
            for _ in range(2):
                step()
            steps[label] = (step, per_turn)
        except Exception as error:
            skipped[label] = f"{type(error).__name__}: {str(error)[:100]}"
    times = {label: [] for label in steps}
    begin, turn = time.perf_counter(), 0
    while turn < 3 or time.perf_counter() - begin < seconds:
        for label, (step, per_turn) in steps.items():
            # The paced ones take long turns, so they get fewer of them.
            if turn % per_turn not in (0, per_turn // 2):
                continue
            synchronise(device)
            start = clock()
            for _ in range(per_turn):
                step()
            synchronise(device)
            times[label].append((clock() - start) / per_turn)
        turn += 1
    plain = statistics.median(times["plain"])
    rows = {
        label: {
            "ms": 1000 * statistics.median(values),
            "ratio": statistics.median(values) / plain,
            "ratio_of_best": min(values) / min(times["plain"]),
            "turns": len(values),
            "steps_per_turn": steps[label][1],
        }
        for label, values in times.items()
    }
    return rows, skipped


def peak_mib(name, label, device):
    """Peak memory of a few steps, model and optimiser state included."""
    build, _ = contenders(name, device)[label]
    if device.type == "cuda":
        step = build()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            step()
        return torch.cuda.max_memory_allocated() / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = build()
    for _ in range(2):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def add_memory(rows, name, device):
    """Peak memory of every contender, one process each."""
    for label, row in rows.items():
        run = subprocess.run(
            [sys.executable, __file__, "--peak", name, label, "--device", str(device)],
            capture_output=True,
            text=True,
        )
        row["peak_mib"] = float(run.stdout) if run.returncode == 0 else None


def versions():
    """Versions of what is measured."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="per model, at least")
    parser.add_argument("--models", nargs="+", default=["mlp", "paper"])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--event", action="store_true", help="time the event sensor on paper too")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "CONTENDER"), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.peak:
        print(peak_mib(*options.peak, device))
        return
    # On one core the process's own CPU time is what a step costs, whatever else runs beside it.
    alone = device.type == "cpu" and options.threads == 1
    clock = time.process_time if alone else time.perf_counter
    measured = {
        "clock": "CPU time of the process" if alone else "wall time",
        "command": f"python benchmarks/step_overhead.py --device {options.device} "
        f"--threads {options.threads} --seconds {options.seconds:g}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": options.threads,
        "python": platform.python_version(),
        "versions": versions(),
    }
    # Models that are not measured now keep what an earlier run found.
    result = {"models": {}}
    if options.output.exists():
        result["models"] = json.loads(options.output.read_text(encoding="utf-8"))["models"]
    for name in options.models:
        load = os.getloadavg()[0]
        rows, skipped = measure(
            name, device, options.seconds, options.event or name == "mlp", clock
        )
        if options.memory:
            add_memory(rows, name, device)
        result["models"][name] = {
            **measured,
            "rows": rows,
            "skipped": skipped,
            "load_average": [load, os.getloadavg()[0]],
        }
        print(f"{name} on {measured['device']}, load {load:.1f} (ratios to plain training)")
        for label, row in rows.items():
            memory = f"{row['peak_mib']:8.0f} MiB" if row.get("peak_mib") is not None else ""
            print(
                f"  {label:24} {row['ms']:9.2f} ms  {row['ratio']:5.2f}"
                f"  (best {row['ratio_of_best']:5.2f}, {row['turns']} turns){memory}"
            )
        for label, reason in skipped.items():
            print(f"  {label:24} left out: {reason}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.output.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(options.output)


if __name__ == "__main__":
    main()
