"""The README's layout names what is there, and all of it."""

from __future__ import annotations

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
