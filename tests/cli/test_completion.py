"""What the shell offers after Tab: the words that the helps name, the names that are bundled."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import typer.main

from gabactl.claims.ledger import ledger
from gabactl.cli import build_app
from gabactl.loops.scenarios import bundled_scenarios
from gabactl.proving.library import proof_files
from gabactl.traces import bundled

APP = typer.main.get_command(build_app())


def parameter(command: str, name: str) -> Any:
    found = APP
    for word in command.split():
        found = found.commands[word]  # type: ignore[attr-defined]
    return next(p for p in found.params if name in (*p.opts, p.name))


def offered(command: str, name: str, incomplete: str = "") -> list[str]:
    chosen = parameter(command, name)
    context = typer.main.click.Context(APP) if hasattr(typer.main, "click") else None
    return [item.value for item in chosen.shell_complete(context, incomplete)]


@pytest.mark.parametrize(
    ("command", "name", "count"),
    [
        ("analyze", "--law", 2),
        ("cmapss train", "--floor-mode", 4),
        ("report", "--guard", 2),
        ("analyze", "--plot", 5),
        ("fuzz", "--property", 8),
        ("cmapss train", "--balancer", 7),
        ("cmapss train", "--subset", 4),
        ("cmapss train", "--model", 2),
        ("cmapss train", "--gradnorm-variant", 2),
        ("cmapss train", "--optimizer", 2),
        ("cmapss train", "--precision", 3),
        ("cmapss train", "--device", 4),
    ],
)
def test_the_words_are_those_of_the_help(command: str, name: str, count: int) -> None:
    words = offered(command, name)
    assert len(words) == count
    said = parameter(command, name).help.replace(",", " ").replace(".", " ").replace(";", " ")
    assert set(words) <= set(said.split())
    assert offered(command, name, words[-1][:3])[-1] == words[-1]
    assert not offered(command, name, "./")


def test_names_are_those_that_are_there() -> None:
    for command in ("report", "check", "tune", "identify", "dashboard"):
        name = "traces" if command in ("check", "identify") else "trace"
        assert offered(command, name) == list(bundled())
    assert offered("simulate", "scenario") == list(bundled_scenarios())
    assert offered("simulate", "scenario", "publ") == ["published", "published_noisy"]
    assert offered("claims", "ids") == [claim.id for claim in ledger()]
    assert offered("prove", "what") == [file.stem for file in proof_files()]


def test_a_shell_is_answered_without_a_heavy_import() -> None:
    code = (
        "import sys; from gabactl.cli import main; main([]); "
        "heavy = {'torch', 'sympy', 'z3', 'control', 'matplotlib', 'numba'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    words = {"COMP_WORDS": "gabactl report --law c", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | words | {"_GABACTL_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["complement"], done.stderr
    assert done.returncode == 0, done.stderr
