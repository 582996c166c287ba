"""``gabactl cmapss data``: get the C-MAPSS data set, and check it."""

from __future__ import annotations

from pathlib import Path

from gabactl.cli._fields import Argument, Row
from gabactl.cli._help import family
from gabactl.cli._options import options, output_row
from gabactl.cli._output import say, show
from gabactl.cli._progress import bars


@options(
    output=output_row("Folder for the files.", "DIR"),
    url=Row("URL", "Address of the archive.", "NASA's"),
    timeout=Row("SECONDS", "Give up after so long without a byte."),
)
def fetch(
    output: Path,
    url: str | None = None,
    timeout: float = 30.0,
    force: bool = False,
    as_json: bool = False,
) -> None:
    """Download C-MAPSS from NASA (12 MB) and check every file's SHA-256."""
    from rich.progress import DownloadColumn

    from gabactl.cmapss.fetch import NASA_URL
    from gabactl.cmapss.fetch import fetch as fetch_files

    with bars("{task.description}", counts=[DownloadColumn]) as progress:
        bar = progress.add_task("C-MAPSS", total=None)
        files = fetch_files(
            output,
            url or NASA_URL,
            timeout=timeout,
            force=force,
            on_bytes=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    words = f"{len(files)} files in {output}, each equal to NASA's original"
    say(words, {"output": str(output), "files": [file.name for file in files]}, as_json)


@options(source=Argument("PATH", "Folder or zip archive."))
def verify(source: Path, as_json: bool = False) -> int:
    """Compare every file with the SHA-256 of NASA's original; exit code 1 if one differs."""
    from gabactl.cmapss import verify as verify_files

    result = verify_files(source)
    show(result, as_json)
    return 0 if result.ok else 1


data = family("Get the C-MAPSS data set, and check it.", fetch, verify)
