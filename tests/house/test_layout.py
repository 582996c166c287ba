"""The house: imports go down one list, none goes round, and no package hides a name at the door."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import gabactl

PACKAGE = Path(gabactl.__file__).parent

#: From the ground up: a package imports from those before it, and from itself.
ROOMS = (
    "base",
    "law",
    "traces",
    "cmapss",
    "balancers",
    "plants",
    "control",
    "loops",
    "runs",
    "identification",
    "validation",
    "synthesis",
    "nn",
    "proving",
    "fuzzing",
    "claims",
    "reports",
    "app",
    "cli",
)


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, inside functions too, but not for types alone."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
        todo.extend(ast.iter_child_nodes(node))
    return {name for name in found if name in known}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(path, known) - {name} for name, path in known.items()}


def room(module: str) -> str | None:
    return module.split(".")[1] if "." in module else None


def test_every_package_has_its_place() -> None:
    there = {name for _, name, _ in pkgutil.iter_modules([str(PACKAGE)])}
    assert there == {*ROOMS, "__main__"}


def test_imports_go_down(graph: dict[str, set[str]]) -> None:
    place = {name: floor for floor, name in enumerate(ROOMS)}
    up = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if room(module) in place
        and room(other) in place
        and place[room(other)] > place[room(module)]  # type: ignore[index]
    ]
    assert not up


def test_no_import_goes_round(graph: dict[str, set[str]]) -> None:
    """A package and its own modules may know each other; two modules may not, lazily either."""
    plain = {
        name: {other for other in others if modules()[other].name != "__init__.py"}
        for name, others in graph.items()
        if modules()[name].name != "__init__.py"
    }
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(plain.get(name, ())):
                walk(other, (*path, name))
            done.add(name)

    for name in sorted(plain):
        walk(name, ())


def test_no_package_hides_a_name_at_the_door() -> None:
    """Importing gabactl.X sets the attribute X of gabactl: a function of that name would be gone."""
    packages = {name for _, name, _ in pkgutil.iter_modules([str(PACKAGE)])}
    offered = set(gabactl.__all__)
    assert not packages & offered
    for name in ROOMS:
        importlib.import_module(f"gabactl.{name}")
    for name in offered:
        assert getattr(gabactl, name) is not importlib.import_module("gabactl")
