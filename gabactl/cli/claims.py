"""``gabactl claims``: what the literature says, and what we find."""

from __future__ import annotations

import sys
from pathlib import Path

from gabactl.cli._complete import claim_ids
from gabactl.cli._fields import Argument, Row
from gabactl.cli._options import options, workers_row
from gabactl.cli._output import show_verdicts
from gabactl.cli._progress import counter


@options(
    ids=Argument("[ID...]", "Which claims, such as C13.", "all", offer=claim_ids),
    details=Row("", "Source, numbers side by side, and notes."),
    html=Row("FILE", "Write this page too."),
    workers=workers_row("Processes", "one a core, at most 8"),
)
def claims(
    ids: list[str] | None = None,
    details: bool = False,
    html: Path | None = None,
    workers: int | None = None,
    as_json: bool = False,
) -> int:
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
    return show_verdicts(table, details, as_json)
