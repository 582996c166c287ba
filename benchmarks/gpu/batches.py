"""Closed loops in batches: how many loop-steps a second, against the compiled kernel of the CPU."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import numpy as np

from gabactl.loops.batch import run_batch
from gabactl.loops.profiles import constant
from gpu.plan import Bench

_COMPARED = ("smallest_weight", "mean_log_spread", "final_weight", "mean_weight", "weight_std")


def batch(bench: Bench, loops: int, steps: int, dtype: str) -> dict[str, Any]:
    """The same loops on the CPU and here: alike, and how fast."""
    profile = constant(50.0, steps, n_tasks=3)
    table = {"rho": np.linspace(-0.5, 0.5, loops), "a": 0.9, "noise": 0.3}
    options: dict[str, Any] = {"settling": False, "stability": False, "seed": 3, "dtype": dtype}
    threads = 1 if bench.rehearse else os.cpu_count() or 1
    rates, found = {}, {}
    for name, where in (("cpu", {"threads": threads}), ("device", {"device": bench.device})):
        begin = time.perf_counter()
        found[name] = run_batch(profile, table, **options, **where)
        rates[name] = loops * steps / (time.perf_counter() - begin)
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    for column in _COMPARED:
        np.testing.assert_allclose(
            found["device"][column], found["cpu"][column], rtol=tolerance, atol=tolerance,
            err_msg=column,
        )  # fmt: skip
    ratio = rates["device"] / rates["cpu"]
    words = f"{rates['device']:.3g} loop-steps/s, {ratio:.2f} times {threads} CPU threads"
    return {"rates": rates, "ratio": ratio, "threads": threads, "loops": loops, "words": words}


def run(bench: Bench) -> None:
    """Small batches first; the first one warms up what the others need."""
    sizes = (100, 200) if bench.rehearse else (10_000, 200_000, 1_000_000)
    steps = 50 if bench.rehearse else 1000
    bench.item("compile both", partial(batch, bench, 100, 10, "float64"))
    for loops in sizes:
        bench.item(f"{loops:,} loops", partial(batch, bench, loops, steps, "float64"))
    bench.item(f"{sizes[-1]:,} loops, float32", partial(batch, bench, sizes[-1], steps, "float32"))
