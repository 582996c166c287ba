"""How commands look in the help: without type noise, and as the page on commands has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

#: Where the settings of GABA stand.
SETTINGS_PANEL = "Settings of GABA (those of a trace or scenario go before these defaults)"


def name_of(parameter: Any) -> str:
    """What stands for a parameter: ``[TRACE]``, ``-o, --output FILE``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> name_of(SimpleNamespace(param_type_name="argument", metavar="[TRACE]"))
    '[TRACE]'
    """
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    names = ", ".join(sorted(parameter.opts, key=len))
    return names if parameter.is_flag or not parameter.metavar else f"{names} {parameter.metavar}"


def default_of(parameter: Any) -> str:
    """What holds where it is not given, in words; empty where nothing does.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> default_of(SimpleNamespace(show_default=True, required=False, default=0))
    '0'
    """
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.required:
        return "required"
    if parameter.default is None or isinstance(parameter.default, bool):
        return ""
    return str(parameter.default)


class PlainCommand(TyperCommand):
    """A command whose arguments and options are shown by the words that the page has."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS]``, and the arguments."""
        return ["[OPTIONS]", *(name_of(p) for p in self.params if p.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options, settings."""
        _write(formatter, self.get_params(ctx))


class PlainGroup(TyperGroup):
    """The same of a family of commands, in the sections they were added under."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Options, commands."""
        _write(formatter, self.get_params(ctx))
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            title = getattr(command, "rich_help_panel", None) or "Commands"
            text = " ".join((command.help or "").partition("\n\n")[0].split())
            sections.setdefault(str(title), []).append((name, text))
        width = max(map(len, self.commands), default=0)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


def _write(formatter: Any, parameters: Iterable[Any]) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for each in parameters:
        kind = "Arguments" if each.param_type_name == "argument" else "Options"
        title = getattr(each, "rich_help_panel", None) or kind
        default = default_of(each)
        note = f"[{default}]" if default == "required" else f"[default: {default}]"
        text = f"{each.help}  {note}" if default else each.help
        sections.setdefault(title, []).append((name_of(each), text))
    for title, rows in sections.items():
        with formatter.section(title):
            formatter.write_dl(rows)


def family(text: str, *commands: Callable[..., Any], **named: Any) -> typer.Typer:
    """Commands under one word.

    Parameters
    ----------
    text : str
        What they do, in a sentence.
    *commands : function
        Commands, called as their functions.
    **named : function or typer.Typer
        Commands and families of another name.

    Examples
    --------
    >>> len(family("Two of them.", print, more=print).registered_commands)
    2
    """
    app = typer.Typer(help=text, cls=PlainGroup, no_args_is_help=True, rich_markup_mode=None)
    for name, command in [*((each.__name__, each) for each in commands), *named.items()]:
        add(app, name, command)
    return app


def add(app: typer.Typer, name: str, command: Any, section: str | None = None) -> None:
    """Add a command or a family to an application.

    Parameters
    ----------
    app : typer.Typer
        Where to.
    name : str
        The word that calls it.
    command : function or typer.Typer
        What is called.
    section : str, optional
        Title in the help.
    """
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, rich_help_panel=section)
    else:
        app.command(name, cls=PlainCommand, rich_help_panel=section)(command)
