"""``gabactl dashboard``: the loop in the browser."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gabactl.cli._complete import trace_names
from gabactl.cli._options import TRACE
from gabactl.cli._spec import SpecOptions, spec_options


@spec_options
def dashboard(
    trace: Annotated[
        str | None,
        typer.Argument(metavar="[TRACE]", help=TRACE, autocompletion=trace_names),
    ] = None,
    port: Annotated[
        int, typer.Option(metavar="N", help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 5006,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address.")
    ] = False,
    *,
    spec: SpecOptions,
) -> None:
    """Show the loop in the browser, with sliders, on a recorded run.

    Serves this machine only. The address of the page holds what it shows: copy it to share a view.
    Ctrl-C ends it.
    """
    from gabactl.app.server import serve
    from gabactl.app.session import Session
    from gabactl.traces import load_trace

    run = None if trace is None else load_trace(trace)
    session = Session(run)
    view = None
    if spec.file is not None or spec.given:
        view = session.view.of_spec(spec.resolve(session.spec))
    serve(
        run,
        view,
        port,
        browser=not no_browser,
        ready=lambda address: print(f"{address}  (Ctrl-C ends it)", flush=True),
    )
    print("stopped", file=sys.stderr)
