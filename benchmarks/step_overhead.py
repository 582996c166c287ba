"""What a training step costs under each balancer, as a ratio to plain equal-weight training.

``python benchmarks/step_overhead.py`` prints the table, with the expected ratio beside each, and
writes simulations/results/step_overhead.json: about ten minutes on one core that is otherwise idle.
All contenders take turns in one process, so that a slow moment of the machine hits them alike; a
ratio is between medians. The event sensor is timed over whole turns of 80 steps with plain steps
turn about, and its overhead is counted too: readings times what a reading costs. Peers are measured
where they are installed (torchjd, gradnorm-pytorch, LibMTL). The peak memory of a step is that of
a process of its own on a CPU. ``--quick`` takes a minute, to see that everything runs.
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import types
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gabactl.base.files import write_text
from gabactl.nn import (
    EventSensor,
    FixedLoss,
    GABALoss,
    GradNormLoss,
    LastLayerSensor,
    RepresentationSensor,
    get_shared_params,
)
from gabactl.nn.losses.peers import peer_loss
from gabactl.nn.training.models import CnnBiLstmAttention

RESULT = Path(__file__).resolve().parent.parent / "simulations" / "results" / "step_overhead.json"
PACKAGES = ("torch", "torchjd", "gradnorm-pytorch", "LibMTL")
#: Ratios to expect on one core (MLP, paper), measured before this package was written; None where
#: nothing was. The event sensor's is its budget.
EXPECTED = {
    "full": (2.09, 2.24),
    "reuse": (1.61, 1.65),
    "full, interval 10": (1.13, 1.11),
    "reuse, interval 10": (1.06, 1.05),
    "event 0.03": (1.03, 1.03),
    "event 0.03, reuse": (1.03, 1.03),
    "representation": (1.10, 1.00),
    "last layer": (1.28, 1.00),
    "GradNorm, create_graph": (3.40, 6.20),
    "torchjd UPGrad": (2.21, 1.66),
    "torchjd IMTL-G": (2.10, 1.68),
    "gradnorm-pytorch": (2.54, 1.66),
    "LibMTL GradNorm": (2.09, 1.70),
}
#: Ours, and the peer that does the same: it should cost no more.
PEERS = {
    "UPGrad (ours)": "torchjd UPGrad",
    "IMTL-G (ours)": "torchjd IMTL-G",
    "GradNorm, last layer (ours)": "gradnorm-pytorch",
    "GradNorm, closed form": "LibMTL GradNorm",
}
MODELS = ("mlp", "paper")
TURN = 80  # the longest gap of the event sensor at a budget of 0.03


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

    step.loss_fn = loss_fn
    return step


def twice_differentiable(step):
    """The step with an attention and, on a GPU, an LSTM that have second derivatives."""

    def wrapped():
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
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
    """A step of LibMTL's GradNorm.

    Its package imports vision models that a current torchvision does not have; its weightings need
    nothing but torch, so they are loaded without the rest.
    """
    if "LibMTL" not in sys.modules:
        found = importlib.util.find_spec("LibMTL")
        if found is None:
            raise ModuleNotFoundError("No module named 'LibMTL'")
        package = types.ModuleType("LibMTL")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["LibMTL"] = package
    GradNorm = importlib.import_module("LibMTL.weighting.GradNorm").GradNorm

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
            # In place, as torch did when LibMTL was written: it goes on to write into .grad.
            for p in shared:
                if p.grad is not None:
                    p.grad.zero_()

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

    def on_last_layer(make):
        def build():
            model, losses, _, end = problem(name, device)
            return with_loss(make(model, end).to(device), model, losses, list(last(end))[:1])

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

    def gradnorm(**settings):
        return lambda model, end: GradNormLoss(lr=1e-6, **settings)

    every, pace = 1, 10
    fixed = ours(lambda m, e: FixedLoss())
    without = ours(lambda m, e: FixedLoss(), wrap=twice_differentiable)
    return {
        "plain": (fixed, every),
        # What GradNorm with create_graph is to be held against there.
        **({"plain, no cuDNN": (without, every)} if device.type == "cuda" else {}),
        "full": (ours(gaba()), every),
        "reuse": (ours(gaba(), True), every),
        "full, interval 10": (ours(gaba(interval=10)), pace),
        "reuse, interval 10": (ours(gaba(interval=10), True), pace),
        "event 0.03": (ours(lambda m, e: GABALoss(warmup_steps=0, sensor=EventSensor(0.03))), TURN),
        "event 0.03, reuse": (
            ours(lambda m, e: GABALoss(warmup_steps=0, sensor=EventSensor(0.03, 0.65)), True),
            TURN,
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
            ours(gradnorm(), wrap=twice_differentiable),
            every,
        ),
        "GradNorm, closed form": (ours(gradnorm(create_graph=False)), every),
        "GradNorm, last layer (ours)": (on_last_layer(gradnorm()), every),
        "UPGrad (ours)": (ours(lambda m, e: peer_loss("upgrad")), every),
        "IMTL-G (ours)": (ours(lambda m, e: peer_loss("imtl_g")), every),
        "torchjd UPGrad": (theirs("torchjd", "UPGrad"), every),
        "torchjd IMTL-G": (theirs("torchjd", "IMTLG"), every),
        "gradnorm-pytorch": (theirs("gradnorm-pytorch"), every),
        "LibMTL GradNorm": (theirs("libmtl"), every),
    }


def synchronise(device):
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def prepare(name, device, turns):
    """Steps that run, by label, and why the others do not."""
    steps, skipped = {}, {}
    for label, (build, per_turn) in contenders(name, device).items():
        if per_turn == TURN and not turns:
            skipped[label] = f"left out with --event-turns 0 (turns of {TURN} steps)"
            continue
        try:
            step = build()
            for _ in range(2):
                step()
            steps[label] = (step, per_turn)
        except Exception as error:
            skipped[label] = f"{type(error).__name__}: {str(error)[:100]}"
    return steps, skipped


def measure(name, device, seconds, turns, clock):
    """Rows of the table for one model."""
    steps, skipped = prepare(name, device, turns)
    events = {label: step for label, (step, per_turn) in steps.items() if per_turn == TURN}
    paced = {label: entry for label, entry in steps.items() if label not in events}
    times = {label: [] for label in paced}
    begin, turn = time.perf_counter(), 0
    while turn < 3 or time.perf_counter() - begin < seconds:
        for label, (step, per_turn) in paced.items():
            # The paced ones take long turns, so they get fewer of them.
            if turn % per_turn in (0, per_turn // 2):
                times[label].append(timed(step, device, clock, per_turn))
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
    for label, step in events.items():
        rows[label] = event_row(step, steps["plain"][0], device, turns, clock)
    return {label: rows[label] for label in steps}, skipped


def timed(step, device, clock, n=1):
    """Time of a step, over n of them."""
    synchronise(device)
    start = clock()
    for _ in range(n):
        step()
    synchronise(device)
    return (clock() - start) / n


def event_row(step, plain_step, device, turns, clock):
    """The event sensor, over whole turns, with plain steps in between.

    Steps with a reading and steps without one are each compared by their medians; a mean over a
    turn would drown three per cent in the machine's noise.
    """
    with_reading, without, plain = [], [], []
    for i in range(turns * TURN):
        seconds = timed(step, device, clock)
        (with_reading if step.loss_fn.measured_this_step else without).append(seconds)
        if i % 4 == 0:
            plain.append(timed(plain_step, device, clock))
    steps = turns * TURN
    quiet, base = statistics.median(without), statistics.median(plain)
    reading = statistics.median(with_reading) if with_reading else quiet
    mean = (reading * len(with_reading) + quiet * len(without)) / steps
    return {
        "ms": 1000 * mean,
        "ratio": mean / base,
        "ratio_of_best": min(without) / min(plain),
        "turns": turns,
        "steps_per_turn": TURN,
        "readings": len(with_reading),
        "spent": len(with_reading) * (reading - quiet) / base / steps,
    }


def peak_mib(name, label, device):
    """Peak memory of a few steps, model and optimiser state included."""
    build, _ = contenders(name, device)[label]
    cuda = device.type == "cuda"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if cuda:
        gc.collect()  # what an earlier contender left
        held = torch.cuda.memory_allocated()
    step = build()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        step()
    if cuda:
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def peaks(name, device):
    """Peak memory of every contender; on a CPU each in a fork that has built nothing before."""
    # What a contender imports is not its memory: import it all before the forks.
    for package in ("torchjd.aggregation", "torchjd.autojac", "gradnorm_pytorch"):
        try:
            importlib.import_module(package)
        except ImportError:
            continue
    found = {}
    for label in contenders(name, device):
        if device.type == "cuda":
            try:
                found[label] = peak_mib(name, label, device)
            except Exception:
                found[label] = None
            continue
        ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(
            target=_report_peak, args=(theirs, name, label, device)
        )
        child.start()
        theirs.close()
        try:
            found[label] = ours.recv()
        except EOFError:
            found[label] = None
        child.join()
    return found


def _report_peak(pipe, name, label, device):
    try:
        pipe.send(peak_mib(name, label, device))
    except Exception:
        pipe.send(None)


def versions():
    """Versions of what is measured."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def show(name, entry):
    """The table of one model."""
    print(
        f"{name} on {entry['device']}, load {entry['load_average'][0]:.1f}: ratios to plain training"
    )
    print(f"  {'':28} {'ms':>9}  ratio (expected)   best  peak memory")
    column = list(MODELS).index(name)
    for label, row in entry["rows"].items():
        expected = EXPECTED.get(label)
        beside = f"({expected[column]:.2f})" if expected else ""
        memory = f"{row['peak_mib']:8.0f} MiB" if row.get("peak_mib") is not None else ""
        spent = (
            f"  {row['readings']} readings, {100 * row['spent']:.1f} % spent on them"
            if "spent" in row
            else ""
        )
        print(
            f"  {label:28} {row['ms']:9.2f}  {row['ratio']:5.2f} {beside:10} "
            f"{row['ratio_of_best']:6.2f} {memory}{spent}"
        )
    for label, reason in entry["skipped"].items():
        print(f"  {label:28} left out: {reason}")
    for ours, theirs in PEERS.items():
        if ours in entry["rows"] and theirs in entry["rows"]:
            a, b = (entry["rows"][x]["ratio"] for x in (ours, theirs))
            verdict = "no slower" if a <= 1.05 * b else "SLOWER"
            print(f"  {ours} {a:.2f}, {theirs} {b:.2f}: {verdict}")


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 240.0], help="per model")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument(
        "--event-turns", type=int, nargs="+", default=[10, 1], help="turns of 80 steps, per model"
    )
    parser.add_argument("--quick", action="store_true", help="see that it runs; write nothing")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.event_turns = [1.0], [1, 0]
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    # On one core the process's own CPU time is what a step costs, whatever else runs beside it.
    alone = device.type == "cpu" and options.threads == 1
    clock = time.process_time if alone else time.perf_counter
    measured = {
        "clock": "CPU time of the process" if alone else "wall time",
        "command": " ".join(["python", "benchmarks/step_overhead.py", *sys.argv[1:]]),
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
    memory = {name: peaks(name, device) for name in options.models}  # before anything is built
    for i, name in enumerate(options.models):
        load = os.getloadavg()[0]
        seconds = options.seconds[min(i, len(options.seconds) - 1)]
        turns = options.event_turns[min(i, len(options.event_turns) - 1)]
        rows, skipped = measure(name, device, seconds, turns, clock)
        for label, row in rows.items():
            row["peak_mib"] = memory[name][label]
            row["expected"] = EXPECTED.get(label, (None, None))[list(MODELS).index(name)]
        entry = {
            **measured,
            "rows": rows,
            "skipped": skipped,
            "load_average": [load, os.getloadavg()[0]],
        }
        result["models"][name] = entry
        show(name, entry)
    if not options.quick:
        write_text(options.output, json.dumps(result, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
