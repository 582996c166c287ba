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

from gabactl.cli import _SECTIONS, build_app
from gabactl.cli._help import SETTINGS_PANEL, default_of, name_of

PAGE = Path(__file__).parent / "commands.md"
MARK = "<!-- Written by docs/_generate_commands.py from the helps. Do not edit. -->"
INTRO = """
All commands of `gabactl`, as `gabactl COMMAND --help` has them. Commands that report something take `--json`
([what it prints](json.md)). Exit codes: 0 done, 1 a finding (a violated bound, a failed check), 2 bad input,
with one line on stderr; 130 interrupted, 143 terminated.
"""


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Every command, by the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
        return
    for name in sorted(inner):
        yield from commands(inner[name], (*path, name))


def row(option: Any) -> str:
    """One line of a table."""
    return f"| `{name_of(option)}` | {cell(option.help)} | {cell(default_of(option))} |"


def cell(text: str) -> str:
    """Text that a table may hold."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(options: list[Any]) -> list[str]:
    """Options as a table."""
    return ["| option | meaning | default |", "| --- | --- | --- |", *map(row, options), ""]


def section(name: str, command: Any) -> tuple[list[str], list[Any]]:
    """A command's lines, and the settings of GABA that it takes."""
    options = [p for p in command.params if p.param_type_name == "option"]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    settings = [o for o in options if o.rich_help_panel == SETTINGS_PANEL]
    words = " ".join(["gabactl", name, *map(name_of, arguments)])
    lines = [f"### gabactl {name}", "", f"`{words}`", ""]
    lines += [line.strip() for line in (command.help or "").splitlines()] + [""]
    lines += [f"* `{name_of(each)}`: {each.help}" for each in arguments]
    lines += [""] * bool(arguments)
    lines += table([o for o in options if o not in settings])
    if settings:
        lines += ["And [the settings of GABA](#settings-of-gaba).", ""]
    return lines, settings


def page() -> str:
    """The whole page."""
    app: Any = typer.main.get_command(build_app())
    lines = [MARK, "# Commands", INTRO]
    settings: list[Any] = []
    for title, names in _SECTIONS.items():
        lines += [f"## {title}", ""]
        for top in names:
            for name, command in commands(app.commands[top], (top,)):
                found, taken = section(name, command)
                lines += found
                settings = taken or settings
    lines += [
        "## Settings of GABA",
        "",
        "Those of a trace or scenario go before these defaults.",
        "",
    ]
    lines += table(settings)
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
