"""Axes and figures that show themselves in a notebook; apart, because they load Matplotlib."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Picture(Figure):  # type: ignore[misc]
    """A figure that a notebook draws, without pyplot and its list of open figures.

    Examples
    --------
    >>> Picture(figsize=(1.0, 1.0))._repr_png_()[1:4]
    b'PNG'
    """

    def _repr_png_(self) -> bytes:
        sink = io.BytesIO()
        self.savefig(sink, format="png", dpi=100)
        return sink.getvalue()


class PictureAxes(Axes):  # type: ignore[misc]
    """Axes that a notebook draws, with the whole figure they are on.

    Examples
    --------
    >>> ax = Picture(figsize=(1.0, 1.0)).subplots(subplot_kw={"axes_class": PictureAxes})
    >>> ax._repr_png_()[1:4]
    b'PNG'
    """

    def _repr_png_(self) -> bytes | None:
        figure = self.get_figure()
        return figure._repr_png_() if isinstance(figure, Picture) else None


class Panels(tuple[Any, ...]):
    """Axes one below another, drawn as one.

    Examples
    --------
    >>> Panels(Picture().subplots(2))._repr_png_()[1:4]
    b'PNG'
    """

    def _repr_png_(self) -> bytes | None:
        figure = self[0].get_figure()
        return figure._repr_png_() if isinstance(figure, Picture) else None
