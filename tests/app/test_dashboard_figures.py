"""Lines and colours of the page: drawn again when they change, and only then."""

from __future__ import annotations

import numpy as np

from gabactl.app.figures import Board


def test_a_line_is_replaced_when_a_point_changes_and_not_before() -> None:
    line = Board("title", "x", "y").line("name", "#0072B2")
    steps = np.arange(4.0)
    line.set(steps, [1.0, np.nan, 3.0, 4.0])
    drawn = line.source.data
    line.set(steps, [1.0, np.nan, 3.0, 4.0])
    assert line.source.data is drawn
    line.set(steps, [1.0, np.nan, 3.0, 5.0])
    assert line.source.data["y"][-1] == 5.0
    line.set(steps + 1.0, [1.0, np.nan, 3.0, 5.0])
    assert line.source.data["x"][0] == 1.0
    line.set(steps, [1.0, 2.0, 3.0, 5.0])
    assert line.source.data["y"][1] == 2.0
    line.clear()
    assert len(line.source.data["x"]) == 0


def test_a_page_that_turns_dark_and_back_is_recoloured() -> None:
    board = Board("title", "x", "y")
    light = board.figure.title.text_color
    board.paint(True)
    dark = board.figure.title.text_color
    assert dark != light
    board.paint(False)
    assert board.figure.title.text_color == light


def test_the_legend_names_every_line_in_its_colour_and_hides_it() -> None:
    board = Board("title", "x", "y")
    first = board.line("first", "#0072B2")
    board.line("", "#123456")
    board.dots("second", "#D55E00", "x")
    assert board.legend.labels == ["first", "second"]
    assert board.legend.active == [0, 1]
    css = board.legend.stylesheets[-1].css
    assert "nth-child(1):before { content: ''; width: 22px; border-top: 2px solid #0072B2;" in css
    assert "content: '✕'; color: #D55E00" in css
    assert "#123456" not in css
    (hide,) = board.legend.js_property_callbacks["change:active"]
    assert hide.args["lines"][0] is first.renderer
    board.clear()
    board.line("third", "#0072B2")
    assert board.legend.labels == ["third"]


def test_a_frame_is_set_when_it_changes_and_leaves_a_zoom_alone() -> None:
    board = Board("title", "x", "y")
    board.frame("x", 1, 100)
    board.figure.x_range.start = 50  # the reader's zoom, as the browser tells it
    board.frame("x", 1, 100)
    assert board.figure.x_range.start == 50
    board.frame("x", 1, 200)
    assert (board.figure.x_range.start, board.figure.x_range.end) == (1, 200)
    board.frame("x", 7, 7)
    assert board.figure.x_range.end > board.figure.x_range.start


def test_a_frame_shows_all_that_is_finite() -> None:
    board = Board("title", "x", "y")
    board.frame_data("y", [0.0, np.nan, 10.0], [np.inf, 100.0], log=True)
    assert 5.0 < board.figure.y_range.start < 10.0
    assert 100.0 < board.figure.y_range.end < 200.0
    board.frame_data("y", [np.nan])
    assert 100.0 < board.figure.y_range.end < 200.0
    board.frame_data("y", [3.0])
    assert (board.figure.y_range.start, board.figure.y_range.end) == (2.5, 3.5)
