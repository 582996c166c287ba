"""What this machine can do, measured: multiply-adds, divisions, memory bandwidth, the wait for one number.

python benchmarks/machine.py
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from gabactl.loops.kernels.vectors import Lanes, Vector, use_wide_vectors

#: Vectors at work at the same time: enough that none waits for itself.
_CHAINS = 10


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_add(typing_context: Any, x: Any, rounds: Any) -> Any:
    """x <- 0.999 x + 0.001 in ten independent vectors of 512 bits, held in registers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        use_wide_vectors(builder)
        bits = x.dtype.bitwidth
        lanes = Lanes(builder, 512 // bits, bits)
        data = context.make_array(x)(context, builder, arguments[0]).data
        whole = ir.IntType(64)
        places = [ir.Constant(whole, n * lanes.width) for n in range(_CHAINS)]
        values = [lanes.load(data, place) for place in places]
        entry = builder.block
        loop, end = builder.append_basic_block("loop"), builder.append_basic_block("end")
        builder.branch(loop)
        builder.position_at_end(loop)
        count = builder.phi(whole)
        count.add_incoming(ir.Constant(whole, 0), entry)
        held = [builder.phi(lanes.float) for _ in values]
        news = [Vector(lanes, [phi]).fma(0.999, lanes.constant(0.001)) for phi in held]
        for phi, value, new in zip(held, values, news, strict=True):
            phi.add_incoming(value.values[0], entry)
            phi.add_incoming(new.values[0], loop)
        following = builder.add(count, ir.Constant(whole, 1))
        count.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[1]), loop, end)
        builder.position_at_end(end)
        for value, place in zip(news, places, strict=True):
            lanes.store(value, data, place)
        return context.get_dummy_value()

    return types.void(x, types.int64), generate


@njit
def _chains(x: Any, rounds: int) -> None:
    _multiply_add(x, rounds)


@njit(error_model="numpy")
def _divide(x: Any, y: Any, rounds: int) -> None:
    for n in range(rounds):
        for i in range(x.size):
            y[i] = x[n & 1] / x[i]


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
    """Peak FLOP/s and divisions/s of one core in both types, bytes/s of a copy, and the wait of one step."""
    rounds = 300_000
    peaks = {}
    for dtype, width in (("float64", 8), ("float32", 16)):
        x = np.ones(_CHAINS * width, dtype=dtype)
        seconds = best(lambda x=x: _chains(x, rounds))  # type: ignore[misc]
        peaks[dtype] = rounds * _CHAINS * width * 2 / seconds
    divisions = {}
    for dtype in peaks:
        x = np.linspace(1, 2, 512).astype(dtype)
        y = np.empty_like(x)
        seconds = best(lambda x=x, y=y: _divide(x, y, 2000))  # type: ignore[misc]
        divisions[dtype] = 2000 * x.size / seconds
    source = np.ones(1 << 24)
    target = np.empty_like(source)
    moved = 2 * source.nbytes
    bandwidth = moved / best(lambda: np.copyto(target, source), 5)
    steps = 100_000
    wait = best(lambda: _one_after_another(0.3, steps)) / steps
    return {
        "machine": platform.processor() or platform.machine(),
        "flop_per_s": peaks["float64"],
        "flop_per_s_float32": peaks["float32"],
        "division_per_s": divisions["float64"],
        "division_per_s_float32": divisions["float32"],
        "byte_per_s": bandwidth,
        "step_wait_s": wait,
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
