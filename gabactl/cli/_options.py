"""What several commands take, under one name and with one meaning.

The order in a command: what it works on, its own options, then those of here in the order of this
module, then ``--json``, then the GABA settings.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "TRACE",
    "TRACES",
    "ForceFlag",
    "ResumeFlag",
    "SeedOption",
    "cmapss_option",
    "last_option",
    "output_option",
    "plot_option",
    "time_option",
    "workers_option",
]

_ENDINGS = ".png, .svg or .pdf"

#: What a trace is read from.
TRACE = (
    "A recorded run (Parquet, Arrow stream, CSV, TensorBoard folder or W&B export), or the name of "
    "a bundled one."
)
TRACES = TRACE.replace("A recorded run", "Recorded runs").replace(
    "the name of a bundled one", "names of bundled ones"
)

#: Of everything a command draws at random.
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", help="Seed of everything random, 0 or more.")
]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Go on with what is there.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def cmapss_option() -> Any:
    """``--data``: where C-MAPSS is."""
    return typer.Option(
        "--data",
        metavar="PATH",
        help="Folder or zip archive with the data (see `gabactl cmapss data fetch`).",
        envvar="GABACTL_CMAPSS",
        show_default="the environment variable GABACTL_CMAPSS",
    )


def workers_option(what: str, default: str | bool = True) -> Any:
    """``--workers``: how many at once.

    Parameters
    ----------
    what : str
        What they are: processes, threads.
    default : str or bool
        Words for a default that is not a number.
    """
    return typer.Option(
        "--workers", metavar="N", help=f"{what} at once, 1 or more.", show_default=default
    )


def time_option(what: str, default: str | bool = False) -> Any:
    """``--time``: a budget in seconds.

    Parameters
    ----------
    what : str
        What has to end by then.
    default : str or bool
        Words for the default.
    """
    return typer.Option("--time", metavar="SECONDS", help=what, show_default=default)


def last_option(most: str) -> Any:
    """``--last``: the end of a run that is too long to be held whole.

    Parameters
    ----------
    most : str
        How many steps are not.
    """
    return typer.Option(
        "--last",
        metavar="STEPS",
        min=1,
        help=f"Only so many steps of the run's end; beyond {most} a run needs it.",
        show_default="all",
    )


def output_option(what: str, metavar: str = "FILE", default: str | bool = True) -> Any:
    """``-o``: the file or folder that a command writes.

    Parameters
    ----------
    what : str
        What is written, and as what.
    metavar : str
        ``FILE`` or ``DIR``.
    default : str or bool
        Words for the default.
    """
    return typer.Option("-o", "--output", metavar=metavar, help=what, show_default=default)


def plot_option(what: str) -> Any:
    """``--plot``: a picture beside the table.

    Parameters
    ----------
    what : str
        What it shows.
    """
    return typer.Option("--plot", metavar="FILE", help=f"Draw {what}: {_ENDINGS}.")
