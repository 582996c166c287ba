"""What only a GPU can show: no waiting for the device, peak memory, step cost, NCCL, loops.

``python benchmarks/device_checks.py`` on a CUDA machine prints PASS or FAIL per check and exits
with 1 on a failure. Without CUDA it says so and exits with 0, having checked nothing. With two or
more GPUs it starts two NCCL ranks as well. The table of step costs is step_overhead.py's:
``python benchmarks/step_overhead.py --device cuda -o OTHER.json``.
"""

import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from gabactl.loops.batch import run_batch
from gabactl.loops.profiles import constant
from gabactl.nn import (
    EventSensor,
    GABALoss,
    GradNormLoss,
    LastLayerSensor,
    RepresentationSensor,
    get_shared_params,
)
from gabactl.nn.sensors.norms import fused_norm_of, norm_of
from gabactl.nn.training.models import CnnBiLstmAttention


def problem(device, batch=256, seed=0):
    """The published network on random data; its losses and shared parameters."""
    torch.manual_seed(seed)
    model = CnnBiLstmAttention(14, dropout=0.0).to(device)
    x = torch.randn(batch, 30, 14, device=device)
    rul = torch.rand(batch, device=device) * 125
    health = torch.randint(0, 3, (batch,), device=device)

    def losses(rows=slice(None)):
        predicted, logits = model(x[rows])
        return [
            nn.functional.mse_loss(predicted, rul[rows]),
            nn.functional.cross_entropy(logits, health[rows]),
        ]

    return model, losses, get_shared_params(model)


def no_waiting(device, make, reuse):
    """A step does not wait for the device, after the first one has warmed up the kernels."""
    model, losses, shared = problem(device)
    loss_fn = make(model).to(device)
    everything = list(model.parameters())
    for step in range(8):
        if step == 3:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            if reuse:
                loss_fn.backward(losses(), shared, everything)
            else:
                loss_fn.forward_k(losses(), shared).backward()
        except RuntimeError:
            torch.cuda.set_sync_debug_mode("default")
            raise
    torch.cuda.set_sync_debug_mode("default")


def reuse_equals_full(device):
    """Weights and gradients agree in float64."""
    results = []
    for reuse in (False, True):
        model, _, shared = problem(device, 32)
        model.double()
        loss_fn = GABALoss(warmup_steps=0).to(device).double()
        values = [x.double() for x in double_losses(model, device)]
        if reuse:
            loss_fn.backward(values, shared)
        else:
            loss_fn.forward_k(values, shared).backward()
        results.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
    assert torch.allclose(*results, rtol=1e-9, atol=1e-12), (results[0] - results[1]).abs().max()


def double_losses(model, device):
    """Losses of a float64 model."""
    torch.manual_seed(1)
    x = torch.randn(32, 30, 14, device=device, dtype=torch.float64)
    rul = torch.rand(32, device=device, dtype=torch.float64) * 125
    health = torch.randint(0, 3, (32,), device=device)
    predicted, logits = model(x)
    return [nn.functional.mse_loss(predicted, rul), nn.functional.cross_entropy(logits, health)]


def fused_norms(device):
    """One kernel for all parameters gives the sum of squares, within rounding."""
    gradients = [torch.randn(n, device=device) for n in (3, 1000, 100_000)]
    assert torch.allclose(fused_norm_of(gradients), norm_of(gradients), rtol=1e-5)


def half_precision(device):
    """fp16 with a scaler ends near float32; bf16 too."""
    ends = {}
    for name, dtype, scaler in (
        ("float32", None, None),
        ("float16", torch.float16, torch.amp.GradScaler("cuda", init_scale=256.0)),
        ("bfloat16", torch.bfloat16, None),
    ):
        model, losses, shared = problem(device)
        loss_fn = GABALoss(warmup_steps=0, beta=0.8).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for _ in range(10):
            optimiser.zero_grad()
            with torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None):
                values = losses()
            total = loss_fn.forward_k(values, shared, grad_scaler=scaler)
            if scaler is None:
                total.backward()
                optimiser.step()
            else:
                scaler.scale(total).backward()
                scaler.step(optimiser)
                scaler.update()
        ends[name] = loss_fn.ema_weights.cpu()
    for name, end in ends.items():
        assert torch.allclose(end, ends["float32"], atol=0.02), (name, ends)


def peak_memory(device):
    """Prints the peak of a step; GradNorm with create_graph needs cuDNN off for the LSTM."""

    def peak(make, reuse=False):
        model, losses, shared = problem(device)
        loss_fn = make(model).to(device)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            model.zero_grad()
            if reuse:
                loss_fn.backward(losses(), shared)
            else:
                loss_fn.forward_k(losses(), shared).backward()
        return torch.cuda.max_memory_allocated() / 2**20

    rows = {
        "full": peak(lambda m: GABALoss(warmup_steps=0)),
        "reuse": peak(lambda m: GABALoss(warmup_steps=0), True),
        "GradNorm, closed form": peak(lambda m: GradNormLoss(lr=1e-6, create_graph=False)),
    }
    with torch.backends.cudnn.flags(enabled=False):
        rows["full, no cuDNN"] = peak(lambda m: GABALoss(warmup_steps=0))
        rows["GradNorm, create_graph, no cuDNN"] = peak(lambda m: GradNormLoss(lr=1e-6))
    for label, mib in rows.items():
        print(f"      {label:34} {mib:8.0f} MiB")
    assert rows["GradNorm, create_graph, no cuDNN"] > rows["full, no cuDNN"]


def captured(device, reuse):
    """A captured step, replayed, is a step: the same weights and parameters as without a graph."""

    def start():
        model, losses, shared = problem(device, 64)
        loss_fn = GABALoss(warmup_steps=3, beta=0.9).to(device)
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-5)

        def step():
            optimiser.zero_grad(set_to_none=True)
            if reuse:
                loss_fn.backward(losses(), shared)
            else:
                loss_fn.forward_k(losses(), shared).backward()
            optimiser.step()

        return model, loss_fn, step

    expected, eager, step = start()
    for _ in range(30):
        step()
    model, loss_fn, step = start()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(25):
        graph.replay()
    assert loss_fn.step_count.item() == 30
    assert torch.allclose(loss_fn.ema_weights, eager.ema_weights, rtol=1e-3)
    for got, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-5), (got - wanted).abs().max()


def nccl_rank(rank, world, folder):
    """One NCCL rank: full and reuse, both agreed on, bit-equal weights."""
    dist.init_process_group(
        "nccl", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    torch.cuda.set_device(rank)
    device = torch.device("cuda", rank)
    for reduce in ("norm_of_mean", "mean_of_norms"):
        for reuse in (False, True):
            model, losses, shared = problem(device)
            loss_fn = GABALoss(warmup_steps=0, reduce=reduce).to(device)
            optimiser = torch.optim.SGD(model.parameters(), lr=1e-5)
            half = slice(rank * 128, (rank + 1) * 128)
            for _ in range(5):
                optimiser.zero_grad()
                if reuse:
                    loss_fn.backward(losses(half), shared)
                    optimiser.step()
                else:
                    loss_fn.forward_k(losses(half), shared)
            seen = [torch.zeros_like(loss_fn.ema_weights) for _ in range(world)]
            dist.all_gather(seen, loss_fn.ema_weights)
            assert all(torch.equal(s, seen[0]) for s in seen), (reduce, reuse, seen)
    dist.destroy_process_group()


def nccl(device):
    """Two ranks hold bit-equal weights."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(nccl_rank, args=(2, folder), nprocs=2)


def last(model):
    """Parameters of the last shared layer."""
    return [m for m in model.reduce if isinstance(m, nn.Linear)][-1].parameters()


CHECKS = {
    "no waiting: full": lambda d: no_waiting(d, lambda m: GABALoss(warmup_steps=0), False),
    "no waiting: full as published": lambda d: no_waiting(
        d, lambda m: GABALoss(warmup_steps=0, guard="none"), False
    ),
    "no waiting: reuse": lambda d: no_waiting(d, lambda m: GABALoss(warmup_steps=0), True),
    "no waiting: interval": lambda d: no_waiting(
        d, lambda m: GABALoss(warmup_steps=0, interval=2), True
    ),
    "no waiting: representation": lambda d: no_waiting(
        d, lambda m: GABALoss(warmup_steps=0, sensor=RepresentationSensor(m.reduce)), False
    ),
    "no waiting: last layer": lambda d: no_waiting(
        d, lambda m: GABALoss(warmup_steps=0, sensor=LastLayerSensor(last(m))), False
    ),
    "no waiting: GradNorm, closed form": lambda d: no_waiting(
        d, lambda m: GradNormLoss(lr=1e-6, create_graph=False), False
    ),
    "CUDA graph: full": lambda d: captured(d, False),
    "CUDA graph: reuse": lambda d: captured(d, True),
    "event sensor runs": lambda d: event_runs(d),
    "reuse equals full in float64": reuse_equals_full,
    "fused norms": fused_norms,
    "half precision": half_precision,
    "peak memory": peak_memory,
    "batch of loops": lambda d: batch_of_loops(d),
}


def batch_of_loops(device):
    """The batch of closed loops gives on the device what the compiled kernel gives, and its time."""
    profile = constant(50.0, 1000, n_tasks=3)
    table = {"rho": np.linspace(-0.5, 0.5, 200_000), "a": 0.9, "noise": 0.3}
    options = {"settling": False, "stability": False, "seed": 3}
    start = time.perf_counter()
    compiled = run_batch(profile, table, **options)
    middle = time.perf_counter()
    there = run_batch(profile, table, **options, device=str(device))
    end = time.perf_counter()
    for name in ("smallest_weight", "mean_log_spread", "final_weight", "mean_weight", "weight_std"):
        np.testing.assert_allclose(there[name], compiled[name], rtol=1e-9, atol=1e-9, err_msg=name)
    print(f"      compiled {middle - start:.2f} s, device {end - middle:.2f} s for 2e8 loop-steps")


def event_runs(device):
    """The event sensor fetches losses behind the computation, and waits at readings only."""
    model, losses, shared = problem(device)
    loss_fn = GABALoss(warmup_steps=0, sensor=EventSensor(0.1)).to(device)
    for _ in range(40):
        model.zero_grad()
        loss_fn.forward_k(losses(), shared).backward()
    assert loss_fn.step_count.item() == 40
    assert torch.isfinite(loss_fn.ema_weights).all()


def main():
    """Run them all."""
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was checked")
        return 0
    device = torch.device("cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    checks = dict(CHECKS)
    if torch.cuda.device_count() > 1:
        checks["NCCL, two ranks"] = nccl
    else:
        print("SKIP  NCCL: one GPU only")
    failed = 0
    for label, check in checks.items():
        try:
            check(device)
            print(f"PASS  {label}", flush=True)
        except Exception:
            failed += 1
            torch.cuda.set_sync_debug_mode("default")
            print(f"FAIL  {label}\n{traceback.format_exc(limit=-3)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main())
