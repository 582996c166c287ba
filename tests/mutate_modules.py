"""Break the controller and the margins in every small way there is, and expect the tests to notice.

A mutant is one change of the syntax tree: a comparison or operator swapped, a constant moved, a
condition negated, a statement left out. Each runs against the tests that execute its line, quickest
first, in a forked process whose import of the module yields the mutant. Messages built by f-strings,
docstrings and type hints are not mutated.

    python tests/mutate_modules.py                           # all modules, table of survivors
    python tests/mutate_modules.py --module margins --jobs 2
    python tests/mutate_modules.py -o simulations/results/mutation.json

``mutants_equivalent.toml`` beside this file names the mutants that no test can tell from the
original, each with the reason. Exit code 1 when fewer than 95 % of the others are caught, or when
that file names a mutant that does not exist or is caught.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEAST = 0.95

#: module: the tests that are its own (its doctests always are).
MODULES = {
    "controller": ["tests/test_controller.py", "tests/test_controller_details.py"],
    "margins": ["tests/test_margins.py", "tests/test_margins_text.py"],
    "_rational": ["tests/test_rational.py", "tests/test_margins.py", "tests/test_margins_text.py"],
}

_COMPARE = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
_BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Mutant:
    """One change, by its place in the order of the walk."""

    number: int
    where: str
    line: int
    lines: tuple[int, ...]
    change: str
    tree: ast.Module


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a module."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    names: Counter[str] = Counter()
    for where, statement, path in _places(tree):
        for make in _changes(_at(tree, path)):
            mutated = copy.deepcopy(tree)
            node = _at(mutated, path)
            after = make(copy.deepcopy(node))
            before = _text(node)
            _replace(mutated, path, after)
            change = f"{before} -> {_text(after)}"
            names[where + change] += 1
            if names[where + change] > 1:
                change += f"  (place {names[where + change]})"
            first = node.lineno if hasattr(node, "lineno") else statement.lineno
            last = getattr(node, "end_lineno", first) or first
            lines = tuple(sorted({statement.lineno, *range(first, last + 1)}))
            found.append(
                Mutant(len(found), where, first, lines, change, ast.fix_missing_locations(mutated))
            )
    return found


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 100 else text[:97] + "..."


Path_ = tuple[tuple[str, int | None], ...]


def _places(tree: ast.Module) -> Iterator[tuple[str, ast.stmt, Path_]]:
    """Nodes that may change: (qualified name, statement, path from the module)."""

    def walk(
        node: ast.AST, where: str, statement: ast.stmt | None, path: Path_
    ) -> Iterator[tuple[str, ast.stmt, Path_]]:
        if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.stmt):
            statement = node
            if _is_docstring(node) or _assigns_all(node):
                return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            where = f"{where}.{node.name}" if where else node.name
        if statement is not None:
            yield where or "module", statement, path
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            if isinstance(value, list):
                for i, child in enumerate(value):
                    if isinstance(child, ast.AST):
                        yield from walk(child, where, statement, (*path, (name, i)))
            elif isinstance(value, ast.AST):
                yield from walk(value, where, statement, (*path, (name, None)))

    yield from walk(tree, "", None, ())


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _assigns_all(node: ast.stmt) -> bool:
    """``__all__``, and type aliases, which only readers and type checkers use."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return False
    return node.targets[0].id == "__all__" or "NDArray[" in ast.unparse(node.value)


def _at(tree: ast.AST, path: Path_) -> ast.AST:
    node = tree
    for name, index in path:
        value = getattr(node, name)
        node = value if index is None else value[index]
    return node


def _replace(tree: ast.AST, path: Path_, new: ast.AST) -> None:
    parent = _at(tree, path[:-1])
    name, index = path[-1]
    if index is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[index] = new


def _changes(node: ast.AST) -> list:
    """Functions from a copy of this node to what stands in its place."""
    changes = []
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for new in _COMPARE.get(type(op), []):
                changes.append(lambda n, i=i, new=new: _set(n, "ops", i, new()))
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _BINARY:
        changes.append(lambda n: _set(n, "op", None, _BINARY[type(n.op)]()))
    elif isinstance(node, ast.UnaryOp):
        changes.append(lambda n: n.operand)
    elif isinstance(node, ast.BoolOp):
        swap = ast.Or if isinstance(node.op, ast.And) else ast.And
        changes.append(lambda n: _set(n, "op", None, swap()))
        for i in range(len(node.values)):
            changes.append(lambda n, i=i: _without(n, i))
    elif isinstance(node, ast.Constant):
        for value in _other_values(node.value):
            changes.append(lambda n, value=value: ast.Constant(value))
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        changes.append(lambda n: _set(n, "test", None, ast.UnaryOp(ast.Not(), n.test)))
    elif isinstance(node, ast.Break):
        changes.append(lambda n: ast.Continue())
    elif isinstance(node, ast.Continue):
        changes.append(lambda n: ast.Break())
    elif (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or isinstance(
        node, ast.Raise
    ):
        changes.append(lambda n: ast.Pass())
    elif isinstance(node, ast.Call) and node.keywords:
        for i, keyword in enumerate(node.keywords):
            if keyword.arg in ("axis", "keepdims", "strict", "default", "initial", "kind", "xtol"):
                changes.append(lambda n, i=i: _without_keyword(n, i))
    return changes


def _other_values(value: object) -> list:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [2.0 * value] if value else [1.0]
    if isinstance(value, complex):
        return [-value]
    if isinstance(value, str) and value:
        return ["XX" + value]
    return []


def _set(node: ast.AST, name: str, index: int | None, value: ast.AST) -> ast.AST:
    if index is None:
        setattr(node, name, value)
    else:
        getattr(node, name)[index] = value
    return node


def _without(node: ast.BoolOp, index: int) -> ast.AST:
    rest = [value for i, value in enumerate(node.values) if i != index]
    return rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def _without_keyword(node: ast.Call, index: int) -> ast.AST:
    node.keywords = [k for i, k in enumerate(node.keywords) if i != index]
    return node


# -- running ----------------------------------------------------------------------------------


class _Finder(importlib.abc.MetaPathFinder):
    """Yields the mutant when its module is imported."""

    def __init__(self, module: str, file: str, tree: ast.Module) -> None:
        self.module, self.file, self.tree = module, file, tree

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name != self.module:
            return None
        tree = self.tree

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname: str) -> object:
                return compile(tree, self.path, "exec")

        return importlib.util.spec_from_file_location(
            name, self.file, loader=Loader(name, self.file)
        )


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


def _run_in_child(module: str, file: str, mutant: Mutant, tests: list[str], seconds: float) -> str:
    """``caught``, ``survived`` or ``timeout``."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = 3
        try:
            import pytest

            # Plain asserts: pytest would else load the module itself, for its doctests, unmutated.
            sys.meta_path.insert(0, _Finder(module, file, mutant.tree))
            _quiet_profile()
            code = int(pytest.main(["-x", "--assert=plain", "-m", "slow or not slow", *tests]))
        except BaseException:
            code = 1
        os._exit(code if code in (0, 1, 5) else 1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "caught"
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout"


def _coverage(folder: Path, module: str, tests: list[str], slow: bool) -> dict[int, list[str]]:
    """Which tests run each line, quickest first; under 0 the tests of the whole module."""
    import coverage

    data_file = folder / f".coverage.{module}"
    report = folder / f"{module}.xml"
    command = [
        *(sys.executable, "-P", "-m", "pytest", "-q"),
        *("--cov", f"gabactl.{module}", "--cov-context=test", "--cov-report="),
        *("-o", "junit_family=xunit1", f"--junit-xml={report}"),
        *("-m", "slow or not slow" if slow else "not slow"),
        *tests,
        f"gabactl/{module}.py",
    ]
    run = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "COVERAGE_FILE": str(data_file)},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise SystemExit(
            f"the tests fail without a mutation:\n{run.stdout[-3000:]}{run.stderr[-500:]}"
        )
    data = coverage.CoverageData(str(data_file))
    data.read()
    file = next(name for name in data.measured_files() if name.endswith(f"gabactl/{module}.py"))
    times = _times(report)
    by_line: dict[int, list[str]] = {0: sorted(times, key=times.__getitem__)}
    for line, contexts in data.contexts_by_lineno(file).items():
        names = {c.split("|")[0] for c in contexts if c}
        by_line[line] = sorted(names, key=lambda n: times.get(n, 0.0))
    return by_line


def _times(report: Path) -> dict[str, float]:
    """Seconds by node id, from a JUnit report."""
    import xml.etree.ElementTree as ET

    times = {}
    for case in ET.parse(report).iter("testcase"):
        file, name = case.attrib["file"], case.attrib["name"]
        middle = case.attrib["classname"].split(".")[len(Path(file).with_suffix("").parts) :]
        times["::".join([file, *middle, name])] = float(case.attrib["time"])
    return times


def check(
    module: str, jobs: int, slow: bool, only: str | None, sample: int | None, seed: int
) -> dict[str, object]:
    """Run the mutants of one module."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("gabactl", "tests"):
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(ROOT / "pyproject.toml", folder)
        os.environ.update(PYTHONPATH=name, OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
        tests = [test for test in MODULES[module] if (folder / test).exists()]
        by_line = _coverage(folder, module, tests, slow)
        file = folder / "gabactl" / f"{module}.py"
        mutants = mutants_of(file.read_text(encoding="utf-8"))
        there = len(mutants)
        if sample is not None and sample < there:
            mutants = random.Random(seed).sample(mutants, sample)
            mutants.sort(key=lambda m: m.number)
        if only:
            mutants = [m for m in mutants if only in f"{m.where}: {m.change}"]
        os.chdir(folder)
        sys.path[:0] = [name, str(folder / "tests")]
        for heavy in ("pytest", "hypothesis", "scipy.optimize", "scipy.signal", "control", "torch"):
            __import__(heavy)
        same = Mutant(-1, "module", 0, (), "none", ast.parse(file.read_text(encoding="utf-8")))
        if _run_in_child(f"gabactl.{module}", str(file), same, by_line[0], 600.0) != "survived":
            raise SystemExit(f"{module}: the tests fail in a forked process without a mutation")
        outcomes = _all(module, str(file), mutants, by_line, jobs)
        os.chdir(ROOT)
    equivalent = {
        (entry["where"], entry["change"]): entry["reason"]
        for entry in tomllib.loads(
            (ROOT / "tests" / "mutants_equivalent.toml").read_text(encoding="utf-8")
        ).get(module, [])
    }
    keys = {(m.where, m.change): outcomes[m.number] for m in mutants}
    whole = len(mutants) == there
    wrong = [key for key in equivalent if keys.get(key, "survived" * (not whole)) != "survived"]
    survivors = [m for m in mutants if outcomes[m.number] == "survived"]
    open_ = [m for m in survivors if (m.where, m.change) not in equivalent]
    judged = len(mutants) - (len(survivors) - len(open_))
    return {
        "module": f"gabactl/{module}.py",
        "mutants": there,
        "tried": len(mutants),
        "caught": sum(o == "caught" for o in outcomes.values()),
        "timeout": sum(o == "timeout" for o in outcomes.values()),
        "equivalent": len(survivors) - len(open_),
        "survived": len(open_),
        "caught_fraction": round(1.0 - len(open_) / max(judged, 1), 4),
        "caught_fraction_with_equivalent_ones": round(
            1.0 - len(survivors) / max(len(mutants), 1), 4
        ),
        "survivors": [f"{m.where}:{m.line}: {m.change}" for m in open_],
        "equivalents_that_are_not": [": ".join(key) for key in wrong],
        "seconds": round(time.monotonic() - started, 1),
    }


def _all(
    module: str, file: str, mutants: list[Mutant], by_line: dict[int, list[str]], jobs: int
) -> dict[int, str]:
    """Outcomes by number; ``jobs`` processes at a time, each of which forks once a mutant."""
    from concurrent.futures import ThreadPoolExecutor

    def one(mutant: Mutant) -> tuple[int, str]:
        tests = {t for line in mutant.lines for t in by_line.get(line, [])}
        order = {t: i for i, t in enumerate(by_line[0])}
        chosen = sorted(tests, key=lambda t: order.get(t, 0)) or by_line[0]
        return mutant.number, _run_in_child(f"gabactl.{module}", file, mutant, chosen, 120.0)

    outcomes: dict[int, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for number, outcome in pool.map(one, mutants):
            outcomes[number] = outcome
            if outcome == "survived":
                m = mutants[[m.number for m in mutants].index(number)]
                print(f"survived  {module}.{m.where}:{m.line}  {m.change}", flush=True)
    return outcomes


def main() -> int:
    """Print the table; 1 when too many survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=MODULES, action="append", help="default: all")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--slow", action="store_true", help="run the slow tests too")
    parser.add_argument("--sample", type=int, help="so many mutants of each module, by chance")
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    parser.add_argument("--only", help="mutants whose name holds this text")
    parser.add_argument("-o", "--output", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    results = [
        check(module, options.jobs, options.slow, options.only, options.sample, options.seed)
        for module in options.module or MODULES
    ]
    for result in results:
        print(
            "{module}: {tried} of {mutants} mutants, {caught} caught, {timeout} timed out, "
            "{equivalent} equivalent, {survived} survived: {caught_fraction:.1%} "
            "({seconds} s)".format(**result)
        )
        for text in result["equivalents_that_are_not"]:
            print(f"  named equivalent, but caught or not there: {text}")
    if options.output:
        document = {"command": "python tests/mutate_modules.py", "modules": results}
        text = json.dumps(document, indent=2) + "\n"
        options.output.write_text(text, encoding="utf-8")
    bad = [r for r in results if r["caught_fraction"] < LEAST or r["equivalents_that_are_not"]]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
