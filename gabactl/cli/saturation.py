"""``gabactl saturation``: is the floor, not the controller, setting the weights?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(saturation)


@spec_options
def saturation(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace file, or bundled name.")],
    plot: Annotated[
        Path | None, typer.Option(help="Draw what the floor leaves: .png, .svg or .pdf.")
    ] = None,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> None:
    """Is the floor saturated? Share of steps, since when, and the floor it would take.

    Reads a run of any length in bounded memory.
    """
    from gabactl.saturation import saturation as judge
    from gabactl.spec import GabaSpec
    from gabactl.traces import trace_pieces

    # Settings beat those of the trace, which are in its first piece already.
    settings = None
    if spec.file is not None or spec.given:
        first = next(iter(trace_pieces(trace)), None)
        own = None if first is None else first.spec or GabaSpec(n_tasks=len(first.tasks))
        settings = spec.resolve(own)
    result = judge(trace, settings)
    if plot is not None:
        from gabactl import plots

        plots.save(result.plot().figure, plot)
    show(result, as_json)
