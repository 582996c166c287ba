"""``gabactl claims``: what the literature says, and what we find."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._complete import claim_ids
from gabactl.cli._options import workers_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._progress import counter


def claims(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID...]",
            help="Which claims, such as C13.",
            autocompletion=claim_ids,
            show_default="all",
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Source, numbers side by side, and notes.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write this page too.")
    ] = None,
    workers: Annotated[int | None, workers_option("Processes", "one a core, at most 8")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Settle the claims of the literature, one by one.

    By proof, computation, replay or recorded result. Exit code 1 when a verdict is not the expected one. not_run is no verdict.
    """
    from gabactl.claims import settle_claims

    table = settle_claims(
        ids or (), workers=workers, progress=counter if sys.stderr.isatty() else None
    )
    if html is not None:
        from gabactl.claims.page import write_page

        write_page(table, html)
    if details and not as_json:
        show([*table.results], False)
        print(f"\n{table.title}")
    else:
        show(table, as_json)
    if table.surprises:
        raise typer.Exit(1)
