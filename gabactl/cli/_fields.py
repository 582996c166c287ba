"""Options out of the dataclass whose fields they set.

A field has the type, the default and the words it takes; what a help has beyond that stands in a
:class:`Row`. Checking a value is the dataclass's own business.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import wraps
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from gabactl.cli._complete import words

__all__ = ["Row", "field_options", "takes"]


@dataclass(frozen=True)
class Row:
    """What the help says of a field.

    Parameters
    ----------
    metavar : str
        What the option takes: ``X``, ``STEPS``.
    text : str
        One sentence; ``{}`` stands for the words the field takes.
    option : str, optional
        Default: the field's name.
    default : str, optional
        What holds where it is not given, in words. Default: the field's.
    parse : callable, optional
        From what is typed to the field's value, for types that a command line does not have.
    offer : sequence of str
        Words that completion offers where others may be right too.
    """

    metavar: str
    text: str
    option: str | None = None
    default: str | None = None
    parse: Callable[[str], Any] | None = None
    offer: Sequence[str] = ()


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
        _option(field, hints[field.name], rows.get(field.name), prefix, panel)
        for field in fields(settings)
        if rows.get(field.name, "none yet") is not None
    ]


def _option(
    field: Field[Any], hint: Any, row: Row | None, prefix: str, panel: str | None
) -> inspect.Parameter:
    row = row or Row(field.name.upper(), f"Sets {field.name}.")
    kind = next((each for each in get_args(hint) if each is not type(None)), hint)
    kind = hint if get_origin(hint) is Literal else kind
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    shown = row.default
    if shown is None and field.default is not MISSING and field.default is not None:
        shown = str(field.default)
    option = typer.Option(
        row.option or "--" + field.name.replace("_", "-"),
        metavar=row.metavar,
        help=row.text.format(_listed(choices)),
        show_default=shown or False,
        rich_help_panel=panel,
        autocompletion=words(*(choices or row.offer)) if choices or row.offer else None,
    )
    return inspect.Parameter(
        prefix + field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[(str if choices or row.parse else kind) | None, option],
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
