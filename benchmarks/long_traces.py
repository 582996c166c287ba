"""How much memory the commands take on long recordings: one process each, its peak resident size.

    python benchmarks/long_traces.py                        # 10^5, 10^6 and 10^7 steps
    python benchmarks/long_traces.py --steps 1000000 --json

Recordings of two tasks with norms, raw, ema and weights are written into a temporary folder (or
``--folder``, where they stay for the next time). What streams is measured at every length; what
holds a run whole, up to the length it accepts. CPU time is given, for the machine may be shared.
Rows of other lengths stay in the record.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gabactl.base.files import write_text
from gabactl.traces import MOST_STEPS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "simulations" / "results" / "long_traces.json"
SCRIPT = ROOT / "tests" / "extremes" / "long_trace.py"

#: Name, the most steps it takes (None where it streams), and the words after which the trace's name is put.
JOBS = (
    ("iter_trace", None, ("stream",)),
    ("report --saturation-only", None, ("command", "report", "--saturation-only")),
    ("check --replay-only", None, ("command", "check", "--replay-only")),
    ("report --last 100000", None, ("command", "report", "--last", "100000")),
    ("check", MOST_STEPS, ("command", "check")),
    ("report", MOST_STEPS, ("command", "report")),
)


def measure(words: tuple[str, ...], trace: Path, page: Path) -> dict[str, Any]:
    """Peak memory and CPU seconds of one command."""
    line = [sys.executable, str(SCRIPT), *words, str(trace)]
    if "report" in words and "--saturation-only" not in words:
        line += ["-o", str(page), "--fuzz-steps", "100000"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = re.search(r"exit code (\d+)", done.stdout)
    if code and code[1] != "0":
        raise RuntimeError(f"{' '.join(words)}: exit code {code[1]}: {done.stderr}")
    found = re.search(r"peak (\d+) MiB", done.stdout)
    assert found is not None, done.stdout
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"peak_mib": int(found[1]), "cpu_seconds": round(spent, 1)}


def recording(folder: Path, steps: int) -> Path:
    """The recording of so many steps, written where it is not there yet."""
    trace = folder / f"{steps}.parquet"
    if not trace.exists():
        part = folder / f"{steps}.part"
        subprocess.run([sys.executable, str(SCRIPT), "write", str(part), str(steps)], check=True)
        part.rename(trace)
    return trace


def rows(lengths: list[int], folder: Path) -> list[dict[str, Any]]:
    """One row for each command and length."""
    found = []
    for steps in lengths:
        trace = recording(folder, steps)
        for name, most, words in JOBS:
            if most is not None and steps > most:
                continue
            row = {"command": name, "streams": most is None, "steps": steps}
            row |= measure(words, trace, folder / "page.html")
            print(
                f"{name:24} {steps:>12,} steps  {row['peak_mib']:>6,} MiB  "
                f"{row['cpu_seconds']:>8.1f} s of CPU",
                file=sys.stderr,
            )
            found.append(row)
    return found


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--folder", type=Path, help="keep the recordings here")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = rows(sorted(given.steps), given.folder or Path(temporary))
    if given.output.exists():
        kept = json.loads(given.output.read_text(encoding="utf-8"))["rows"]
        found = [row for row in kept if row["steps"] not in given.steps] + found
    record = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "rows": sorted(found, key=lambda row: row["steps"]),
    }
    text = json.dumps(record, indent=1) + "\n"
    write_text(given.output, text)
    if given.json:
        print(text, end="")


if __name__ == "__main__":
    main()
