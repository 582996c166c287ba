"""The dashboard as one object: sidebar, tabs, and the plumbing between them."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.events import DocumentReady
from bokeh.models import CustomJS, Toggle

from gabactl.app.controls import Choice, Control
from gabactl.app.session import Session
from gabactl.app.state import GIVEN, TABS, View
from gabactl.app.tab import button
from gabactl.app.text import pane, paragraph
from gabactl.base.errors import InputError
from gabactl.law.floors import FLOORS
from gabactl.law.laws import LAWS
from gabactl.law.spec import labels
from gabactl.traces import Trace, bundled, load_trace

__all__ = ["dashboard"]

#: At the side of the page; above it, two abreast, on a phone.
_SIDEBAR_CSS = """
:host(.sidebar) { display: grid !important; grid-template-columns: 100%; width: 244px;
  flex: 0 0 auto; }
@media (max-width: 760px) {
  :host(.sidebar) { grid-template-columns: 1fr 1fr; width: 100%; }
}
"""
_SIDEBAR = ("beta", "floor", "warmup", "interval")
_CHOICES: dict[str, tuple[str, dict[str, str]]] = {
    "floor_mode": (
        "What the floor does",
        {label.replace("_", " "): name for label, name in labels(FLOORS).items()},
    ),
    "law": ("Law", labels(LAWS)),
    "guard": ("Guard", {"hold": "hold", "none (published)": "none"}),
    "variant": (
        "GradNorm variant",
        {"chen2018 (original)": "chen2018", "textbook": "textbook"},
    ),
    "theme": ("Page colours", {"as the system": "auto", "light": "light", "dark": "dark"}),
}

#: Milliseconds in which a widget gathers what the browser says.
_GATHER_MS = 5
#: Milliseconds of rest before the address follows the view.
_REST_MS = 300


class Dashboard(pn.viewable.Viewer):  # type: ignore[misc]
    """Sidebar, tabs and message line of one visitor.

    Parameters
    ----------
    session : Session
        What is looked at.
    **params
        For ``panel.viewable.Viewer``.
    """

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._doc: Any = pn.state.curdoc if _served() else None
        self._pending: dict[str, Any] = {}
        # An unseen field whose text the browser copies into the address.
        self._address = pn.widgets.TextInput(visible=False, css_classes=["address"])
        self._address.jscallback(
            value="history.replaceState(null, '', cb_obj.value || location.pathname)"
        )
        self._following = self._address_due = False
        # Unseen too: pressed where the system's pages are dark.
        self._system_dark = Toggle(visible=False)
        self._tabs: dict[str, Any] = {}
        self._stale: set[str] = set()
        self._of_tasks = session.trace.tasks
        self._css = (resources.files("gabactl.app") / "widget.css").read_text(encoding="utf-8")
        self._build()
        session.watch(self._changed)

    # -- what is on the page ---------------------------------------------------------------------

    def _build(self) -> None:
        names = (*_SIDEBAR, "floor_mode", "law", "guard", "theme")
        self._controls: dict[str, Any] = {name: self._control(name) for name in names}
        self._controls["source"] = Choice(
            self.session, "source", "Run", self._sources(), self.request
        )
        self._controls["theme"].panel.jscallback(
            value="document.documentElement.dataset.theme = cb_obj.value"
        )
        self._sidebar = pn.Column(
            *(self._controls[name].panel for name in ("source", *names)),
            stylesheets=[_SIDEBAR_CSS],
            css_classes=["sidebar"],
            margin=(8, 8),
        )
        self._buttons = {
            key: button(title, [f"tab-{key}"], self.request, {"tab": key}, margin=3)
            for key, (title, _) in TABS.items()
        }
        self._message = pane("", css_classes=["message"], visible=False)
        self._content = pn.Column(sizing_mode="stretch_width")
        self._layout = pn.Column(
            pn.FlexBox(*self._buttons.values(), margin=(4, 4)),
            self._message,
            pn.FlexBox(
                self._sidebar,
                pn.Column(
                    self._content,
                    styles={"flex": "999 1 560px", "min-width": "min(100%, 320px)"},
                    margin=0,
                ),
                align_items="flex-start",
            ),
            self._address,
            pn.pane.Bokeh(self._system_dark, visible=False),
            sizing_mode="stretch_width",
        )
        self._style(self._layout)
        self._changed()

    def _control(self, name: str) -> Any:
        if name in _CHOICES:
            return Choice(self.session, name, *_CHOICES[name], self.request)
        return Control(self.session, name, self.request)

    def __panel__(self) -> Any:
        return self._layout

    def _sources(self) -> dict[str, str]:
        names = {name: name for name in bundled()}
        given = self.session.given
        return ({f"yours: {given.source}": GIVEN} if given is not None else {}) | names

    def _style(self, layout: Any) -> None:
        """Give every widget below the page's style, and have it answer soon.

        Panel gathers what the browser says for 50 ms before it acts, half of what a change may
        take to be seen. The page gathers requests itself, so a few are enough.
        """
        for widget in layout.select(pn.widgets.Widget):
            widget._debounce = _GATHER_MS
            if self._css not in widget.stylesheets:
                widget.stylesheets = [*widget.stylesheets, self._css]

    # -- changes ---------------------------------------------------------------------------------

    def request(self, **changes: Any) -> None:
        """Change the view; a burst of requests (a dragged slider) is answered once.

        Parameters
        ----------
        **changes
            New values of fields of the view, as :meth:`Session.change` takes them.
        """
        if self._doc is None:
            self.session.change(**changes)
            self._push()
            return
        first = not self._pending
        self._pending |= changes
        if first:
            self._doc.add_next_tick_callback(self._flush)

    def _flush(self) -> None:
        changes, self._pending = self._pending, {}
        self.session.change(**changes)

    def _changed(self) -> None:
        session = self.session
        with pn.io.hold():
            if session.trace.tasks != self._of_tasks:
                self._of_tasks = session.trace.tasks
                self._tabs = {key: parts for key, parts in self._tabs.items() if parts[0].lasting}
            self._controls["source"].panel.options = self._sources()
            self._message.object = paragraph(session.message, "bad") if session.message else ""
            self._message.visible = bool(session.message)
            for control in self._controls.values():
                control.show()
            self._stale = set(self._tabs)
            self._open(session.view.tab)
        self._schedule_address()

    def _open(self, key: str) -> None:
        """Show a tab, built when it is needed first and drawn when something changed."""
        if key not in self._tabs:
            module = importlib.import_module(f"gabactl.app.{key}")
            tab = getattr(module, TABS[key][1])(self.session, self.request)
            controls = [self._control(name) for name in tab.controls]
            head = pn.FlexBox(
                *(
                    pn.Column(c.panel, styles={"flex": "1 1 200px", "max-width": "420px"})
                    for c in controls
                )
            )
            column = pn.Column(head, tab.view, sizing_mode="stretch_width")
            self._style(column)
            self._tabs[key] = (tab, controls, column)
            self._stale.add(key)
        tab, controls, column = self._tabs[key]
        for control in controls:
            control.show()
        if key in self._stale:
            self._stale.discard(key)
            for board in tab.boards:
                board.paint(self._dark)
            try:
                tab.update()
            except InputError as refused:
                self._message.object = paragraph(str(refused), "bad")
                self._message.visible = True
        if list(self._content) != [column]:
            self._content[:] = [column]
            for name, choice in self._buttons.items():
                choice.button_type = "primary" if name == key else "default"

    @property
    def _dark(self) -> bool:
        theme = self.session.view.theme
        return bool(self._system_dark.active) if theme == "auto" else theme == "dark"

    def _push(self) -> None:
        """In a notebook, send what was changed in the figures."""
        key = self.session.view.tab
        if key in self._tabs:
            panes = self._tabs[key][2].select(pn.pane.Bokeh)
            pn.io.push_notebook(*panes)

    # -- the address -----------------------------------------------------------------------------

    def follow(self) -> None:
        """Keep the address of the page that of the view, and its colours those of the system."""
        self._following = True
        self._system_dark.on_change("active", lambda attr, old, new: self._changed())
        self._doc.js_on_event(
            DocumentReady,
            CustomJS(
                args={"system": self._system_dark},
                code="const query = matchMedia('(prefers-color-scheme: dark)');"
                "const tell = () => { system.active = query.matches };"
                "query.addEventListener('change', tell); tell();",
            ),
        )

    def _schedule_address(self) -> None:
        if not self._following or self._address_due:
            return
        self._address_due = True
        self._doc.add_timeout_callback(self._write_address, _REST_MS)

    def _write_address(self) -> None:
        self._address_due = False
        self._address.value = self.session.to_query()


def dashboard(trace: Trace | str | Path | None = None, view: View | None = None) -> Dashboard:
    """The dashboard as a Panel object, for a notebook or an app of one's own.

    Parameters
    ----------
    trace : Trace, path or str, optional
        The run to look at: a trace, its file, or the name of a bundled one.
    view : View, optional
        What to show first.

    Returns
    -------
    Dashboard
        Shown by a notebook as it is; ``.servable()`` for ``panel serve``.

    Raises
    ------
    InputError
        The trace cannot be read, or does not fit the page.

    Examples
    --------
    >>> page = dashboard("fd001-equal")
    >>> page.session.trace.source
    'fd001-equal'
    """
    if _in_notebook():
        _load_into_notebook()
    run = trace if trace is None or isinstance(trace, Trace) else load_trace(trace)
    return Dashboard(Session(run, view))


def template(trace: Trace | None = None, view: View | None = None) -> Any:
    """The whole web page for one visitor; the address of the request decides the view.

    Parameters
    ----------
    trace : Trace, optional
        The run named at the start; by default the bundled ``fd001-gaba``.
    view : View, optional
        What an address without a query shows; by default the settings that ``trace`` was recorded
        with.

    Returns
    -------
    panel.Template
        With the page's HTML and style sheet around one :class:`Dashboard`.

    Raises
    ------
    InputError
        ``trace`` and ``view`` do not fit together.

    Examples
    --------
    In a server of one's own, beside other pages:

    >>> from panel.io.server import get_server
    >>> server = get_server({"/loop": template}, port=0, show=False, start=False)
    >>> server.stop()
    """
    session = Session(trace, view)
    session.restore(pn.state.session_args or {})
    page = Dashboard(session)
    page.follow()
    folder = resources.files("gabactl.app")
    html = pn.Template((folder / "page.html").read_text(encoding="utf-8"))
    html.add_variable("css", (folder / "page.css").read_text(encoding="utf-8"))
    html.add_panel("dashboard", page)
    return html


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@cache
def _load_into_notebook() -> None:
    """What Panel needs in the notebook's page before it can show anything, once."""
    pn.extension("filedropper")


def _served() -> bool:
    """Whether this is a visit to a server (and not a notebook or a test)."""
    doc = pn.state.curdoc
    return bool(doc is not None and doc.session_context)
