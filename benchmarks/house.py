"""How large the package is, how its rooms lie, and how often it says the same thing.

    python benchmarks/house.py [--details] [--json] [--against REVISION] [--revision REVISION]

Measures the working tree, or a revision (read with ``git archive``; the tree stays as it is). Every
figure is a rule on the text:

* Code lines: those with a token that is no comment; strings that stand alone are docstrings.
* Public definitions: functions and classes in the ``__all__`` of the file that defines them, in
  files without an underscore in their path. Public names the docs name: names in any ``__all__``
  that stand in code on a page of docs/ or in the README, or belong to a module whose members a page
  lists (autosummary, automodule).
* Texts of the law: files that compute the low-pass of the weights (a product of something called
  ``pole`` or ``beta`` plus something, or ``fma`` or ``lfilter`` with one), or both the raw law
  ((S - x) by something with S) and the floor (the larger of something and a ``floor``).
* Imports that go up: from a room to a later one in ``ORDER``; those in functions and for types
  count. Last comes the door, ``gabactl`` itself.
* Circles: groups of modules, or of rooms, that all import each other by some way.
* Repeated runs: stretches of six and more code lines, imports and ``__all__`` left out, that stood
  in the package before.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import subprocess
import tarfile
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
READ = ("gabactl/", "docs/", "README.md")
#: From the ground up: a room imports from those before it.
ORDER = (
    *("base", "law", "traces", "cmapss", "balancers", "plants", "control", "loops", "runs"),
    *("identification", "validation", "synthesis", "nn", "proving", "fuzzing", "claims"),
    *("reports", "app", "cli"),
)
FLOOR_MODES = {"renormalise", "affine", "project", "clamp_state"}
WINDOW = 6


class Module(NamedTuple):
    """A file of the package; ``code`` and ``docstrings`` are numbers of lines."""

    name: str
    path: str
    nodes: list[ast.AST]
    lines: list[str]
    code: set[int]
    docstrings: set[int]

    @property
    def room(self) -> str:
        """Its place at the top of the package; the door is no room."""
        first = [*self.name.split("."), "__main__"][1]
        return "gabactl" if first == "__main__" else first


def read(revision: str | None) -> dict[str, str]:
    """Path -> text of what is measured."""
    if revision is None:
        listed = ["git", "ls-files", "-co", "--exclude-standard", *READ]
        paths = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)
        texts = [p for p in paths.stdout.splitlines() if p.endswith((".py", ".md"))]
        return {p: (ROOT / p).read_text() for p in texts if (ROOT / p).exists()}
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True)
    out = {}
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file and member.name.startswith(READ) and member.name.endswith((".py", ".md")):
                out[member.name] = file.read().decode()
    return out


def parse(path: str, text: str) -> Module:
    nodes = list(ast.walk(ast.parse(text)))
    alone = [n for n in nodes if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    docstrings = {line for n in alone if isinstance(n.value.value, str) for line in span(n)}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            code.update(range(token.start[0], token.end[0] + 1))
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return Module(name, path, nodes, text.splitlines(), code - docstrings, docstrings)


def span(node: ast.AST) -> range:
    return range(node.lineno, node.end_lineno + 1)


def assigns(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Assign) and called(node.targets[0]) == name


def called(node: ast.AST | None) -> str:
    """The name of a name, an attribute, or a power of one."""
    node = node.left if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) else node
    return str(getattr(node, "id", getattr(node, "attr", "")))


def says(node: ast.AST | None, *words: str) -> bool:
    return any(word in called(node).lower().split("_") for word in words)


def says_pole(node: ast.AST | None) -> bool:
    return says(node, "pole", "beta")


def listed(module: Module) -> set[str]:
    """Names in ``__all__``."""
    found = [node for node in module.nodes if assigns(node, "__all__")]
    return {c.value for n in found for c in ast.walk(n) if isinstance(c, ast.Constant)}


def public(module: Module) -> set[str]:
    """Functions and classes in ``__all__``, of a file that is not private."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    defined = {n.name for n in module.nodes[0].body if isinstance(n, kinds)}
    return set() if re.search(r"\._[a-z]", module.name) else listed(module) & defined


def named_by_docs(files: dict[str, str], package: list[Module]) -> set[str]:
    words: set[str] = set()
    for path, text in files.items():
        if path.endswith(".md"):
            for code in re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL):
                words.update(re.findall(r"[A-Za-z_]\w*", code))
            members = re.findall(r"^\s+(?:\.\. automodule:: )?(gabactl[\w.]*)$", text, flags=re.M)
            words.update(*(listed(module) for module in package if module.name in members))
        elif path.startswith("docs/"):
            nodes = ast.walk(ast.parse(text))
            words.update(n.name if isinstance(n, ast.alias) else called(n) for n in nodes)
    return set().union(*map(listed, package)) & words


def stages(module: Module) -> dict[str, list[int]]:
    """Stage of the law -> lines that compute it; empty where they make no text."""
    found: dict[str, list[int]] = {"low-pass": [], "raw": [], "floor": []}
    for node in module.nodes:
        match node:
            case ast.BinOp(ast.BinOp(a, ast.Mult(), b), ast.Add()) if says_pole(a) or says_pole(b):
                found["low-pass"].append(node.lineno)
            case ast.Call(f, [first, *_]) if called(f) in ("fma", "lfilter"):
                if any(map(says_pole, [getattr(f, "value", None), *ast.walk(first)])):
                    found["low-pass"].append(node.lineno)
            case ast.BinOp(ast.BinOp(whole, ast.Sub()), ast.Div(), rest):
                alike = ast.dump(whole) in map(ast.dump, ast.walk(rest))
                if alike and not isinstance(whole, ast.Constant):
                    found["raw"].append(node.lineno)
            case ast.IfExp(body=value) if says(value, "floor", "m"):
                found["floor"].append(node.lineno)
            case ast.Call(f, given) if re.search("max|larg|clamp|clip|where", called(f)):
                if any(says(value, "floor") for value in given):
                    found["floor"].append(node.lineno)
    return found if found["low-pass"] or (found["raw"] and found["floor"]) else {}


def names_floor_mode(module: Module) -> bool:
    """An option of another thing that is called the same, {"affine": self.affine}, is none."""
    options = [
        key
        for mapping in module.nodes
        if isinstance(mapping, ast.Dict)
        for key, value in zip(mapping.keys, mapping.values, strict=True)
        if getattr(key, "value", None) == called(value)
    ]
    constants = [n for n in module.nodes if isinstance(n, ast.Constant) and n not in options]
    return any(isinstance(n.value, str) and n.value in FLOOR_MODES for n in constants)


def imports(module: Module, known: set[str]) -> set[str]:
    """Modules of the package that it imports, wherever in its text."""
    out = set()
    for node in module.nodes:
        if isinstance(node, ast.Import):
            out.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            inside = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            out.update(name if name in known else str(node.module) for name in inside.values())
    return (out & known) - {module.name}


def circles(graph: dict[str, set[str]]) -> list[str]:
    reach = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo.extend(new)
        reach[start] = seen
    groups = {" <-> ".join(sorted(b for b in reach[a] if a in reach[b])) for a in graph}
    return sorted(groups - {""})


def repeats(package: list[Module]) -> list[list[str | int]]:
    """Path and line, path and line of the first, lines; of each stretch that stood before."""
    first: dict[tuple[str, ...], list[str | int]] = {}
    out: list[list[str | int]] = []
    for module in package:
        skipped = [n for n in module.nodes if isinstance(n, (ast.Import, ast.ImportFrom))]
        skipped += [n for n in module.nodes if assigns(n, "__all__")]
        kept = sorted(module.code - {line for n in skipped for line in span(n)})
        text = ["".join(module.lines[n - 1].split()) for n in kept]
        end = -1  # the last window that a stretch has reached
        for i in range(len(kept) - WINDOW + 1):
            window = tuple(text[i : i + WINDOW])
            if window not in first:
                first[window] = [module.path, kept[i]]
                continue
            if end == i - 1 and out:
                out[-1][-1] += 1
            else:
                out.append([module.path, kept[i], *first[window], WINDOW])
            end = i
    return out


def measure(files: dict[str, str]) -> dict[str, int | list[str]]:
    """Figure -> number, or what is counted."""
    inside = sorted(p for p in files if p.startswith("gabactl/") and p.endswith(".py"))
    package = [parse(path, files[path]) for path in inside]
    known = {m.name: m for m in package}
    graph = {m.name: imports(m, set(known)) for m in package}
    rooms: dict[str, set[str]] = {m.room: set() for m in package}
    rank = {room: n for n, room in enumerate([*ORDER, "gabactl"])}
    up = []
    for m in package:
        for other in sorted(graph[m.name]):
            room = known[other].room
            if room != m.room:
                rooms[m.room].add(room)
                if rank.get(m.room, len(rank)) < rank.get(room, 0):
                    up.append(f"{m.name} -> {other}")
    return {
        "files": len(package),
        "code lines": sum(len(m.code) for m in package),
        "docstring lines": sum(len(m.docstrings) for m in package),
        "longest file, code lines": max(len(m.code) for m in package),
        "public definitions": sum(len(public(m)) for m in package),
        "public names the docs name": sorted(named_by_docs(files, package)),
        "texts of the law": [f"{m.path}: {found}" for m in package if (found := stages(m))],
        "files that name a floor mode": [m.path for m in package if names_floor_mode(m)],
        "files at the top": [m.path for m in package if m.path.count("/") == 1],
        "rooms at the top": sorted(rooms.keys() - {"gabactl"}),
        "rooms outside the order": sorted(rooms.keys() - rank.keys()),
        "imports that go up": up,
        "circles of modules": circles(graph),
        "circles of rooms": circles(rooms),
        "repeated runs": ["{}:{} as {}:{}, {} lines".format(*copy) for copy in repeats(package)],
        "repeated lines": sum(copy[-1] for copy in repeats(package)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--against", metavar="REVISION", help="put its figures before")
    parser.add_argument("--revision", help="measure this, and not the working tree")
    parser.add_argument("--details", action="store_true", help="name what was counted")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    columns = [measure(read(asked.against))] if asked.against else []
    columns.append(measure(read(asked.revision)))
    numbers = [{n: v if isinstance(v, int) else len(v) for n, v in c.items()} for c in columns]
    if asked.json:
        found = columns if asked.details else numbers
        print(json.dumps({"now": found[-1], "before": found[0] if asked.against else None}))
        return
    for name, counted in columns[-1].items():
        row = [column[name] for column in numbers]
        change = [f"{row[-1] - row[0]:>+8,}"] if asked.against else []
        print(f"{name:<28}", *(f"{number:>8,}" for number in row), *change)
        if asked.details and not isinstance(counted, int):
            print(*(f"    {line}\n" for line in counted), sep="", end="")


if __name__ == "__main__":
    main()
