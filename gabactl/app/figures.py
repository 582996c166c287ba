"""Bokeh figures in one look: light and dark, thinned lines, aligned axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import (
    BoxAnnotation,
    CheckboxButtonGroup,
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    DataRange1d,
    HoverTool,
    InlineStyleSheet,
    LogAxis,
    Range1d,
    Span,
)
from bokeh.plotting import figure as bokeh_figure
from numpy.typing import ArrayLike, NDArray

from gabactl.base.plots import PALETTE, thin

#: The colours of lines: the project's palette without its black, which a dark page swallows.
COLOURS = PALETTE[:6]
MUTED = "#8a8f98"

_INK = {False: "#1d2329", True: "#dfe3e8"}

#: A legend is buttons of the page: one drawn into the figure is laid out again with every change.
_LEGEND_CSS = """
.bk-btn-group { display: flex; flex-wrap: wrap; gap: 0 4px; }
.bk-btn-group > .bk-btn { flex: 0 1 auto; border: none; background: none; padding: 1px 6px;
  font: 12px/1.5 var(--sans, system-ui, sans-serif); color: var(--ink, inherit); text-align: left;
  box-shadow: none; white-space: normal; opacity: 0.45; text-decoration: line-through; }
.bk-btn-group > .bk-btn.bk-active { opacity: 1; text-decoration: none; background: none;
  color: var(--ink, inherit); box-shadow: none; }
.bk-btn:focus-visible { outline: 2px solid var(--accent, #0072b2); }
.bk-btn::before { display: inline-block; vertical-align: middle; margin-right: 6px; }
"""
_LINE_SWATCH = "content: ''; width: 22px; border-top: 2px %s %s;"
_MARKER_SWATCH = "content: '%s'; color: %s; font-size: 14px; line-height: 1;"
_MARKERS = {"circle": "●", "x": "✕", "diamond": "◆"}
#: Tick labels 0.001 ... 10,000 instead of powers of ten.
_PLAIN_POWERS = """
if (!(tick >= 0.001 && tick < 1e6)) return tick.toExponential(0);
const [whole, part] = String(+tick.toPrecision(4)).split('.');
const spaced = whole.replace(/\\B(?=(\\d{3})+$)/g, ',');
return part ? spaced + '.' + part : spaced
"""
#: Shown lines and hidden ones follow the pressed buttons.
_SHOW_JS = "lines.forEach((line, i) => { line.visible = cb_obj.active.includes(i) })"


class Line:
    """One line of a figure, whose points are replaced as a whole.

    Parameters
    ----------
    renderer : bokeh.models.GlyphRenderer
        What draws it; ``.visible`` hides it.
    source : bokeh.models.ColumnDataSource
        Its points, columns "x" and "y".
    """

    def __init__(self, renderer: Any, source: Any) -> None:
        self.renderer = renderer
        self.source = source

    def set(self, x: ArrayLike, y: ArrayLike) -> None:
        """Replace the points, thinned to what can be seen; the same ones are not drawn again.

        Parameters
        ----------
        x, y : array_like, shape (n,)
            The points, in the units of the axes; NaN in ``y`` is a gap.
        """
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
    x_range : Board or bokeh range, optional
        That of another board, to move together.
    log : {"", "x", "y", "xy"}
        The logarithmic axes.
    **options
        For ``bokeh.plotting.figure``.
    """

    def __init__(
        self,
        title: str,
        x_label: str,
        y_label: str,
        height: int = 220,
        x_range: Any = None,
        log: str = "",
        **options: Any,
    ) -> None:
        # Ranges are set here: ones that follow the data are found in the browser, which then tells
        # the server of them, once more around for each change. Equal scales on both axes are
        # the exception: those the browser has to find, and keeps to itself.
        if x_range is not None:
            options["x_range"] = x_range.figure.x_range if isinstance(x_range, Board) else x_range
        options |= {f"{axis}_axis_type": "log" for axis in log}
        for name in ("x_range", "y_range"):
            found = DataRange1d(syncable=False) if options.get("match_aspect") else Range1d(0, 1)
            options.setdefault(name, found)
        fig = bokeh_figure(
            title=title,
            height=height,
            sizing_mode="stretch_width",
            tools="pan,box_zoom,reset,save",
            active_drag="box_zoom",
            min_border_left=74,
            min_border_right=12,
            **options,
        )
        for axis in (*fig.xaxis, *fig.yaxis):
            if isinstance(axis, LogAxis):
                axis.ticker.desired_num_ticks = 4
                axis.formatter = CustomJSTickFormatter(code=_PLAIN_POWERS)
        fig.toolbar.logo = None
        fig.toolbar.autohide = True
        fig.xaxis.axis_label = x_label
        fig.yaxis.axis_label = y_label
        self.figure: Any = fig
        self.legend: Any = None
        self._named: list[tuple[str, str, Any]] = []
        self._framed: dict[str, tuple[float, float]] = {}
        #: The figure and its legend.
        self.view = pn.Column(
            pn.pane.Bokeh(fig, sizing_mode="stretch_width"), sizing_mode="stretch_width", margin=0
        )
        self._painted: bool | None = None
        self.paint(False)

    def line(self, name: str, colour: str, dash: str = "solid", **options: Any) -> Line:
        """Add a line, empty at first.

        Parameters
        ----------
        name : str
            Goes into the legend and the hover text; "" keeps it out of the legend.
        colour : str
            Any colour that Bokeh knows, such as ``"#0072b2"``.
        dash : {"solid", "dashed", "dotted", "dotdash"}
            Pattern of the line.
        **options
            For ``bokeh.plotting.figure.line``; ``line_width`` is 1.8 unless given.

        Returns
        -------
        Line
            Takes the points with ``set``.
        """
        swatch = _LINE_SWATCH % (dash.replace("dotdash", "dashed"), colour)
        style = {"color": colour, "line_dash": dash, "line_width": 1.8} | options
        return self._draw(self.figure.line, name, swatch, style)

    def dots(self, name: str, colour: str, marker: str = "circle", size: int = 9) -> Line:
        """Add points, none at first.

        Parameters
        ----------
        name : str
            Goes into the legend and the hover text; "" keeps them out of the legend.
        colour : str
            Any colour that Bokeh knows.
        marker : {"circle", "x", "diamond"}
            Shape of a point.
        size : int
            Its diameter in pixels.

        Returns
        -------
        Line
            Takes the points with ``set``.
        """
        swatch = _MARKER_SWATCH % (_MARKERS[marker], colour)
        style = {"color": colour, "marker": marker, "size": size, "line_width": 2}
        return self._draw(self.figure.scatter, name, swatch, style)

    def _draw(self, draw: Any, name: str, swatch: str, style: dict[str, Any]) -> Line:
        source = ColumnDataSource({"x": [], "y": []})
        renderer = draw("x", "y", source=source, name=name, **style)
        if name:
            self._note(name, swatch, renderer)
        return Line(renderer, source)

    def _note(self, name: str, swatch: str, renderer: Any) -> None:
        """Put something into the legend."""
        self._named.append((name, swatch, renderer))
        if self.legend is None:
            self.legend = CheckboxButtonGroup(
                sizing_mode="stretch_width",
                margin=(0, 12, 4, 68),
                stylesheets=[InlineStyleSheet(css=_LEGEND_CSS), InlineStyleSheet()],
            )
            self.view.append(pn.pane.Bokeh(self.legend, sizing_mode="stretch_width"))
        legend = self.legend
        legend.labels = [name for name, _, _ in self._named]
        legend.active = list(range(len(self._named)))
        legend.stylesheets[-1].css = "".join(
            f".bk-btn:nth-child({i}):before {{ {swatch} }}\n"
            for i, (_, swatch, _) in enumerate(self._named, start=1)
        )
        lines = [renderer for _, _, renderer in self._named]
        legend.js_property_callbacks = {
            "change:active": [CustomJS(args={"lines": lines}, code=_SHOW_JS)]
        }

    def clear(self) -> None:
        """Take out all lines."""
        self.figure.renderers = []
        self._named = []

    def frame(self, axis: str, low: float, high: float) -> None:
        """Set the range of an axis; one that is framed so already keeps the reader's zoom.

        Parameters
        ----------
        axis : {"x", "y"}
            Which one.
        low, high : float
            Its ends, in the units of the axis; ``high`` not above ``low`` becomes ``low + 1``.
        """
        if high <= low:
            high = low + 1.0
        if self._framed.get(axis) == (low, high):
            return
        self._framed[axis] = (low, high)
        chosen = self.figure.x_range if axis == "x" else self.figure.y_range
        chosen.update(start=low, end=high, reset_start=low, reset_end=high)

    def frame_data(self, axis: str, *values: ArrayLike, log: bool = False) -> None:
        """Set a range that shows these values, with 6 % of their spread as room around them.

        Parameters
        ----------
        axis : {"x", "y"}
            Which one.
        *values : array_like, any shape
            Of any shape, in the units of the axis; what is not finite is left out, and nothing
            happens where nothing is left.
        log : bool
            The axis is logarithmic: values up to 0 are left out too, and the room is a factor.
        """
        seen = np.concatenate([np.ravel(np.asarray(v, dtype=np.float64)) for v in values])
        seen = seen[np.isfinite(seen) & ((seen > 0) | (not log))]
        if not seen.size:
            return
        low, high = float(seen.min()), float(seen.max())
        if log:
            low, high = math.log10(low), math.log10(high)
        room = 0.06 * (high - low) or 0.5
        low, high = low - room, high + room
        self.frame(axis, *((10.0**low, 10.0**high) if log else (low, high)))

    def hover(self, x_name: str) -> None:
        """Show the values of the lines under the pointer.

        Parameters
        ----------
        x_name : str
            What the horizontal axis counts, such as "step".
        """
        shown = [(x_name, "@x{0,0}"), ("$name", "@y{0,0.0000}")]
        self.figure.add_tools(HoverTool(tooltips=shown, mode="vline"))

    def upright(self, dash: str = "solid", colour: str = MUTED) -> Any:
        """Add a vertical line.

        Parameters
        ----------
        dash : {"solid", "dashed", "dotted", "dotdash"}
            Pattern of the line.
        colour : str
            Any colour that Bokeh knows.

        Returns
        -------
        bokeh.models.Span
            Moved with ``.location``, in the units of the x axis.
        """
        return self._span("height", dash, colour, 0.0)

    def level(self, dash: str = "dashed", colour: str = MUTED, at: float = 0.0) -> Any:
        """Add a horizontal line.

        Parameters
        ----------
        dash : {"solid", "dashed", "dotted", "dotdash"}
            Pattern of the line.
        colour : str
            Any colour that Bokeh knows.
        at : float
            Where, in the units of the y axis.

        Returns
        -------
        bokeh.models.Span
            Moved with ``.location``.
        """
        return self._span("width", dash, colour, at)

    def _span(self, dimension: str, dash: str, colour: str, at: float) -> Any:
        style = {"line_color": colour, "line_dash": dash, "line_width": 1.4}
        span = Span(location=at, dimension=dimension, level="overlay", **style)
        self.figure.add_layout(span)
        return span

    def band(self, **edges: float) -> Any:
        """Add a shaded band.

        Parameters
        ----------
        **edges : float
            ``left``, ``right``, ``bottom`` and ``top``, in the units of the axes; an edge left out is
            that of the figure.

        Returns
        -------
        bokeh.models.BoxAnnotation
            Moved with the attributes of the same names.
        """
        style = {"fill_color": MUTED, "fill_alpha": 0.14, "line_alpha": 0}
        band = BoxAnnotation(level="overlay", **style, **edges)
        self.figure.add_layout(band)
        return band

    def paint(self, dark: bool) -> None:
        """Recolour for a dark or a light page; nothing where it already is.

        Parameters
        ----------
        dark : bool
            Whether the page is dark.
        """
        if dark == self._painted:
            return
        self._painted = dark
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
            grid.grid_line_color, grid.grid_line_alpha = ink, 0.12
