"""``gabactl cmapss data``: get the C-MAPSS data set, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._help import family
from gabactl.cli._options import ForceFlag, output_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._progress import bars


def fetch(
    output: Annotated[Path, output_option("Folder for the files.", "DIR")],
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of the archive.", show_default="NASA's"),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Give up after so long without a byte."),
    ] = 30.0,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Download C-MAPSS from NASA (12 MB) and check every file's SHA-256."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn

    from gabactl.cmapss.fetch import NASA_URL
    from gabactl.cmapss.fetch import fetch as fetch_files

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with bars(*columns) as progress:
        bar = progress.add_task("C-MAPSS", total=None)
        files = fetch_files(
            output,
            url or NASA_URL,
            timeout=timeout,
            force=force,
            on_bytes=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        show({"output": str(output), "files": [file.name for file in files]}, True)
    else:
        print(f"{len(files)} files in {output}, each equal to NASA's original")


def verify(
    source: Annotated[Path, typer.Argument(help="Folder or zip archive.", metavar="PATH")],
    as_json: JsonFlag = False,
) -> None:
    """Compare every file with the SHA-256 of NASA's original; exit code 1 if one differs."""
    from gabactl.cmapss import verify as verify_files

    result = verify_files(source)
    show(result, as_json)
    if not result.ok:
        raise typer.Exit(1)


data = family("Get the C-MAPSS data set, and check it.", fetch, verify)
