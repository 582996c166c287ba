"""The vectorised searcher: blocks of controllers side by side, bred towards the worst case.

It runs our own controllers only, whose law is compiled into it; a user's rule is searched by
:mod:`gabactl.fuzzing.search`. Small budgets run in NumPy, so that nothing needs to be compiled;
larger ones in machine code (:mod:`gabactl.fuzzing._lanes`), with the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.fuzzing.cases import Case, Segment
from gabactl.fuzzing.coverage import Coverage
from gabactl.law.laws import LAWS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, raw_weights, saturate, usable

__all__ = ["LaneSearch", "Programs", "Survey", "default_readings", "length_for", "survey"]

Array = NDArray[Any]

#: Rows of the statistics of a block: least and largest weight, largest deviation of the sum of
#: the weights and of the averages from 1, steps with a non-finite weight, steps held by the guard.
STATS = ("low", "high", "weight_sum_error", "ema_sum_error", "non_finite", "held")

#: Budgets below this many steps run in NumPy.
COMPILED_FROM = 4_000_000

_SEGMENTS = 4
_LARGEST_BASE = 250.0


@dataclass
class Programs:
    """What a block of lanes is fed.

    Attributes
    ----------
    base : array, shape (segments, K, lanes)
        Readings of each segment.
    ends : array of int, shape (segments,)
        Reading at which each segment ends; the last is the length of the run.
    state, exponents, mantissas : arrays of uint64, shape (lanes,)
        Random state (not 0), and which bits of the random factor vary.
    """

    base: Array
    ends: Array
    state: Array
    exponents: Array
    mantissas: Array

    def lane(self, index: int) -> Programs:
        """The program of one lane.

        Parameters
        ----------
        index : int
            From 0 to lanes - 1.
        """
        one = slice(index, index + 1)
        return Programs(
            self.base[:, :, one].copy(),
            self.ends.copy(),
            self.state[one].copy(),
            self.exponents[one].copy(),
            self.mantissas[one].copy(),
        )

    def readings(self) -> Array:
        """The readings of the first lane, shape (readings, K)."""
        k = self.base.shape[1]
        state, out, start = self.state.copy(), [], 0
        for segment, end in enumerate(self.ends):
            for _ in range(start, int(end)):
                out.append(_read(self.base[segment], state, self.exponents, self.mantissas)[:, 0])
            start = int(end)
        return np.array(out).reshape(-1, k)

    def case(self, spec: GabaSpec) -> Case:
        """The first lane as a case: the warm-up, then every reading held for the interval.

        Parameters
        ----------
        spec : GabaSpec
            Its warm-up and interval, in steps, stretch the readings to steps.
        """
        rows = Case.from_readings(self.readings()).segments
        segments = [Segment(s.reading, s.repeat * spec.interval) for s in rows]
        if spec.warmup and segments:
            first = segments[0]
            segments[0] = Segment(first.reading, first.repeat + spec.warmup)
        return Case(tuple(segments))


@dataclass
class Survey:
    """What a search has seen.

    Attributes
    ----------
    steps : int
        Controller steps run (readings times lanes).
    seconds : float
        Wall time.
    low, high : float
        Least and largest finite weight.
    violations : int
        Lanes that broke the property.
    worst : Programs or None
        The lane with the largest violation.
    score : float
        Its violation (positive), or how close the closest lane came (negative).
    first_violation_s : float or None
        Seconds until the first.
    coverage : Coverage
        Decades and branches visited.
    """

    steps: int = 0
    seconds: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    violations: int = 0
    worst: Programs | None = None
    score: float = -np.inf
    first_violation_s: float | None = None
    coverage: Coverage = field(default_factory=Coverage)

    def add(self, other: Survey) -> None:
        """Take in what another worker has seen; the wall time stays.

        Parameters
        ----------
        other : Survey
            Stays as it is.
        """
        self.steps += other.steps
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.violations += other.violations
        if other.score > self.score:
            self.score, self.worst = other.score, other.worst
        times = [t for t in (self.first_violation_s, other.first_violation_s) if t is not None]
        self.first_violation_s = min(times) if times else None
        self.coverage.add(other.coverage)


def default_readings(spec: GabaSpec) -> int:
    """Readings after which the average has forgotten its start to 1e-9.

    Parameters
    ----------
    spec : GabaSpec
        Its pole a reading is ``beta**interval``.

    Returns
    -------
    int
        From 64 to 65,536.

    Examples
    --------
    >>> default_readings(GabaSpec())
    2062
    """
    pole = spec.beta**spec.interval
    if pole <= 0:
        return 64
    return int(np.clip(np.ceil(np.log(1e-9) / np.log(pole)), 64, 65_536))


def length_for(spec: GabaSpec, steps: int, compiled: bool | None = None) -> int:
    """Readings of a program that a budget of steps allows.

    Parameters
    ----------
    spec : GabaSpec
        Whose memory :func:`default_readings` covers where the budget allows.
    steps : int
        The budget: readings times lanes.
    compiled : bool, optional
        Whether the lanes run in machine code, more of them side by side; by default from 4 million
        steps on.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> length_for(GabaSpec(), 100_000), length_for(GabaSpec(), 3200)
    (2062, 100)
    """
    if compiled is None:
        compiled = steps >= COMPILED_FROM
    return max(1, min(default_readings(spec), steps // _lanes_for(compiled)))


def _lanes_for(compiled: bool) -> int:
    return 128 if compiled else 32


class LaneSearch:
    """One population of programs.

    Parameters
    ----------
    spec : GabaSpec
        The controller.
    score : callable
        From the statistics of a block, shape (6, lanes), to one score per lane and objective,
        shape (objectives, lanes); positive is a violation.
    readings : int
        Length of a program.
    seed : int or sequence of int
        Of everything random.
    lanes : int
        Programs side by side.
    any_reading : bool
        Whether NaN, infinity and overflow are tried.
    compiled : bool
        Machine code or NumPy.
    aimed : bool
        Start from the adversarial programs that aim at the floor.
    """

    def __init__(
        self,
        spec: GabaSpec,
        score: Callable[[Array], Array],
        readings: int,
        seed: Any = 0,
        *,
        lanes: int = 128,
        any_reading: bool = False,
        compiled: bool = True,
        aimed: bool = True,
    ) -> None:
        self.spec, self.score = spec, score
        self.readings, self.lanes = readings, lanes
        self.any_reading, self.aimed = any_reading, aimed
        self.rng = np.random.default_rng(seed)
        self._run = _run_compiled if compiled else _run_numpy
        self._elites: dict[int, list[tuple[float, Programs]]] = {}
        self._round = 0

    def step(self) -> tuple[Programs, Array, Array, Array]:
        """Breed a block and run it.

        Returns
        -------
        programs : Programs
            What was run.
        scores : array, shape (objectives, lanes)
            Positive for a violation.
        statistics : array, shape (6, lanes)
            One row for each of ``STATS``.
        floored : array, shape (K, lanes)
            Steps with the average under the floor.
        """
        programs = self._breed()
        stats, floored = self._run(programs, self.spec)
        scores = np.atleast_2d(self.score(stats))
        for objective, row in enumerate(scores):
            best = int(np.argmax(row))
            elites = self._elites.setdefault(objective, [])
            if len(elites) < 4 or row[best] > elites[-1][0]:
                elites.append((float(row[best]), programs.lane(best)))
                elites.sort(key=lambda entry: -entry[0])
                del elites[4:]
        self._round += 1
        return programs, scores, stats, floored

    def _breed(self) -> Programs:
        rng, lanes, k = self.rng, self.lanes, self.spec.n_tasks
        fresh = self._fresh()
        parents = self._elites.get(self._round % max(len(self._elites), 1), [])
        if not parents or self._round % 4 == 0:
            base, ends = fresh, self._ends()
            if self._round == 0 and self.aimed:
                _aim(base, self.spec)
        else:
            parent = parents[int(rng.integers(len(parents)))][1]
            rate = rng.choice([0.05, 0.15, 0.4], size=lanes)
            keep = rng.random((_SEGMENTS, k, lanes)) >= rate
            keep[:, :, 0] = True
            base = np.where(keep, parent.base, fresh)
            # Or a whole segment is copied over another.
            source = rng.integers(_SEGMENTS, size=2)
            copied = rng.random(lanes) < 0.2
            base[source[0]] = np.where(copied, base[source[1]], base[source[0]])
            ends = self._ends() if rng.random() < 0.5 else parent.ends.copy()
        kinds = rng.choice(4, size=lanes, p=[0.7, 0.1, 0.1, 0.1])
        exponents = np.array([0, 1, 7, 63], dtype=np.uint64)[kinds]
        mantissas = np.where(kinds > 0, np.uint64(2**52 - 1), np.uint64(0))
        state = rng.integers(1, 2**63, size=lanes, dtype=np.uint64)
        return Programs(np.ascontiguousarray(base), ends, state, exponents, mantissas)

    def _ends(self) -> Array:
        cuts = np.sort(self.rng.integers(0, self.readings + 1, size=_SEGMENTS - 1))
        return np.append(cuts, self.readings).astype(np.int64)

    def _fresh(self) -> Array:
        """Readings of many kinds, shape (segments, K, lanes)."""
        rng, k, lanes = self.rng, self.spec.n_tasks, self.lanes
        shape = (_SEGMENTS, k, lanes)
        values = 10.0 ** rng.uniform(-30, 30, size=shape)
        kind = rng.integers(0, 16, size=(_SEGMENTS, 1, lanes))
        one = values[:, :1]
        chosen = rng.integers(k, size=(_SEGMENTS, 1, lanes)) == np.arange(k)[None, :, None]
        near = 10.0 ** rng.uniform(-3, 3, size=shape)
        values = np.where(kind == 1, one, values)
        values = np.where(kind == 2, np.where(chosen, one, 0.0), values)
        values = np.where(kind == 3, np.where(chosen, 0.0, one), values)
        values = np.where(kind == 4, near, values)
        values = np.where(kind == 5, np.where(chosen, one, one * 1e-20), values)
        values = np.where(kind == 6, np.where(chosen, one * 1e-20, one), values)
        # Subnormals slow the processor down tenfold: a few lanes have them, side by side.
        tiny = (np.arange(lanes) >= lanes - lanes // 16) & (self._round % 4 == 0)
        values = np.where((kind >= 5) & tiny, 5e-324 * np.floor(near), values)
        values = np.where(kind == 8, 1e-12 * near, values)
        values = np.where(kind == 9, 0.0, values)
        wide = 10.0 ** rng.uniform(-280, _LARGEST_BASE, size=shape)
        values = np.where(kind == 10, wide, values)
        values = np.where(kind == 11, np.round(near), values)
        if self.any_reading:
            odd = rng.choice([np.nan, np.inf, 1.7e308, 9e307], size=shape)
            values = np.where((kind >= 13) & (rng.random(shape) < 0.4), odd, values)
        return values


def _aim(base: Array, spec: GabaSpec) -> None:
    """The first lanes hold one task loud, or one task quiet, as far as the law goes."""
    k = spec.n_tasks
    quiet = 1e-30 if LAWS[spec.law].needs_positive else 0.0
    for task in range(min(k, base.shape[2] // 2)):
        base[:, :, 2 * task] = quiet
        base[:, task, 2 * task] = 1.0
        base[:, :, 2 * task + 1] = 1.0
        base[:, task, 2 * task + 1] = quiet


def survey(
    spec: GabaSpec,
    score: Callable[[Array], Array],
    *,
    steps: int,
    seed: int = 0,
    time_limit: float | None = None,
    readings: int | None = None,
    any_reading: bool = False,
    workers: int = 1,
    stop_at_first: bool = True,
    compiled: bool | None = None,
    aimed: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Survey:
    """Search until the budget is spent (or a violation is found).

    Parameters
    ----------
    spec : GabaSpec
        The controller.
    score : callable
        See :class:`LaneSearch`.
    steps : int
        Controller steps to run, in all.
    seed : int
        Recorded by the caller; each worker draws from its own stream.
    time_limit : float, optional
        Seconds.
    readings : int, optional
        Length of a program; default :func:`default_readings`, less where the budget is small.
    any_reading : bool
        Whether NaN, infinity and overflow are tried.
    workers : int, at least 1
        Threads.
    stop_at_first : bool
        Stop soon after a violation.
    compiled : bool, optional
        Default: from 4 million steps.
    aimed : bool
        Begin with the adversarial programs that aim at the floor.
    progress : callable, optional
        Called now and then with the steps done.

    Examples
    --------
    >>> seen = survey(GabaSpec(), lambda stats: np.stack([-stats[0], stats[1]]), steps=50_000,
    ...               stop_at_first=False)
    >>> round(seen.low, 6), round(seen.high, 6)
    (0.047619, 0.952381)
    """
    if compiled is None:
        compiled = steps >= COMPILED_FROM
    lanes = _lanes_for(compiled)
    length = readings or length_for(spec, steps, compiled)
    begun = time.perf_counter()
    share = max(1, steps // workers)
    stop: list[bool] = []

    def work(worker: int) -> Survey:
        search = LaneSearch(
            spec,
            score,
            length,
            (seed, worker),
            lanes=lanes,
            any_reading=any_reading,
            compiled=compiled,
            aimed=aimed,
        )
        seen = Survey()
        for block in _rounds(share, length * lanes):
            programs, scores, stats, floored = search.step()
            _note(seen, programs, scores, stats, floored, begun)
            if progress is not None:
                progress(length * lanes)
            if (seen.violations and stop_at_first) or stop:
                stop.append(True)
                break
            if time_limit is not None and time.perf_counter() - begun > time_limit:
                break
            del block
        return seen

    total = Survey()
    if workers == 1:
        total.add(work(0))
    else:
        with ThreadPoolExecutor(workers) as pool:
            for seen in pool.map(work, range(workers)):
                total.add(seen)
    total.seconds = time.perf_counter() - begun
    return total


def _rounds(steps: int, block: int) -> Iterator[int]:
    yield from range(max(1, -(-steps // block)))


def _note(
    seen: Survey, programs: Programs, scores: Array, stats: Array, floored: Array, begun: float
) -> None:
    readings, lanes = int(programs.ends[-1]), programs.base.shape[2]
    seen.steps += readings * lanes
    seen.low = min(seen.low, float(stats[0].min()))
    seen.high = max(seen.high, float(stats[1].max()))
    worst = scores.max(axis=0)
    broken = int((worst > 0).sum())
    if broken and seen.first_violation_s is None:
        seen.first_violation_s = time.perf_counter() - begun
    seen.violations += broken
    best = int(np.argmax(worst))
    if worst[best] > seen.score:
        seen.score, seen.worst = float(worst[best]), programs.lane(best)
    seen.coverage.count_block(programs.base, programs.ends, stats[5], floored)


def _run_compiled(programs: Programs, spec: GabaSpec) -> tuple[Array, Array]:
    from gabactl.fuzzing import _lanes
    from gabactl.loops.kernels.controller import codes

    c = codes(spec)
    k, lanes = programs.base.shape[1:]
    stats, floored = np.empty((len(STATS), lanes)), np.empty((k, lanes))
    _lanes.run_block(
        programs.base,
        programs.ends,
        programs.state.copy(),
        programs.exponents,
        programs.mantissas,
        c.pole,
        c.floor,
        c.law,
        c.floor_mode,
        c.guard,
        stats,
        floored,
        np.empty((0, k, lanes)),
    )
    return stats, floored


def _run_numpy(programs: Programs, spec: GabaSpec) -> tuple[Array, Array]:
    """As the compiled loop, on the reference's own stage functions."""
    k, lanes = programs.base.shape[1:]
    stats = np.zeros((len(STATS), lanes))
    stats[0], stats[1] = np.inf, -np.inf
    floored = np.zeros((k, lanes))
    ema = np.full((lanes, k), 1.0 / k)
    state = programs.state.copy()
    start = 0
    with np.errstate(all="ignore"):
        for segment, end in enumerate(programs.ends):
            for _ in range(start, int(end)):
                g = _read(programs.base[segment], state, programs.exponents, programs.mantissas)
                g = np.ascontiguousarray(g.T)
                raw = raw_weights(g, spec.law, spec.guard)
                moved = follow(ema, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode)
                ok = usable(g, spec.law) | (spec.guard == "none")
                ema = np.where(ok[:, None], moved, ema)
                weights = saturate(ema, spec.floor, spec.floor_mode)
                stats[0] = np.fmin(stats[0], weights.min(axis=1))
                stats[1] = np.fmax(stats[1], weights.max(axis=1))
                off = np.abs(weights.sum(axis=1) - 1.0)
                stats[2] = np.fmax(stats[2], off)
                stats[3] = np.fmax(stats[3], np.abs(ema.sum(axis=1) - 1.0))
                stats[4] += ~np.isfinite(off)
                stats[5] += ~ok
                floored += (ema < spec.floor).T
            start = int(end)
    return stats, floored


def _read(base: Array, state: Array, exponents: Array, mantissas: Array) -> Array:
    """One step's readings, shape (K, lanes): base times the random factor; ``state`` advances."""
    out = np.empty_like(base)
    for i, values in enumerate(base):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        exponent = np.uint64(1023) + (state & exponents) - (exponents >> np.uint64(1))
        bits = (exponent << np.uint64(52)) | ((state >> np.uint64(12)) & mantissas)
        with np.errstate(over="ignore"):
            out[i] = values * bits.view(np.float64)
    return out


def check_workers(workers: int) -> int:
    """A number of threads, checked.

    Examples
    --------
    >>> check_workers(2)
    2
    """
    if workers < 1:
        raise InputError(f"workers = {workers} is below 1: give the number of threads")
    return workers
