"""``gabactl report``: the main job."""

from __future__ import annotations

import sys
from pathlib import Path

from gabactl.base.errors import InputError
from gabactl.cli._complete import trace_names
from gabactl.cli._fields import Argument, Row
from gabactl.cli._options import TRACE, options, output_row, plot_row
from gabactl.cli._output import show
from gabactl.cli._spec import SpecOptions, spec_options

#: The bundled run that is reported on when none is named.
DEFAULT_TRACE = "fd001-gaba"


@spec_options
@options(
    trace=Argument("[TRACE]", TRACE, DEFAULT_TRACE, offer=trace_names),
    fuzz_steps=Row("STEPS", "Controller steps of the fuzz, 100,000 or more."),
    pdf=Row("FILE", "Write this PDF too: printed by an installed Chromium browser."),
    saturation_only=Row(
        "", "Judge the floor, and no more: a run of any length, in bounded memory."
    ),
    output=output_row("Where to write the page.", default="report.html"),
    plot=plot_row("what the floor leaves of an imbalance (--saturation-only)"),
)
def report(
    trace: str | None = None,
    fuzz_steps: int = 1_000_000,
    pdf: Path | None = None,
    last: int | None = None,
    saturation_only: bool = False,
    seed: int = 0,
    output: Path | None = None,
    plot: Path | None = None,
    as_json: bool = False,
    *,
    spec: SpecOptions,
) -> None:
    """Analyse a recorded run, on one page and in a table.

    Units, floor, bounds, replay, step response, GradNorm. Writes one self-contained HTML file and
    prints a summary.

    With --saturation-only: how much of the run the floor is saturated, since when, and the floor
    it would take.
    """
    source = Path(trace or DEFAULT_TRACE)
    if saturation_only:
        if output is not None or pdf is not None:
            raise InputError("--saturation-only writes no page: leave -o and --pdf out")
        from gabactl.runs.saturation import saturation

        held = source if last is None else spec.run(source, last)
        show(saturation(held, spec.resolve_for(source)), as_json, plot)
        return
    if plot is not None:
        raise InputError("--plot goes with --saturation-only: the page has all pictures")
    from rich.console import Console
    from rich.status import Status

    from gabactl.reports import report, write_html, write_pdf
    from gabactl.reports.pdf import find_browser

    if pdf is not None:
        find_browser()  # before the work, not after it
    with Status("reading", console=Console(file=sys.stderr)) as status:
        result = report(
            spec.run(source, last),
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
