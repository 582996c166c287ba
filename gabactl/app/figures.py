"""Bokeh figures in one look: light and dark, thinned lines, aligned axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import (
    BoxAnnotation,
    ColumnDataSource,
    CustomJSTickFormatter,
    HoverTool,
    Label,
    Legend,
    LegendItem,
    Span,
)
from bokeh.plotting import figure as bokeh_figure
from numpy.typing import ArrayLike, NDArray

from gabactl.plots import PALETTE

__all__ = ["COLOURS", "MUTED", "Board", "Line", "thin"]

#: The colours of lines: the project's palette without its black, which a dark page swallows.
COLOURS = PALETTE[:6]
MUTED = "#8a8f98"

#: More points than this are more than a screen has columns.
POINTS = 1200

_INK = {False: "#1d2329", True: "#dfe3e8"}
_GRID = {False: "#1d2329", True: "#dfe3e8"}


def thin(x: ArrayLike, y: ArrayLike, points: int = POINTS) -> tuple[NDArray[Any], NDArray[Any]]:
    """A line with no more points than can be seen: the extremes of each stretch.

    Parameters
    ----------
    x, y : arrays, shape (n,)
        The line; NaN in ``y`` is a gap.
    points : int
        Most points to keep, about.

    Examples
    --------
    >>> spike = np.zeros(100_000)
    >>> spike[54321] = 1.0
    >>> x, y = thin(np.arange(100_000), spike)
    >>> x.size <= 1202, float(y.max()), int(x[y.argmax()])
    (True, 1.0, 54321)
    """
    xs, ys = np.asarray(x), np.asarray(y, dtype=np.float64)
    if xs.size <= points:
        return xs, ys
    width = -(-xs.size // (points // 2))
    whole = xs.size // width * width
    blocks = ys[:whole].reshape(-1, width)
    start = np.arange(blocks.shape[0]) * width
    low = start + np.where(np.isnan(blocks), np.inf, blocks).argmin(axis=1)
    high = start + np.where(np.isnan(blocks), -np.inf, blocks).argmax(axis=1)
    keep = np.unique(np.concatenate([low, high, np.arange(whole, xs.size)[-1:], [xs.size - 1]]))
    return xs[keep], ys[keep]


class Line:
    """One line of a figure, whose points are replaced as a whole."""

    def __init__(self, renderer: Any, source: Any) -> None:
        self.renderer = renderer
        self.source = source

    def set(self, x: ArrayLike, y: ArrayLike) -> None:
        """Replace the points, thinned to what can be seen; the same ones are not drawn again."""
        xs, ys = thin(x, y)
        seen = self.source.data
        if not (_same(seen["x"], xs) and _same(seen["y"], ys)):
            self.source.data = {"x": xs, "y": ys}

    def clear(self) -> None:
        """Show nothing."""
        self.source.data = {"x": np.zeros(0), "y": np.zeros(0)}


def _same(a: ArrayLike, b: NDArray[Any]) -> bool:
    old = np.asarray(a)
    return old.shape == b.shape and bool(((old == b) | ((old != old) & (b != b))).all())


class Board:
    """A figure of this page.

    Parameters
    ----------
    title, x_label, y_label : str
        What it shows, and the axes with their units.
    height : int
        Pixels; the width is that of the page.
    x_range : bokeh range, optional
        Of another board, to move together.
    **options
        For ``bokeh.plotting.figure``, such as ``y_axis_type="log"``.
    """

    def __init__(
        self,
        title: str,
        x_label: str,
        y_label: str,
        height: int = 220,
        x_range: Any = None,
        **options: Any,
    ) -> None:
        if x_range is not None:
            options["x_range"] = x_range
        fig = bokeh_figure(
            title=title,
            height=height,
            sizing_mode="stretch_width",
            tools="pan,box_zoom,reset,save",
            active_drag="box_zoom",
            min_border_left=64,
            min_border_right=12,
            **options,
        )
        fig.toolbar.logo = None
        fig.toolbar.autohide = True
        fig.xaxis.axis_label = x_label
        fig.yaxis.axis_label = y_label
        self.figure = fig
        self.legend: Any = None
        self._labels: list[Any] = []
        self._painted: tuple[bool, bool, int] | None = None
        self.paint(False)

    def line(self, name: str, colour: str, dash: str = "solid", **options: Any) -> Line:
        """Add a line; ``name`` goes into the legend and the hover text, unless it is empty."""
        source = ColumnDataSource({"x": [], "y": []})
        style = {"line_width": 1.8} | options
        renderer = self.figure.line(
            "x", "y", source=source, color=colour, line_dash=dash, name=name, **style
        )
        if name:
            self.note(name, renderer)
        return Line(renderer, source)

    def dots(self, name: str, colour: str, marker: str = "circle", size: int = 9) -> Line:
        """Add points."""
        source = ColumnDataSource({"x": [], "y": []})
        renderer = self.figure.scatter(
            "x", "y", source=source, color=colour, marker=marker, size=size, line_width=2, name=name
        )
        if name:
            self.note(name, renderer)
        return Line(renderer, source)

    def note(self, name: str, renderer: Any) -> None:
        """Put something into the legend."""
        if self.legend is None:
            self.legend = Legend(
                orientation="horizontal",
                label_text_font_size="12px",
                glyph_width=22,
                padding=2,
                margin=0,
                spacing=10,
                border_line_alpha=0,
                background_fill_alpha=0,
                click_policy="hide",
            )
            self.figure.add_layout(self.legend, "below")
            self.paint(False)
        self.legend.items.append(LegendItem(label=name, renderers=[renderer]))
        # Two abreast fit a phone.
        self.legend.ncols = 2 if len(self.legend.items) > 2 else "auto"

    def hover(self, x_name: str, x_format: str = "0,0") -> None:
        """Show the values of the lines under the pointer."""
        self.figure.add_tools(
            HoverTool(
                tooltips=[(x_name, f"@x{{{x_format}}}"), ("$name", "@y{0,0.0000}")], mode="vline"
            )
        )

    def upright(self, dash: str = "solid", colour: str = MUTED, width: float = 1.4) -> Any:
        """Add a vertical line; move it with ``.location``."""
        return self._annotate(
            Span(
                location=0, dimension="height", line_color=colour, line_dash=dash, line_width=width
            )
        )

    def level(self, dash: str = "dashed", colour: str = MUTED, width: float = 1.4) -> Any:
        """Add a horizontal line; move it with ``.location``."""
        return self._annotate(
            Span(location=0, dimension="width", line_color=colour, line_dash=dash, line_width=width)
        )

    def band(self, colour: str = MUTED, alpha: float = 0.14, **edges: float) -> Any:
        """Add a shaded band; move it with its edges."""
        return self._annotate(
            BoxAnnotation(fill_color=colour, fill_alpha=alpha, line_alpha=0, **edges)
        )

    def text(self, x: float, y: float, text: str, **options: Any) -> Any:
        """Add a piece of text in screen coordinates."""
        label = Label(
            x=x,
            y=y,
            text=text,
            x_units="screen",
            y_units="screen",
            text_font_size="12px",
            **options,
        )
        self._labels.append(label)
        return self._annotate(label)

    def _annotate(self, thing: Any) -> Any:
        self.figure.add_layout(thing)
        return thing

    def paint(self, dark: bool) -> None:
        """Recolour for a dark or a light page; nothing where it already is."""
        state = (dark, self.legend is not None, len(self._labels))
        if state == self._painted:
            return
        self._painted = state
        fig, ink = self.figure, _INK[dark]
        fig.background_fill_color = fig.border_fill_color = None
        fig.outline_line_color = None
        fig.title.text_color = ink
        fig.title.text_font_size = "13.5px"
        for axis in (*fig.xaxis, *fig.yaxis):
            axis.axis_label_text_color = axis.major_label_text_color = ink
            axis.axis_label_text_font_style = "normal"
            axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
            axis.axis_line_color = axis.major_tick_line_color = MUTED
            axis.minor_tick_line_color = None
        for grid in (*fig.xgrid, *fig.ygrid):
            grid.grid_line_color, grid.grid_line_alpha = _GRID[dark], 0.12
        if self.legend is not None:
            self.legend.label_text_color = ink
            self.legend.inactive_fill_color = "#000000" if dark else "#ffffff"
        for label in self._labels:
            label.text_color = ink


def plain_powers() -> Any:
    """Tick labels 0.001 ... 10,000 instead of powers of ten."""
    return CustomJSTickFormatter(
        code="return tick >= 0.001 && tick < 1e6 ? tick.toLocaleString('en') : tick.toExponential(0)"
    )
