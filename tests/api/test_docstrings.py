"""Every public name says what it takes, what it refuses and how it is used.

The source is read, not imported. What is public: the names in a module's ``__all__``, and the
methods of its classes that do not begin with an underscore. The rules, in numpydoc's sections:

1. Every public class, function, method and property has a docstring.
2. A "Parameters" section names every argument, and nothing that is none, and says something of each.
   It may be left out for

   - a method with no argument but ``ax``, the matplotlib axes to draw on;
   - a method that overrides one of a base class, with the same arguments: they are explained there;

   and arguments that begin with an underscore are filled in by a decorator.
3. A function has an "Examples" section, of which something runs as a doctest.
4. A function or method that raises InputError itself has a "Raises" section; where ``__init__`` or
   ``__post_init__`` does, the class has it.
5. A class names the arguments of ``__init__``, a data class its fields, under "Parameters" or
   "Attributes", and says something of each.
6. An argument or attribute that is an array or a tensor has its shape with its type.
7. A function that returns arrays, tensors, tuples or dicts has a "Returns" section.
"""

from __future__ import annotations

import ast
import gc
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "gabactl"

#: Functions whose example shows the call without running it, and why.
NOT_RUN = {
    "gabactl.fuzz.readers.fuzz_readers": "runs atheris in a process of its own, for a second or more",
    "gabactl.report.page.render_html": "a report and its pictures take seconds",
    "gabactl.report.page.write_html": "a report and its pictures take seconds",
    "gabactl.report.pdf.write_pdf": "starts a browser",
    "gabactl.report.pictures.pictures": "a report and its pictures take seconds",
}

_HEADING = re.compile(r"(?m)^([A-Z][A-Za-z ]+)\n-{3,}$")
_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, ?\*{0,2}\w+)*)(?: :| *$)")
_COMPOUND = re.compile(r"\b(NDArray|Array|Tensor|tuple|dict|Mapping|Any)\b")
_ARRAY = re.compile(r" : (Tensor\b|.*\b(arrays?|array_like)\b)")
_SHAPE = re.compile(r"shape|0-dimensional")
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def sections(docstring: str) -> dict[str, str]:
    """The text below each heading."""
    _, *parts = _HEADING.split(docstring)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def entries(section: str) -> set[str]:
    """The names that a section of parameters or attributes explains."""
    names: set[str] = set()
    lines = [*section.splitlines(), ""]
    for line, below in pairwise(lines):
        match = _ENTRY.match(line)
        if match and below.startswith(" "):
            names |= {name.strip(" *") for name in match[1].split(",")}
    return names


def shapeless(section: str) -> Iterator[str]:
    """The names of arrays that have no shape."""
    for line in section.splitlines():
        match = _ENTRY.match(line)
        if match and _ARRAY.search(line) and not _SHAPE.search(line):
            yield match[1]


def arguments(function: _FUNCTION, *, bound: bool) -> list[str]:
    """The names of the arguments that a caller gives."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args)]
    names = names[1:] if bound and not _decorated(function, "staticmethod") else names
    names += [a.arg for a in (given.vararg, *given.kwonlyargs, given.kwarg) if a is not None]
    return [name for name in names if not name.startswith("_")]


def _decorated(node: _FUNCTION | ast.ClassDef, *words: str) -> bool:
    return any(word in ast.unparse(d) for d in node.decorator_list for word in words)


def raises_input_error(function: _FUNCTION) -> bool:
    """Whether the body, less the functions in it, raises InputError."""
    left: list[ast.AST] = list(function.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if ast.unparse(node.exc.func) == "InputError":
                return True
        elif not isinstance(node, _FUNCTION | ast.ClassDef):
            for part in ("body", "orelse", "handlers", "finalbody", "cases"):
                left += getattr(node, part, [])
    return False


def runs(examples: str) -> bool:
    """Whether some example is not skipped."""
    return any(
        ">>> " in line
        and "doctest: +SKIP" not in line
        and not re.match(r"\s*>>> (import|from) ", line)
        for line in examples.splitlines()
    )


class Package:
    """The modules of a package by dotted name, and what is wrong with their docstrings."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.trees = {name: ast.parse(source) for name, source in sources.items()}
        self.classes = {
            node.name: node
            for tree in self.trees.values()
            for node in tree.body
            if isinstance(node, ast.ClassDef)
        }

    def problems(self) -> list[str]:
        """One line each."""
        return [line for name in self.trees for line in self._module(name)]

    def public(self, name: str) -> Iterator[_FUNCTION | ast.ClassDef]:
        """The public functions and classes of a module."""
        tree = self.trees[name]
        listed = {
            element.value
            for node in tree.body
            if isinstance(node, ast.Assign) and "__all__" in map(ast.unparse, node.targets)
            for element in ast.walk(node.value)
            if isinstance(element, ast.Constant)
        }
        for node in tree.body:
            if isinstance(node, _FUNCTION | ast.ClassDef) and node.name in listed:
                yield node

    def _module(self, module: str) -> Iterator[str]:
        for node in self.public(module):
            name = f"{module}.{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from self._class(name, node)
            else:
                yield from self._function(name, node)

    def _function(self, name: str, node: _FUNCTION) -> Iterator[str]:
        doc = ast.get_docstring(node)
        if not doc:
            yield f"{name}: has no docstring"
            return
        yield from _parameters(name, doc, arguments(node, bound=False))
        yield from _raises(name, doc, [node])
        returned = ast.unparse(node.returns) if node.returns else ""
        if _COMPOUND.search(returned) and not {"Returns", "Yields"} & set(sections(doc)):
            yield f"{name}: returns {returned}, and does not say what it is"
        examples = sections(doc).get("Examples", "")
        if ">>> " not in examples:
            yield f"{name}: has no example"
        elif runs(examples) is (name in NOT_RUN):
            yield f"{name}: no example is run" if name not in NOT_RUN else f"{name}: is run by now"

    def _class(self, name: str, node: ast.ClassDef) -> Iterator[str]:
        doc = ast.get_docstring(node)
        if not doc:
            yield f"{name}: has no docstring"
            return
        methods = {m.name: m for m in node.body if isinstance(m, _FUNCTION)}
        made = [methods[m] for m in ("__init__", "__post_init__") if m in methods]
        doc += "".join("\n\n" + (ast.get_docstring(m) or "") for m in made)
        explained = sections(doc)
        section = explained.get("Parameters", "") + explained.get("Attributes", "")
        yield from (f"{name}: {array} has no shape" for array in shapeless(section))
        known = entries(section)
        for field in _fields(node):
            if field not in known:
                yield f"{name}: does not explain {field}"
        yield from _raises(name, doc, made)
        for method in methods.values():
            if not method.name.startswith("_"):
                yield from self._method(f"{name}.{method.name}", node, method)

    def _method(self, name: str, owner: ast.ClassDef, node: _FUNCTION) -> Iterator[str]:
        doc = ast.get_docstring(node)
        if _decorated(node, ".setter", "overload"):
            return
        if not doc:
            yield f"{name}: has no docstring"
            return
        if not _decorated(node, "property"):
            given = arguments(node, bound=True)
            if "Parameters" in sections(doc) or not (
                given == ["ax"] or self._explained_above(owner, node.name, given)
            ):
                yield from _parameters(name, doc, given)
        yield from _raises(name, doc, [node])

    def _explained_above(self, owner: ast.ClassDef, method: str, given: list[str]) -> bool:
        """Whether a base class has the method with these arguments, explained."""
        for base in owner.bases:
            above = self.classes.get(ast.unparse(base).rpartition(".")[2])
            if above is None:
                continue
            for node in above.body:
                if isinstance(node, _FUNCTION) and node.name == method:
                    doc = sections(ast.get_docstring(node) or "").get("Parameters", "")
                    return set(given) <= entries(doc)
            if self._explained_above(above, method, given):
                return True
        return False


def _fields(node: ast.ClassDef) -> list[str]:
    """Fields of a data class or named tuple, else arguments of ``__init__``."""
    if _decorated(node, "dataclass") or "NamedTuple" in map(ast.unparse, node.bases):
        return [
            s.target.id
            for s in node.body
            if isinstance(s, ast.AnnAssign)
            and isinstance(s.target, ast.Name)
            and not s.target.id.startswith("_")
            and "ClassVar" not in ast.unparse(s.annotation)
        ]
    for method in node.body:
        if isinstance(method, _FUNCTION) and method.name == "__init__":
            return arguments(method, bound=True)
    return []


def _parameters(name: str, doc: str, given: list[str]) -> Iterator[str]:
    section = sections(doc).get("Parameters", "")
    yield from (f"{name}: {array} has no shape" for array in shapeless(section))
    explained = entries(section)
    for argument in given:
        if argument not in explained:
            yield f"{name}: does not explain {argument}"
    for argument in explained - set(given):
        yield f"{name}: explains {argument}, which is no argument"


def _raises(name: str, doc: str, functions: list[_FUNCTION]) -> Iterator[str]:
    if any(map(raises_input_error, functions)) and "Raises" not in sections(doc):
        yield f"{name}: raises InputError, and does not say when"


@cache
def package() -> Package:
    """The public modules of gabactl."""
    sources = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            sources[".".join(parts)] = file.read_text(encoding="utf-8")
    # The collector would look through the growing trees again and again, for twice the time.
    gc.disable()
    try:
        return Package(sources)
    finally:
        gc.enable()


def test_every_public_name_is_documented():
    problems = package().problems()
    assert not problems, f"{len(problems)} gaps in docstrings:\n" + "\n".join(problems)


def test_what_is_not_run_exists():
    known = {
        f"{module}.{node.name}" for module in package().trees for node in package().public(module)
    }
    assert set(NOT_RUN) <= known


SOUND = '''
__all__ = ["Mode", "Settings", "Rule", "act"]

@dataclass(frozen=True)
class Settings:
    """Settings.

    Attributes
    ----------
    beta, floor : float
        From 0 to 1.
    """

    beta: float
    floor: float = 0.05
    _cache: int = 0

class Rule:
    """A rule.

    Parameters
    ----------
    spec : Settings
        Its settings.

    Raises
    ------
    InputError
        No settings.
    """

    def __init__(self, spec):
        if not spec:
            raise InputError("none")

    def step(self, norms, *rest):
        """One step.

        Parameters
        ----------
        norms, *rest : float
            What is read.
        """

    def plot(self, ax=None):
        """Draw."""

    @property
    def pole(self):
        """The pole."""

    def _inner(self, x): ...

class Mode(Rule):
    """A mode."""

    def step(self, norms, *rest):
        """Another step."""

def act(x, *, slow=False, _drawn=0, **more) -> dict[str, float]:
    """Act.

    Parameters
    ----------
    x : float
        A number.
    slow : bool
        Slowly.
    **more
        For others.

    Returns
    -------
    dict
        What came of it.

    Raises
    ------
    InputError
        Below 0.

    Examples
    --------
    >>> act(1.0)
    """
    if x < 0:
        raise InputError("x < 0")

def hidden(x): ...
'''


def found(source: str) -> list[str]:
    return Package({"m": source}).problems()


def test_what_is_documented_passes():
    assert found(SOUND) == []


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("x : float", "z : float", "m.act: does not explain x"),
        ("x : float", "z : float", "m.act: explains z, which is no argument"),
        ("slow=False", "fast=False", "m.act: does not explain fast"),
        ("x : float", "x : array", "m.act: x has no shape"),
        ("beta, floor : float", "beta, floor : arrays", "m.Settings: beta, floor has no shape"),
        ("        Slowly.\n", "", "m.act: does not explain slow"),
        ("        From 0 to 1.\n", "", "m.Settings: does not explain beta"),
        (
            "    Returns\n",
            "    Result\n",
            "m.act: returns dict[str, float], and does not say what it is",
        ),
        ("    **more\n", "    others\n", "m.act: does not explain more"),
        ('"""The pole."""', "return 1", "m.Rule.pole: has no docstring"),
        ('"""Draw."""', "return 1", "m.Rule.plot: has no docstring"),
        ('"""A mode."""', "", "m.Mode: has no docstring"),
        ("beta, floor : float", "beta : float", "m.Settings: does not explain floor"),
        ("spec : Settings", "settings : Settings", "m.Rule: does not explain spec"),
        ("norms, *rest : float", "norms : float", "m.Rule.step: does not explain rest"),
        ("plot(self, ax=None)", "plot(self, axes=None)", "m.Rule.plot: does not explain axes"),
        ("plot(self, ax=None)", "plot(self, ax, task)", "m.Rule.plot: does not explain task"),
        ("Mode(Rule)", "Mode", "m.Mode.step: does not explain norms"),
        (">>> act(1.0)", "act(1.0)", "m.act: has no example"),
        (">>> act(1.0)", ">>> act(1.0)  # doctest: +SKIP", "m.act: no example is run"),
    ],
)
def test_a_gap_is_found(before, after, problem):
    assert SOUND.count(before) == 1
    assert problem in found(SOUND.replace(before, after))


@pytest.mark.parametrize("name", ["act", "Rule"])
def test_a_refusal_that_is_not_told_is_found(name):
    told = {"act": "Below 0.", "Rule": "No settings."}[name]
    section = f"    Raises\n    ------\n    InputError\n        {told}\n"
    assert SOUND.count(section) == 1
    assert found(SOUND.replace(section, "")) == [
        f"m.{name}: raises InputError, and does not say when"
    ]
