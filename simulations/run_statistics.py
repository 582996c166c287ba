"""Comparing methods over runs: bootstrap intervals, paired differences, Friedman and Nemenyi tests.

Few runs say little, and every result here says how little: an interval comes with the number of
values behind it, and a test with the smallest p-value that so many runs could give at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError
from gabactl.base.results import Result

__all__ = [
    "Friedman",
    "Interval",
    "Nemenyi",
    "PairedDifference",
    "bootstrap_mean",
    "friedman",
    "nemenyi",
    "paired_difference",
    "t_interval",
]

Array = NDArray[np.float64]

#: Below this many values the resamples are so few that a bootstrap interval is too short.
_FEW = 8
#: All n^n resamples are gone through up to this n.
_COUNTED = 5
#: All 2^n sign patterns are gone through up to this n.
_EXACT = 16


@dataclass(frozen=True)
class Interval(Result):
    """A mean with a confidence interval.

    Attributes
    ----------
    mean, low, high : float
        Estimate and interval; NaN bounds where one value gives none.
    level : float
        Confidence level that was asked for.
    n : int
        Values behind it.
    method : {"bootstrap", "t"}
        How the interval was made.
    note : str
        What to keep in mind, or "".
    """

    mean: float
    low: float
    high: float
    level: float
    n: int
    method: str
    note: str = ""

    title = "Mean with interval"

    def facts(self) -> dict[str, Any]:
        """The attributes under their names."""
        return dict(vars(self))

    def rows(self) -> list[tuple[str, ...]]:
        """Mean, interval, note."""
        rows: list[tuple[str, ...]] = [
            ("mean", f"{self.mean:.5g}"),
            (f"{100 * self.level:g} %", f"[{self.low:.5g}, {self.high:.5g}] ({self.method})"),
            ("values", str(self.n)),
        ]
        return [*rows, ("note", self.note)] if self.note else rows


def bootstrap_mean(
    values: ArrayLike, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Mean over runs, with a percentile bootstrap interval.

    Parameters
    ----------
    values : array, shape (n,)
        One figure per run, finite.
    level : float in (0, 1)
        Confidence level.
    draws : int
        Resamples; of up to five values all are gone through instead.
    seed : int
        Of the resampling.

    Returns
    -------
    Interval
        With fewer than 8 values a note says that it is too short: with n = 2 it can only run from
        one value to the other, which covers the true mean half of the time.

    Notes
    -----
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Examples
    --------
    >>> found = bootstrap_mean([10.0, 12.0])
    >>> found.mean, found.low, found.high, found.n
    (11.0, 10.0, 12.0, 2)
    """
    x = _values(values, "values")
    _check_level(level)
    n = x.size
    if n == 1:
        return Interval(float(x[0]), math.nan, math.nan, level, 1, "bootstrap", "one run")
    if n <= _COUNTED:
        chosen = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        chosen = np.random.default_rng(seed).integers(0, n, (draws, n))
    means = x[chosen].mean(axis=1)
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(means, [tail, 1.0 - tail], method="inverted_cdf")
    note = "" if n >= _FEW else f"{n} runs: the bootstrap interval is too short"
    return Interval(float(x.mean()), float(low), float(high), level, n, "bootstrap", note)


def t_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean over runs, with Student's interval, which is honest about few runs if they are normal.

    Parameters
    ----------
    values : array, shape (n,)
        One figure per run, finite.
    level : float in (0, 1)
        Confidence level.

    Returns
    -------
    Interval
        Its ends are NaN for a single run, with a reason.

    Notes
    -----
    Mean +- t s/sqrt(n), with s the standard deviation (n - 1) and t the quantile of Student's
    distribution with n - 1 degrees of freedom (Student, Biometrika 6, 1908).

    Examples
    --------
    >>> found = t_interval([10.0, 12.0])  # half width 12.706 standard errors
    >>> round(found.low, 2), round(found.high, 2)
    (-1.71, 23.71)
    """
    from scipy.stats import t

    x = _values(values, "values")
    _check_level(level)
    if x.size == 1:
        return Interval(float(x[0]), math.nan, math.nan, level, 1, "t", "one run")
    half = float(t.ppf(0.5 + 0.5 * level, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size))
    mean = float(x.mean())
    return Interval(mean, mean - half, mean + half, level, int(x.size), "t")


@dataclass(frozen=True)
class PairedDifference(Result):
    """Differences of two methods over the same subsets and seeds.

    Attributes
    ----------
    difference : Interval
        Mean of first less second, bootstrap over the pairs.
    student : Interval
        The same with Student's interval.
    wins, losses : int
        Pairs in which the first is lower, and higher.
    p_value : float
        Two-sided, of no difference: by flipping the signs of the differences.
    least_p : float
        The smallest p-value that so many pairs can give, 2/2^n.
    """

    difference: Interval
    student: Interval
    wins: int
    losses: int
    p_value: float
    least_p: float

    title = "Paired difference"

    @property
    def decided(self) -> bool:
        """Whether the pairs settle which of the two is lower, at the level asked for.

        Both Student's interval and the sign-flip test must, or there are too few pairs for the
        latter to (five or fewer at 95 %) and Student's interval excludes 0.
        """
        outside = self.student.low > 0 or self.student.high < 0
        alpha = 1.0 - self.student.level
        return outside and (self.p_value <= alpha or self.least_p > alpha)

    def facts(self) -> dict[str, Any]:
        """Keys: difference, student, wins, losses, p_value, least_p, decided."""
        return {
            "difference": self.difference.to_dict(),
            "student": self.student.to_dict(),
            "wins": self.wins,
            "losses": self.losses,
            "p_value": self.p_value,
            "least_p": self.least_p,
            "decided": self.decided,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Mean difference, intervals, p-value."""
        d, s = self.difference, self.student
        return [
            ("mean difference", f"{d.mean:+.4g}"),
            ("bootstrap", f"[{d.low:+.4g}, {d.high:+.4g}]"),
            ("Student", f"[{s.low:+.4g}, {s.high:+.4g}]"),
            ("lower / higher", f"{self.wins} / {self.losses} of {d.n} pairs"),
            ("p by sign flips", f"{self.p_value:.3g} (at least {self.least_p:.3g})"),
        ]


def paired_difference(
    first: ArrayLike, second: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """How much lower (or higher) one method is than another over the same runs.

    Parameters
    ----------
    first, second : arrays, shape (n,)
        Figures of the two methods, in the same order of subsets and seeds; n at least 2.
    level : float in (0, 1)
        Confidence level.
    seed : int
        Of the bootstrap, and of the sign flips beyond 16 pairs.

    Returns
    -------
    PairedDifference

    Raises
    ------
    InputError
        Not two or more pairs.

    Notes
    -----
    The p-value is the share of the 2^n patterns of signs of the differences whose sum is as far from
    0 as the one seen (Fisher's randomisation test): all patterns up to 16 pairs, 65,536 drawn ones
    beyond. No p-value can be below 2/2^n.

    Examples
    --------
    >>> found = paired_difference([15.0, 17.0, 15.5, 18.0], [16.0, 18.5, 16.0, 19.5])
    >>> found.wins, found.p_value, found.least_p, found.decided
    (4, 0.125, 0.125, True)
    """
    from scipy.stats import permutation_test

    a, b = _values(first, "first"), _values(second, "second")
    if a.shape != b.shape or a.size < 2:
        raise InputError(f"{a.size} and {b.size} values are no pairs: give two or more, as many")
    d = a - b
    flips = permutation_test(
        (d,), np.sum, permutation_type="samples", n_resamples=2**_EXACT, rng=seed
    )
    return PairedDifference(
        bootstrap_mean(d, level=level, seed=seed),
        t_interval(d, level=level),
        wins=int((d < 0).sum()),
        losses=int((d > 0).sum()),
        p_value=float(flips.pvalue),
        least_p=2.0 / 2.0**d.size,
    )


@dataclass(frozen=True)
class Friedman(Result):
    """Friedman's test: do methods differ, judged by their ranks within each block?

    Attributes
    ----------
    methods : tuple of k str
        Names.
    blocks : int
        Rows: data sets, or subset and seed.
    average_ranks : array, shape (k,)
        1 is lowest; ties share.
    statistic, p_value : float
        Friedman's chi-squared (ties corrected) and its p-value, as usually reported.
    f_statistic, f_p_value : float
        Iman and Davenport's form, which is less conservative.
    permutation_p_value : float
        By shuffling each block's ranks: no approximation for few blocks.
    seed : int
        Of the shuffling.
    """

    methods: tuple[str, ...]
    blocks: int
    average_ranks: Array
    statistic: float
    p_value: float
    f_statistic: float
    f_p_value: float
    permutation_p_value: float
    seed: int

    title = "Friedman test"

    def facts(self) -> dict[str, Any]:
        """The attributes under their names; average_ranks by method."""
        values = dict(vars(self))
        ranks = self.average_ranks.tolist()
        values["average_ranks"] = dict(zip(self.methods, ranks, strict=True))
        return values

    def rows(self) -> list[tuple[str, ...]]:
        """Ranks, then the p-values."""
        order = np.argsort(self.average_ranks)
        return [
            *((self.methods[i], f"average rank {self.average_ranks[i]:.2f}") for i in order),
            ("blocks", str(self.blocks)),
            ("chi-squared", f"{self.statistic:.4g}, p = {self.p_value:.3g}"),
            ("Iman-Davenport", f"F = {self.f_statistic:.4g}, p = {self.f_p_value:.3g}"),
            ("permutation", f"p = {self.permutation_p_value:.3g}"),
        ]


def friedman(
    table: ArrayLike, methods: Sequence[str] | None = None, *, draws: int = 10_000, seed: int = 0
) -> Friedman:
    """Friedman's test of no difference between methods.

    Parameters
    ----------
    table : array, shape (blocks, methods)
        Figures, lower is better; at least 2 blocks and 3 methods, all finite.
    methods : sequence of str, optional
        Names of the columns.
    draws : int
        Shuffles for the permutation p-value.
    seed : int
        Of the shuffles.

    Returns
    -------
    Friedman

    Raises
    ------
    InputError
        Too few blocks or methods, or a figure that is not finite.

    Notes
    -----
    Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006,
    section 3.2.2; Iman and Davenport, Communications in Statistics 9, 1980.

    Examples
    --------
    >>> found = friedman([[1.0, 2.0, 3.0], [1.5, 2.5, 2.0], [1.1, 2.2, 3.3], [0.9, 1.2, 2.0]])
    >>> found.average_ranks.tolist(), round(found.statistic, 2)
    ([1.0, 2.25, 2.75], 6.5)
    """
    x, names = _table(table, methods)
    blocks, k = x.shape
    ranks = _ranks(x)
    statistic = float(_chi_squared(ranks[None])[0])
    from scipy.stats import chi2, f

    limit = blocks * (k - 1)
    left = limit - statistic
    f_statistic = (blocks - 1) * statistic / left if left > 1e-12 else math.inf
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.broadcast_to(ranks, (draws, blocks, k)), axis=2)
    as_far = int((_chi_squared(shuffled) >= statistic - 1e-9).sum())
    return Friedman(
        methods=names,
        blocks=blocks,
        average_ranks=ranks.mean(axis=0),
        statistic=statistic,
        p_value=float(chi2.sf(statistic, k - 1)),
        f_statistic=f_statistic,
        f_p_value=float(f.sf(f_statistic, k - 1, (k - 1) * (blocks - 1))),
        permutation_p_value=(as_far + 1) / (draws + 1),
        seed=seed,
    )


@dataclass(frozen=True)
class Nemenyi(Result):
    """Nemenyi's test of all pairs after Friedman's.

    Attributes
    ----------
    methods : tuple of k str
        Names.
    average_ranks : array, shape (k,)
        Over the blocks; 1 is the lowest value.
    p_values : array, shape (k, k)
        Of no difference, pair by pair; 1 on the diagonal.
    critical_difference : float
        Average ranks further apart than this differ at ``level``.
    level : float
        Confidence level.
    blocks : int
        Rows of the table that was ranked.
    """

    methods: tuple[str, ...]
    average_ranks: Array
    p_values: Array
    critical_difference: float
    level: float
    blocks: int

    title = "Nemenyi test"

    @property
    def different(self) -> tuple[tuple[str, str, float], ...]:
        """Pairs that differ at the level: lower rank, higher rank, p-value."""
        alpha = 1.0 - self.level
        pairs = []
        for i, j in itertools.permutations(range(len(self.methods)), 2):
            if self.average_ranks[i] < self.average_ranks[j] and self.p_values[i, j] < alpha:
                pairs.append((self.methods[i], self.methods[j], float(self.p_values[i, j])))
        return tuple(sorted(pairs, key=lambda pair: pair[2]))

    def facts(self) -> dict[str, Any]:
        """Keys: methods, average_ranks, p_values, critical_difference, level, blocks, different."""
        return {**vars(self), "different": [list(pair) for pair in self.different]}

    def rows(self) -> list[tuple[str, ...]]:
        """The critical difference, then the pairs beyond it."""
        pairs = [(f"{a} < {b}", f"p = {p:.3g}") for a, b, p in self.different]
        return [
            ("critical difference", f"{self.critical_difference:.3f} ranks"),
            *(pairs or [("pairs", "none differ")]),
        ]


def nemenyi(
    table: ArrayLike, methods: Sequence[str] | None = None, *, level: float = 0.95
) -> Nemenyi:
    """Which methods differ, by Nemenyi's critical difference of average ranks.

    Parameters
    ----------
    table : array, shape (blocks, methods)
        As for :func:`friedman`.
    methods : sequence of str, optional
        Names of the columns.
    level : float in (0, 1)
        Confidence level.

    Returns
    -------
    Nemenyi

    Notes
    -----
    Ranks differ where |R_i - R_j| sqrt(6 N/(k (k + 1))) exceeds the studentized range of k values
    with infinite degrees of freedom, over sqrt 2 (Demšar 2006, section 3.2.2).

    Examples
    --------
    >>> import numpy as np
    >>> ten = nemenyi(np.random.default_rng(0).random((30, 5)))
    >>> round(ten.critical_difference, 4)  # 2.728 sqrt(5 x 6/(6 x 30))
    1.1136
    """
    from scipy.stats import studentized_range

    x, names = _table(table, methods)
    _check_level(level)
    blocks, k = x.shape
    ranks = _ranks(x).mean(axis=0)
    unit = math.sqrt(k * (k + 1) / (6.0 * blocks))
    apart = np.abs(ranks[:, None] - ranks[None, :]) / unit * math.sqrt(2.0)
    p_values = np.asarray(studentized_range.sf(apart, k, np.inf), dtype=np.float64)
    np.fill_diagonal(p_values, 1.0)
    quantile = float(studentized_range.ppf(level, k, np.inf)) / math.sqrt(2.0)
    return Nemenyi(names, ranks, np.clip(p_values, 0.0, 1.0), quantile * unit, level, blocks)


def _values(values: ArrayLike, name: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise InputError(f"{name}: give at least one finite number, in a flat list")
    return x


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise InputError(f"level = {level} is not in (0, 1): try 0.95")


def _table(table: ArrayLike, methods: Sequence[str] | None) -> tuple[Array, tuple[str, ...]]:
    x = np.asarray(table, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 3:
        raise InputError(
            f"table of shape {x.shape}: give at least 2 blocks (rows) and 3 methods (columns); "
            "for two methods use paired_difference"
        )
    if not np.isfinite(x).all():
        raise InputError(
            "table: a figure is not finite: leave that method or block out, and say so"
        )
    names = tuple(methods) if methods is not None else tuple(f"m{i}" for i in range(x.shape[1]))
    if len(names) != x.shape[1]:
        raise InputError(f"{len(names)} names for {x.shape[1]} methods: give one per column")
    return x, names


def _ranks(x: Array) -> Array:
    from scipy.stats import rankdata

    return np.asarray(rankdata(x, axis=1), dtype=np.float64)


def _chi_squared(ranks: Array) -> Array:
    """Friedman's statistic of many tables of ranks, shape (tables, blocks, k), ties corrected."""
    blocks, k = ranks.shape[1:]
    spread = np.square(ranks.mean(axis=1) - 0.5 * (k + 1)).sum(axis=-1)
    within = np.square(ranks - 0.5 * (k + 1)).sum(axis=(1, 2)) / (blocks * (k - 1))
    return np.asarray(blocks * spread / np.where(within > 0, within, np.inf), dtype=np.float64)
