"""Exact quantiles of a series too long to hold, seen several times in the same order.

The bits of a number >= 0, read as a whole number, are in the order of the numbers. A pass counts
how many have which leading bits; the next one looks only at those that share the leading bits of
the number that is sought, and holds them where they are few enough. Nothing is rounded: the answer
is the one that sorting would give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError

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
        self._nan = False
        self._first = True
        self.seen = 0
        self._held = math.inf if held is None else held
        self._bins = [_Bin(self._held)]
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
        self._nan = self._nan or bool(np.isnan(values).any())
        self.seen += values.size
        if not self._nan:
            for part in self._bins:
                part.add(values + 0.0)  # -0.0 becomes 0.0: its bits come last otherwise

    def end_pass(self) -> bool:
        """Say that the series has ended; True if it has to be passed once more.

        Raises
        ------
        InputError
            The series had another length in this pass than in the first.
        """
        seen, self.seen = self.seen, 0
        if self._first:
            self.count, self._first = seen, False
        elif seen != self.count:
            raise InputError(
                f"{seen} values where there were {self.count} before: the series changed while it "
                "was read; run again when nothing writes to it"
            )
        if self._nan or seen == 0:
            return False
        ranks = self._ranks()
        self._bins = [smaller for part in self._bins for smaller in part.end(ranks, self._known)]
        return bool(self._bins)

    def percentile(self, percent: float) -> float:
        """As ``numpy.percentile`` of the whole series; NaN of an empty one.

        Parameters
        ----------
        percent : float
            One of ``percents``.
        """
        if self._nan or self.count == 0:
            return math.nan
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
        return float(np.median([self._known[rank] for rank in self._middle()]))

    def _middle(self) -> set[int]:
        return {(self.count - 1) // 2, self.count // 2}

    def _ranks(self) -> set[int]:
        low = {math.floor((self.count - 1) * (percent / 100)) for percent in self._percents}
        high = {min(rank + 1, self.count - 1) for rank in low}
        return low | high | self._middle()


class _Bin:
    """The numbers that share some leading bits: held while they are few, counted beyond.

    ``before`` numbers of the series are smaller; ``prefix`` is their bits without the last
    ``shift``.
    """

    def __init__(self, held: float, prefix: int = 0, shift: int = 63, before: int = 0) -> None:
        self._held, self._prefix, self._shift, self._before = held, prefix, shift, before
        self._kept: list[Array] = []
        self._size = 0
        self._counts: NDArray[np.int64] | None = None

    def add(self, values: Array) -> None:
        inside = values[values.view(np.int64) >> self._shift == self._prefix]
        if self._counts is not None:
            self._count(inside)
            return
        self._kept.append(inside)
        self._size += inside.size
        if self._size > self._held:
            self._counts = np.zeros(1 << _BITS, dtype=np.int64)
            for part in self._kept:
                self._count(part)
            self._kept = []

    def _count(self, values: Array) -> None:
        digits = (values.view(np.int64) >> (self._shift - _BITS)) & ((1 << _BITS) - 1)
        assert self._counts is not None
        np.add.at(self._counts, digits, 1)

    def end(self, ranks: set[int], known: dict[int, float]) -> Iterator[_Bin]:
        """Make known the numbers of these ranks, or look on among fewer."""
        if self._counts is None:
            ordered = np.sort(np.concatenate(self._kept))
            last = self._before + ordered.size
            inside = [rank for rank in ranks if self._before <= rank < last]
            known.update({rank: float(ordered[rank - self._before]) for rank in inside})
            return
        until = self._before + np.cumsum(self._counts)
        inside = [rank for rank in ranks if self._before <= rank < until[-1]]
        shift = self._shift - _BITS
        for digit in {int(np.searchsorted(until, rank, side="right")) for rank in inside}:
            prefix, before = (
                (self._prefix << _BITS) + digit,
                int(until[digit] - self._counts[digit]),
            )
            if shift:
                yield _Bin(self._held, prefix, shift, before)
                continue
            value = float(np.array([prefix]).view(np.float64)[0])
            known.update({rank: value for rank in inside if before <= rank < until[digit]})
