"""The look of the pictures: one palette, one style, one way to save."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gabactl.errors import InputError

__all__ = ["PALETTE", "axes", "save", "style"]

#: Colour-blind safe (Okabe and Ito, "Color Universal Design", 2008), in order of use.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")

_FORMATS = (".png", ".svg", ".pdf")


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib settings of this project, for the length of a ``with`` block.

    Examples
    --------
    >>> with style():
    ...     ax = axes(None)
    """
    import matplotlib as mpl
    from cycler import cycler

    settings = {
        "axes.prop_cycle": cycler(color=PALETTE),
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
    with mpl.rc_context(settings):
        yield


def axes(ax: Any | None) -> Any:
    """The given axes, or new ones on a figure that needs no display.

    Parameters
    ----------
    ax : matplotlib.axes.Axes or None
        Axes to draw on.

    Examples
    --------
    >>> axes(None).figure.get_size_inches().tolist()
    [7.0, 4.0]
    """
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(7.0, 4.0), layout="constrained").subplots()


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
    gabactl.errors.InputError: plot.bmp: pictures are written as .png, .svg or .pdf: choose one of these endings
    """
    file = Path(path)
    if file.suffix.lower() not in _FORMATS:
        raise InputError(
            f"{file}: pictures are written as .png, .svg or .pdf: choose one of these endings"
        )
    try:
        figure.savefig(
            file, dpi=150, metadata={"Date": None} if file.suffix.lower() == ".svg" else None
        )
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}): choose another place"
        ) from None
    return file
