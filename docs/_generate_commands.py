"""Write the page on commands from their own helps.

python docs/_generate_commands.py            # write
python docs/_generate_commands.py --check    # exit 1 when the page is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from gabactl.cli import build_app
from gabactl.cli._spec import _OPTIONS

PAGE = Path(__file__).parent / "commands.md"
MARK = "<!-- Written by docs/_generate_commands.py from the helps. Do not edit. -->"
SPEC = {"--spec", *(flag for _, flag, *_ in _OPTIONS.values())}
INTRO = """
All commands of `gabactl`, as `gabactl COMMAND --help` has them. Commands that report something take `--json`
([what it prints](json.md)). Exit codes: 0 done, 1 a finding (a violated bound, a failed check), 2 bad input,
with one line on stderr; 130 interrupted, 143 terminated.
"""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command, by the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
        return
    for name in sorted(inner):
        yield from commands(inner[name], (*path, name))


def default_of(option: Any) -> str:
    """What holds where the option is not given, in words."""
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return option.show_default
    if option.default is None or option.default is False:
        return ""
    return f"`{option.default}`"


def row(option: Any) -> str:
    """One line of a table."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    if not option.is_flag:
        names += f" `{option.metavar}`"
    return f"| {names} | {cell(option.help)} | {cell(default_of(option))} |"


def cell(text: str) -> str:
    """Text that a table may hold."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(options: list[Any]) -> list[str]:
    """Options as a table."""
    return ["| option | meaning | default |", "| --- | --- | --- |", *map(row, options), ""]


def page() -> str:
    """The whole page."""
    app = typer.main.get_command(build_app())
    lines = [MARK, "# Commands", INTRO]
    settings: list[Any] = []
    for name, command in commands(app):
        options = [p for p in command.params if p.param_type_name == "option"]
        spec = [o for o in options if SPEC & set(o.opts)]
        if len(spec) == len(SPEC):
            settings = spec
            options = [o for o in options if o not in spec]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        named = [(a.metavar or a.name.upper(), a.help) for a in arguments]
        words = " ".join(["gabactl", name, *(each for each, _ in named)])
        lines += [f"## gabactl {name}", "", f"`{words}`", ""]
        lines += [line.strip() for line in (command.help or "").splitlines()] + [""]
        if command.epilog:
            lines += [command.epilog, ""]
        lines += [f"* `{each}`: {text}" for each, text in named]
        lines += [""] * bool(named)
        lines += table(options)
        if len(spec) == len(SPEC):
            lines += ["And [the settings of GABA](#settings-of-gaba).", ""]
    lines += ["## Settings of GABA", "", *table(settings)]
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    """Write or check."""
    text = page()
    if "--check" in arguments:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        if not current:
            print("docs/commands.md is out of date: run python docs/_generate_commands.py")
        return 0 if current else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
