"""Feed every reader its hundred thousand bad inputs, and write down what came of it.

``python simulations/hostile_inputs.py`` (from a checkout) reads 100,000 inputs per reader, each a
function of reader, seed and number, and 20,000 more that coverage of the reader's code guided
(atheris, where it is installed). It writes ``simulations/results/hostile_inputs.json`` after every
few thousand inputs, and goes on from there when it is started again; ``--fresh`` begins anew.
Inputs that found something are read again at the next start: what is mended by then is counted as
such. One process at a time. The table in ``docs/faults.md`` is written from the record at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "simulations" / "results" / "hostile_inputs.json"
sys.path.insert(0, str(ROOT / "tests"))

from faults import matrix  # noqa: E402
from hostile import child, guided, watch  # noqa: E402
from hostile.readers import READERS  # noqa: E402

from gabactl.base.files import write_text  # noqa: E402

_CHUNK = 25_000


def _empty(name: str, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "inputs": 0,
        "accepted": 0,
        "refused": 0,
        "findings": [],
        "mended": 0,
        "cpu_seconds": 0.0,
        "slowest_cpu_seconds": 0.0,
        "slowest_input": -1,
        "peak_mib": 0.0,
        "idle_mib": 0.0,
        "cap_mib": READERS[name].memory >> 20,
        "guided": None,
    }


def _load(fresh: bool) -> dict[str, Any]:
    if RESULT.exists() and not fresh:
        found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
        return found
    return {"readers": {}}


def _save(record: dict[str, Any]) -> None:
    record["limits"] = {
        "cpu_seconds_per_input": watch.SECONDS,
        "cap_mib": "address space on top of the idle process",
    }
    record["python"] = platform.python_version()
    record["readers"] = dict(sorted(record["readers"].items()))
    write_text(RESULT, json.dumps(record, indent=1, allow_nan=False) + "\n")


def _say(name: str, entry: dict[str, Any]) -> None:
    rate = entry["inputs"] / entry["cpu_seconds"] if entry["cpu_seconds"] else 0.0
    print(
        f"{name}: {entry['inputs']:,} inputs, {entry['accepted']:,} accepted, "
        f"{len(entry['findings'])} findings, {rate:,.0f}/s, slowest "
        f"{entry['slowest_cpu_seconds']:.2f} s, peak {entry['peak_mib']:,.0f} MiB",
        flush=True,
    )
    for finding in entry["findings"][-5:]:
        print(f"   input {finding['input']}: {finding['what']}", flush=True)


def _ended(what: str) -> bool:
    return what.startswith(("hangs", "the process ended"))


def _read_again(name: str, entry: dict[str, Any]) -> None:
    """Read the inputs of the findings again; of those that are mended the number alone is kept."""
    left = []
    with tempfile.TemporaryDirectory() as folder:
        reader = READERS[name](Path(folder))
        guard = child.Guard(Path(folder))
        for finding in entry["findings"]:
            number = finding["input"]
            verdict = "finding"
            if number is not None:
                if _ended(finding["what"]):  # not in this process
                    part = watch.run(name, entry["seed"], number, number + 1)
                    verdict = "accepted" if part["accepted"] else "refused"
                    what = "".join(found["what"] for found in part["found"])
                    verdict = "finding" if what else verdict
                else:
                    data = child.inputs(reader, entry["seed"], number)
                    verdict, what = child.one(reader, guard, data)
                print(f"{name}: input {number} again: {verdict} {what}", flush=True)
            if verdict == "finding":
                left.append(finding)
            else:
                entry[verdict] += 1
                entry["mended"] += 1
    entry["findings"] = left


def main() -> int:
    """Run what is left; exit code 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--guided", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--fresh", action="store_true")
    given = parser.parse_args()
    record = _load(given.fresh)
    for name in given.readers.split(","):
        if any(importlib.util.find_spec(package) is None for package in READERS[name].needs):
            print(f"{name}: left out, {READERS[name].needs} is not installed")
            continue
        entry = record["readers"].setdefault(name, _empty(name, given.seed))
        if entry["seed"] != given.seed:
            entry = record["readers"][name] = _empty(name, given.seed)
        entry.setdefault("mended", 0)
        if entry["findings"]:
            _read_again(name, entry)
            _save(record)
        while entry["inputs"] < given.inputs:
            start = entry["inputs"]
            stop = min(start + _CHUNK, given.inputs)
            began = time.monotonic()
            part = watch.run(name, given.seed, start, stop)
            entry["findings"] += part.pop("found")[:20]
            watch.add(entry, part)
            entry["inputs"] = stop
            _save(record)
            _say(name, entry)
            print(f"   {time.monotonic() - began:.0f} s by the clock", flush=True)
        if given.guided and entry["guided"] is None and guided.available():
            entry["guided"] = guided.run(name, given.guided, given.seed)
            _save(record)
            print(f"   guided: {entry['guided']}", flush=True)
    matrix.PAGE.write_text(matrix.page(), encoding="utf-8")
    found = [
        name
        for name, entry in record["readers"].items()
        if entry["findings"] or (entry["guided"] or {}).get("findings")
    ]
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
