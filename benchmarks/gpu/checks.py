"""What only a GPU can show of a step: no waiting, half precision, graphs, replay, agreement.

In a rehearsal the same steps run on the CPU with a small network; what asks CUDA itself is left out.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from gabactl.nn import (
    EventSensor,
    GABALoss,
    GradNormLoss,
    LastLayerSensor,
    RepresentationSensor,
    TraceRecorder,
    get_shared_params,
)
from gabactl.nn.sensors.norms import fused_norm_of, norm_of
from gabactl.nn.training.models import build_model
from gabactl.traces import load_bundled, read_trace
from gabactl.validation.check import check
from gpu.plan import Bench

#: How far apart a faithful recording and its replay may be.
REPLAY = {"float32": 5e-6, "float64": 1e-12}
Make = Callable[[nn.Module], nn.Module]


class Problem:
    """The published network (a small one in a rehearsal) on random data, and a step of it."""

    def __init__(self, bench: Bench, batch: int = 256, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.device = torch.device(bench.device)
        size = "small" if bench.rehearse else "paper"
        self.model: Any = build_model(size, dropout=0.0).to(self.device, dtype)
        batch = min(batch, 16) if bench.rehearse else batch
        self.x = torch.randn(batch, 30, 14, device=self.device, dtype=dtype)
        self.rul = torch.rand(batch, device=self.device, dtype=dtype) * 125
        self.health = torch.randint(0, 3, (batch,), device=self.device)
        self.shared = get_shared_params(self.model)

    def losses(self, rows: slice = slice(None)) -> list[Tensor]:
        """RUL and health."""
        predicted, logits = self.model(self.x[rows])
        return [
            nn.functional.mse_loss(predicted, self.rul[rows]),
            nn.functional.cross_entropy(logits, self.health[rows]),
        ]

    def backward(self, loss_fn: Any, reuse: bool) -> list[Tensor]:
        """Gradients of the weighted loss, either way."""
        losses = self.losses()
        if reuse:
            loss_fn.backward(losses, self.shared, list(self.model.parameters()))
        else:
            loss_fn.forward_k(losses, self.shared).backward()
        return losses


@contextlib.contextmanager
def refusing_to_wait(device: torch.device) -> Iterator[None]:
    """What would wait for the GPU raises."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def no_waiting(bench: Bench, make: Make, reuse: bool = False) -> None:
    """A step does not wait for the device, once the kernels are warm."""
    problem = Problem(bench)
    loss_fn = make(problem.model).to(problem.device)
    for _ in range(3):
        problem.backward(loss_fn, reuse)
    with refusing_to_wait(problem.device):
        for _ in range(5):
            problem.backward(loss_fn, reuse)


def last_layer(model: Any) -> Any:
    """Parameters of the last shared layer."""
    return [m for m in model.reduce if isinstance(m, nn.Linear)][-1].parameters()


#: Label: what makes the loss, and whether gradients are reused.
NO_WAITING: dict[str, tuple[Make, bool]] = {
    "full": (lambda m: GABALoss(warmup_steps=0), False),
    "full as published": (lambda m: GABALoss(warmup_steps=0, guard="none"), False),
    "reuse": (lambda m: GABALoss(warmup_steps=0), True),
    "interval": (lambda m: GABALoss(warmup_steps=0, interval=2), True),
    "representation": (
        lambda m: GABALoss(warmup_steps=0, sensor=RepresentationSensor(m.reduce)),
        False,
    ),
    "last layer": (
        lambda m: GABALoss(warmup_steps=0, sensor=LastLayerSensor(last_layer(m))),
        False,
    ),
    "GradNorm, closed form": (lambda m: GradNormLoss(lr=1e-6, create_graph=False), False),
}


def reuse_equals_full(bench: Bench) -> dict[str, Any]:
    """The gradients agree in float64."""
    found = []
    for reuse in (False, True):
        problem = Problem(bench, 32, torch.float64)
        problem.backward(GABALoss(warmup_steps=0).to(problem.device).double(), reuse)
        found.append(torch.cat([p.grad.reshape(-1) for p in problem.model.parameters()]))
    furthest = float((found[0] - found[1]).abs().max())
    _demand(torch.allclose(*found, rtol=1e-9, atol=1e-12), f"differ by {furthest:.3g}")
    return {"largest_difference": furthest, "words": f"largest difference {furthest:.2g}"}


def fused_norms(bench: Bench) -> None:
    """One kernel for all parameters gives the sum of squares, within rounding."""
    gradients = [torch.randn(n, device=bench.device) for n in (3, 1000, 100_000)]
    fused, plain = fused_norm_of(gradients), norm_of(gradients)
    _demand(torch.allclose(fused, plain, rtol=1e-5), f"{float(fused)} for {float(plain)}")


def half_precision(bench: Bench) -> dict[str, Any]:
    """fp16 with a scaler ends near float32, and so does bf16."""
    ends = {}
    for name, dtype in (("float32", None), ("float16", torch.float16), ("bf16", torch.bfloat16)):
        problem = Problem(bench)
        loss_fn = GABALoss(warmup_steps=0, beta=0.8).to(problem.device)
        optimiser = torch.optim.AdamW(problem.model.parameters(), lr=1e-4)
        scaler = torch.amp.GradScaler(
            bench.device, init_scale=256.0, enabled=dtype is torch.float16
        )
        for _ in range(10):
            optimiser.zero_grad()
            on = dtype is not None
            with torch.autocast(bench.device, dtype=dtype or torch.bfloat16, enabled=on):
                losses = problem.losses()
            given = scaler if scaler.is_enabled() else None
            scaler.scale(loss_fn.forward_k(losses, problem.shared, grad_scaler=given)).backward()
            scaler.step(optimiser)
            scaler.update()
        ends[name] = loss_fn.ema_weights.cpu()
    far = {name: float((end - ends["float32"]).abs().max()) for name, end in ends.items()}
    _demand(max(far.values()) <= 0.02, f"the averages end apart: {far}")
    return {"distance": far, "words": f"fp16 {far['float16']:.2g}, bf16 {far['bf16']:.2g} apart"}


def event_sensor(bench: Bench) -> dict[str, Any]:
    """The event sensor fetches losses behind the computation, and waits at readings only."""
    problem = Problem(bench)
    loss_fn = GABALoss(warmup_steps=0, sensor=EventSensor(0.1)).to(problem.device)
    readings = 0
    for _ in range(40):
        problem.model.zero_grad()
        problem.backward(loss_fn, False)
        readings += loss_fn.measured_this_step
    _demand(loss_fn.step_count.item() == 40, "steps were lost")
    _demand(bool(torch.isfinite(loss_fn.ema_weights).all()), "the average is not finite")
    return {"readings": readings, "words": f"{readings} readings in 40 steps"}


def capture(step: Callable[[], Any], warm: int = 5) -> torch.cuda.CUDAGraph:
    """A CUDA graph of a step, after some steps on a stream beside."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def captured(bench: Bench, reuse: bool) -> None:
    """A captured step, replayed, is a step: the same weights and parameters as without a graph."""

    def start() -> tuple[Problem, GABALoss, Callable[[], None]]:
        problem = Problem(bench, 64)
        loss_fn = GABALoss(warmup_steps=3, beta=0.9).to(problem.device)
        optimiser = torch.optim.SGD(problem.model.parameters(), lr=1e-5)

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            problem.backward(loss_fn, reuse)
            optimiser.step()

        return problem, loss_fn, step

    expected, eager, step = start()
    for _ in range(30):
        step()
    got, loss_fn, step = start()
    graph = capture(step)
    for _ in range(25):
        graph.replay()
    _demand(loss_fn.step_count.item() == 30, f"{loss_fn.step_count.item()} steps for 30")
    _demand(torch.allclose(loss_fn.ema_weights, eager.ema_weights, rtol=1e-3), "averages differ")
    pairs = [
        (a.detach(), b.detach())
        for a, b in zip(got.model.parameters(), expected.model.parameters(), strict=True)
    ]
    furthest = max(float((a - b).abs().max()) for a, b in pairs)
    alike = all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)
    _demand(alike, f"parameters differ by {furthest:.3g}")


def replayed(bench: Bench, name: str) -> dict[str, Any]:
    """A run recorded here follows from its own norms."""
    problem = Problem(bench, 64, getattr(torch, name))
    loss_fn = GABALoss(warmup_steps=10).to(problem.device, getattr(torch, name))
    optimiser = torch.optim.AdamW(problem.model.parameters(), lr=1e-4)
    file = bench.scratch / f"check-{name}.parquet"
    with TraceRecorder(file, loss_fn, overwrite=True) as recorder:
        for _ in range(40 if bench.rehearse else 300):
            optimiser.zero_grad(set_to_none=True)
            losses = problem.backward(loss_fn, False)
            optimiser.step()
            recorder.log(losses)
    trace = read_trace(file)
    bench.send(("trace", f"check-{name}", str(file)))
    found = check(trace, tolerance=REPLAY[name])
    errors = (found.max_abs_error_ema, found.max_abs_error_weights)
    _demand(trace.precision == name, f"recorded as {trace.precision}")
    _demand(found.ok is True, f"errors {errors} beyond {REPLAY[name]:g}")
    return {"errors": errors, "words": f"within {max(errors):.2g}, allowed {REPLAY[name]:g}"}


def decides_alike(bench: Bench, make: Callable[[], Any]) -> dict[str, Any]:
    """Fed with the same norms, a controller decides here as on the CPU."""
    norms = load_bundled("fd001-gaba").grad_norms
    norms = norms[np.isfinite(norms).all(axis=1)][: 50 if bench.rehearse else 400]

    def weights(device: str) -> Any:
        loss_fn = make().to(device)
        shared = torch.ones(2, device=device, requires_grad=True)
        found = []
        for row in torch.tensor(norms, dtype=torch.float32, device=device):
            loss_fn.forward_k([row[0] * shared[0], row[1] * shared[1]], [shared])
            found.append(loss_fn.applied_weights.detach().clone())
        return torch.stack(found).cpu()

    furthest = float((weights("cpu") - weights(bench.device)).abs().max())
    _demand(furthest <= 5e-6, f"weights differ by {furthest:.3g}")
    return {"largest_difference": furthest, "words": f"weights within {furthest:.2g}"}


def two_ranks(bench: Bench) -> None:
    """Two NCCL ranks hold bit-equal weights."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, args=(2, folder, bench.rehearse), nprocs=2)


def _rank(rank: int, world: int, folder: str, rehearse: bool) -> None:
    place = f"file://{folder}/store"
    dist.init_process_group("nccl", init_method=place, rank=rank, world_size=world)
    torch.cuda.set_device(rank)
    bench = Bench(f"cuda:{rank}", rehearse, Path(), Path(), frozenset(), 0.0, print)
    for reduce in ("norm_of_mean", "mean_of_norms"):
        for reuse in (False, True):
            problem = Problem(bench)
            loss_fn: Any = GABALoss(warmup_steps=0, reduce=reduce).to(problem.device)
            optimiser = torch.optim.SGD(problem.model.parameters(), lr=1e-5)
            half = slice(rank * 128, (rank + 1) * 128)
            for _ in range(5):
                optimiser.zero_grad()
                if reuse:
                    loss_fn.backward(problem.losses(half), problem.shared)
                    optimiser.step()
                else:
                    loss_fn.forward_k(problem.losses(half), problem.shared)
            seen = [torch.zeros_like(loss_fn.ema_weights) for _ in range(world)]
            dist.all_gather(seen, loss_fn.ema_weights)
            _demand(all(torch.equal(s, seen[0]) for s in seen), f"{reduce}, reuse {reuse}: {seen}")
    dist.destroy_process_group()


def _demand(holds: bool, otherwise: str) -> None:
    """A check, which ``python -O`` keeps."""
    if not holds:
        raise AssertionError(otherwise)


def run(bench: Bench) -> None:
    """Every check."""
    # First what every other figure rests on.
    bench.item("replay in float32", partial(replayed, bench, "float32"))
    bench.item("replay in float64", partial(replayed, bench, "float64"))
    for label, (make, reuse) in NO_WAITING.items():
        bench.item(f"no waiting: {label}", partial(no_waiting, bench, make, reuse))
    bench.item("reuse equals full in float64", partial(reuse_equals_full, bench))
    bench.item("fused norms", partial(fused_norms, bench))
    bench.item("half precision", partial(half_precision, bench))
    for label, reuse in (("full", False), ("reuse", True)):
        bench.item(f"CUDA graph: {label}", partial(captured, bench, reuse), cuda=True)
    bench.item("event sensor", partial(event_sensor, bench))
    for label, make_loss in (
        ("GABA", GABALoss),
        ("GABA, project", partial(GABALoss, floor_mode="project")),
        ("GABA, floor 1e-4", partial(GABALoss, min_weight=1e-4)),
        ("GABA, inverse law", partial(GABALoss, law="inverse")),
        ("GradNorm", partial(GradNormLoss, "textbook", lr=1e-3, create_graph=False)),
    ):
        bench.item(f"decides as the CPU: {label}", partial(decides_alike, bench, make_loss))
    if bench.device == "cuda" and torch.cuda.device_count() < 2:
        bench.left_out("NCCL, two ranks", "one GPU only")
    else:
        bench.item("NCCL, two ranks", partial(two_ranks, bench), cuda=True)
