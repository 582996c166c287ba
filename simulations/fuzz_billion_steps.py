"""10^9 controller steps against the tight bound of the published algorithm, on record.

Run ``python simulations/fuzz_billion_steps.py``; it writes
``simulations/results/fuzz_billion_steps.json``. The same search by hand:
``gabactl fuzz gaba --guard none --bound tight --steps 1000000000 --workers 2 --no-corpus``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from gabactl.base.results import to_jsonable
from gabactl.fuzzing import fuzz
from gabactl.law.spec import GabaSpec

RESULTS = Path(__file__).resolve().parent / "results" / "fuzz_billion_steps.json"


def main() -> None:
    """Search and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    runs = []
    for spec in (GabaSpec.published(), GabaSpec()):
        result = fuzz(
            "gaba",
            "bounds",
            spec=spec,
            steps=options.steps,
            seed=options.seed,
            workers=options.workers,
        ).results[0]
        print(result, "\n")
        runs.append({k: v for k, v in result.to_dict().items() if k not in ("python", "pytest")})
    body = {
        "command": f"python simulations/fuzz_billion_steps.py --steps {options.steps} "
        f"--seed {options.seed} --workers {options.workers}",
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "runs": runs,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(to_jsonable(body), indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
