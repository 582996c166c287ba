"""The searcher for any target: adversarial cases, and breeding of the ones that come closest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gabactl.fuzzing.cases import Case, Segment
from gabactl.fuzzing.coverage import Found
from gabactl.fuzzing.properties import Property
from gabactl.fuzzing.target import Target, run_case
from gabactl.fuzzing.targets import finite_domain

_SUBNORMAL = 5e-324
_TINY = 2.3e-308
#: Kinds of readings: those of ``CaseMaker._reading``, and a permutation of an earlier one.
_KINDS = 14


class CaseMaker:
    """Random and bred cases for one target and property.

    Parameters
    ----------
    target : Target
        Gives the domain of its sensor and, where it claims to be GABA, the time scales to try.
    prop : Property
        Says which readings are meant and what else a case carries.
    rng : numpy.random.Generator
        Everything random.

    Examples
    --------
    >>> from gabactl.fuzzing.properties import make_property
    >>> from gabactl.fuzzing.targets import resolve
    >>> target = resolve("gaba")
    >>> maker = CaseMaker(target, make_property("finite", target), np.random.default_rng(0))
    >>> maker.fresh().n_tasks
    2
    """

    def __init__(self, target: Target, prop: Property, rng: np.random.Generator) -> None:
        self.target, self.prop, self.rng = target, prop, rng
        self.k = target.n_tasks
        self.smallest, self.largest = finite_domain(target)
        spec = target.spec
        warmup = 0 if spec is None else spec.warmup
        interval = 1 if spec is None else spec.interval
        pole = 0.9 if spec is None else spec.beta**interval
        memory = 0 if pole == 0 else math.ceil(math.log(1e-3) / math.log(pole)) * interval
        self.warmup, self.memory = warmup, int(np.clip(memory, 8, 5000))

    def fresh(self) -> Case:
        """A case from nothing."""
        rng = self.rng
        long = rng.random() < 0.35
        n = self.warmup + (self.memory if long else int(rng.integers(1, 24)))
        segments: list[Segment] = []
        if rng.random() < 0.25:
            # Noise: another reading at every step, after some warm-up.
            if self.warmup:
                segments.append(Segment(self._reading(), self.warmup))
            kind = int(rng.integers(_KINDS))
            for _ in range(min(n - self.warmup, 60)):
                segments.append(Segment(self._reading(kind if rng.random() < 0.7 else None)))
        else:
            left = n
            for _ in range(int(rng.integers(1, 6))):
                repeat = int(rng.choice([1, 1, 2, 5, max(1, n // 3), left, max(1, self.warmup)]))
                repeat = min(repeat, left)
                if repeat < 1:
                    break
                segments.append(Segment(self._reading(previous=segments), repeat))
                left -= repeat
            if left > 0:
                segments.append(Segment(self._reading(previous=segments), left))
        return self._complete(tuple(segments))

    def bred(self, parent: Case) -> Case:
        """A copy of a case with one to three random changes: a reading, a norm, a length, a segment.

        Parameters
        ----------
        parent : Case
            Stays as it is; with at least one segment.
        """
        rng = self.rng
        segments = list(parent.segments)
        for _ in range(int(rng.integers(1, 4))):
            i = int(rng.integers(len(segments)))
            s = segments[i]
            change = rng.integers(6)
            if change == 0:
                segments[i] = replace(s, reading=self._reading(previous=segments))
            elif change == 1:
                row = list(s.reading)
                row[int(rng.integers(self.k))] = self._reading()[0]
                segments[i] = replace(s, reading=tuple(row))
            elif change == 2:
                repeat = int(s.repeat * rng.choice([0.5, 2.0])) + int(rng.integers(-1, 2))
                segments[i] = replace(s, repeat=int(np.clip(repeat, 1, 4 * self.memory)))
            elif change == 3 and len(segments) > 1:
                del segments[i]
            elif change == 4 and len(segments) < 100:
                segments.insert(i, Segment(self._reading(previous=segments)))
            else:
                row = list(s.reading)
                row[int(rng.integers(self.k))] = row[int(rng.integers(self.k))]
                segments[i] = replace(s, reading=tuple(row))
        return self._complete(tuple(segments))

    def _complete(self, segments: tuple[Segment, ...]) -> Case:
        rng = self.rng
        if self.target.uses_losses:
            segments = tuple(replace(s, losses=s.losses or self._losses()) for s in segments)
        case = Case(segments)
        match self.prop.relation:
            case "permutation":
                order = rng.permutation(self.k)
                while (order == np.arange(self.k)).all():
                    order = rng.permutation(self.k)
                return replace(case, permutation=tuple(int(i) for i in order))
            case "save_after":
                return replace(case, save_after=int(rng.integers(case.n_steps)))
            case "exponent":
                return self._scaled(case)
        return case

    def _scaled(self, case: Case) -> Case:
        """A multiple that keeps every positive reading inside the sensor's range."""
        positive = [x for s in case.segments for x in s.reading if x > 0]
        least = max(self.smallest, _TINY)
        segments = case.segments
        if positive and min(positive) < least:
            # Subnormals lose digits when scaled: not what the property is about.
            segments = tuple(
                replace(s, reading=tuple(max(x, least) if x > 0 else x for x in s.reading))
                for s in segments
            )
            positive = [max(x, least) for x in positive]
        down, up = -100, 100
        if positive:
            down = math.ceil(math.log2(least) - math.log2(min(positive)))
            up = math.floor(math.log2(self.largest) - math.log2(max(positive)))
        options = [e for e in (-1, 1, -10, 10, -40, 40, down, up) if down <= e <= up and e]
        exponent = int(self.rng.choice(options)) if options else 0
        return replace(case, segments=segments, exponent=exponent)

    def _losses(self) -> tuple[float, ...]:
        kind = self.rng.integers(3)
        if kind == 0:
            return (1.0,) * self.k
        return tuple(float(x) for x in 10.0 ** self.rng.uniform(-3, 3 if kind == 1 else 6, self.k))

    def _reading(self, kind: int | None = None, previous: Any = ()) -> tuple[float, ...]:
        rng, k = self.rng, self.k
        kind = int(rng.integers(_KINDS)) if kind is None else kind
        one = float(10.0 ** rng.uniform(-30, 30))
        chosen = rng.integers(k) == np.arange(k)
        # Aim at the floor: one task just above or below a share that puts it there.
        floor = 0.05 if self.target.spec is None else self.target.spec.floor
        kinds: list[Callable[[], Any]] = [
            lambda: 10.0 ** rng.uniform(-30, 30, k),
            lambda: 10.0 ** rng.uniform(-3, 3, k),
            lambda: np.full(k, one),
            lambda: np.where(chosen, one, rng.choice([0.0, one * 1e-20])),
            lambda: np.where(chosen, 0.0, one),
            lambda: np.zeros(k),
            lambda: np.full(k, _SUBNORMAL * rng.integers(1, 2**20)),
            lambda: _SUBNORMAL * rng.integers(0, 2 ** int(rng.integers(1, 50)), k).astype(float),
            lambda: 10.0 ** rng.uniform(-14, -10, k),
            lambda: np.where(chosen, np.nextafter(one, np.inf), one),
            lambda: np.round(10.0 ** rng.uniform(0, 2, k)),
            lambda: np.where(chosen, max(1.0 - floor, 1e-9), floor) * rng.choice([1.0, 1.0 + 1e-9]),
            lambda: rng.choice([self.smallest, self.largest, 1.0], k),
        ]
        if kind < len(kinds):
            row = kinds[kind]()
        elif previous:
            row = rng.permutation(previous[int(rng.integers(len(previous)))].reading)
        else:
            row = np.ones(k)
        if not self.prop.any_reading:
            inside = np.clip(row, self.smallest, self.largest)
            row = np.where(row > 0, inside, 0.0)
        elif rng.random() < 0.3:
            odd = rng.choice([np.nan, np.inf, 1.7e308, 9e307, 1e160, 1e20], k)
            row = np.where(rng.random(k) < 0.6, odd, row)
        return tuple(float(x) for x in row)


def search(
    target: Target,
    prop: Property,
    *,
    steps: int,
    seed: int = 0,
    time_limit: float | None = None,
    stop_at_first: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Found:
    """Run cases until the budget is spent or one breaks the property.

    Parameters
    ----------
    target : Target
        The rule.
    prop : Property
        The guarantee.
    steps : int
        Controller steps to run.
    seed : int
        Of everything random.
    time_limit : float, optional
        Seconds.
    stop_at_first : bool
        Stop at the first violation.
    progress : callable, optional
        Called with the steps of every case.

    Examples
    --------
    >>> from gabactl.fuzzing.properties import make_property
    >>> from gabactl.fuzzing.targets import step_function
    >>> rule = step_function(lambda: lambda g: g / g.sum())
    >>> with np.errstate(all="ignore"):
    ...     search(rule, make_property("finite", rule), steps=1000).outcome.message
    'step ...: weights [...] are not finite...'
    """
    rng = np.random.default_rng((seed, 1))
    maker = CaseMaker(target, prop, rng)
    found = Found()
    elites: list[tuple[float, Case]] = []
    begun = time.perf_counter()
    while found.steps < steps:
        if time_limit is not None and time.perf_counter() - begun > time_limit:
            break
        if elites and rng.random() < 0.4:
            case = maker.bred(elites[int(rng.integers(len(elites)))][1])
        else:
            case = maker.fresh()
        if not prop.admits(target, case):
            found.steps += 1
            continue
        outcome = prop.check(target, case)
        found.note(case, outcome)
        if progress is not None:
            progress(outcome.steps)
        path = run_case(target, case) if found.cases % 64 == 1 else None
        found.coverage.count_run(target, case.readings(), path)
        if outcome.violated:
            if found.first_violation_s is None:
                found.first_violation_s = time.perf_counter() - begun
            if stop_at_first:
                break
        elif len(elites) < 6 or outcome.score > elites[-1][0]:
            elites.append((outcome.score, case))
            elites.sort(key=lambda entry: -entry[0])
            del elites[6:]
    found.seconds = time.perf_counter() - begun
    return found
