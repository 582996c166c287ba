"""What every result can do: say itself in a line, print and draw itself, become JSON or a table."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gabactl.base import plots
from gabactl.base.errors import packages_for, printable
from gabactl.base.tables import format_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Result"]


class Result:
    """Base of the result objects: subclasses give ``title`` and ``rows``.

    They name in ``told`` what of them is told, or write ``facts`` where that is not enough; and
    they draw themselves on axes in ``_draw``, or write ``plot`` where that takes more.

    Examples
    --------
    >>> class Gain(Result):
    ...     title = "Gain"
    ...     def facts(self): return {"gain": 2.0, "limit": float("inf")}
    ...     def rows(self): return [("gain", "2"), ("limit", "none")]
    >>> Gain()
    Gain: gain 2
    >>> print(Gain())
    Gain
      gain   2
      limit  none
    >>> Gain().to_json(indent=None)
    '{"gain": 2.0, "limit": null}'
    """

    title: str = ""
    #: The attributes that are facts, in their order; none: every public field that is no array.
    told: tuple[str, ...] = ()

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "__repr__" not in vars(cls):  # a dataclass would write one, of every array in it
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def facts(self) -> dict[str, Any]:
        """The figures and words of the result, under the names of the attributes.

        Unless a result says otherwise: what it names in ``told``, or else its public fields,
        without the arrays. Results among them, and entries of a list, are given by their own names.
        """
        if self.told:
            return {name: _plain(getattr(self, name)) for name in self.told}
        return {
            name: _plain(value)
            for name, value in self._fields().items()
            if not isinstance(value, np.ndarray)
        }

    if not TYPE_CHECKING:  # a type checker is to know the attributes that are written down

        def __getattr__(self, name: str) -> Any:
            """A fact that is no field (a ratio in dB, a part's figure) is an attribute all the same."""
            if not name.startswith("_") and name not in self.told:
                facts = self.facts()
                if name in facts:
                    return facts[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def series(self) -> dict[str, NDArray[Any]]:
        """The arrays of the result, a row per step, frequency or whatever it runs over."""
        return {
            name: value for name, value in self._fields().items() if isinstance(value, np.ndarray)
        }

    def to_dict(self, series: bool = False) -> dict[str, Any]:
        """The result as plain values, under the names of the attributes.

        Parameters
        ----------
        series : bool
            Whether the arrays are there too, under the key ``series``, but for those that are
            among the facts.
        """
        facts = self.facts()
        if not series:
            return facts
        return {**facts, "series": {k: v for k, v in self.series().items() if k not in facts}}

    def to_pandas(self) -> Any:
        """The result as a table: a row per step, per entry, or one row in all.

        Returns
        -------
        pandas.DataFrame
            The arrays, with a column per task, where the result has arrays of one length; else a row
            per entry of the list that is in :meth:`facts`; else the facts as one row, nested keys
            with dots.

        Raises
        ------
        InputError
            pandas is not installed.
        """
        with packages_for("to_pandas"):
            import pandas as pd

        series = {name: value for name, value in self.series().items() if value.ndim in (1, 2)}
        if series and len({len(value) for value in series.values()}) == 1:
            return pd.DataFrame(_columns(series, getattr(self, "tasks", ())))
        facts = to_jsonable(self.facts())
        lists = [value for value in facts.values() if _is_table(value)]
        return pd.json_normalize(lists[0] if len(lists) == 1 else facts)

    def _fields(self) -> dict[str, Any]:
        fields: tuple[dataclasses.Field[Any], ...] = ()
        if dataclasses.is_dataclass(self):
            fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if not f.name.startswith("_")}

    def rows(self) -> Sequence[Sequence[str]]:
        """The result as table rows; the first column is a label."""
        raise NotImplementedError

    def to_json(self, indent: int | None = 2, series: bool = False) -> str:
        """Strict JSON: an infinite or undefined number becomes null.

        Parameters
        ----------
        indent : int or None
            Blanks per level; None for one line.
        series : bool
            As for :meth:`to_dict`.
        """
        return json.dumps(to_jsonable(self.to_dict(series)), indent=indent, allow_nan=False)

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
        with plots.style():
            ax = plots.axes(ax)
            self._draw(ax)
        return ax

    def _draw(self, ax: Any) -> None:
        plots.table(self.title, self.rows(), ax)

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

    def headline(self) -> str:
        """What it comes to, in one line: the verdict, or the first row of the table."""
        verdict = getattr(self, "verdict", None)
        if isinstance(verdict, str):
            return verdict
        return " ".join(next(iter(self.rows()), ()))

    def __repr__(self) -> str:
        return printable(f"{self.title}: {self.headline()}")

    def __str__(self) -> str:
        lines = [self.title, *("  " + line for line in format_table(self.rows()))]
        # Names in it come out of files: none may write elsewhere on the terminal.
        return "\n".join(printable(line) for line in lines)


def _columns(series: Mapping[str, NDArray[Any]], tasks: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Columns of a table, an array of two dimensions as one per task."""
    columns: dict[str, NDArray[Any]] = {}
    for name, value in series.items():
        if value.ndim == 1:
            columns[name] = value
            continue
        known = len(tasks) == value.shape[1]
        for i, column in enumerate(value.T):
            columns[f"{name}_{tasks[i] if known else i + 1}"] = column
    return columns


def _plain(value: Any) -> Any:
    """What has figures of its own, and a list of such, as values under their names."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, tuple) and value and all(map(_is_record, value)):
        return [_plain(one) for one in value]
    if _is_record(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, (Result, type))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


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
