"""Line and branch coverage of the parts that everything rests on, and a reason for each gap.

    python tests/coverage_table.py                    # all areas: run, record, write the page
    python tests/coverage_table.py --area nn --slow   # one area, its slow tests too
    python tests/coverage_table.py --page             # only write the page from what is recorded

Each area is measured by the tests of its own folder and its doctests alone, child processes
included. What numba compiles is invisible to coverage, so the area ``fuzz`` runs its tests of the
compiled loops a second time with compilation switched off. A branch that no test takes must have its
reason in ``branches_uncovered.toml`` beside this file; exit code 1 while one has none, or while
that file names one that is taken.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "simulations" / "results" / "coverage.json"
PAGE = ROOT / "docs" / "tests-and-coverage.md"
REASONS = Path(__file__).with_name("branches_uncovered.toml")
MUTATION = ROOT / "simulations" / "results" / "mutation.json"


@dataclass(frozen=True)
class Area:
    """What is measured (paths below gabactl/), and by which tests."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    #: Tests to run again with numba's compilation switched off.
    interpreted: tuple[str, ...] = ()


AREAS = {
    "controller": Area(
        ("controller.py",), ("tests/test_controller.py", "tests/test_controller_details.py")
    ),
    "margins": Area(
        ("margins.py", "_delay_margin.py", "_disk_margin.py", "_rational.py"),
        (
            "tests/test_delay_margin.py",
            "tests/test_disk_margin.py",
            "tests/test_margins.py",
            "tests/test_margins_confirmed.py",
            "tests/test_margins_details.py",
            "tests/test_margins_picture.py",
            "tests/test_margins_text.py",
            "tests/test_rational.py",
            "tests/test_rational_bounds.py",
            "tests/test_rational_construction.py",
            "tests/test_rational_searches.py",
        ),
    ),
    # Without test_theorems.py, which is about the theorems in proofs/ and takes minutes.
    "prove": Area(
        ("prove/",),
        (
            "tests/prove/test_prove_back_ends.py",
            "tests/prove/test_prove_engine.py",
            "tests/prove/test_prove_pieces.py",
            "tests/prove/test_prove_words.py",
            "tests/prove/test_rounding_adversarial.py",
        ),
    ),
    "fuzz": Area(("fuzz/",), ("tests/fuzz",), ("tests/fuzz/test_fuzz_lanes.py",)),
    "nn": Area(("nn/",), ("tests/nn",)),
}

_SETTINGS = """
[run]
branch = True
parallel = True
sigterm = True
patch = subprocess
concurrency = thread, multiprocessing
data_file = {folder}/data
include = {include}
[report]
exclude_also =
    if TYPE_CHECKING:
    ^\\s*\\.\\.\\.$
"""


def measure(area: Area, slow: bool) -> tuple[dict[str, Any], str]:
    """Coverage's own report as JSON, and the last line of pytest."""
    with tempfile.TemporaryDirectory() as name:
        settings = Path(name) / "coveragerc"
        include = ", ".join(
            f"{ROOT}/gabactl/{file}{'*' if file.endswith('/') else ''}" for file in area.files
        )
        settings.write_text(_SETTINGS.format(folder=name, include=include), encoding="utf-8")
        doctests = [f"gabactl/{file}" for file in area.files]
        marks = "slow or not slow" if slow else "not slow"
        told = _pytest(settings, [*area.tests, *doctests], marks, {})
        if area.interpreted:
            _pytest(settings, [*area.interpreted], marks, {"NUMBA_DISABLE_JIT": "1"})
        tool = [sys.executable, "-m", "coverage"]
        rc = f"--rcfile={settings}"
        subprocess.run([*tool, "combine", "--quiet", rc], cwd=ROOT, check=True)
        report = Path(name) / "report.json"
        subprocess.run([*tool, "json", "--quiet", "-o", str(report), rc], cwd=ROOT, check=True)
        return json.loads(report.read_text(encoding="utf-8")), told


def _pytest(settings: Path, tests: list[str], marks: str, more: dict[str, str]) -> str:
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest"]
    run = subprocess.run(
        [*command, "-q", "-m", marks, *tests],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **more},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        print(run.stdout[-3000:], run.stderr[-500:], file=sys.stderr)
        raise SystemExit("the tests fail: coverage of failing tests says nothing")
    return run.stdout.strip().splitlines()[-1].split(" in ")[0]


def condense(report: dict[str, Any]) -> dict[str, Any]:
    """Counts a file, and each branch that was not taken with the text of its line."""
    files = {}
    for name, data in sorted(report["files"].items()):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        owners = _owners("\n".join(lines))
        summary = data["summary"]
        gaps = [
            {
                "in": owners.get(start, "module"),
                "at": lines[start - 1].strip(),
                "to": lines[end - 1].strip() if end > 0 else "the end",
                "line": start,
            }
            for start, end in data["missing_branches"]
        ]
        # Lines never run that no branch leads to: whole functions.
        seen = {end for _, end in data["missing_branches"]}
        alone = [line for line in data["missing_lines"] if line not in seen]
        files[name] = {
            "statements": summary["num_statements"],
            "statements_run": summary["covered_lines"],
            "branches": summary["num_branches"],
            "branches_taken": summary["covered_branches"],
            "not_taken": gaps,
            "functions_not_run": sorted({owners.get(line, "module") for line in alone}),
        }
    return files


def _owners(source: str) -> dict[int, str]:
    """The qualified name of the innermost function or class at each line."""
    owners: dict[int, str] = {}

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
                for line in range(child.lineno, (child.end_lineno or child.lineno) + 1):
                    owners[line] = inner
            walk(child, inner)

    walk(ast.parse(source), "")
    return owners


def reasons() -> dict[tuple[str, str, str], str]:
    """Reasons by file, function and text of the line ("" for the whole function)."""
    if not REASONS.exists():
        return {}
    listed = tomllib.loads(REASONS.read_text(encoding="utf-8"))["gap"]
    return {(gap["file"], gap["in"], gap.get("at", "")): gap["reason"] for gap in listed}


def judged(record: dict[str, Any]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of (place, line, reason), and what is wrong: gaps without, reasons without a gap."""
    known = reasons()
    used = set()
    rows: dict[tuple[str, ...], str] = {}
    wrong: list[str] = []
    for area in record["areas"].values():
        for file, data in area["files"].items():
            for gap in data["not_taken"]:
                keys = [(file, gap["in"], gap["at"]), (file, gap["in"], "")]
                key = next((key for key in keys if key in known), None)
                if key is None:
                    wrong.append(f"{file}:{gap['line']} ({gap['in']}): {gap['at']} -> {gap['to']}")
                else:
                    used.add(key)
                    rows[key] = known[key]
    measured = {file for area in record["areas"].values() for file in area["files"]}
    wrong += [
        f"a reason without a gap: {': '.join(key)}"
        for key in known
        if key not in used and key[0] in measured
    ]
    return [(*key, reason) for key, reason in sorted(rows.items())], wrong


_BEGIN, _END = "<!-- {}: written by tests/coverage_table.py -->", "<!-- end of {} -->"


def page(text: str, record: dict[str, Any]) -> str:
    """The page with its tables made anew."""
    coverage = [
        "| area | tests | statements | run | branches | taken |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, area in record["areas"].items():
        sums = {
            key: sum(data[key] for data in area["files"].values())
            for key in ("statements", "statements_run", "branches", "branches_taken")
        }
        coverage.append(
            f"| {name} | {area['tests']} | {sums['statements']} | "
            f"{_percent(sums['statements_run'], sums['statements'])} | {sums['branches']} | "
            f"{_percent(sums['branches_taken'], sums['branches'])} |"
        )
    rows, _ = judged(record)
    gaps = ["| where | line | why no test takes it |", "| --- | --- | --- |"]
    for file, owner, at, reason in rows:
        shown = f"`` {at} ``".replace("|", "\\|") if at else "all of it"
        gaps.append(f"| `{file.removeprefix('gabactl/')}`, `{owner}` | {shown} | {reason} |")
    mutation = [
        "| module | tried | caught | out of time | equivalent | survived | caught of the others |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in json.loads(MUTATION.read_text(encoding="utf-8"))["modules"]:
        mutation.append(
            "| `{module}` | {tried} of {mutants} | {caught} | {timeout} | {equivalent} | {survived} | "
            "{caught_fraction:.1%} |".format(**result)
        )
    for name, lines in (("coverage", coverage), ("gaps", gaps), ("mutation", mutation)):
        begin, end = _BEGIN.format(name), _END.format(name)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = "\n".join([before + begin, "", *lines, "", end + after])
    return text


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


def main() -> int:
    """1 when a branch has no reason, or a reason no branch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--area", choices=AREAS, action="append", help="default: all")
    parser.add_argument("--slow", action="store_true", help="run the slow tests too")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--check", action="store_true", help="write nothing; is the page current?")
    options = parser.parse_args()
    record: dict[str, Any] = {"command": "python tests/coverage_table.py", "areas": {}}
    if RECORD.exists():
        record = json.loads(RECORD.read_text(encoding="utf-8"))
    if not (options.page or options.check):
        for name in options.area or AREAS:
            report, told = measure(AREAS[name], options.slow)
            record["areas"][name] = {
                "tests": told,
                "slow_tests_too": options.slow,
                "files": condense(report),
            }
            record["areas"] = {key: record["areas"][key] for key in AREAS if key in record["areas"]}
            RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    current = page(text, record)
    if options.check:
        return 1 if current != text else 0
    PAGE.write_text(current, encoding="utf-8")
    _, wrong = judged(record)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
