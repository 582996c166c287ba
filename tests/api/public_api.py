"""The public names of gabactl and their signatures, read from the source without importing it.

    python tests/api/public_api.py             # what differs from public_api.txt
    python tests/api/public_api.py --write     # after the change is told in CHANGELOG.md

``--write`` refuses while CHANGELOG.md is as it was at the last writing: a change of the public
interface is one that users read about.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("public_api.txt")
_MARK = "# CHANGELOG.md at this writing: "


def public_api(package: Path = ROOT / "gabactl") -> list[str]:
    """One line a public name, attribute or method, in order."""
    lines: list[str] = []
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if any(part.startswith("_") for part in parts):
            continue
        lines += _module(".".join(parts), ast.parse(file.read_text(encoding="utf-8")))
    return lines


def _module(name: str, tree: ast.Module) -> Iterator[str]:
    defined: dict[str, ast.stmt] = {}
    public: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined[node.name] = node
        for target in _targets(node):
            defined[target] = node
            if target == "__all__" and isinstance(node, ast.Assign):
                public = [
                    element.value
                    for element in ast.walk(node.value)
                    if isinstance(element, ast.Constant) and isinstance(element.value, str)
                ]
    for each in sorted(public):
        yield from _named(f"{name}.{each}", defined.get(each))


def _targets(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _named(name: str, node: ast.stmt | None) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield name + _signature(node)
    elif isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        yield f"class {name}({bases})"
        for member in node.body:
            yield from _member(name, member)
    else:
        yield name  # a constant, an alias, or a name loaded from elsewhere


def _member(owner: str, node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.name.startswith("_") and node.name not in ("__init__", "__call__"):
            return
        kinds = [ast.unparse(d) for d in node.decorator_list]
        if any(
            kind in ("property", "cached_property", "functools.cached_property") for kind in kinds
        ):
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            yield f"{owner}.{node.name}{returns}"
        else:
            static = [k for k in kinds if k in ("classmethod", "staticmethod")]
            yield " ".join([*static, f"{owner}.{node.name}{_signature(node)}"])
    elif isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
        default = f" = {ast.unparse(node.value)}" if node.value else ""
        yield f"{owner}.{ast.unparse(node.target)}: {ast.unparse(node.annotation)}{default}"


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def changelog_digest() -> str:
    """Of what users read."""
    return hashlib.sha256((ROOT / "CHANGELOG.md").read_bytes()).hexdigest()[:16]


def recorded() -> tuple[str, list[str]]:
    """The digest and the lines of the snapshot."""
    if not SNAPSHOT.exists():
        return "", []
    first, *lines = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    return first.removeprefix(_MARK), lines


def difference() -> list[str]:
    """Lines of a unified diff, empty when nothing changed."""
    _, before = recorded()
    diff = difflib.unified_diff(before, public_api(), "public_api.txt", "source", lineterm="", n=0)
    return list(diff)


def main() -> int:
    """1 when the interface differs, or may not be written yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="record the interface as it is")
    options = parser.parse_args()
    changes = difference()
    print("\n".join(changes) if changes else "the public interface is as recorded")
    if not options.write or not changes:
        return 1 if changes else 0
    digest = changelog_digest()
    if digest == recorded()[0]:
        print(
            "CHANGELOG.md says nothing of this yet: add a line there, then write", file=sys.stderr
        )
        return 1
    text = "\n".join([_MARK + digest, *public_api()]) + "\n"
    SNAPSHOT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
