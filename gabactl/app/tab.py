"""What the tabs have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import panel as pn

from gabactl.app.figures import Board
from gabactl.app.session import Session
from gabactl.app.text import pane


class Tab:
    """A tab of the page: a note, figures one below another, and a table, unless it says otherwise.

    Parameters
    ----------
    session : Session
        What is looked at.
    request : function, optional
        Called with the fields of the view that a widget of the tab changes; default: changes them.
    """

    #: Fields of the view with a slider or a choice above the tab.
    controls: tuple[str, ...] = ()
    #: Kept when a run with other tasks is looked at.
    lasting = False

    def __init__(self, session: Session, request: Callable[..., Any] | None = None) -> None:
        self.session = session
        self.request = request or session.change
        self.boards: list[Board] = []
        self.note, self.readout = pane(), pane()
        parts = self.build() or (self.note, *self.figures(), self.readout)
        self.view = pn.Column(*parts, sizing_mode="stretch_width")

    def build(self) -> tuple[Any, ...] | None:
        """Make the boards and widgets; return what the tab shows, where that is not the usual."""
        raise NotImplementedError

    def update(self) -> None:
        """Show the session as it is."""
        raise NotImplementedError

    def board(self, title: str, x_label: str, y_label: str, **options: Any) -> Board:
        """A figure of this tab, as :class:`Board` takes it."""
        self.boards.append(Board(title, x_label, y_label, **options))
        return self.boards[-1]

    def figures(self) -> list[Any]:
        """The boards, as a layout takes them."""
        return [board.view for board in self.boards]


def button(
    name: str,
    css: list[str],
    pressed: Callable[..., Any],
    given: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A button that calls a function: with what is given, or else with the event."""
    made = pn.widgets.Button(name=name, css_classes=css, **options)
    made.on_click(pressed if given is None else lambda _: pressed(**given))
    return made
