"""``gabactl dashboard``: the loop in the browser."""

from __future__ import annotations

import sys

from gabactl.cli._fields import Row
from gabactl.cli._options import options
from gabactl.cli._spec import SpecOptions, spec_options


@spec_options
@options(
    port=Row("N", "Port on 127.0.0.1; 0 takes a free one."),
    no_browser=Row("", "Only print the address."),
)
def dashboard(
    trace: str | None = None, port: int = 5006, no_browser: bool = False, *, spec: SpecOptions
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
    view = session.view.of_spec(spec.resolve(session.spec)) if spec else None
    serve(
        run,
        view,
        port,
        browser=not no_browser,
        ready=lambda address: print(f"{address}  (Ctrl-C ends it)", flush=True),
    )
    print("stopped", file=sys.stderr)
