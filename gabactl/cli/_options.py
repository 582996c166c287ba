"""What several commands take, under one name and with one meaning.

The order in a command: what it works on, its own options, then those of here in the order of this
module, then ``--json``, then the GABA settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from gabactl.cli._complete import trace_names
from gabactl.cli._fields import Argument, Row

Command = TypeVar("Command", bound=Callable[..., Any])

#: What a trace is read from.
TRACE = (
    "A recorded run (Parquet, Arrow stream, CSV, TensorBoard folder or W&B export), or the name of "
    "a bundled one."
)
_TRACES = TRACE.replace("A recorded run", "Recorded runs").replace(
    "the name of a bundled one", "names of bundled ones"
)
_LAST = "Only so many steps of the run's end; beyond a million a run needs it."
#: Parameters that mean the same wherever they stand.
_SHARED = {
    "trace": Argument("[TRACE]", TRACE, offer=trace_names),
    "traces": Argument("TRACE...", _TRACES, offer=trace_names),
    "data": Row(
        "PATH",
        "Folder or zip archive with the data (see `gabactl cmapss data fetch`).",
        "the environment variable GABACTL_CMAPSS",
        env="GABACTL_CMAPSS",
    ),
    "last": Row("STEPS", _LAST, "all", least=1),
    "seed": Row("N", "Seed of everything random, 0 or more."),
    "resume": Row("", "Go on with what is there.", option="--resume"),
    "force": Row("", "Replace what is there.", option="--force"),
    "as_json": Row("", "Machine output: strict JSON on stdout.", option="--json"),
}


def workers_row(what: str, default: str | None = None) -> Row:
    """``--workers``: how many processes or threads at once."""
    return Row("N", f"{what} at once, 1 or more.", default)


def time_row(what: str, default: str | None = None) -> Row:
    """``--time``: a budget in seconds."""
    return Row("SECONDS", what, default, "--time")


def output_row(what: str, metavar: str = "FILE", default: str | None = None) -> Row:
    """``-o``: the file or folder that a command writes."""
    return Row(metavar, what, default, "-o --output")


def plot_row(what: str) -> Row:
    """``--plot``: a picture beside the table."""
    return Row("FILE", f"Draw {what}: .png, .svg or .pdf.")


def options(**rows: Row) -> Callable[[Command], Command]:
    """Have the help of a command say these of its parameters, and of the shared ones the usual."""

    def give(command: Command) -> Command:
        command.__annotations__ = inspect.get_annotations(command, eval_str=True)
        for name, kind in command.__annotations__.items():
            row = rows.get(name) or _SHARED.get(name)
            if row is not None:
                command.__annotations__[name] = row.of(kind, name, True)
        return command

    return give
