"""What a search went through (decades of the readings, branches of the controller) and found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.fuzzing.cases import Case
from gabactl.fuzzing.properties import Judged
from gabactl.fuzzing.target import Target, Trajectory
from gabactl.law.stages import usable

#: Decades of a positive double: 1e-324 to 1e308.
_FIRST_DECADE = -324
_DECADES = 308 - _FIRST_DECADE + 1
_BRANCHES = ("warmup_steps", "active_steps", "held_steps")


@dataclass
class Coverage:
    """Counts of what was visited.

    Attributes
    ----------
    decades : array of int, shape (633,)
        Readings by decade, from 1e-324 (subnormals) to 1e308.
    zero, infinite, nan : int
        Readings that are none of these decades.
    floor_on : array of int, shape (K,)
        Steps with the average under the floor, by task.
    active_steps, warmup_steps, held_steps : int
        Steps with a reading that moved the average, in the warm-up, and held by the guard.
    """

    decades: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_DECADES, dtype=np.int64))
    zero: int = 0
    infinite: int = 0
    nan: int = 0
    floor_on: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    active_steps: int = 0
    warmup_steps: int = 0
    held_steps: int = 0

    def add(self, other: Coverage) -> None:
        """Add another's counts.

        Parameters
        ----------
        other : Coverage
            Stays as it is; of more tasks or fewer is well.
        """
        self._grow(len(other.floor_on))
        self.decades += other.decades
        self.floor_on[: len(other.floor_on)] += other.floor_on
        for name in ("zero", "infinite", "nan", *_BRANCHES):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def count_readings(self, values: NDArray[np.float64], times: Any = 1) -> None:
        """Count readings by decade.

        Parameters
        ----------
        values : array of float, any shape
            Gradient norms; of zeros, infinities and NaN there are counts of their own.
        times : int or array of int, any shape
            How often each was read; broadcasts over ``values``.
        """
        flat = values.ravel()
        counts = np.broadcast_to(np.asarray(times, dtype=np.int64), values.shape).ravel()
        positive = (flat > 0) & np.isfinite(flat)
        self.zero += int(counts[flat == 0].sum())
        self.infinite += int(counts[np.isinf(flat)].sum())
        self.nan += int(counts[np.isnan(flat)].sum())
        index = np.floor(np.log10(flat[positive])).astype(np.int64) - _FIRST_DECADE
        np.add.at(self.decades, np.clip(index, 0, _DECADES - 1), counts[positive])

    def count_block(
        self, base: Any, ends: Any, held: NDArray[np.float64], floored: NDArray[np.float64]
    ) -> None:
        """Count a block of lanes, its readings by the base values of their segments.

        Parameters
        ----------
        base : array, shape (segments, K, lanes)
            Readings before the random factor.
        ends : array of int, shape (segments,)
            Reading at which each segment ends.
        held : array, shape (lanes,)
            Steps that the guard held.
        floored : array, shape (K, lanes)
            Steps with the average under the floor.
        """
        lengths = np.diff(ends, prepend=0)
        self.count_readings(base, lengths[:, None, None])
        lanes = base.shape[2]
        self._grow(base.shape[1])
        self.floor_on[: base.shape[1]] += floored.sum(axis=1).astype(np.int64)
        self.held_steps += int(held.sum())
        self.active_steps += int(ends[-1]) * lanes - int(held.sum())

    def count_run(
        self, target: Target, readings: NDArray[np.float64], path: Trajectory | None
    ) -> None:
        """Count one run of a target, branches where it claims to be GABA.

        Parameters
        ----------
        target : Target
            What was run.
        readings : array, shape (steps, K)
            What it read.
        path : Trajectory or None
            What it did; without it, or without averages in it, the floor is not counted.
        """
        self.count_readings(readings)
        spec = target.spec
        if spec is None:
            self.active_steps += len(readings)
            return
        warm = min(spec.warmup, len(readings))
        active = readings[warm :: spec.interval]
        held = int((~usable(active, spec.law)).sum()) if spec.guard == "hold" and len(active) else 0
        self.warmup_steps += warm
        self.held_steps += held
        self.active_steps += len(active) - held
        if path is not None and path.averages is not None:
            self._grow(target.n_tasks)
            with np.errstate(invalid="ignore"):
                under = (path.averages[warm:] < spec.floor).sum(axis=0)
            self.floor_on[: target.n_tasks] += under

    def _grow(self, k: int) -> None:
        if len(self.floor_on) < k:
            self.floor_on = np.append(self.floor_on, np.zeros(k - len(self.floor_on), np.int64))

    @property
    def decades_visited(self) -> int:
        """How many of the 633 decades of a positive double occurred."""
        return int((self.decades > 0).sum())

    def to_dict(self) -> dict[str, Any]:
        """Keys: decades ({"1e-3": count}), zero, infinite, nan, branches.

        Examples
        --------
        >>> coverage = Coverage()
        >>> coverage.count_readings(np.array([0.0, 2.0, 5.0, 0.03]))
        >>> coverage.to_dict()["decades"]
        {'1e-2': 1, '1e0': 2}
        """
        visited = np.flatnonzero(self.decades)
        return {
            "decades": {f"1e{i + _FIRST_DECADE}": int(self.decades[i]) for i in visited},
            "decades_visited": self.decades_visited,
            "zero": self.zero,
            "infinite": self.infinite,
            "nan": self.nan,
            "branches": {
                **{name: getattr(self, name) for name in _BRANCHES},
                "floor_on_by_task": self.floor_on.tolist(),
            },
        }


@dataclass
class Found:
    """What a search has seen.

    Attributes
    ----------
    steps, cases, violations : int
        Controller steps and cases run, and cases (or lanes) that broke the property.
    seconds : float
        Wall time.
    low, high : float
        Least and largest finite weight.
    first_violation_s : float or None
        Seconds until the first violation.
    coverage : Coverage
        Decades and branches visited.
    case : Case or None
        The worst case that breaks the property.
    outcome : Judged or None
        Its verdict.
    worst : lanes.Programs or None
        In the vectorised searcher: the lane with the largest violation.
    score : float
        Its violation (positive), or how close the closest lane came (negative).
    """

    steps: int = 0
    cases: int = 0
    violations: int = 0
    seconds: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    first_violation_s: float | None = None
    coverage: Coverage = field(default_factory=Coverage)
    case: Case | None = None
    outcome: Judged | None = None
    worst: Any = None
    score: float = -math.inf

    def note(self, case: Case, outcome: Judged) -> None:
        """Take in one verdict.

        Parameters
        ----------
        case : Case
            What was run.
        outcome : Judged
            What came of it; the worst violation is kept.
        """
        self.cases += 1
        self.steps += outcome.steps
        self.low, self.high = min(self.low, outcome.low), max(self.high, outcome.high)
        if outcome.violated:
            self.violations += 1
            if self.outcome is None or outcome.score > self.outcome.score:
                self.case, self.outcome = case, outcome

    def add(self, other: Found) -> None:
        """Take in what another search has seen; the wall time stays.

        Parameters
        ----------
        other : Found
            Stays as it is.
        """
        self.steps += other.steps
        self.cases += other.cases
        self.violations += other.violations
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        times = [t for t in (self.first_violation_s, other.first_violation_s) if t is not None]
        self.first_violation_s = min(times, default=None)
        self.coverage.add(other.coverage)
        if other.case is not None:
            self.case, self.outcome = other.case, other.outcome
        if other.score > self.score:
            self.score, self.worst = other.score, other.worst
