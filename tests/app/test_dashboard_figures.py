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


def test_a_legend_added_later_is_coloured_too() -> None:
    board = Board("title", "x", "y")
    board.paint(True)
    board.line("name", "#0072B2")
    board.paint(True)
    assert board.legend.label_text_color == board.figure.title.text_color
