"""Exact quantiles of a series too long to hold, seen several times in the same order.

The bits of a number >= 0, read as a whole number, are in the order of the numbers. A pass counts
how many have which leading bits; the next one looks only at those that share the leading bits of
the number that is sought, and holds them where they are few enough. Nothing is rounded: the answer
is the one that sorting would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError

__all__ = ["HELD", "PassingQuantiles"]

Array = NDArray[np.float64]

#: Values held at once before they are counted instead: 8 MiB.
HELD = 1 << 20
#: Bits told apart in one pass: three passes see all 63 of a number >= 0.
_BITS = 21


class PassingQuantiles:
    """Quantiles of numbers >= 0 (infinity and NaN included), in bounded memory.

    Call :meth:`add` with every piece of the series, then :meth:`end_pass`; while that says True,
    pass the same series again. Three passes are the most; a series of at most ``held`` values takes
    one. NaN anywhere makes every quantile NaN, as in NumPy.

    Parameters
    ----------
    percents : sequence of float in [0, 100]
        What is sought, as in ``numpy.percentile`` (linear between neighbours).
    held : int or None
        Values held at once; None holds all, and one pass is enough.

    Examples
    --------
    >>> series = np.random.default_rng(0).lognormal(size=(100, 50))
    >>> found = PassingQuantiles([50.0, 95.0], held=100)
    >>> passes = 1
    >>> while [found.add(piece) for piece in series] and found.end_pass():
    ...     passes += 1
    >>> passes, bool(found.percentile(95.0) == np.percentile(series, 95))
    (2, True)
    """

    def __init__(self, percents: Sequence[float], held: int | None = HELD) -> None:
        self.count = 0
        self._percents = tuple(percents)
        self._held = held
        self._nan = False
        self._kept: list[Array] = []
        self._kept_count = 0
        self._first = True
        self._seen = 0
        # Where the sought ranks lie: leading bits, shifted to the right, -> numbers before it, the
        # counts by the next bits or the values themselves.
        self._shift = 63
        self._counts: dict[int, NDArray[np.int64]] = {}
        self._collected: dict[int, list[Array]] = {}
        self._before: dict[int, int] = {0: 0}
        self._known: dict[int, float] = {}

    def add(self, values: Array) -> None:
        """Take the next piece.

        Parameters
        ----------
        values : array of float64, shape (n,)
            Numbers >= 0.

        Raises
        ------
        InputError
            A negative number.
        """
        values = np.asarray(values, dtype=np.float64).reshape(-1)
        if (values < 0.0).any():
            raise InputError(f"{values.min()} is below 0: give numbers >= 0")
        if np.isnan(values).any():
            self._nan = True
        self._seen += values.size
        if self._nan:
            return
        if not self._first:
            self._look(values + 0.0)
            return
        if self._counts:
            self._count(values + 0.0, 0)
            return
        self._kept.append(values.copy())
        self._kept_count += values.size
        if self._held is not None and self._kept_count > self._held:
            for piece in self._kept:
                self._count(piece + 0.0, 0)  # -0.0 becomes 0.0: its bits come last otherwise
            self._kept = []

    def end_pass(self) -> bool:
        """Say that the series has ended; True if it has to be passed once more.

        Raises
        ------
        InputError
            The series had another length in this pass than in the first.
        """
        seen, self._seen = self._seen, 0
        if self._first:
            self.count = seen
        elif seen != self.count:
            raise InputError(
                f"{seen} values where there were {self.count} before: the series changed while it "
                "was read; run again when nothing writes to it"
            )
        if self._nan or self.count == 0 or not (self._counts or self._collected):
            return False
        self._first = False
        ranks = self._ranks()
        for prefix, parts in self._collected.items():
            ordered = np.sort(np.concatenate(parts))
            before = self._before[prefix]
            for rank in ranks:
                if before <= rank < before + ordered.size:
                    self._known[rank] = float(ordered[rank - before])
        counts, before_of = self._counts, self._before
        self._counts, self._collected, self._before = {}, {}, {}
        self._shift -= _BITS
        for prefix, found in counts.items():
            until = before_of[prefix] + np.cumsum(found)
            for rank in ranks:
                if not before_of[prefix] <= rank < until[-1]:
                    continue
                digit = int(np.searchsorted(until, rank, side="right"))
                below = (prefix << _BITS) + digit
                if self._shift == 0:
                    self._known[rank] = float(np.array([below]).view(np.float64)[0])
                    continue
                self._before[below] = int(until[digit] - found[digit])
                if found[digit] <= (self._held or 0):
                    self._collected[below] = []
                else:
                    self._counts[below] = np.zeros(1 << _BITS, dtype=np.int64)
        return bool(self._counts or self._collected)

    def percentile(self, percent: float) -> float:
        """As ``numpy.percentile`` of the whole series; NaN of an empty one.

        Parameters
        ----------
        percent : float
            One of ``percents``.
        """
        if self._nan or self.count == 0:
            return math.nan
        if self._kept:
            return float(np.percentile(np.concatenate(self._kept), percent))
        # numpy's own arithmetic, between the two neighbours alone.
        place = (self.count - 1) * (percent / 100)
        low = math.floor(place)
        high = min(low + 1, self.count - 1)
        return float(np.quantile([self._known[low], self._known[high]], place - low))

    @property
    def median(self) -> float:
        """As ``numpy.median`` of the whole series (the percents must hold 50)."""
        if self._nan or self.count == 0:
            return math.nan
        if self._kept:
            return float(np.median(np.concatenate(self._kept)))
        half = self.count // 2
        pair = [self._known[half]] if self.count % 2 else [self._known[half - 1], self._known[half]]
        return float(np.median(pair))

    def _ranks(self) -> set[int]:
        found = set()
        for percent in self._percents:
            low = math.floor((self.count - 1) * (percent / 100))
            found |= {low, min(low + 1, self.count - 1)}
            if percent == 50:
                found |= {max(self.count // 2 - 1, 0), self.count // 2}
        return found

    def _count(self, values: Array, prefix: int) -> None:
        shift = self._shift - _BITS
        digits = (values.view(np.int64) >> shift) & ((1 << _BITS) - 1)
        counts = self._counts.setdefault(prefix, np.zeros(1 << _BITS, dtype=np.int64))
        np.add.at(counts, digits, 1)

    def _look(self, values: Array) -> None:
        leading = values.view(np.int64) >> self._shift
        for prefix in (*self._counts, *self._collected):
            inside = values[leading == prefix]
            if not inside.size:
                continue
            if prefix in self._collected:
                self._collected[prefix].append(inside)
            else:
                self._count(inside, prefix)
