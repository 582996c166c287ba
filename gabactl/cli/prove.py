"""``gabactl prove``: theorems about the controller, decided."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gabactl.cli._complete import theorem_families
from gabactl.cli._options import time_option, workers_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._progress import counter

if TYPE_CHECKING:
    from gabactl.proving import ProofResult


def prove(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID...] [FILE.py...]",
            help="Ids (C13), families (floor_ranges), or your own theorem files. "
            "A file is Python code and is run.",
            autocompletion=theorem_families,
            show_default="all",
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Hypotheses, derivations, cores and replays.")
    ] = False,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="Run the planted errors too; each must turn.")
    ] = False,
    workers: Annotated[int | None, workers_option("Processes", "one a core, at most 8")] = None,
    seconds: Annotated[
        float | None,
        time_option("Seconds for each theorem; past them it is unknown.", "the theorem's own"),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List ids and statements, and decide nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Decide theorems: proved, refuted or unknown, with witnesses.

    Exit code 1 when a verdict is not the expected one.
    """
    from gabactl.proving import prove, select

    files = [Path(name) for name in what or [] if name.endswith(".py")]
    ids = [name for name in what or [] if not name.endswith(".py")]
    if listed:
        show(select(ids, files or None), as_json)
        return
    table = prove(
        ids,
        files or None,
        mutants=mutants,
        time_limit=seconds,
        workers=workers,
        progress=_progress if sys.stderr.isatty() else None,
    )
    if as_json or not details:
        show(table, as_json)
    else:
        show([*table.results], False)
        print(f"\n{table.title}")
    if table.surprises:
        raise typer.Exit(1)


def _progress(done: int, count: int, result: ProofResult) -> None:
    counter(done, count, result.theorem.id)
