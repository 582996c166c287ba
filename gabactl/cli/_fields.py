"""Options out of a table of rows, and out of the dataclass whose fields they set.

A parameter of a command, or a field, has the type and the default; what a help has beyond that
stands in a :class:`Row`. Checking a value is the business of whatever takes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import wraps
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from gabactl.cli._complete import Completer, words


@dataclass(frozen=True)
class Row:
    """What the help says of an option.

    Parameters
    ----------
    metavar : str
        What the option takes: ``X``, ``STEPS``; empty for a flag.
    text : str
        One sentence; ``{}`` stands for the words it takes.
    default : str, optional
        What holds where it is not given, in words. Default: the field's or the parameter's.
    option : str
        Its names, separated by blanks. Default: from the field's or the parameter's.
    parse : callable, optional
        From what is typed to the field's value, for types that a command line does not have.
    offer : sequence of str, or a completer
        Words that completion offers where others may be right too.
    least : float, optional
        Smallest value that is taken.
    env : str, optional
        The environment variable that stands in for it.
    """

    metavar: str
    text: str
    default: str | None = None
    option: str = ""
    parse: Callable[[str], Any] | None = None
    offer: Sequence[str] | Completer = ()
    least: float | None = None
    env: str | None = None

    def of(self, kind: Any, name: str, shown: str | bool, **more: Any) -> Any:
        """The type of a parameter of this name, with what the help says of it."""
        named = () if callable(self.offer) else self.offer
        info = self.place(
            name,
            help=self.text.format(_listed(named)),
            metavar=self.metavar or None,
            show_default=shown if self.default is None else self.default,
            autocompletion=words(*named) if named else self.offer or None,
            min=self.least,
            envvar=self.env,
            **more,
        )
        return Annotated[kind, info]

    def place(self, name: str, **said: Any) -> Any:
        """As typer has it."""
        return typer.Option(*(self.option or "--" + name.replace("_", "-")).split(), **said)


class Argument(Row):
    """What the help says of an argument."""

    def place(self, name: str, **said: Any) -> Any:
        """As typer has it."""
        return typer.Argument(**said)


def field_options(
    settings: type, rows: Mapping[str, Row | None], prefix: str = "", panel: str | None = None
) -> list[inspect.Parameter]:
    """One option for each field, in their order.

    Parameters
    ----------
    settings : type
        The dataclass.
    rows : mapping
        Rows by field. None: the field is set elsewhere. A field that has no row gets an option too.
    prefix : str
        Of the parameters' names, where a command takes several dataclasses.
    panel : str, optional
        Title in the help.

    Examples
    --------
    >>> @dataclass
    ... class Settings:
    ...     beta: float = 0.9
    >>> [option.name for option in field_options(Settings, {})]
    ['beta']
    """
    hints = get_type_hints(settings)
    return [
        _option(field, hints[field.name], row, prefix, panel)
        for field in fields(settings)
        if (row := rows.get(field.name, Row(field.name.upper(), f"Sets {field.name}.")))
    ]


def _option(
    field: Field[Any], hint: Any, row: Row, prefix: str, panel: str | None
) -> inspect.Parameter:
    kind = next((each for each in get_args(hint) if each is not type(None)), hint)
    kind = hint if get_origin(hint) is Literal else kind
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    row = replace(row, offer=choices or row.offer)
    known = field.default not in (MISSING, None, False)
    return inspect.Parameter(
        prefix + field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=row.of(
            (str if choices or row.parse else kind) | None,
            field.name,
            str(field.default) if known else False,
            rich_help_panel=panel,
        ),
    )


def _listed(choices: Sequence[str]) -> str:
    """As a sentence has them: one, two or three."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), *choices[-1:])))


def takes(
    into: str,
    settings: type,
    rows: Mapping[str, Row | None],
    *more: inspect.Parameter,
    panel: str | None = None,
    make: Callable[[dict[str, Any]], Any] = dict,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of a dataclass, in the place of its parameter ``into``.

    Parameters
    ----------
    into : str
        The parameter that receives what was given, by field.
    settings, rows, panel
        As of :func:`field_options`.
    *more : inspect.Parameter
        Further options that go into the same.
    make : callable
        From the fields and values that were given to what the command receives.
    """
    prefix = f"{into}_"
    options = [
        *field_options(settings, rows, prefix, panel),
        *(each.replace(name=prefix + each.name) for each in more),
    ]
    parsers = {name: row.parse for name, row in rows.items() if row and row.parse}

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)

        @wraps(command)
        def run(**arguments: Any) -> Any:
            values = {p.name.removeprefix(prefix): arguments.pop(p.name) for p in options}
            given = {
                name: parsers[name](value) if name in parsers else value
                for name, value in values.items()
                if value is not None
            }
            return command(**arguments, **{into: make(given)})

        parameters = []
        for own in signature.parameters.values():
            kept = own.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += options if own.name == into else [kept]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return give
