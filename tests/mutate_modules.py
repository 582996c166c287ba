"""Break the controller and the margins in every small way there is, and expect the tests to notice.

What a mutant is: ``mutants.py`` beside this file. One process imports everything and collects the
tests once; for each mutant it forks, puts the mutated code into the functions in place, and runs the
tests that execute the changed lines, quickest first, until one fails. A mutant that runs out of time
or memory counts as caught.

    python tests/mutate_modules.py                           # all modules, table of survivors
    python tests/mutate_modules.py --module controller --jobs 2
    python tests/mutate_modules.py --resume mutants.jsonl    # goes on where it was stopped
    python tests/mutate_modules.py --module _rational --only peak
    python tests/mutate_modules.py -o simulations/results/mutation.json

``mutants_equivalent.toml`` beside this file names the mutants that no test can tell from the
original, each with the reason. Exit code 1 when fewer than 95 % of the others are caught, or when
that file names a mutant that does not exist or is caught. ``--resume`` keeps what was caught while
the module is unchanged, and tries again what survived once the tests have changed: start anew
after taking tests away.
"""

from __future__ import annotations

import argparse
import ast
import functools
import gc
import hashlib
import json
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import tomllib
import types
from collections import Counter
from pathlib import Path
from typing import Any

from mutants import Mutant, mutants_of, put_in_place

ROOT = Path(__file__).resolve().parent.parent
LEAST = 0.95

_MARGINS = [
    "tests/test_delay_margin.py",
    "tests/test_disk_margin.py",
    "tests/test_margins_confirmed.py",
    "tests/test_margins_details.py",
    "tests/test_margins_picture.py",
    "tests/test_margins_text.py",
]
#: module: its own quick tests (its doctests always are). What survives these survived few enough
#: seconds that all of its mutants can be tried; the slower tests of the same modules come on top.
MODULES = {
    "controller": ["tests/test_controller.py", "tests/test_controller_details.py"],
    "margins": _MARGINS,
    "_delay_margin": _MARGINS,
    "_disk_margin": _MARGINS,
    "_rational": [
        "tests/test_rational.py",
        "tests/test_rational_bounds.py",
        "tests/test_rational_construction.py",
        "tests/test_rational_searches.py",
    ],
}


def _quiet_profile() -> None:
    import hypothesis

    # Deterministic, and without the search for the smallest example, which nobody reads here.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=30,
        database=None,
        derandomize=True,
        deadline=None,
        phases=phases,
    )
    hypothesis.settings.load_profile("mutants")


def _run(items: list[Any], seconds: list[float] | None = None) -> bool:
    """Whether all pass; stops at the first that does not, or that takes far more than its seconds."""
    from _pytest.runner import runtestprotocol

    for i, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
        if seconds is not None:
            signal.setitimer(signal.ITIMER_PROF, 1.0 + 10.0 * seconds[i])
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            return False
    return True


_MEMORY = 3 << 30
_SURVIVED, _CAUGHT = 0, 1


def _fork(work: Any) -> int:
    """The process id of a child that runs ``work()`` in silence, within bounds."""
    pid = os.fork()
    if pid:
        return pid
    code = _CAUGHT
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        code = _SURVIVED if work() else _CAUGHT
    except BaseException:
        code = _CAUGHT
    finally:
        os._exit(code)


def _outcome(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        return "timeout"
    return "survived" if code == _SURVIVED else "caught"


def _tests_by_line(
    module: types.ModuleType, tree: ast.Module, items: list[Any]
) -> tuple[dict[int, list[int]], list[float]]:
    """Which tests run each line, and the seconds of each; measured on ``tree`` in a child."""
    import coverage

    file = str(module.__file__)

    with tempfile.NamedTemporaryFile() as report:

        def measure() -> bool:
            put_in_place(module, tree)
            counter = coverage.Coverage(data_file=None, include=[file], config_file=False)
            seconds: list[float] = []
            counter.start()
            for i, item in enumerate(items):
                counter.switch_context(str(i))
                before = time.process_time()
                if not _run([item]):
                    raise SystemExit(_explain(report.name, item.nodeid))
                seconds.append(time.process_time() - before)
            counter.stop()
            data = counter.get_data()
            lines = {
                line: [int(c) for c in contexts if c]
                for line, contexts in data.contexts_by_lineno(file).items()
            }
            Path(report.name).write_bytes(pickle.dumps((lines, seconds)))
            return True

        _, status = os.waitpid(_fork(measure), 0)
        content = Path(report.name).read_bytes()
        if _outcome(status) != "survived":
            raise SystemExit(f"a test fails without a mutation: {content.decode()}")
        lines, seconds = pickle.loads(content)
    return lines, seconds


def _explain(name: str, text: str) -> int:
    Path(name).write_text(text)
    return 1


class Mutations:
    """A pytest plugin whose run loop is over mutants."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results: list[dict[str, Any]] = []

    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            raise SystemExit("the tests cannot be collected: run pytest on them")
        gc.collect()
        gc.freeze()
        for module in self.options.module or MODULES:
            files = {*MODULES[module], f"gabactl/{module.replace('.', '/')}.py"}
            items = [item for item in session.items if str(item.path.relative_to(ROOT)) in files]
            self.results.append(check(module, items, self.options))
        return True


def check(module: str, items: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run the mutants of one module."""
    started = time.monotonic()
    loaded = sys.modules[f"gabactl.{module}"]
    file = str(loaded.__file__)
    source = Path(file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    mutants = mutants_of(tree)
    there = len(mutants)
    if options.sample is not None and options.sample < there:
        mutants = random.Random(options.seed).sample(mutants, options.sample)
        mutants.sort(key=lambda m: m.number)
    if options.only:
        mutants = [m for m in mutants if options.only in m.name]
    digests = (_digest([file]), _digest([ROOT / test for test in MODULES[module]]))
    known = _known(options.resume, module, *digests)
    lines, seconds = _tests_by_line(loaded, tree, items)
    print(
        f"{module}: {len(items)} tests take {sum(seconds):.1f} s, {len(mutants)} mutants",
        flush=True,
    )
    outcomes = {m.number: known[m.name] for m in mutants if m.name in known}
    print(f"{module}: {len(outcomes)} outcomes known", flush=True)
    running: dict[int, Mutant] = {}

    def note(mutant: Mutant, outcome: str) -> None:
        outcomes[mutant.number] = outcome
        if outcome == "survived":
            print(f"survived  {module}.{mutant.where}:{mutant.line}  {mutant.change}", flush=True)
        if options.resume:
            row = {"module": module, "source": digests[0], "tests": digests[1]}
            row |= {"name": mutant.name, "outcome": outcome}
            with options.resume.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")

    def finish_one() -> None:
        pid, status = os.wait()
        note(running.pop(pid), _outcome(status))

    for mutant in mutants:
        if mutant.number in outcomes:
            continue
        chosen = {i for line in mutant.lines for i in lines.get(line, [])} or range(len(items))
        order = sorted(chosen, key=seconds.__getitem__)
        chosen_items = [(items[i], seconds[i]) for i in order]
        running[_fork(functools.partial(_try, loaded, tree, mutant, chosen_items))] = mutant
        if len(running) >= options.jobs:
            finish_one()
    while running:
        finish_one()
    return _summary(module, mutants, there, outcomes, time.monotonic() - started)


def _try(
    module: types.ModuleType, tree: ast.Module, mutant: Mutant, timed: list[tuple[Any, float]]
) -> bool:
    mutant.apply(tree)
    put_in_place(module, tree)
    return _run([item for item, _ in timed], [seconds for _, seconds in timed])


def _digest(files: list[Any]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]


def report(module: str, file: Path) -> dict[str, Any]:
    """The summary of what a file of outcomes knows of a module as it is now, running nothing."""
    path = ROOT / f"gabactl/{module.replace('.', '/')}.py"
    mutants = mutants_of(ast.parse(path.read_text(encoding="utf-8")))
    known = _known(file, module, _digest([path]), None)
    tried = [m for m in mutants if m.name in known]
    outcomes = {m.number: known[m.name] for m in tried}
    return _summary(module, tried, len(mutants), outcomes, 0.0)


def _known(file: Path | None, module: str, source: str, tests: str | None) -> dict[str, str]:
    """Outcomes by name of an earlier run on the same code.

    What survived counts only if the tests are the same, too: they may have learnt to catch it.
    """
    if file is None or not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {
        row["name"]: row["outcome"]
        for row in rows
        if (row["module"], row["source"]) == (module, source)
        and (tests in (None, row["tests"]) or row["outcome"] != "survived")
    }


def _summary(
    module: str, mutants: list[Mutant], there: int, outcomes: dict[int, str], seconds: float
) -> dict[str, Any]:
    listed = tomllib.loads(
        (ROOT / "tests" / "mutants_equivalent.toml").read_text(encoding="utf-8")
    ).get(module, [])
    equivalent = {(entry["where"], entry["change"]) for entry in listed}
    found = {(m.where, m.change): outcomes[m.number] for m in mutants}
    whole = len(mutants) == there
    wrong = [key for key in equivalent if found.get(key, "survived" * (not whole)) != "survived"]
    survivors = [m for m in mutants if outcomes[m.number] == "survived"]
    open_ = [m for m in survivors if (m.where, m.change) not in equivalent]
    judged = len(mutants) - (len(survivors) - len(open_))
    counts = Counter(outcomes[m.number] for m in mutants)
    return {
        "module": f"gabactl/{module.replace('.', '/')}.py",
        "mutants": there,
        "tried": len(mutants),
        "caught": counts["caught"],
        "timeout": counts["timeout"],
        "equivalent": len(survivors) - len(open_),
        "survived": len(open_),
        "caught_fraction": round(1.0 - len(open_) / max(judged, 1), 4),
        "caught_fraction_with_equivalent_ones": round(
            1.0 - len(survivors) / max(len(mutants), 1), 4
        ),
        "survivors": [f"{m.where}:{m.line}: {m.change}" for m in open_],
        "equivalents_that_are_not": [": ".join(key) for key in wrong],
        "seconds": round(seconds, 1),
    }


def main() -> int:
    """Print the table; 1 when too many survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=MODULES, action="append", help="default: all")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--slow", action="store_true", help="run the slow tests too")
    parser.add_argument("--sample", type=int, help="so many mutants of each module, by chance")
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    parser.add_argument("--only", help="mutants whose name holds this text")
    parser.add_argument("--resume", type=Path, help="note each outcome here, and go on from there")
    parser.add_argument("--report", type=Path, help="run nothing: what such a file knows so far")
    parser.add_argument("-o", "--output", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    chosen = options.module or list(MODULES)
    if options.report:
        return _tell([report(module, options.report) for module in chosen], options.output)
    import pytest

    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    _quiet_profile()
    tests = sorted({test for module in chosen for test in MODULES[module]})
    doctests = [f"gabactl/{module.replace('.', '/')}.py" for module in chosen]
    plugin = Mutations(options)
    # Plain asserts are quicker to fail; a timer of each test would end the child's own.
    arguments = ["-q", "-s", "--assert=plain", "-o", "timeout=0"]
    arguments += ["-m", "slow or not slow" if options.slow else "not slow", *tests, *doctests]
    pytest.main(arguments, plugins=[plugin])
    if len(plugin.results) != len(chosen):
        print("no result: the tests could not be collected, or the run was stopped")
        return 1
    return _tell(plugin.results, options.output)


def _tell(results: list[dict[str, Any]], output: Path | None) -> int:
    """Print and write the results; 1 when too many survive."""
    for result in results:
        print(
            "{module}: {tried} of {mutants} mutants, {caught} caught, {timeout} timed out, "
            "{equivalent} equivalent, {survived} survived: {caught_fraction:.1%} "
            "({seconds} s)".format(**result)
        )
        for text in result["equivalents_that_are_not"]:
            print(f"  named equivalent, but caught or not there: {text}")
    if output:
        document = {"command": "python tests/mutate_modules.py", "modules": results}
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    bad = [r for r in results if r["caught_fraction"] < LEAST or r["equivalents_that_are_not"]]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
