"""``gabactl report``: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options

#: The bundled run that is reported on when none is named.
DEFAULT_TRACE = "fd001-gaba"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


@spec_options
def report(
    trace: Annotated[
        str | None,
        typer.Argument(
            help="A recorded run (Parquet, Arrow stream, CSV, TensorBoard folder or W&B export), "
            "or the name of a bundled one."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the page.")] = Path(
        "report.html"
    ),
    pdf: Annotated[
        Path | None,
        typer.Option("--pdf", help="Write this PDF too: printed by an installed Chromium browser."),
    ] = None,
    fuzz_steps: Annotated[
        int, typer.Option(help="Controller steps of the fuzz, at least 100,000.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed of the fuzz.")] = 0,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> None:
    """Analyse a recorded run: units, floor, bounds, replay, step response, GradNorm.

    Writes one self-contained HTML file and prints a summary. Without TRACE it takes a bundled run.
    """
    from rich.console import Console
    from rich.status import Status

    from gabactl.report import build_report, write_html, write_pdf
    from gabactl.report.pdf import find_browser
    from gabactl.traces import bundled, load_bundled, read_trace

    name = trace or DEFAULT_TRACE
    if pdf is not None:
        find_browser()  # before the work, not after it
    with Status("reading", console=Console(file=sys.stderr)) as status:
        bundled_name = name in bundled() and not Path(name).exists()
        run = load_bundled(name) if bundled_name or trace is None else read_trace(Path(name))
        result = build_report(
            run,
            spec.resolve(run.spec),
            seed=seed,
            fuzz_steps=fuzz_steps,
            progress=lambda what: status.update(what + " ..."),
        )
        status.update("drawing ...")
        files = [write_html(result, output)]
        if pdf is not None:
            status.update("printing ...")
            files.append(write_pdf(files[0], pdf))
    show(result, as_json)
    if not as_json:
        print(f"\nwritten: {', '.join(map(str, files))}")
