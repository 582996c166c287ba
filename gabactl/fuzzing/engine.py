"""The fuzzer: corpus first, then the search, then shrinking."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gabactl.base.errors import InputError
from gabactl.fuzzing import corpus as corpus_files
from gabactl.fuzzing import lanes
from gabactl.fuzzing.cases import Case
from gabactl.fuzzing.coverage import Found
from gabactl.fuzzing.properties import (
    PROPERTIES,
    Bound,
    Bounds,
    Property,
    Simplex,
    make_property,
    simplex_slack,
)
from gabactl.fuzzing.reach import reachable
from gabactl.fuzzing.result import FuzzReport, FuzzResult
from gabactl.fuzzing.search import search
from gabactl.fuzzing.shrink import shrink
from gabactl.fuzzing.target import Target
from gabactl.fuzzing.targets import as_target
from gabactl.law.spec import GabaSpec

__all__ = ["check_case", "fuzz", "fuzz_bounds"]

#: Steps per property: for our own controllers in the vectorised searcher, and for any other rule.
DEFAULT_STEPS = {"lanes": 3_000_000, "other": 50_000}

#: What the vectorised searcher measures.
_LANE_PROPERTIES = ("bounds", "simplex", "finite")

#: Share of the budget that even our own controllers spend in the general searcher.
_GENERAL_STEPS = 4_000


@dataclass(frozen=True)
class Settings:
    """Budget and switches of a run."""

    steps: int | None = None
    time_limit: float | None = None
    seed: int = 0
    workers: int = 1
    shrink_seconds: float = 20.0
    corpus: str | Path | None = None
    progress: Callable[[int], None] | None = None


def fuzz(
    target: str | Target | Callable[..., Any] = "gaba",
    property: str = "all",
    *,
    spec: GabaSpec | None = None,
    bound: Bound = "tight",
    steps: int | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    workers: int = 1,
    corpus: str | Path | None = None,
    shrink_seconds: float = 20.0,
    progress: Callable[[int], None] | None = None,
) -> FuzzReport:
    """Look for inputs that break what a weighting rule guarantees.

    Parameters
    ----------
    target : str, Target or factory
        See :func:`gabactl.fuzzing.resolve`; a factory of torch losses or of step functions as it is.
    property : str
        One of :data:`gabactl.fuzzing.PROPERTIES`, or ``"all"``.
    spec : GabaSpec, optional
        Settings of our own targets.
    bound : "tight", "published" or (low, high)
        For ``bounds``: the weights the rule can really reach (of a rule that is not GABA: not
        negative), the published [m, 1 - m], or a range. Widened by 4 units in the last place,
        or what :func:`gabactl.fuzzing.properties.rounding_slack` proves for more than two tasks.
    steps : int, optional
        Controller steps per property; default 3 million for our own controllers, 50,000 otherwise.
    time_limit : float, optional
        Seconds per property.
    seed : int
        Of everything random.
    workers : int
        Threads of the vectorised searcher.
    corpus : path, optional
        Folder of failing cases: replayed first, and added to.
    shrink_seconds : float
        Time for shrinking one failing case.
    progress : callable, optional
        Called with the steps done since the last call.

    Returns
    -------
    FuzzReport
        One :class:`FuzzResult` per property.

    Raises
    ------
    InputError
        Unknown target, property or bound; a budget below 1.

    Examples
    --------
    >>> import gabactl
    >>> report = fuzz("gaba", "bounds", spec=gabactl.GabaSpec(warmup=0, beta=0.5),
    ...               bound="published", steps=5000)
    >>> report.results[0].witness.expression()
    '[[0.0, 1.0]] * 4'
    """
    if steps is not None and steps < 1:
        raise InputError(f"steps = {steps} is below 1: give a number of controller steps")
    if time_limit is not None and not (time_limit > 0 and math.isfinite(time_limit)):
        raise InputError(f"time = {time_limit} is not a number of seconds above 0")
    if seed < 0:
        raise InputError(f"seed = {seed} is below 0: give a whole number >= 0")
    if workers < 1:
        raise InputError(f"workers = {workers} is below 1: give the number of threads")
    rule = as_target(target, spec)
    names = list(PROPERTIES) if property == "all" else [property]
    settings = Settings(steps, time_limit, seed, workers, shrink_seconds, corpus, progress)
    return FuzzReport(tuple(_fuzz_one(rule, name, bound, settings) for name in names))


def fuzz_bounds(
    spec: GabaSpec,
    steps: int = 100_000,
    seed: int = 0,
    bound: Bound = "tight",
) -> FuzzResult:
    """Fuzz the weight bounds of our controller with some settings.

    Parameters
    ----------
    spec : GabaSpec
        The settings.
    steps : int
        Controller steps.
    seed : int
        Of everything random.
    bound : "tight", "published" or (low, high)
        See :func:`fuzz`.

    Examples
    --------
    >>> result = fuzz_bounds(GabaSpec())
    >>> result.verdict, round(result.worst_low, 6), round(result.worst_high, 6)
    ('held', 0.047619, 0.952381)
    """
    return fuzz("gaba", "bounds", spec=spec, bound=bound, steps=steps, seed=seed).results[0]


def check_case(
    target: str | Target | Callable[..., Any],
    property: str,
    case: Case,
    bound: Bound = "tight",
    spec: GabaSpec | None = None,
) -> None:
    """Assert that one case does not break a property: what a pasted regression test calls.

    Parameters
    ----------
    target, property, bound, spec
        As in :func:`fuzz`.
    case : Case
        The input.

    Raises
    ------
    AssertionError
        It does; the message says at which step and with which numbers.

    Examples
    --------
    >>> check_case("gaba", "bounds", Case.from_readings([[1.0, 0.0]]))
    """
    rule = as_target(target, spec)
    rule = rule.with_tasks(case.n_tasks) or rule
    prop = make_property(property, rule, bound)
    outcome = prop.check(rule, case)
    assert not outcome.violated, f"{property} of {rule.name}: {outcome.message}"


def _fuzz_one(target: Target, name: str, bound: Bound, settings: Settings) -> FuzzResult:
    prop = make_property(name, target, bound)
    result = _blank(target, prop, bound, settings)
    reason = prop.not_applicable(target)
    if reason:
        return replace(result, verdict="skipped", message=reason)
    known = _replayed(target, name, bound, settings)
    found = _searched(target, prop, settings) if known is None else known
    result = replace(
        result,
        steps=found.steps,
        seconds=found.seconds,
        violations=found.violations,
        worst_low=found.low,
        worst_high=found.high,
        coverage=found.coverage,
        first_violation_s=found.first_violation_s,
        from_corpus=known is not None,
    )
    smallest = found.case
    if smallest is None:
        return result
    if known is None:
        smallest = _shrunk(smallest, target, name, bound, settings)
    rule = target.with_tasks(smallest.n_tasks) or target
    message = make_property(name, rule, bound).check(rule, smallest).message
    if settings.corpus is not None and known is None:
        corpus_files.save(settings.corpus, target.name, name, smallest, message)
    return replace(result, verdict="violated", witness=smallest, message=message)


def _blank(target: Target, prop: Property, bound: Bound, settings: Settings) -> FuzzResult:
    limits = (prop.low, prop.high) if isinstance(prop, Bounds) else None
    named = bound if isinstance(bound, str) else "given"
    reach, readings = None, None
    if limits is not None and target.lanes and target.spec is not None:
        steps = settings.steps or DEFAULT_STEPS["lanes"]
        readings = lanes.length_for(target.spec, steps)
        exact = reachable(target.spec, readings)
        reach = (float(exact.low), float(exact.high))
    return FuzzResult(
        target=target,
        property_name=prop.name,
        verdict="held",
        bound_name=named if limits else None,
        bound=limits,
        reach=reach,
        reach_readings=readings,
        seed=settings.seed,
    )


def _searched(target: Target, prop: Property, settings: Settings) -> Found:
    """Our own controllers in the vectorised searcher, then any rule in the general one."""
    use_lanes = target.lanes and prop.name in _LANE_PROPERTIES
    steps = settings.steps or DEFAULT_STEPS["lanes" if use_lanes else "other"]
    found = Found()
    if use_lanes:
        found = _lane_search(target, prop, steps, settings)
        if found.case is not None:
            return found
        # A few steps through the target's own code, whose branches the lanes do not enter.
        steps = min(steps, _GENERAL_STEPS)
    own = search(
        target,
        prop,
        steps=steps,
        seed=settings.seed,
        time_limit=None if use_lanes else settings.time_limit,
        progress=None if use_lanes else settings.progress,
    )
    if own.first_violation_s is not None:
        own.first_violation_s += found.seconds
    found.add(own)
    found.seconds += own.seconds
    return found


def _lane_search(target: Target, prop: Property, steps: int, settings: Settings) -> Found:
    spec = target.spec
    assert spec is not None
    found = lanes.survey(
        spec,
        _lane_score(target, prop),
        steps=steps,
        seed=settings.seed,
        time_limit=settings.time_limit,
        any_reading=prop.any_reading,
        workers=settings.workers,
        progress=settings.progress,
    )
    if found.violations and found.worst is not None:
        case = found.worst.case(spec)
        outcome = prop.check(target, case)
        # The lanes are bit-identical, so the target itself must fail too.
        if outcome.violated:
            found.case, found.outcome = case, outcome
            return found
    found.violations, found.first_violation_s = 0, None
    return found


def _lane_score(target: Target, prop: Property) -> Callable[[Any], Any]:
    """Scores of a block's statistics (rows as in ``lanes.STATS``) for a property."""
    if isinstance(prop, Bounds):
        low, high = prop.limits(target.resolution)
        return lambda stats: np.stack([low - stats[0], stats[1] - high])
    if isinstance(prop, Simplex):
        slack = 4 * target.n_tasks * target.resolution
        ema_slack = simplex_slack(target)
        return lambda stats: np.stack([stats[2] - slack, stats[3] - ema_slack, -stats[0] - slack])
    return lambda stats: np.where(stats[4] > 0, stats[4], -1.0)[None]


def _replayed(target: Target, name: str, bound: Bound, settings: Settings) -> Found | None:
    """The first case of the corpus that still fails."""
    if settings.corpus is None:
        return None
    for entry in corpus_files.load(settings.corpus):
        if entry.target != target.name or entry.property != name:
            continue
        k = entry.case.n_tasks
        rule = target.with_tasks(k)
        if rule is None or (isinstance(bound, tuple) and k != target.n_tasks):
            continue
        prop = make_property(name, rule, bound)
        if not prop.admits(rule, entry.case):
            continue
        outcome = prop.check(rule, entry.case)
        if outcome.violated:
            found = Found()
            found.note(entry.case, outcome)
            return found
    return None


def _shrunk(case: Case, target: Target, name: str, bound: Bound, settings: Settings) -> Case:
    """The smallest case that still breaks the property."""

    def fails(candidate: Case) -> bool:
        rule = target.with_tasks(candidate.n_tasks)
        # Shrinking leaves a rule for one number of tasks its own.
        assert rule is not None
        prop = make_property(name, rule, bound)
        return prop.admits(rule, candidate) and prop.check(rule, candidate).violated

    # A range that was given is one for this number of tasks.
    any_tasks = target.with_tasks(2) is not None and not isinstance(bound, tuple)
    fewest = 2 if any_tasks else target.n_tasks
    return shrink(case, fails, time_limit=settings.shrink_seconds, n_tasks_min=fewest)
