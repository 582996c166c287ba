"""Put what gpu_kit.py brought back into the repository.

    python benchmarks/gpu_import.py OUT [OUT ...]

reads OUT/figures.json and OUT/traces.parquet and writes

* gabactl/traces/bundled/gpu-*.parquet: the finished recorded runs, made small;
* gabactl/claims/records/C36-cuda.json and C37-cuda.json;
* simulations/results/gpu.json: every figure, each with the lease it is from;
* the table of docs/gpu.md.

Figures of a later lease replace those of the same name. ``--check`` says whether the page is what
the figures say.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "simulations")]

from gpu.store import FIGURES, TRACES, read_traces  # noqa: E402
from record_bundled import small  # noqa: E402

from gabactl.base.errors import InputError  # noqa: E402
from gabactl.base.files import read_json, write_text  # noqa: E402
from gabactl.traces import write_parquet  # noqa: E402

PAGE, RESULT = "docs/gpu.md", "simulations/results/gpu.json"
BUNDLED, RECORDS = "gabactl/traces/bundled", "gabactl/claims/records"
_BEGIN = "<!-- Written by benchmarks/gpu_import.py. Do not edit. -->"
_END = "<!-- The end of it. -->"
NOTHING = (
    "Not yet validated on a GPU: no figure and no trace of this package is from one. What stands "
    "below was tried on a CPU, by the rehearsal."
)
#: Claim: item of the part "steps", and what of it the ledger reads.
CLAIMS = {
    "C36": ("C36: memory", ("memory_ratio", "mib_with_graph", "mib_without_graph")),
    "C37": ("C37: step time", ("step_time_ratio", "ms_plain", "ms_gaba")),
}
_PROVENANCE = ("device", "driver", "versions", "commit", "command", "date")


def read_lease(folder: Path, rehearsal: bool = False) -> dict[str, Any]:
    """The figures of one call of the kit.

    Raises
    ------
    InputError
        Not its output, a rehearsal, or figures that do not say where they are from.
    """
    found = read_json(folder / FIGURES)
    if not isinstance(found, dict) or not {"provenance", "parts"} <= set(found):
        raise InputError(f"{folder / FIGURES}: no provenance and parts: give gpu_kit.py's folder")
    provenance = found["provenance"]
    for key in _PROVENANCE:
        if provenance.get(key) in (None, "", "unknown"):
            raise InputError(
                f"{folder / FIGURES}: does not say its {key}: add it to the file's provenance"
            )
    if provenance.get("rehearsal") and not rehearsal:
        raise InputError(f"{folder}: is a rehearsal on a CPU, which says nothing of a GPU")
    return found


def traces(folder: Path, lease: dict[str, Any], root: Path) -> list[Path]:
    """Bundle the recorded runs that came to their end."""
    items = lease["parts"].get("recordings", {}).get("items", {})
    whole = {
        name
        for name, item in items.items()
        if item.get("stopped") == "finished" and not name.endswith(("-tf32", "-bf16"))
    }
    written = []
    if whole and (folder / TRACES).is_file():
        kept = {key: lease["provenance"][key] for key in _PROVENANCE}
        for name, trace in read_traces(folder / TRACES).items():
            if name in whole:
                made = small(trace, excited="-excited-" in name)
                made = made.replace(metadata={**made.metadata, "provenance": kept})
                written.append(write_parquet(made, root / BUNDLED / f"gpu-{name}.parquet"))
    return written


def records(lease: dict[str, Any], root: Path) -> list[Path]:
    """The claims' records that a lease has figures for."""
    written = []
    of = lease["provenance"]
    for claim, (label, keys) in CLAIMS.items():
        item = lease["parts"].get("steps", {}).get("items", {}).get(label, {})
        if item.get("status") != "ok":
            continue
        versions = ", ".join(f"{name} {version}" for name, version in of["versions"].items())
        record = {
            "claim": claim,
            "values": {key: item[key] for key in keys},
            "note": f"published network, batch {item['batch']}, random data, {of['device']}",
            "provenance": {
                **{key: of[key] for key in ("command", "date", "device", "driver", "commit")},
                "versions": versions,
            },
        }
        file = root / RECORDS / f"{claim}-cuda.json"
        write_text(file, json.dumps(record, indent=2, allow_nan=False) + "\n")
        written.append(file)
    return written


def merged(before: dict[str, Any], lease: dict[str, Any]) -> dict[str, Any]:
    """All figures so far with those of one more lease; what failed replaces nothing."""
    leases = [*before.get("leases", []), lease["provenance"]]
    parts = {name: dict(items) for name, items in before.get("parts", {}).items()}
    for name, part in lease["parts"].items():
        kept = parts.setdefault(name, {})
        for label, item in part["items"].items():
            if item["status"] == "ok" or kept.get(label, {}).get("status") != "ok":
                kept[label] = {**item, "lease": len(leases) - 1}
    return {"leases": leases, "parts": parts}


def block(result: dict[str, Any] | None) -> str:
    """What the page says of the figures, between its marks."""
    if not result:
        return f"{_BEGIN}\n{NOTHING}\n{_END}"
    lines = [_BEGIN]
    for number, of in enumerate(result["leases"], start=1):
        versions = ", ".join(f"{k} {v}" for k, v in of["versions"].items() if v != "absent")
        lines.append(
            f"{number}. {of['device']}, driver {of['driver']}, {versions}; commit {of['commit']}, "
            f"{of['date'][:10]}: `{of['command']}`"
        )
    lines += ["", "| part | measured | outcome | lease |", "| --- | --- | --- | --- |"]
    for name, items in result["parts"].items():
        for label, item in items.items():
            said = item.get("words") or item.get("reason") or ""
            outcome = said if item["status"] == "ok" and said else f"{item['status']} {said}"
            cells = (name, label, outcome.strip(), str(item["lease"] + 1))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, _END])


def with_block(page: str, text: str) -> str:
    """The page with another block."""
    before, begins, rest = page.partition(_BEGIN)
    _, ends, after = rest.partition(_END)
    if not begins or not ends:
        raise InputError(f"{PAGE}: has lost the marks of its figures: {_BEGIN} and {_END}")
    return before + text + after


def main(arguments: list[str] | None = None) -> int:
    """Import, or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="OUT")
    parser.add_argument("--check", action="store_true", help="whether the page is current")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    parser.add_argument("--rehearsal", action="store_true", help="take one; needs another --root")
    given = parser.parse_args(arguments)
    page, result = given.root / PAGE, given.root / RESULT
    try:
        if given.rehearsal and given.root.resolve() == ROOT:
            raise InputError("--rehearsal: its figures are of no GPU: give another --root")
        known = read_json(result) if result.is_file() else None
        text = page.read_text(encoding="utf-8")
        if given.check or not given.folders:
            current = with_block(text, block(known)) == text
            print(f"{PAGE}: {'current' if current else 'not what the figures say'}")
            return 0 if current else 1
        leases = [(folder, read_lease(folder, given.rehearsal)) for folder in given.folders]
        for folder, lease in leases:
            for file in [*traces(folder, lease, given.root), *records(lease, given.root)]:
                print(file)
            known = merged(known or {}, lease)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    write_text(result, json.dumps(known, indent=1, allow_nan=False) + "\n")
    write_text(page, with_block(text, block(known)))
    print(f"{result}\n{page}")
    print("next: the validation line of the README, simulations/what_we_found.py, `gabactl claims`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
