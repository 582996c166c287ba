"""Do the intervals of `gabactl identify` cover the truth as often as they say?

Simulates closed-loop runs of known plants (GABA in the loop, a pseudo-random excitation, noise as
in recorded training), identifies each, and counts. Writes the table after every plant, so that
`--resume` continues a study that was stopped.

    python benchmarks/identification_coverage.py            # 2,000 runs of 4,000 steps per plant
    python benchmarks/identification_coverage.py --runs 200 --plants 2
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "simulations" / "results" / "identification_coverage.json"

#: rho, a, delay. The last one is beyond what is asked for, to see what happens close to 1.
PLANTS = (
    (-5.0, 0.9, 0),
    (-1.0, 0.8, 2),
    (-0.3, 0.9, 0),
    (-0.1, 0.93, 0),
    (0.0, 0.9, 0),
    (0.5, 0.9, 1),
    (0.9, 0.9, 0),
    (0.95, 0.9, 0),
    (0.99, 0.9, 0),
)
BATCH = 100
DRAWS = 399


def batch(plant: tuple[float, float, int], steps: int, runs: int, seed: int) -> list[list[float]]:
    """Estimates and intervals of a batch of runs: rho, low, high, a covered, delay covered, p."""
    from gabactl.identification import ProfileLikelihood, fit_output_error, simulate_excited

    rho, a, delay = plant
    records = simulate_excited(rho, a, delay, steps=steps, runs=runs, seed=seed)
    found = []
    for i in range(runs):
        fit = fit_output_error(records.run(i), 50.0, 5)
        profile = ProfileLikelihood(fit, draws=DRAWS, seed=seed + i)
        low, high = profile.rho_interval()
        a_low, a_high = profile.a_interval()
        covered = [float(a_low <= a <= a_high), float(delay in profile.delays())]
        found.append([fit.rho, low, high, *covered, profile.p_value_without_feedback()])
    return found


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """95 % interval for a share (E. B. Wilson, 1927)."""
    z = 1.959964
    centre = (hits + z * z / 2) / (runs + z * z)
    half = z / (runs + z * z) * np.sqrt(hits * (runs - hits) / runs + z * z / 4)
    return float(centre - half), float(centre + half)


def study(plant: tuple[float, float, int], number: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    from joblib import Parallel, delayed

    started = time.perf_counter()
    jobs = [
        (min(BATCH, args.runs - first), 1_000_000 * (number + 1) + first)
        for first in range(0, args.runs, BATCH)
    ]
    parts = Parallel(n_jobs=args.jobs)(
        delayed(batch)(plant, args.steps, runs, seed) for runs, seed in jobs
    )
    rho, low, high, a_covered, delay_covered, p = np.array(
        [row for part in parts for row in part]
    ).T
    truth = plant[0]
    hits = int(((low <= truth) & (truth <= high)).sum())
    return {
        "rho": truth,
        "a": plant[1],
        "delay": plant[2],
        "runs": args.runs,
        "steps": args.steps,
        "coverage": hits / args.runs,
        "coverage_interval": wilson(hits, args.runs),
        "too_low": float((high < truth).mean()),
        "too_high": float((low > truth).mean()),
        "median_rho": float(np.median(rho)),
        "median_width": float(np.median(high - low)),
        "a_coverage": float(a_covered.mean()) if truth else None,
        "delay_coverage": float(delay_covered.mean()) if truth else None,
        "said_negative": float((high < 0).mean()),
        "said_positive": float((low > 0).mean()),
        "rejected_no_feedback": float((p <= 0.05).mean()),
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--plants", type=int, default=len(PLANTS), help="only the first ones")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    table: dict[str, Any] = {
        "design": {
            "excitation": "+-0.5 nats, redrawn every 50 steps",
            "noise": "AR(1), 0.5 nats, pole 0.4, plus a random walk of 0.005 nats per step",
            "controller": "published (beta 0.99, floor 0.05), no warm-up",
            "level": 0.95,
            "draws": DRAWS,
        },
        "plants": [],
    }
    if args.resume and args.output.exists():
        table["plants"] = json.loads(args.output.read_text())["plants"]
    done = {(row["rho"], row["runs"], row["steps"]) for row in table["plants"]}
    for number, plant in enumerate(PLANTS[: args.plants]):
        if (plant[0], args.runs, args.steps) in done:
            continue
        row = study(plant, number, args)
        table["plants"].append(row)
        handle, temporary = tempfile.mkstemp(dir=args.output.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as stream:
            json.dump(table, stream, indent=1)
            stream.write("\n")
        os.replace(temporary, args.output)
        low, high = row["coverage_interval"]
        print(
            f"rho {plant[0]:5.2f}  a {plant[1]:.2f}  delay {plant[2]}  "
            f"coverage {100 * row['coverage']:.2f} % [{100 * low:.1f}, {100 * high:.1f}]  "
            f"width {row['median_width']:.3f}  {row['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
