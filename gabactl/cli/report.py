"""``gabactl report``: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gabactl.base.errors import InputError
from gabactl.cli._complete import trace_names
from gabactl.cli._options import TRACE, SeedOption, last_option, output_option, plot_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options

#: The bundled run that is reported on when none is named.
DEFAULT_TRACE = "fd001-gaba"


@spec_options
def report(
    trace: Annotated[
        str | None,
        typer.Argument(
            metavar="[TRACE]", help=TRACE, autocompletion=trace_names, show_default=DEFAULT_TRACE
        ),
    ] = None,
    fuzz_steps: Annotated[
        int, typer.Option(metavar="STEPS", help="Controller steps of the fuzz, 100,000 or more.")
    ] = 1_000_000,
    pdf: Annotated[
        Path | None,
        typer.Option(
            "--pdf",
            metavar="FILE",
            help="Write this PDF too: printed by an installed Chromium browser.",
        ),
    ] = None,
    last: Annotated[int | None, last_option("a million")] = None,
    saturation_only: Annotated[
        bool,
        typer.Option(
            "--saturation-only",
            help="Judge the floor, and no more: a run of any length, in bounded memory.",
        ),
    ] = False,
    seed: SeedOption = 0,
    output: Annotated[
        Path | None, output_option("Where to write the page.", default="report.html")
    ] = None,
    plot: Annotated[
        Path | None, plot_option("what the floor leaves of an imbalance (--saturation-only)")
    ] = None,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> None:
    """Analyse a recorded run, on one page and in a table.

    Units, floor, bounds, replay, step response, GradNorm. Writes one self-contained HTML file and
    prints a summary.

    With --saturation-only: how much of the run the floor is saturated, since when, and the floor
    it would take.
    """
    if saturation_only:
        if output is not None or pdf is not None:
            raise InputError("--saturation-only writes no page: leave -o and --pdf out")
        _judge(trace or DEFAULT_TRACE, spec, last, plot, as_json)
        return
    if plot is not None:
        raise InputError("--plot goes with --saturation-only: the page has all pictures")
    from rich.console import Console
    from rich.status import Status

    from gabactl.reports import report, write_html, write_pdf
    from gabactl.reports.pdf import find_browser
    from gabactl.runs.run import Run
    from gabactl.traces import MOST_STEPS

    if pdf is not None:
        find_browser()  # before the work, not after it
    with Status("reading", console=Console(file=sys.stderr)) as status:
        source = Path(trace or DEFAULT_TRACE)
        run = Run.of(source, spec.resolve_for(source), last=last, most_steps=MOST_STEPS)
        result = report(
            run,
            seed=seed,
            fuzz_steps=fuzz_steps,
            progress=lambda what: status.update(what + " ..."),
        )
        status.update("drawing ...")
        files = [write_html(result, output or Path("report.html"))]
        if pdf is not None:
            status.update("printing ...")
            files.append(write_pdf(files[0], pdf))
    show(result, as_json)
    if not as_json:
        print(f"\nwritten: {', '.join(map(str, files))}")


def _judge(
    trace: str, spec: SpecOptions, last: int | None, plot: Path | None, as_json: bool
) -> None:
    from gabactl.runs.run import Run
    from gabactl.runs.saturation import saturation
    from gabactl.traces import MOST_STEPS

    settings = spec.resolve_for(Path(trace))
    run = trace if last is None else Run.of(trace, settings, last=last, most_steps=MOST_STEPS)
    result = saturation(run, settings)
    if plot is not None:
        from gabactl.base import plots

        plots.save(result.plot().figure, plot)
    show(result, as_json)
