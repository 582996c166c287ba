"""``gabactl saturation``: is the floor, not the controller, setting the weights?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._complete import trace_names
from gabactl.cli._options import TRACE, plot_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(saturation)


@spec_options
def saturation(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help=TRACE, autocompletion=trace_names)],
    plot: Annotated[Path | None, plot_option("what the floor leaves of an imbalance")] = None,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> None:
    """How much of a run the floor is saturated, and since when.

    And the floor it would take.

    Reads a run of any length in bounded memory.
    """
    from gabactl.runs.saturation import saturation as judge

    result = judge(trace, spec.resolve_for(trace))
    if plot is not None:
        from gabactl.base import plots

        plots.save(result.plot().figure, plot)
    show(result, as_json)
