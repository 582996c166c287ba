"""``gabactl trace``: look at recorded runs, finish killed ones, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._complete import trace_names
from gabactl.cli._help import family
from gabactl.cli._options import TRACE, output_option
from gabactl.cli._output import JsonFlag, show


def info(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help=TRACE, autocompletion=trace_names)],
    as_json: JsonFlag = False,
) -> None:
    """What a trace holds."""
    from gabactl.traces.info import trace_info

    show(trace_info(trace), as_json)


def finish(
    stream: Annotated[Path, typer.Argument(metavar="RUN.arrows", help="Stream of the run.")],
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Keep what precedes a damaged batch.")
    ] = False,
    output: Annotated[
        Path | None,
        output_option("A .parquet file.", default="the stream's name, ending in .parquet"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn the stream of a killed run into Parquet. The stream stays."""
    from gabactl.traces import finish as run

    path, rows = run(stream, output, salvage=salvage)
    _say(as_json, path, rows)


def convert(
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE", help=TRACE.removesuffix(", or the name of a bundled one.") + "."
        ),
    ],
    output: Annotated[Path, output_option("A .parquet or .csv file.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="COLUMN=NAME",
            help="What a column was logged as: grad_norm_rul=train/gn0. Give one for each.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Rewrite a trace, or the log of another tool, as Parquet or CSV (which drops the metadata)."""
    from gabactl.traces import convert as run

    _say(as_json, output, len(run(trace, output, columns=_columns(columns or []))))


def _columns(pairs: list[str]) -> dict[str, str]:
    from gabactl.base.errors import InputError

    found: dict[str, str] = {}
    for pair in pairs:
        column, equals, name = pair.partition("=")
        if not equals or not column or not name:
            raise InputError(f"--column {pair!r} is no COLUMN=NAME: as grad_norm_rul=train/gn0")
        if column in found:
            raise InputError(f"--column {column} is there twice: give each column one name")
        found[column] = name
    return found


def list_bundled(as_json: JsonFlag = False) -> None:
    """The traces that come with the package."""
    from gabactl.traces import bundled

    names = list(bundled())
    if as_json:
        show({"traces": names}, True)
    else:
        print("\n".join(names) or "none")


def _say(as_json: bool, path: Path, steps: int) -> None:
    if as_json:
        show({"output": str(path), "steps": steps}, True)
    else:
        print(f"{path}: {steps} steps")


trace = family(
    "Look at recorded runs, finish killed ones, convert.", info, finish, convert, list=list_bundled
)
