"""A fuzz case: readings held for some steps, small enough to read and exact to the last bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError

__all__ = ["Case"]

#: Longest case accepted from a file.
MAX_STEPS = 1_000_000

#: What a relation between two runs needs of a case besides readings.
RELATIONS = ("permutation", "exponent", "save_after")


@dataclass(frozen=True)
class Segment:
    """One reading, held for ``repeat`` steps.

    Attributes
    ----------
    reading : tuple of K floats
        Gradient norms.
    repeat : int, at least 1
        Steps.
    losses : tuple of K floats, or None
        Task losses; None means 1 each.
    """

    reading: tuple[float, ...]
    repeat: int = 1
    losses: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Case:
    """An input of a weighting rule, with what a relation between two runs needs.

    Attributes
    ----------
    segments : tuple of Segment
        What is read, from the first step (warm-up included).
    permutation : tuple of int, or None
        For equivariance: the order in which the second run sees the tasks.
    exponent : int or None
        For scale: the second run sees readings times ``2**exponent``.
    save_after : int or None
        For checkpoint: steps after which the second run is saved and restored.

    Examples
    --------
    >>> case = Case((Segment((1.0, 0.0), 3), Segment((2.0, 2.0))))
    >>> case.readings()
    array([[1., 0.],
           [1., 0.],
           [1., 0.],
           [2., 2.]])
    >>> case.expression()
    '[[1.0, 0.0]] * 3 + [[2.0, 2.0]]'
    """

    segments: tuple[Segment, ...]
    permutation: tuple[int, ...] | None = None
    exponent: int | None = None
    save_after: int | None = None

    @property
    def n_tasks(self) -> int:
        """Number of tasks K (0 for an empty case)."""
        return len(self.segments[0].reading) if self.segments else 0

    @property
    def n_steps(self) -> int:
        """Steps, all segments together."""
        return sum(segment.repeat for segment in self.segments)

    @property
    def distinct(self) -> int:
        """How many different numbers the readings hold."""
        return len({repr(x) for segment in self.segments for x in segment.reading})

    def readings(self) -> NDArray[np.float64]:
        """Gradient norms, shape (steps, K)."""
        return self._expanded([segment.reading for segment in self.segments])

    def losses(self) -> NDArray[np.float64]:
        """Task losses, shape (steps, K)."""
        return self._expanded([s.losses or (1.0,) * len(s.reading) for s in self.segments])

    def _expanded(self, rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        table = np.array(rows, dtype=np.float64).reshape(len(rows), self.n_tasks)
        return np.repeat(table, [segment.repeat for segment in self.segments], axis=0)

    @classmethod
    def from_readings(cls, readings: ArrayLike, **relation: Any) -> Case:
        """Group equal consecutive readings.

        Parameters
        ----------
        readings : array_like, shape (steps, K)
            Gradient norms, one row a step; NaN equals NaN.
        **relation
            ``permutation``, ``exponent`` or ``save_after`` of the case.

        Examples
        --------
        >>> Case.from_readings([[1, 2], [1, 2], [3, 4]]).expression()
        '[[1.0, 2.0]] * 2 + [[3.0, 4.0]]'
        """
        rows = [tuple(float(x) for x in row) for row in np.asarray(readings, dtype=np.float64)]
        grouped = [list(group) for _, group in groupby(rows, key=repr)]
        return cls(tuple(Segment(group[0], len(group)) for group in grouped), **relation)

    def expression(self) -> str:
        """The readings as a Python expression (``nan`` and ``inf`` as names)."""
        return " + ".join(_times(s.reading, s.repeat) for s in self.segments) or "[]"

    def losses_expression(self) -> str:
        """The losses as a Python expression."""
        ones = (1.0,) * self.n_tasks
        return " + ".join(_times(s.losses or ones, s.repeat) for s in self.segments)

    @property
    def has_losses(self) -> bool:
        """Whether some losses are other than 1."""
        return any(s.losses is not None and set(s.losses) != {1.0} for s in self.segments)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN and infinities as strings.

        Examples
        --------
        >>> Case((Segment((1.0, float("nan"))),)).to_dict()["segments"]
        [{'reading': [1.0, 'nan'], 'repeat': 1}]
        """
        relation = {name: getattr(self, name) for name in RELATIONS}
        if self.permutation is not None:
            relation["permutation"] = list(self.permutation)
        segments = [
            {
                "reading": [_plain(x) for x in s.reading],
                "repeat": s.repeat,
                **({} if s.losses is None else {"losses": [_plain(x) for x in s.losses]}),
            }
            for s in self.segments
        ]
        return {"segments": segments, **{k: v for k, v in relation.items() if v is not None}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "case") -> Case:
        """Read :meth:`to_dict`'s form back.

        Parameters
        ----------
        values : mapping
            What :meth:`to_dict` gave, of 2 to 64 tasks.
        source : str
            How messages name it, such as the file.

        Raises
        ------
        InputError
            Anything that is not a case: a wrong type, a negative norm, ragged rows, over a
            million steps.

        Examples
        --------
        >>> case = Case((Segment((1.0, float("inf")), 2),), exponent=3)
        >>> Case.from_dict(case.to_dict()) == case
        True
        """
        try:
            segments = tuple(
                Segment(
                    _numbers(s["reading"], least=0.0),
                    _whole(s["repeat"], 1, MAX_STEPS),
                    None if s.get("losses") is None else _numbers(s["losses"]),
                )
                for s in values["segments"]
            )
            permutation = values.get("permutation")
            exponent, save_after = values.get("exponent"), values.get("save_after")
            case = cls(
                segments,
                None if permutation is None else tuple(_whole(i, 0, 64) for i in permutation),
                None if exponent is None else _whole(exponent, -2200, 2200),
                None if save_after is None else _whole(save_after, 0, MAX_STEPS),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{source}: not a fuzz case ({error}): delete or mend it") from None
        k = case.n_tasks
        ragged = any(
            len(s.reading) != k or (s.losses is not None and len(s.losses) != k) for s in segments
        )
        wrong_order = permutation is not None and sorted(case.permutation or ()) != list(range(k))
        if k < 2 or ragged or wrong_order or case.n_steps > MAX_STEPS:
            raise InputError(
                f"{source}: not a fuzz case (rows of different lengths, fewer than 2 tasks, "
                f"or over {MAX_STEPS} steps): delete or mend it"
            )
        return case


def _times(row: Sequence[float], repeat: int) -> str:
    text = "[[" + ", ".join(repr(x) for x in row) + "]]"
    return text if repeat == 1 else f"{text} * {repeat}"


def _plain(x: float) -> float | str:
    return x if math.isfinite(x) else repr(x)


def _numbers(values: Any, least: float = -math.inf) -> tuple[float, ...]:
    if not isinstance(values, list) or not 2 <= len(values) <= 64:
        raise ValueError("a reading is a list of 2 to 64 numbers")
    for x in values:
        if isinstance(x, bool) or (isinstance(x, str) and x not in ("nan", "inf", "-inf")):
            raise ValueError(f"{x!r} is not a number")
    out = tuple(float(x) for x in values)
    if any(x < least for x in out):
        raise ValueError("a gradient norm is negative")
    return out


def _whole(value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{value!r} is not a whole number in [{least}, {most}]")
    return value
