"""The vectorised searcher: blocks of controllers side by side, bred towards the worst case.

It runs our own controllers only, whose law is compiled into it (:mod:`gabactl.fuzzing._lanes`); a
user's rule is searched by :mod:`gabactl.fuzzing.search`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.fuzzing.cases import Case, Segment
from gabactl.fuzzing.coverage import Found
from gabactl.law.laws import LAWS
from gabactl.law.spec import GabaSpec

Array = NDArray[Any]

#: Rows of the statistics of a block: least and largest weight, largest deviation of the sum of
#: the weights and of the averages from 1, steps with a non-finite weight, steps held by the guard.
STATS = ("low", "high", "weight_sum_error", "ema_sum_error", "non_finite", "held")

#: From this many steps on there are more lanes: the budget is enough for long programs in them.
MANY_FROM = 4_000_000

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
        lanes = (self.state, self.exponents, self.mantissas)
        return Programs(
            self.base[:, :, one].copy(), self.ends.copy(), *(row[one].copy() for row in lanes)
        )

    def readings(self) -> Array:
        """The readings of the first lane, shape (readings, K)."""
        from gabactl.fuzzing._lanes import emit_readings

        copy = self.state.copy()
        emitted = emit_readings(self.base, self.ends, copy, self.exponents, self.mantissas)
        return np.asarray(emitted)[:, :, 0]

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


def length_for(spec: GabaSpec, steps: int) -> int:
    """Readings of a program that a budget of steps allows.

    Parameters
    ----------
    spec : GabaSpec
        Whose memory :func:`default_readings` covers where the budget allows.
    steps : int
        The budget: readings times lanes.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> length_for(GabaSpec(), 100_000), length_for(GabaSpec(), 3200)
    (2062, 100)
    """
    return max(1, min(default_readings(spec), steps // _lanes_for(steps)))


def _lanes_for(steps: int) -> int:
    return 128 if steps >= MANY_FROM else 32


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
        aimed: bool = True,
    ) -> None:
        self.spec, self.score = spec, score
        self.readings, self.lanes = readings, lanes
        self.any_reading, self.aimed = any_reading, aimed
        self.rng = np.random.default_rng(seed)
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
        stats, floored = run(programs, self.spec)
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
    aimed: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Found:
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
    lanes = _lanes_for(steps)
    length = readings or length_for(spec, steps)
    begun = time.perf_counter()
    share = max(1, steps // workers)
    stop: list[bool] = []

    def work(worker: int) -> Found:
        search = LaneSearch(
            spec, score, length, (seed, worker), lanes=lanes, any_reading=any_reading, aimed=aimed
        )
        seen = Found()
        while seen.steps < share:
            programs, scores, stats, floored = search.step()
            _note(seen, programs, scores, stats, floored, begun)
            if progress is not None:
                progress(length * lanes)
            if (seen.violations and stop_at_first) or stop:
                stop.append(True)
                break
            if time_limit is not None and time.perf_counter() - begun > time_limit:
                break
        return seen

    total = Found()
    if workers == 1:
        total.add(work(0))
    else:
        with ThreadPoolExecutor(workers) as pool:
            for seen in pool.map(work, range(workers)):
                total.add(seen)
    total.seconds = time.perf_counter() - begun
    return total


def _note(
    seen: Found, programs: Programs, scores: Array, stats: Array, floored: Array, begun: float
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


def run(programs: Programs, spec: GabaSpec) -> tuple[Array, Array]:
    """Statistics (rows as in ``STATS``) and floored steps of a block, in machine code.

    Parameters
    ----------
    programs : Programs
        What is fed; stays as it is.
    spec : GabaSpec
        The controller; its warm-up does not count.

    Examples
    --------
    >>> search = LaneSearch(GabaSpec(), lambda stats: stats[1], 10, lanes=4)
    >>> run(search.step()[0], GabaSpec())[0].shape
    (6, 4)
    """
    from gabactl.fuzzing._lanes import run_block
    from gabactl.loops.kernels.controller import codes

    c, p = codes(spec), programs
    k, lanes = p.base.shape[1:]
    stats, floored, trail = np.empty((len(STATS), lanes)), np.empty((k, lanes)), np.empty((0, k, 1))
    run_block(
        *(p.base, p.ends, p.state.copy(), p.exponents, p.mantissas),
        *(c.pole, c.floor, c.law, c.floor_mode, c.guard),
        *(stats, floored, trail),
    )
    return stats, floored
