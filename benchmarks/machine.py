"""What this machine can do, measured: fused multiply-adds per second and memory bandwidth.

python benchmarks/machine.py
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gabactl._kernels.elementary import fma

_LANES = np.uint64(64)


@njit(error_model="numpy")
def _chains(x: Any, rounds: int) -> None:
    """16 fused multiply-adds per lane and round, on 64 independent lanes in cache."""
    for _ in range(rounds):
        for lane in range(_LANES):
            v = x[lane]
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            v = fma(v, 0.999, 0.001)
            x[lane] = v


def best(call: Callable[[], Any], repeats: int = 7) -> float:
    """Shortest CPU time of a call on this thread, in seconds, after one call to warm up.

    CPU time of the process, because the machine may be shared.
    """
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def measure() -> dict[str, Any]:
    """Peak FLOP/s of one core in compiled vector code, and bytes/s of a copy."""
    x = np.ones(64)
    rounds = 100_000
    flops = rounds * 64 * 16 * 2 / best(lambda: _chains(x, rounds))
    source = np.ones(1 << 24)
    target = np.empty_like(source)
    moved = 2 * source.nbytes
    bandwidth = moved / best(lambda: np.copyto(target, source), 5)
    return {
        "machine": platform.processor() or platform.machine(),
        "flop_per_s": flops,
        "byte_per_s": bandwidth,
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
