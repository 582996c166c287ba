"""From a failing case to one a person can read, by Hypothesis' own shrinker.

Hypothesis shrinks the choices behind a value, not the value. It is told of the choices that produce
the case the searcher found, as of a failure of an earlier run, and shrinks it like any of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from gabactl.fuzzing.cases import Case, Segment

#: Numbers a reader likes, the simplest first.
_SIMPLE = (0.0, 1.0, 2.0, 3.0, 10.0, 0.5, 0.1, 100.0, 1e3, 1e6, 1e-3, 1e-6, math.nan, math.inf)
#: Under which Hypothesis finds the choices; what is "secondary" there is not shrunk yet.
_KEY = b"gabactl"


class _TimeUp(BaseException):
    """Leaves Hypothesis at once; an ordinary exception would count as another failure."""


def shrink(
    case: Case,
    fails: Callable[[Case], bool],
    *,
    time_limit: float = 20.0,
    n_tasks_min: int | None = None,
) -> Case:
    """The smallest case that still fails.

    Parameters
    ----------
    case : Case
        A case that fails.
    fails : callable
        Whether a case fails (and is admissible).
    time_limit : float
        Seconds; after that the best so far is returned.
    n_tasks_min : int, optional
        Fewest tasks ``fails`` can judge; default those of the case.

    Returns
    -------
    Case
        Fewer segments, smaller repeats, simpler and fewer different numbers.

    Examples
    --------
    >>> noisy = Case((Segment((3.7, 0.2), 4), Segment((123.4, 1e-7), 90)))
    >>> small = shrink(noisy, lambda case: any(s.reading[0] > 100 for s in case.segments))
    >>> small.segments
    (Segment(reading=(1000.0, 0.0), repeat=1, losses=None),)
    """
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis.database import InMemoryExampleDatabase, choices_to_bytes
    from hypothesis.errors import Flaky, NoSuchExample

    deadline = time.monotonic() + time_limit
    best = case
    # Hypothesis asks again to make sure, so verdicts must not change when the time is up.
    verdicts = {repr(case): True}

    def still_fails(candidate: Case) -> bool:
        nonlocal best
        key = repr(candidate)
        if key not in verdicts:
            if time.monotonic() > deadline:
                raise _TimeUp
            verdicts[key] = bool(candidate.segments) and fails(candidate)
            if verdicts[key] and _size(candidate) <= _size(best):
                best = candidate
        return verdicts[key]

    def search() -> None:
        nonlocal best
        start = case
        for k in range(n_tasks_min or case.n_tasks, case.n_tasks):
            fewer = _narrowed(case, k)
            if fewer is not None and still_fails(fewer):
                start = fewer
                break
        start = _collapsed(start, still_fails)
        database = InMemoryExampleDatabase()
        database.save(_KEY + b".secondary", choices_to_bytes(_choices(start)))
        options = settings(
            database=database,
            deadline=None,
            phases=[Phase.reuse, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        # A rule with randomness of its own fails now and then: the best so far is kept.
        with suppress(NoSuchExample, Flaky):
            start = find(variants(start), still_fails, settings=options, database_key=_KEY)
        best = _collapsed(start, still_fails)

    with suppress(_TimeUp):
        search()
    return best


def variants(case: Case) -> Any:
    """A Hypothesis strategy of the cases no larger than a given one, simplest first.

    Parameters
    ----------
    case : Case
        Not empty. Its variants have no more segments, of numbers that occur in it or are simpler.

    Returns
    -------
    hypothesis.strategies.SearchStrategy of Case

    Examples
    --------
    >>> from hypothesis import find
    >>> find(variants(Case((Segment((7.5, 1.0), 3),))), lambda case: case.n_tasks).expression()
    '[[0.0, 0.0]]'
    """
    from hypothesis import strategies as st

    table = _table(case)
    k = case.n_tasks
    longest = max(s.repeat for s in case.segments)
    with_losses = case.has_losses
    losses = _loss_table(case)

    @st.composite
    def draw_case(draw: Any) -> Case:
        segments: list[Segment] = []
        while len(segments) < len(case.segments) and draw(st.booleans()):
            row = tuple(table[draw(st.integers(0, len(table) - 1))] for _ in range(k))
            repeat = draw(st.integers(1, longest))
            values = None
            if with_losses:
                values = tuple(losses[draw(st.integers(0, len(losses) - 1))] for _ in range(k))
            segments.append(Segment(row, repeat, values))
        out = replace(case, segments=tuple(segments))
        if case.exponent is not None:
            magnitude = draw(st.integers(1, max(abs(case.exponent), 1)))
            out = replace(out, exponent=int(math.copysign(magnitude, case.exponent)))
        if case.save_after is not None:
            out = replace(out, save_after=draw(st.integers(0, case.save_after)))
        return out

    return draw_case()


def _collapsed(case: Case, fails: Callable[[Case], bool]) -> Case:
    """One reading held all the time, where that fails too; else neighbours merged."""
    total = case.n_steps
    for s in sorted(case.segments, key=lambda s: -s.repeat)[:8]:
        one = replace(case, segments=(replace(s, repeat=total),))
        if len(case.segments) > 1 and fails(one):
            return one
    i = 0
    while i + 1 < len(case.segments) <= 64:
        first, second = case.segments[i : i + 2]
        for kept in (second, first):
            merged = replace(kept, repeat=first.repeat + second.repeat)
            shorter = (*case.segments[:i], merged, *case.segments[i + 2 :])
            if fails(replace(case, segments=shorter)):
                case = replace(case, segments=shorter)
                break
        else:
            i += 1
    return case


def _choices(case: Case) -> list[bool | int]:
    """The draws of :func:`variants` that give the case itself."""
    table = [repr(x) for x in _table(case)]
    losses = _loss_table(case)
    out: list[bool | int] = []
    for s in case.segments:
        out.append(True)
        out += [table.index(repr(x)) for x in s.reading]
        out.append(s.repeat)
        if case.has_losses:
            out += [losses.index(x) for x in s.losses or (1.0,) * case.n_tasks]
    # The strategy stops by itself at the length of the case.
    if case.exponent is not None:
        out.append(max(abs(case.exponent), 1))
    if case.save_after is not None:
        out.append(case.save_after)
    return out


def _table(case: Case) -> list[float]:
    """The numbers a reading may hold."""
    return _with_simpler(_SIMPLE, [x for s in case.segments for x in s.reading])


def _loss_table(case: Case) -> list[float]:
    return _with_simpler((1.0, 2.0, 0.5, 10.0), [x for s in case.segments for x in s.losses or ()])


def _with_simpler(simple: Sequence[float], own: Sequence[float]) -> list[float]:
    """Simple numbers, then the powers of ten below the case's, these rounded, and its own."""
    finite = [x for x in own if math.isfinite(x)]
    powers = [float(f"1e{math.floor(math.log10(x))}") for x in finite if x > 0]
    rounded = [float(f"{x:.{digits}g}") for digits in (1, 2, 3) for x in finite]
    return list({repr(x): x for x in (*simple, *powers, *rounded, *own)}.values())


def _narrowed(case: Case, k: int) -> Case | None:
    """The case for fewer tasks: the loudest and the quietest stay."""
    if case.permutation is not None:
        return None
    loud = sorted(
        range(case.n_tasks), key=lambda i: -sum(s.reading[i] * s.repeat for s in case.segments)
    )
    keep = sorted([*loud[: k - 1], loud[-1]])

    def kept(row: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(row[i] for i in keep)

    segments = [
        Segment(kept(s.reading), s.repeat, s.losses and kept(s.losses)) for s in case.segments
    ]
    return replace(case, segments=tuple(segments))


def _size(case: Case) -> tuple[int, ...]:
    return (
        case.n_tasks,
        len(case.segments),
        case.n_steps,
        abs(case.exponent or 0) + (case.save_after or 0),
        sum(len(repr(x)) for s in case.segments for x in s.reading),
        case.distinct,
    )
