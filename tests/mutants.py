"""Every small way to break a module: what the mutants are, and how one is put in place.

A mutant is one change of the syntax tree: a comparison or operator swapped, a constant or a message
altered, a condition negated, a call or a raise left out. Docstrings, type hints and decorators are
not mutated. :mod:`mutate_modules` runs the tests on each.
"""

from __future__ import annotations

import ast
import copy
import functools
import sys
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_COMPARE: dict[type, list[type]] = {
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
_BINARY: dict[type, type] = {
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
    path: tuple[tuple[str, int | None], ...]
    make: Any = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.where}: {self.change}"

    def apply(self, tree: ast.Module) -> None:
        """Change the tree in place."""
        _replace(tree, self.path, self.make(_at(tree, self.path)))
        ast.fix_missing_locations(tree)


def mutants_of(tree: ast.Module) -> list[Mutant]:
    """Every mutant of a module."""
    found: list[Mutant] = []
    names: Counter[str] = Counter()
    for where, statement, path in _places(tree):
        for make in _changes(_at(tree, path)):
            node = _at(tree, path)
            change = f"{_text(node)} -> {_text(make(copy.deepcopy(node)))}"
            names[where + change] += 1
            if names[where + change] > 1:
                change += f"  (place {names[where + change]})"
            first = node.lineno if hasattr(node, "lineno") else statement.lineno
            last = getattr(node, "end_lineno", first) or first
            lines = tuple(sorted({statement.lineno, *range(first, last + 1)}))
            found.append(Mutant(len(found), where, first, lines, change, path, make))
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
        if isinstance(node, ast.Import | ast.ImportFrom):
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
            if name in ("annotation", "returns", "decorator_list", "format_spec"):
                continue
            if isinstance(value, list):
                for i, child in enumerate(value):
                    # The words of an f-string are one message, changed as a whole.
                    words = isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)
                    if isinstance(child, ast.AST) and not words:
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


def _at(tree: ast.AST, path: Path_) -> Any:
    node: Any = tree
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


def _changes(node: ast.AST) -> list[Any]:
    """Functions from a copy of this node to what stands in its place."""
    changes: list[Any] = []
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
    elif isinstance(node, ast.JoinedStr):
        changes.append(lambda n: ast.JoinedStr([ast.Constant("XX"), *n.values]))
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


def _other_values(value: object) -> list[object]:
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


def put_in_place(module: types.ModuleType, tree: ast.Module) -> None:
    """Give the module's own functions, methods and constants the code and values of ``tree``.

    Whatever imported a function keeps its object, so the mutant acts everywhere at once.
    """
    fresh = types.ModuleType(module.__name__)
    fresh.__file__, fresh.__package__ = module.__file__, module.__package__
    # Dataclasses look their module up by name.
    sys.modules[module.__name__] = fresh
    try:
        exec(compile(tree, str(module.__file__), "exec"), fresh.__dict__)
    finally:
        sys.modules[module.__name__] = module
    for name, new in vars(fresh).items():
        if not name.startswith("__"):
            _put(module, name, new)


def _put(owner: Any, name: str, new: Any) -> None:
    old = vars(owner).get(name)
    if isinstance(new, types.FunctionType) and isinstance(old, types.FunctionType):
        if old.__code__.co_filename == new.__code__.co_filename or _generated(new):
            old.__code__ = new.__code__
            old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
    elif isinstance(new, property) and isinstance(old, property):
        for part in ("fget", "fset", "fdel"):
            if getattr(new, part) is not None:
                getattr(old, part).__code__ = getattr(new, part).__code__
    elif isinstance(new, classmethod | staticmethod) and isinstance(
        old, classmethod | staticmethod
    ):
        old.__func__.__code__ = new.__func__.__code__
        old.__func__.__defaults__ = new.__func__.__defaults__
    elif isinstance(new, functools.cached_property):
        old.func.__code__ = new.func.__code__  # type: ignore[union-attr]
    elif isinstance(new, type) and isinstance(old, type):
        if new.__module__ == getattr(owner, "__name__", None):
            for part, value in list(vars(new).items()):
                if not part.startswith("__") or isinstance(value, types.FunctionType):
                    _put(old, part, value)
    elif isinstance(new, bool | int | float | complex | str | tuple) and new != old:
        setattr(owner, name, new)
        if isinstance(owner, types.ModuleType):
            for other in list(sys.modules.values()):
                if getattr(other, name, None) is old and old is not None:
                    setattr(other, name, new)


def _generated(function: types.FunctionType) -> bool:
    return function.__code__.co_filename == "<string>"
