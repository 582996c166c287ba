"""What a step costs, in time and memory, as ratios to plain training: C36, C37 and every sensor.

The steps are those of benchmarks/step_overhead.py and simulations/record_claims.py.
"""

from __future__ import annotations

import contextlib
import gc
import time
from functools import partial
from typing import Any

import record_claims
import step_overhead
import torch

from gabactl.base.devices import use_precision
from gpu.plan import Bench

#: Seconds of measuring per model, as a share of what is left for the part when it is begun.
_SHARE = {"paper": 0.4, "mlp": 0.6}


def memory(bench: Bench, batch: int) -> dict[str, Any]:
    """C36: the peak of a GradNorm step with and without a graph of the gradients."""
    peaks = {}
    # The first one also takes what the libraries keep for good.
    for graph in (False, False, True):
        gc.collect()
        peaks[graph] = record_claims.peak_bytes(bench.device, batch, graph)
    ratio = peaks[True] / max(peaks[False], 1)
    return {
        "memory_ratio": ratio,
        "mib_with_graph": peaks[True] / 2**20,
        "mib_without_graph": peaks[False] / 2**20,
        "batch": batch,
        "words": f"create_graph takes {ratio:.2f} times the memory",
    }


def step_time(bench: Bench, batch: int, precision: str) -> dict[str, Any]:
    """C37: a step under GABA against a plain one."""
    autocast: Any = contextlib.nullcontext()
    if precision == "bf16":
        autocast = torch.autocast(bench.device, torch.bfloat16)
    with use_precision(precision, torch.device(bench.device)), autocast:
        found = record_claims.step_time(bench.device, batch, 1 if bench.rehearse else 30)
    ratio = found["step_time_ratio"]
    words = f"{found['ms_gaba']:.2f} ms, {ratio:.2f} times plain ({precision})"
    return {**found, "batch": batch, "precision": precision, "words": words}


def overhead(bench: Bench, name: str) -> dict[str, Any]:
    """Every balancer and sensor on one model; a contender that cannot run says why."""
    device = torch.device(bench.device)
    with use_precision("float32", device):
        peaks = {} if bench.rehearse else step_overhead.peaks(name, device)
        seconds = 0.2 if bench.rehearse else _SHARE[name] * bench.left()
        turns = 1 if bench.rehearse else 3
        rows, skipped = step_overhead.measure(name, device, seconds, turns, time.perf_counter)
    plain = peaks.get("plain")
    for label, row in rows.items():
        row["peak_mib"] = peaks.get(label)
        if plain and peaks.get(label):
            row["peak_ratio"] = peaks[label] / plain
    shown = ("full", "reuse", "full, interval 10", "representation", "GradNorm, closed form")
    words = ", ".join(f"{x} {rows[x]['ratio']:.2f}" for x in shown if x in rows)
    return {"rows": rows, "skipped": skipped, "words": words}


def run(bench: Bench) -> None:
    """Claims first, then every contender."""
    batch = 4 if bench.rehearse else 256
    bench.item("C37: step time", partial(step_time, bench, batch, "float32"))
    bench.item("C36: memory", partial(memory, bench, batch))
    bench.item("step time, TF32", partial(step_time, bench, batch, "tf32"))
    bench.item("step time, bf16", partial(step_time, bench, batch, "bf16"))
    # The published network takes a minute on a CPU.
    if bench.rehearse:
        bench.left_out("overhead, published network", "a rehearsal takes the small one")
    else:
        bench.item("overhead, published network", partial(overhead, bench, "paper"), least=10)
    bench.item("overhead, MLP", partial(overhead, bench, "mlp"), least=0.2 if bench.rehearse else 5)
