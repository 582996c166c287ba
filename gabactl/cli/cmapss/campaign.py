"""``gabactl cmapss campaign``: many recorded training runs, resumable, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gabactl.cli._fields import Argument, Row
from gabactl.cli._help import family
from gabactl.cli._options import options, output_row, time_row, workers_row
from gabactl.cli._output import show
from gabactl.cli._progress import bars, epoch_words, quality_words

if TYPE_CHECKING:
    from gabactl.nn.campaigns.driver import Activity

_FOLDER = Argument("DIR", "Folder of the campaign.")


@options(
    file=Argument("PLAN", "A .toml file or a bundled name."),
    output=output_row("Folder for everything.", "DIR"),
    only=Row("PATTERN", "Only runs whose name fits, as in 'FD002-*'."),
    workers=workers_row("Runs"),
    seconds=time_row("Stop after so many seconds, with checkpoints.", "no limit"),
)
def run(
    file: Path,
    output: Path,
    data: Path,
    only: str | None = None,
    workers: int = 1,
    seconds: float | None = None,
    resume: bool = False,
    as_json: bool = False,
) -> int:
    """Run a campaign, each run a process of its own.

    Ctrl-C saves checkpoints and exits with code 130, the end of --time with code 0; the same
    command with --resume goes on. Exit code 1: a run failed.
    """
    import sys

    from gabactl.nn.campaigns import run_campaign

    with _progress(quiet=as_json or not sys.stderr.isatty()) as on_activity:
        status = run_campaign(
            file,
            output,
            data,
            resume=resume,
            workers=workers,
            time_limit=seconds,
            only=only,
            command=f"gabactl cmapss campaign run {file.name}",
            on_activity=on_activity,
        )
    show(status, as_json)
    if status.failed:
        return 1
    return 130 if status.stopped and seconds is None else 0


@options(folder=_FOLDER)
def status(folder: Path, as_json: bool = False) -> None:
    """How far a campaign is."""
    from gabactl.nn.campaigns import campaign_status

    show(campaign_status(folder), as_json)


@options(
    folder=Argument("PATH", "Folder of the campaign, or its table."),
    output=output_row("Write all rows there.", "FILE.parquet"),
)
def table(folder: Path, output: Path | None = None, as_json: bool = False) -> None:
    """What a campaign found: mean and deviation over the seeds; all rows with --json or -o."""
    from gabactl.nn.campaigns import collect_results, load_results, save_results

    results = load_results(folder)
    if output is not None:
        if folder.is_dir() and (folder / "runs").is_dir():
            results = collect_results(folder, relative_to=output.absolute().parent)
        save_results(results, output)
    show(results, as_json)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Activity], None] | None]:
    if quiet:
        yield None
        return
    with bars("{task.description}", "{task.fields[note]}") as progress:
        whole = progress.add_task("runs", total=None, note="")
        shown: dict[str, Any] = {}

        def on_activity(now: Activity) -> None:
            progress.update(whole, completed=now.done, total=now.total)
            for name in set(shown) - set(now.running):
                progress.remove_task(shown.pop(name))
            for name, told in now.running.items():
                if name not in shown:
                    shown[name] = progress.add_task(name, total=None, note="starts")
                if len(told) == 5:
                    step, steps, epoch, epochs, rmse = told
                    words = (f"epoch {epoch_words(epoch, epochs)}", quality_words(rmse))
                    progress.update(
                        shown[name],
                        completed=int(step),
                        total=int(steps),
                        note=", ".join(filter(None, words)),
                    )

        yield on_activity


campaign = family("Train many runs from a plan: subsets, seeds, methods.", run, status, table)
