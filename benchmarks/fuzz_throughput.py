"""Controller steps a second in the fuzzer's searcher, against plain Hypothesis in the same run.

Run ``python benchmarks/fuzz_throughput.py``; it prints a table and, with ``-o FILE``, writes JSON.
Both search for a weight outside the tight bound of the published setting, so both do the same
work per step: a reading, the law, the average, the floor, and a look at every weight.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from gabactl.fuzzing.lanes import LaneSearch, run, survey
from gabactl.fuzzing.properties import Bounds
from gabactl.fuzzing.strategies import cases
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec

SPEC = GabaSpec.published(warmup=0)
BOUND = Bounds(1 / 21, 20 / 21)


def both_ends(stats: Any) -> Any:
    """How far the extremes of a block are outside the bound."""
    low, high = BOUND.limits(2.0**-52)
    return np.stack([low - stats[0], stats[1] - high])


def searcher(steps: int, workers: int, repeats: int) -> list[dict[str, float]]:
    """The whole searcher (breeding, running, scoring) on some threads."""
    survey(SPEC, both_ends, steps=5_000_000)
    out = []
    for repeat in range(repeats):
        cpu = time.process_time()
        seen = survey(SPEC, both_ends, steps=steps, seed=repeat, workers=workers)
        cpu = time.process_time() - cpu
        assert seen.violations == 0
        out.append(
            {
                "steps": seen.steps,
                "seconds": seen.seconds,
                "steps_per_second": seen.steps / seen.seconds,
                "steps_per_core_second": seen.steps / cpu,
            }
        )
    return out


def loop_alone(repeats: int) -> float:
    """Steps a second of the compiled loop, without breeding, on one core."""
    search = LaneSearch(SPEC, both_ends, 2062)
    best = 0.0
    for _ in range(max(20, 4 * repeats)):
        programs = search._breed()
        begun = time.perf_counter()
        run(programs, SPEC)
        best = max(best, 2062 * 128 / (time.perf_counter() - begun))
    return best


def plain_hypothesis(examples: int) -> dict[str, float]:
    """``@given`` over the public strategies and the NumPy controller, as a user would write it."""
    from hypothesis import HealthCheck, Phase, given, settings

    low, high = BOUND.limits(2.0**-52)
    steps = 0

    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases(2, max_steps=500))
    def bounds_hold(case: Any) -> None:
        nonlocal steps
        controller = Controller(SPEC)
        for row in case.readings():
            weights = controller.observe(row)
            assert low <= weights.min()
            assert weights.max() <= high
        steps += case.n_steps

    wall, cpu = time.perf_counter(), time.process_time()
    bounds_hold()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "steps": steps,
        "seconds": wall,
        "steps_per_second": steps / wall,
        "steps_per_core_second": steps / cpu,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    runs = searcher(options.steps, options.workers, options.repeats)
    best = max(runs, key=lambda run: run["steps_per_second"])
    plain = plain_hypothesis(options.examples)
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "workers": options.workers,
        "searcher": best,
        "searcher_best_per_core_second": max(run["steps_per_core_second"] for run in runs),
        "loop_alone_one_core": loop_alone(options.repeats),
        "hypothesis": plain,
        "ratio_wall": best["steps_per_second"] / plain["steps_per_second"],
        "ratio_per_core_second": best["steps_per_core_second"] / plain["steps_per_core_second"],
    }
    print(
        f"searcher, {options.workers} threads: {best['steps_per_second'] / 1e6:.1f} M steps/s; "
        f"{result['searcher_best_per_core_second'] / 1e6:.1f} M per second of one core\n"
        f"its loop alone, one core: {result['loop_alone_one_core'] / 1e6:.1f} M steps/s\n"
        f"plain Hypothesis: {plain['steps_per_second']:,.0f} steps/s; "
        f"{plain['steps_per_core_second']:,.0f} per second of one core\n"
        f"ratio: {result['ratio_wall']:,.0f} (wall), {result['ratio_per_core_second']:,.0f} (core)\n"
        f"load average while measuring: {result['load_average']:.1f} on {result['cores']} cores"
    )
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
