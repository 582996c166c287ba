"""How long a step of one loop waits on this machine, measured.

python benchmarks/machine.py
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from typing import Any

from numba import njit


@njit(error_model="numpy")
def _one_after_another(x: float, rounds: int) -> float:
    """What a step of one loop waits for: exp, a division, a sum, a division, log, a sum."""
    y = x
    for _ in range(rounds):
        share = 1.0 / (1.0 + math.exp(y))
        x = 0.99 * x + 0.01 * share
        y = 0.5 * y + math.log(x / (1.0 - x))
    return y


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
    """The wait of one step."""
    steps = 100_000
    wait = best(lambda: _one_after_another(0.3, steps)) / steps
    return {"machine": platform.processor() or platform.machine(), "step_wait_s": wait}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
