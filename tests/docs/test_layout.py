"""The README's layout names what is there, and all of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from gabactl.cli import _COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAME = re.compile(r"(?<![\w/.])([a-z]\w*(?:\.py|/))(?![\w/])")


def layout() -> tuple[set[str], set[str]]:
    """Names under gabactl/, and at the top."""
    (block,) = re.findall(r"```\n(gabactl/\n.*?)```", README, re.S)
    lines = block.splitlines()
    inside = {name for line in lines if line.startswith(" ") for name in NAME.findall(line)}
    top = {line.split()[0] for line in lines if not line.startswith(" ")}
    return inside, top


def test_the_package_is_as_the_readme_says() -> None:
    there = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "gabactl").iterdir()
        if path.name[0] not in "_." and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    assert layout()[0] == there


def test_the_folders_are_as_the_readme_says() -> None:
    for name in layout()[1]:
        assert (ROOT / name).is_dir(), name
    # Whatever holds Python that is ours.
    sources = {
        f"{path.name}/"
        for path in ROOT.iterdir()
        if path.is_dir() and path.name[0] not in "_." and any(path.glob("*.py"))
    }
    assert sources - {"build/", "dist/", "site/"} <= layout()[1]


def test_the_readme_names_every_command() -> None:
    (table,) = re.findall(r"\| command \|.*?\n\n", README, re.S)
    first = "".join(line.split("|")[1] for line in table.splitlines() if line)
    named = set(re.findall(r"`(?:gabactl )?([a-z]+)", first))
    assert named == set(_COMMANDS)


def test_no_module_is_longer_than_it_can_be_read() -> None:
    """550 lines of code, what documents it not counted: half of some modules is docstrings."""
    for folder in ("gabactl", "proofs", "simulations", "benchmarks", "tests", "docs"):
        for file in (ROOT / folder).rglob("*.py"):
            inside = set(file.relative_to(ROOT).parts)
            if {"_build", "auto_examples", "generated", "cases"} & inside:
                continue
            text = file.read_text(encoding="utf-8")
            if text.count("\n") <= 550:
                continue
            said = 0
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
                    ast.get_docstring(node, clean=False) is not None
                ):
                    first = node.body[0]
                    said += (first.end_lineno or first.lineno) - first.lineno + 1
            assert text.count("\n") - said <= 550, file
