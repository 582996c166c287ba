"""The look of the pictures: one palette, one style, one way to save."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError, packages_for
from gabactl.base.files import whole_file
from gabactl.base.tables import format_table

__all__ = ["panels", "save", "style"]

#: Colour-blind safe (Okabe and Ito, "Color Universal Design", 2008), in order of use.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")

#: What a dark page looks like, and writing on it.
_PAPER, _INK, _DIM = "#14181d", "#e6edf3", "#9aa5b1"
_DARK = {
    "figure.facecolor": _PAPER,
    "axes.facecolor": _PAPER,
    "savefig.facecolor": _PAPER,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.edgecolor": _DIM,
    "xtick.color": _DIM,
    "ytick.color": _DIM,
    "grid.color": _DIM,
    "lines.color": _INK,
    "patch.edgecolor": _INK,
}
#: The outermost choice holds for the pictures drawn within it.
_is_dark: ContextVar[bool] = ContextVar("dark", default=False)

_FORMATS = (".png", ".svg", ".pdf")
_LINES, _WIDTH = 40, 110
#: More points than this are more than a screen has columns.
_POINTS = 1200


@contextmanager
def style(dark: bool | None = None) -> Iterator[None]:
    """Matplotlib settings of this project, for the length of a ``with`` block.

    Parameters
    ----------
    dark : bool, optional
        For a dark page. Default: as in the block around this one, else light; so that
        ``with style(dark=True): result.plot()`` is dark throughout.

    Examples
    --------
    >>> with style(dark=True):
    ...     ax = axes(None)
    >>> ax.get_facecolor() == ax.figure.get_facecolor()
    True
    """
    with packages_for("a picture"):
        import matplotlib as mpl
        from cycler import cycler

    night = _is_dark.get() if dark is None else dark
    palette = (*PALETTE[:-1], _INK) if night else PALETTE
    settings = {
        "axes.prop_cycle": cycler(color=palette),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "gabactl",
        "figure.constrained_layout.use": True,
    }
    if night:
        settings |= _DARK
    elif dark is False:
        settings |= {key: mpl.rcParamsDefault[key] for key in _DARK}
    before = _is_dark.set(night)
    try:
        with mpl.rc_context(settings):
            yield
    finally:
        _is_dark.reset(before)


def axes(ax: Any | None) -> Any:
    """The given axes, or new ones on a figure that needs no display.

    Parameters
    ----------
    ax : matplotlib.axes.Axes or None
        Axes to draw on.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> axes(None).get_figure().get_size_inches().tolist()
    [7.0, 4.0]
    """
    return panels(1)[0] if ax is None else ax


def panels(n: int, height: float = 4.0) -> Any:
    """Axes one below another over the same steps or frequencies, on a figure of their own.

    A notebook draws what this returns, and each of the axes, with no pyplot and no magic.

    Parameters
    ----------
    n : int, at least 1
        How many.
    height : float
        Of the figure, in inches.

    Returns
    -------
    tuple of n matplotlib.axes.Axes

    Examples
    --------
    >>> len(panels(2)), panels(2)._repr_png_()[1:4]
    (2, b'PNG')
    """
    with packages_for("a picture"):
        from gabactl.base._picture import Panels, Picture, PictureAxes

    figure = Picture(figsize=(7.0, height), layout="constrained")
    kind = {"axes_class": PictureAxes}
    return Panels(figure.subplots(n, sharex=True, squeeze=False, subplot_kw=kind)[:, 0])


def thin(x: ArrayLike, y: ArrayLike, points: int = _POINTS) -> tuple[NDArray[Any], NDArray[Any]]:
    """A line with no more points than can be seen: its ends and the extremes of each stretch.

    Parameters
    ----------
    x, y : arrays, shape (n,)
        The line; NaN in ``y`` is a gap.
    points : int, at least 2
        Most points to keep, about.

    Returns
    -------
    tuple of two arrays
        The points that are kept, in their order; the line itself where it has no more.

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
    padded = np.full(-(-xs.size // width) * width, np.nan)
    padded[: xs.size] = ys
    blocks = padded.reshape(-1, width)
    start = np.arange(blocks.shape[0]) * width
    low = start + np.where(np.isnan(blocks), np.inf, blocks).argmin(axis=1)
    high = start + np.where(np.isnan(blocks), -np.inf, blocks).argmax(axis=1)
    keep = np.unique(np.concatenate([[0], low, high, [xs.size - 1]]))
    return xs[keep], ys[keep]


def table(title: str, rows: Sequence[Sequence[str]], ax: Any | None = None) -> Any:
    """Rows of text as a picture, for results that are words and figures.

    Parameters
    ----------
    title : str
        Above it.
    rows : sequence of sequences of str
        As :func:`gabactl.base.tables.format_table` takes them; the first 40 are drawn.
    ax : matplotlib.axes.Axes or None
        Axes to draw on.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> table("Gain", [("gain", "2")]).get_title(loc="left")
    'Gain'
    """

    lines = format_table(rows)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"... and {len(lines) - _LINES + 1} more"]
    lines = [line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..." for line in lines]
    with style():
        ax = axes(ax)
        ax.set_axis_off()
        ax.set_title(title if len(title) < _WIDTH else title[: _WIDTH - 3] + "...", loc="left")
        width, height = (
            ax.get_window_extent().width * 72 / ax.figure.dpi,
            ax.get_window_extent().height * 72 / ax.figure.dpi,
        )
        longest = max((len(line) for line in lines), default=1)
        # A character of a monospaced font is 0.6 of its size wide, and a line 1.2 high.
        size = min(10.0, width / (0.62 * longest), height / (1.3 * max(len(lines), 1)))
        ax.text(
            *(0.0, 1.0, "\n".join(lines).replace("$", r"\$")),
            va="top",
            family="monospace",
            size=max(size, 3.0),
            transform=ax.transAxes,
        )
    return ax


def unit_circle(poles: Any, title: str, ax: Any | None = None) -> Any:
    """Poles in the complex plane: stable inside the circle.

    Parameters
    ----------
    poles : array of complex, shape (n,)
        Per reading.
    title : str
        Above it.
    ax : matplotlib.axes.Axes or None
        Axes to draw on.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> unit_circle([0.5], "one pole").get_xlabel()
    'real part'
    """
    import numpy as np

    with style():
        ax = axes(ax)
        turn = np.linspace(0.0, 2 * np.pi, 400)
        ax.plot(np.cos(turn), np.sin(turn), color="0.5", lw=0.8, label="unit circle")
        values = np.atleast_1d(np.asarray(poles, dtype=complex))
        ax.plot(values.real, values.imag, "x", ms=8, mew=2, color=PALETTE[1], label="poles")
        ax.set_aspect("equal", adjustable="datalim")
        ax.set(xlabel="real part", ylabel="imaginary part", title=title)
        ax.legend(loc="upper right")
    return ax


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure as PNG, SVG or PDF, by the file's ending.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    path : path
        Where; the folder must exist.

    Raises
    ------
    InputError
        Another ending, or a place that cannot be written.

    Examples
    --------
    >>> save(axes(None).figure, "plot.bmp")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: plot.bmp: pictures are written as .png, .svg or .pdf: choose one of these endings
    """
    file = Path(path)
    if file.suffix.lower() not in _FORMATS:
        raise InputError(
            f"{file}: pictures are written as .png, .svg or .pdf: choose one of these endings"
        )
    try:
        kind = file.suffix.lower()
        with whole_file(file) as sink:
            figure.savefig(
                sink, format=kind[1:], dpi=150, metadata={"Date": None} if kind == ".svg" else None
            )
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}): choose another place"
        ) from None
    return file
