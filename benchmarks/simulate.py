"""The closed loop three ways, side by side, on one core; and many loops at once.

    python benchmarks/simulate.py [--steps 10000] [--loops 10000] [--scaling] [--json]
    python benchmarks/simulate.py --scaling -o simulations/results/simulate_benchmark.json

1. One loop of 10,000 steps (K = 2, beta = 0.99, log-ratio plant): python-control's
   ``input_output_response``, a NumPy loop, the compiled loop. All three must agree.
   Beside them what a step would wait for that is written down as it stands: an exponential, a
   logarithm and two divisions, one after another, on this machine. The compiled loop waits for
   less, because it expects the next norms from the step before.
2. A batch of loops x 1,000 steps with K = 3, in several variants, with what the kernel's own machine
   code needs and the bounds of the machine as measured in the same run. Without feedback a
   disturbance that stays what it was leaves norms and raw weights what they were, so both a constant
   one and one that moves at every step are timed.

   The machine's bound is the larger of two: its vector instructions that need an arithmetic port, at
   the rate the machine does multiply-adds (two a cycle with 512 bits), and its divisions and roots,
   which have a unit of their own. Loads and stores run beside them. The FLOP bound is lower and out
   of reach for this work: it takes every operation for half a multiply-add, which most are not, and
   takes comparisons, the larger or smaller of two, table look-ups and work on exponents for nothing,
   and these are a third to a half of a step.

All take turns, and the least time of each counts: on a machine that others use too, a slow moment hits
them alike.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import best, measure

from gabactl.base.files import write_text
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.loops.batch import run_batch
from gabactl.loops.kernels.cost import operations
from gabactl.loops.kernels.rows import row_names
from gabactl.loops.profiles import Profile, constant, levels
from gabactl.loops.simulate import CompiledLoop
from gabactl.plants import LogRatio

SPEC = GabaSpec(warmup=0)
PLANT = LogRatio(rho=0.5, a=0.9)

#: What is wanted of a batch: as many times the speed of python-control, and of the bound.
WANTED_BATCH, WANTED_SINGLE, WANTED_BOUND = 5000.0, 700.0, 2.0


def control_loop(profile: Profile) -> np.ndarray:
    """Weights of task 0 from python-control, as one discrete system (its fastest form)."""
    import control

    d = profile.log_norms[:, 0] - profile.log_norms[:, 1]
    floor, beta, a, gain = SPEC.floor, SPEC.beta, PLANT.a, PLANT.rho * (1 - PLANT.a)
    exp, log = math.exp, math.log

    def average(x: Any, u: Any) -> float:
        return beta * x[0] + (1 - beta) / (1 + exp(u[0] - x[1]))

    def update(t: float, x: Any, u: Any, params: Any) -> Any:
        ema = average(x, u)
        logit = log(max(ema, floor)) - log(max(1 - ema, floor))
        return [ema, a * x[1] + gain * logit]

    def output(t: float, x: Any, u: Any, params: Any) -> Any:
        ema = average(x, u)
        first, second = max(ema, floor), max(1 - ema, floor)
        return [first / (first + second)]

    loop = control.nlsys(update, output, inputs=1, outputs=1, states=2, dt=1)
    response = control.input_output_response(loop, np.arange(len(d)), d, [0.5, 0.0])
    return np.ravel(response.outputs)


def numpy_loop(profile: Profile) -> np.ndarray:
    """Weights of task 0 from the reference controller."""
    controller, plant = Controller(SPEC), PLANT.start()
    weights = np.empty(profile.steps)
    for t in range(profile.steps):
        applied = controller.observe(plant.measure(profile.log_norms[t]))
        plant.apply(applied)
        weights[t] = applied[0]
    return weights


def compiled_loop(profile: Profile) -> np.ndarray:
    """Weights of task 0 from the compiled loop."""
    return CompiledLoop(SPEC, PLANT).advance(profile.log_norms, profile.lost).weights[:, 0]


#: Variants of a batch: name, whether the disturbance moves, gain of the plant, noise, precision.
VARIANTS = (
    ("open loop", False, 0.0, 0.0, "float64"),
    ("open loop, moving", True, 0.0, 0.0, "float64"),
    ("closed loop", False, 0.5, 0.0, "float64"),
    ("closed loop, noise", False, 0.5, 0.3, "float64"),
    ("open loop, float32", False, 0.0, 0.0, "float32"),
    ("closed loop, float32", False, 0.5, 0.0, "float32"),
)


def in_turn(
    contenders: dict[str, tuple[Callable[[], object], int]], turns: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """The least seconds of each contender, and the best of the machine, over turns taken by all.

    A machine that others use is slow for seconds at a time: in turns, all meet its good moments.
    """
    least = dict.fromkeys(contenders, math.inf)
    machine = measure()
    for turn in range(turns):
        for name, (contender, times) in contenders.items():
            least[name] = min(least[name], best(contender, times))
        if turn % 4 == 3:
            for key, value in measure().items():
                if "_per_s" in key:
                    machine[key] = max(machine[key], value)
                elif key == "step_wait_s":
                    machine[key] = min(machine[key], value)
    return least, machine


def single(profile: Profile, least: dict[str, float], machine: dict[str, Any]) -> dict[str, Any]:
    """What one loop took in the three ways, and how far they differ."""
    reference = numpy_loop(profile)
    return {
        "steps": profile.steps,
        "control_differs_by": float(np.abs(control_loop(profile) - reference).max()),
        "compiled_differs_by": float(np.abs(compiled_loop(profile) - reference).max()),
        "control_s": least["control"],
        "numpy_s": least["numpy"],
        "compiled_s": least["compiled"],
        "times_faster_than_control": least["control"] / least["compiled"],
        "wanted_times_faster": WANTED_SINGLE,
        "times_faster_than_numpy": least["numpy"] / least["compiled"],
        "wait_bound_s": profile.steps * machine["step_wait_s"],
    }


def batches(loops: int, steps: int) -> dict[str, tuple[Callable[[], object], int]]:
    """The variants of a batch, to be timed."""
    still = constant(50.0, steps, n_tasks=3)
    wandering = np.random.default_rng(0).normal(0.0, 0.1, (steps, 3)).cumsum(axis=0)
    moving = Profile(still.log_norms + wandering)
    contenders: dict[str, tuple[Callable[[], object], int]] = {}
    for name, moves, rho, noise, dtype in VARIANTS:
        table = {"rho": np.full(loops, rho), "a": 0.9, "noise": noise}
        options: dict[str, Any] = {"settling": False, "stability": False, "dtype": dtype}
        contenders[name] = partial(run_batch, moving if moves else still, table, **options), 2
    return contenders


def bounds(
    loops: int,
    steps: int,
    least: dict[str, float],
    machine: dict[str, Any],
    control_per_step: float,
) -> list[dict[str, Any]]:
    """What each variant of a batch took, beside what the machine could do at best."""
    k = 3
    rows = []
    for name, moves, rho, noise, dtype in VARIANTS:
        seconds = least[name]
        cost = operations(k, rho != 0, noise > 0, dtype, moves)
        suffix = "" if dtype == "float64" else "_float32"
        peak = machine["flop_per_s" + suffix]
        bound = cost["flop"] * loops * steps / peak
        # The peak is that of multiply-adds, two operations each.
        instruction_bound = cost["instructions"] * loops * steps / (peak / 2)
        division_bound = cost["divisions"] * loops * steps / machine["division_per_s" + suffix]
        machine_bound = max(instruction_bound, division_bound)
        # Per loop, settings go in and statistics come out once: the bandwidth bound.
        traffic = loops * len(row_names(k)) * np.dtype(dtype).itemsize * 2
        rows.append(
            {
                "variant": name,
                "loops": loops,
                "steps": steps,
                "seconds": seconds,
                "ns_per_loop_step": 1e9 * seconds / loops / steps,
                "flop_per_loop_step": cost["flop"],
                "instructions_per_loop_step": cost["instructions"],
                "flop_bound_s": bound,
                "times_flop_bound": seconds / bound,
                "instruction_bound_s": instruction_bound,
                "division_bound_s": division_bound,
                "times_machine_bound": seconds / machine_bound,
                "bandwidth_bound_s": traffic / machine["byte_per_s"],
                "times_faster_than_control": control_per_step * loops * steps / seconds,
                "wanted_times_faster": WANTED_BATCH,
                "wanted_times_machine_bound": WANTED_BOUND,
            }
        )
    return rows


def scaling(largest: int) -> list[dict[str, Any]]:
    """Time per loop-step from 10^3 loops to the largest, and from 250 to 4,000 steps."""
    rows = []
    for loops, steps in [
        (10**3, 200),
        (10**4, 200),
        (10**5, 200),
        (largest, 200),
        (10**3, 1000),
        (10**3, 5000),
    ]:
        profile = constant(50.0, steps, n_tasks=3)
        table = {"rho": np.full(loops, 0.5), "a": 0.9}
        seconds = best(
            lambda p=profile, t=table: run_batch(p, t, settling=False, stability=False),
            2,  # type: ignore[misc]
        )
        rows.append(
            {
                "loops": loops,
                "steps": steps,
                "seconds": seconds,
                "ns_per_loop_step": 1e9 * seconds / loops / steps,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--loops", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=12, help="of which the least time counts")
    parser.add_argument("--scaling", action="store_true", help="also 10^3 to 10^6 loops")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-o", "--output", type=Path, help="also write the record here, as JSON")
    given = parser.parse_args()
    profile = levels([2, 8, 3, 5], [given.steps // 4] * 4)
    contenders: dict[str, tuple[Callable[[], object], int]] = {
        "control": (lambda: control_loop(profile), 2),
        "numpy": (lambda: numpy_loop(profile), 1),
        "compiled": (lambda: compiled_loop(profile), 50),
        **batches(given.loops, 1000),
    }
    least, machine = in_turn(contenders, given.turns)
    one = single(profile, least, machine)
    many = bounds(given.loops, 1000, least, machine, one["control_s"] / one["steps"])
    record: dict[str, Any] = {"machine": machine, "one_loop": one, "batch": many}
    if given.scaling:
        record["scaling"] = scaling(10**6)
    if given.output is not None:
        write_text(given.output, json.dumps(record, indent=2) + "\n")
    if given.json:
        print(json.dumps(record, indent=2))
        return
    print(
        f"machine: {machine['flop_per_s'] / 1e9:.1f} GFLOP/s, {machine['byte_per_s'] / 1e9:.1f} GB/s, one core"
    )
    print(f"one loop, {one['steps']:,} steps:")
    print(
        f"  python-control  {1e3 * one['control_s']:9.2f} ms   differs by {one['control_differs_by']:.1e}"
    )
    print(f"  NumPy           {1e3 * one['numpy_s']:9.2f} ms")
    print(
        f"  compiled        {1e3 * one['compiled_s']:9.2f} ms   differs by {one['compiled_differs_by']:.1e}"
    )
    print(
        f"  compiled is {one['times_faster_than_control']:,.0f}x python-control, {one['times_faster_than_numpy']:,.0f}x NumPy; "
        f"{1e3 * one['wait_bound_s']:.2f} ms is what steps written as they stand wait for; wanted {one['wanted_times_faster']:,.0f}x"
    )
    print(f"batch, {given.loops:,} loops x 1,000 steps, K = 3:")
    for row in many:
        print(
            f"  {row['variant']:22} {1e3 * row['seconds']:8.1f} ms  {row['ns_per_loop_step']:6.2f} ns per loop-step  "
            f"{row['times_machine_bound']:4.2f} x the machine's bound ({row['instructions_per_loop_step']:.0f} instructions)  "
            f"{row['times_flop_bound']:4.1f} x the FLOP bound ({row['flop_per_loop_step']:.0f} operations)  "
            f"{row['times_faster_than_control']:,.0f}x python-control"
        )
    for row in record.get("scaling", []):
        print(
            f"  {row['loops']:>9,} loops x {row['steps']:>5,} steps  {row['ns_per_loop_step']:6.2f} ns per loop-step"
        )


if __name__ == "__main__":
    main()
