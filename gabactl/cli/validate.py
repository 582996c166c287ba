"""``gabactl validate``: the replay check alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(validate)


@spec_options
def validate(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE...", help="Trace files, or bundled names.")
    ],
    as_json: JsonFlag = False,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest absolute error accepted. Default: 1e-12, in float32 5e-6."),
    ] = None,
    spec: SpecOptions = SpecOptions(None, {}),  # noqa: B008
) -> int:
    """Replay recorded gradient norms through the controller and compare.

    Exit code 1 when a trace exceeds the tolerance.
    """
    from gabactl.spec import GabaSpec
    from gabactl.traces import load_trace
    from gabactl.validate import validate as check

    results = []
    for path in traces:
        trace = load_trace(path)
        said = spec.file is not None or bool(spec.given)
        base = trace.spec or GabaSpec(n_tasks=len(trace.tasks))
        settings = spec.resolve(base) if said else None
        results.append(check(trace, settings, tolerance=tolerance))
    show(results, as_json)
    return 1 if any(result.ok is False for result in results) else 0
