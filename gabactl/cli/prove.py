"""``gabactl prove``: theorems about the controller, decided."""

from __future__ import annotations

import sys
from pathlib import Path

from gabactl.cli._complete import theorem_families
from gabactl.cli._fields import Argument, Row
from gabactl.cli._options import options, time_row, workers_row
from gabactl.cli._output import show, show_verdicts
from gabactl.cli._progress import counter


@options(
    what=Argument(
        "[ID...] [FILE.py...]",
        "Ids (C13), families (floor_ranges), or your own theorem files. A file is Python code and "
        "is run.",
        "all",
        offer=theorem_families,
    ),
    details=Row("", "Hypotheses, derivations, cores and replays."),
    mutants=Row("", "Run the planted errors too; each must turn."),
    workers=workers_row("Processes", "one a core, at most 8"),
    seconds=time_row("Seconds for each theorem; past them it is unknown.", "the theorem's own"),
    listed=Row("", "List ids and statements, and decide nothing.", option="--list"),
)
def prove(
    what: list[str] | None = None,
    details: bool = False,
    mutants: bool = False,
    workers: int | None = None,
    seconds: float | None = None,
    listed: bool = False,
    as_json: bool = False,
) -> int:
    """Decide theorems: proved, refuted or unknown, with witnesses.

    Exit code 1 when a verdict is not the expected one.
    """
    from gabactl.proving import prove
    from gabactl.proving.library import select

    files = [Path(name) for name in what or [] if name.endswith(".py")]
    ids = [name for name in what or [] if not name.endswith(".py")]
    if listed:
        show(select(ids, files or None), as_json)
        return 0
    table = prove(
        ids,
        files or None,
        mutants=mutants,
        time_limit=seconds,
        workers=workers,
        progress=(lambda done, count, result: counter(done, count, result.theorem.id))
        if sys.stderr.isatty()
        else None,
    )
    return show_verdicts(table, details, as_json)
