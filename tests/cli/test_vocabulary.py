"""The command line says one thing in one way: options, metavars, order, helps."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import typer.main

from gabactl.cli import build_app
from gabactl.cli._spec import ROWS
from gabactl.law.spec import GabaSpec

#: Settings of GABA come last, under these names.
SPEC = [ROWS[f.name].option or "--" + f.name.replace("_", "-") for f in fields(GabaSpec)] + [
    "--spec"
]
#: The order of what several commands share, before them.
SHARED = ["--seed", "--workers", "--time", "--resume", "--force", "--output", "--plot", "--list"]
#: Names that say what another name says already.
GONE = (
    "--timeout",
    "--slice",
    "--jobs",
    "--minutes",
    "--seconds",
    "--out",
    "--picture",
    "--figure",
)
#: The exception: seconds without a byte are no budget.
ALLOWED = {("cmapss data fetch", "--timeout")}
#: One option, two kinds of thing, on purpose.
TWO_METAVARS = {
    "--output": {"FILE", "DIR", "FILE.toml", "FILE.parquet"},
    "--plot": {"FILE", "KIND"},
}


def commands() -> Iterator[tuple[str, Any]]:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield " ".join(path), command
            return
        for name, each in inner.items():
            yield from walk(each, (*path, name))

    yield from walk(typer.main.get_command(build_app()), ())


COMMANDS = dict(commands())


def options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option"]


def long_name(option: Any) -> str:
    """The long name; that of -o is --output, whatever train calls it."""
    if "-o" in option.opts:
        return "--output"
    return next(name for name in option.opts if name.startswith("--"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name: str) -> None:
    command = COMMANDS[name]
    assert (command.help or "").strip().splitlines()[0].endswith((".", "?")), name
    for option in options(command):
        text = option.help or ""
        assert re.match(r"^[^\s].*\.$", text, re.S), (name, option.opts, text)
        assert "default" not in text.lower(), (name, option.opts, "belongs into show_default")
        if not option.is_flag:
            assert option.metavar, (name, option.opts, "say what it takes: STEPS, SECONDS, FILE")


@pytest.mark.parametrize("name", COMMANDS)
def test_names_that_are_gone_stay_gone(name: str) -> None:
    for option in options(COMMANDS[name]):
        for flag in option.opts:
            assert flag not in GONE or (name, flag) in ALLOWED, (name, flag)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_order_is_the_same_everywhere(name: str) -> None:
    names = [long_name(option) for option in options(COMMANDS[name])]
    required = [long_name(o) for o in options(COMMANDS[name]) if o.required]
    shared = [n for n in names if n in SHARED and n not in required]
    if name == "analyze":
        shared.remove("--plot")  # of a kind, not into a file: it comes before what it takes
    assert shared == sorted(shared, key=SHARED.index)
    if "--spec" in names:
        assert names[-len(SPEC) :] == SPEC
        names = names[: -len(SPEC)]
    if "--json" in names:
        assert names[-1] == "--json"
        names.pop()
    if shared:
        assert names[-len(shared) :] == shared, "what is shared comes after the command's own"


def test_one_option_takes_one_kind_of_thing() -> None:
    metavars: dict[str, set[str]] = defaultdict(set)
    for command in COMMANDS.values():
        for option in options(command):
            metavars[long_name(option)].add(str(option.metavar))
    for name, found in metavars.items():
        assert len(found) == 1 or found <= TWO_METAVARS.get(name, set()), (name, found)


def test_what_is_shared_is_worded_alike() -> None:
    for flag in ("--seed", "--resume", "--force", "--json", *SPEC):
        texts = {
            option.help
            for name, command in COMMANDS.items()
            for option in options(command)
            if flag in option.opts and not (name == "tune" and flag == "--tasks")
        }
        assert len(texts) <= 1, (flag, texts)


def test_every_command_that_reports_has_json() -> None:
    without = {name for name, c in COMMANDS.items() if "--json" not in map(long_name, options(c))}
    # It serves pages until it is stopped.
    assert without == {"dashboard"}
