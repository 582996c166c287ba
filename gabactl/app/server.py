"""Serving the dashboard on this machine, to this machine only."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import panel as pn
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import RequestHandler

from gabactl.app.page import template
from gabactl.app.state import View
from gabactl.base.errors import InputError
from gabactl.traces import Trace

ADDRESS = "127.0.0.1"
DEFAULT_PORT = 5006

#: Names under which a browser on this machine reaches the page.
_HOSTS = (ADDRESS, "localhost")
#: Largest message of the websocket. Uploads arrive in smaller pieces.
_MAX_MESSAGE = 16 << 20


def make_server(trace: Trace | None = None, view: View | None = None, port: int = 0) -> Any:
    """A server of the dashboard, bound but not started.

    Parameters
    ----------
    trace : Trace, optional
        The run to look at; by default the bundled ``fd001-gaba``.
    view : View, optional
        What to show first.
    port : int
        From 0 to 65535; 0 takes a free one.

    Returns
    -------
    panel.io.server.Server
        With ``.port``, ``.start()``, ``.stop()`` and ``.io_loop``.

    Raises
    ------
    InputError
        The port is taken, not allowed, or no port.

    Notes
    -----
    Any page that a browser shows can send requests to this machine; it cannot choose the Host and
    Origin headers it sends. Requests with others than our own are refused before anything else.

    Examples
    --------
    >>> server = make_server(port=0)
    >>> 0 < server.port < 65536
    True
    >>> server.stop()
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port = {port} is not in 0..65535: choose another with --port")
    pn.extension("filedropper")
    hosts: list[str] = []
    try:
        server = pn.io.server.get_server(
            {"/": lambda: template(trace, view)},
            port=port,
            address=ADDRESS,
            title="gabactl dashboard",
            websocket_origin=["127.0.0.1:0"],
            show=False,
            start=False,
            websocket_max_message_size=_MAX_MESSAGE,
            keep_alive_milliseconds=10_000,
            # A dashboard of one user; a page that was left frees its memory soon.
            unused_session_lifetime_milliseconds=60_000,
            check_unused_sessions_milliseconds=15_000,
        )
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            what = "in use" if error.errno == errno.EADDRINUSE else "not allowed to you"
            raise InputError(
                f"port {port} is {what}: choose another with --port, or --port 0 for a free one"
            ) from None
        raise
    hosts += [f"{name}:{server.port}" for name in _HOSTS]
    application = server._tornado
    application.websocket_origins.clear()
    application.websocket_origins.update(hosts)
    router = application.default_router
    router.rules.insert(0, router.process_rule(Rule(_Foreign(frozenset(hosts)), _Refused)))
    return server


class _Foreign(Matcher):
    """Requests that did not come from a page of ours, by their Host and Origin."""

    def __init__(self, hosts: frozenset[str]) -> None:
        self._hosts = hosts

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        ours = request.host.lower() in self._hosts and len(request.headers.get_list("Host")) == 1
        for origin in request.headers.get_list("Origin"):
            try:
                parts = urlsplit(origin)
            except ValueError:  # brackets around what is no address
                return {}
            ours = ours and parts.scheme == "http" and parts.netloc.lower() in self._hosts
        return None if ours else {}


class _Refused(RequestHandler):
    """403, whatever was asked."""

    def check_xsrf_cookie(self) -> None:
        """Nothing is done here that could be forged."""

    def prepare(self) -> None:
        """Answer before any method is looked at."""
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("refused: open the address that gabactl dashboard printed\n")


def serve(
    trace: Trace | None = None,
    view: View | None = None,
    port: int = DEFAULT_PORT,
    browser: bool = True,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the dashboard until interrupted (Ctrl-C or SIGTERM).

    Parameters
    ----------
    trace : Trace, optional
        The run to look at; by default the bundled ``fd001-gaba``.
    view : View, optional
        What to show first.
    port : int
        From 0 to 65535; 0 takes a free one.
    browser : bool
        Whether to open a browser window.
    ready : function of a str, optional
        Told the address once it answers.

    Raises
    ------
    InputError
        The port is taken, not allowed, or no port.

    Examples
    --------
    Say where it is, and stop as Ctrl-C would:

    >>> import signal
    >>> def ready(address):
    ...     print(address.rpartition(":")[0])
    ...     signal.raise_signal(signal.SIGINT)
    >>> serve(port=0, browser=False, ready=ready)
    http://127.0.0.1
    """
    server = make_server(trace, view, port)
    address = f"http://{ADDRESS}:{server.port}/"

    def stop(*_: Any) -> None:
        server.io_loop.asyncio_loop.call_soon_threadsafe(server.io_loop.stop)

    # Before the address is told: whoever reads it may stop the server at once.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.start()
        if ready is not None:
            ready(address)
        if browser:
            import webbrowser

            server.io_loop.add_callback(webbrowser.open, address)
        server.io_loop.start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.stop(wait=False)
