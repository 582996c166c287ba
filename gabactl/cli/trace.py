"""``gabactl trace``: look at recorded runs, finish killed ones, convert."""

from __future__ import annotations

from pathlib import Path

from gabactl.base.errors import InputError
from gabactl.cli._complete import trace_names
from gabactl.cli._fields import Argument, Row
from gabactl.cli._help import family
from gabactl.cli._options import TRACE, options, output_row
from gabactl.cli._output import say, show


@options(trace=Argument("TRACE", TRACE, offer=trace_names))
def info(trace: Path, as_json: bool = False) -> None:
    """What a trace holds."""
    from gabactl.traces.info import trace_info

    show(trace_info(trace), as_json)


@options(
    stream=Argument("RUN.arrows", "Stream of the run."),
    salvage=Row("", "Keep what precedes a damaged batch."),
    output=output_row("A .parquet file.", default="the stream's name, ending in .parquet"),
)
def finish(
    stream: Path, salvage: bool = False, output: Path | None = None, as_json: bool = False
) -> None:
    """Turn the stream of a killed run into Parquet. The stream stays."""
    from gabactl.traces import finish as run

    path, steps = run(stream, output, salvage=salvage)
    say(f"{path}: {steps} steps", {"output": str(path), "steps": steps}, as_json)


@options(
    trace=Argument("TRACE", TRACE.removesuffix(", or the name of a bundled one.") + "."),
    output=output_row("A .parquet or .csv file."),
    columns=Row(
        "COLUMN=NAME",
        "What a column was logged as: grad_norm_rul=train/gn0. Give one for each.",
        option="--column",
    ),
)
def convert(
    trace: Path, output: Path, columns: list[str] | None = None, as_json: bool = False
) -> None:
    """Rewrite a trace, or the log of another tool, as Parquet or CSV (which drops the metadata)."""
    from gabactl.traces import convert as run

    steps = len(run(trace, output, columns=_columns(columns or [])))
    say(f"{output}: {steps} steps", {"output": str(output), "steps": steps}, as_json)


def _columns(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        column, equals, name = pair.partition("=")
        if not equals or not column or not name:
            raise InputError(f"--column {pair!r} is no COLUMN=NAME: as grad_norm_rul=train/gn0")
        if column in found:
            raise InputError(f"--column {column} is there twice: give each column one name")
        found[column] = name
    return found


@options()
def list_bundled(as_json: bool = False) -> None:
    """The traces that come with the package."""
    from gabactl.traces import bundled

    names = list(bundled())
    say("\n".join(names) or "none", {"traces": names}, as_json)


trace = family(
    "Look at recorded runs, finish killed ones, convert.", info, finish, convert, list=list_bundled
)
