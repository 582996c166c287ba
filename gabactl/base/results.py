"""What every result can do: print itself as a table, and become strict JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from gabactl.base import plots
from gabactl.base.errors import printable
from gabactl.base.tables import format_table

__all__ = ["Result", "to_jsonable"]


class Result:
    """Base of the result objects: subclasses give ``title``, ``to_dict`` and ``rows``.

    Examples
    --------
    >>> class Gain(Result):
    ...     title = "Gain"
    ...     def to_dict(self): return {"gain": 2.0, "limit": float("inf")}
    ...     def rows(self): return [("gain", "2"), ("limit", "none")]
    >>> print(Gain())
    Gain
      gain   2
      limit  none
    >>> Gain().to_json(indent=None)
    '{"gain": 2.0, "limit": null}'
    """

    title: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, under documented keys."""
        raise NotImplementedError

    def rows(self) -> Sequence[Sequence[str]]:
        """The result as table rows; the first column is a label."""
        raise NotImplementedError

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON: an infinite or undefined number becomes null.

        Parameters
        ----------
        indent : int or None
            Blanks per level; None for one line.
        """
        return json.dumps(to_jsonable(self.to_dict()), indent=indent, allow_nan=False)

    def plot(self, ax: Any | None = None) -> Any:
        """Draw it; a result without a picture of its own draws its table.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; default: new ones.

        Returns
        -------
        matplotlib.axes.Axes
        """
        return plots.table(self.title, self.rows(), ax)

    def _repr_html_(self) -> str:
        """The table of a notebook; as text, where a result prints itself in its own way."""
        if type(self).__str__ is not Result.__str__:
            return f"<pre>{escape(str(self))}</pre>"
        lines = [
            f'<tr><th scope="row" style="text-align:left">{escape(row[0])}</th>'
            + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row[1:])
            + "</tr>"
            for row in self.rows()
        ]
        caption = (
            f'<caption style="text-align:left;font-weight:bold">{escape(self.title)}</caption>'
        )
        return f"<table>{caption}{''.join(lines)}</table>"

    def __str__(self) -> str:
        lines = [self.title, *("  " + line for line in format_table(self.rows()))]
        # Names in it come out of files: none may write elsewhere on the terminal.
        return "\n".join(printable(line) for line in lines)


def to_jsonable(value: Any) -> Any:
    """Plain JSON values: NumPy scalars and arrays, dataclasses, fractions, paths; inf and NaN to None.

    Parameters
    ----------
    value : object
        What to convert, containers included.

    Returns
    -------
    dict, list, str, float, int, bool or None
        What ``json.dumps`` takes with ``allow_nan=False``.

    Examples
    --------
    >>> to_jsonable({"a": np.float32(0.5), "b": np.array([1.0, np.nan]), "c": Fraction(1, 3)})
    {'a': 0.5, 'b': [1.0, None], 'c': '1/3'}
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Result):
        return to_jsonable(value.to_dict())
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, np.generic):
        return to_jsonable(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, complex):
        return {"re": to_jsonable(value.real), "im": to_jsonable(value.imag)}
    if isinstance(value, (Fraction, Path)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [to_jsonable(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form here")
