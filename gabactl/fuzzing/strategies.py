"""Hypothesis strategies for gradient norms, for tests of one's own.

They draw what a sensor can deliver and what it should not: 60 decades, subnormals, zeros, equal
norms, spikes and drops, repeats and permutations, readings that aim at the floor, and on request
NaN and infinity. They shrink towards a few steps of small whole numbers.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.fuzzing.cases import Case, Segment
from gabactl.law.spec import CHOICES, GabaSpec

__all__ = ["cases", "grad_norms", "readings", "specs"]


def grad_norms(
    n_tasks: int = 2,
    *,
    smallest: float = 1e-30,
    largest: float = 1e30,
    allow_zero: bool = True,
    allow_subnormal: bool = True,
    allow_nan: bool = False,
    allow_infinity: bool = False,
) -> Any:
    """One reading: a tuple of ``n_tasks`` gradient norms.

    Parameters
    ----------
    n_tasks : int, at least 2
        Number of tasks K.
    smallest, largest : float
        Range of the positive norms; by default 60 decades.
    allow_zero, allow_subnormal, allow_nan, allow_infinity : bool
        Which special values occur. Subnormal norms lie below ``smallest``.

    Returns
    -------
    hypothesis.strategies.SearchStrategy of tuple of float
        All equal, one loud or quiet beside the others, or anything.

    Raises
    ------
    InputError
        Fewer than two tasks, or no 0 < smallest <= largest.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(grad_norms(3), lambda reading: max(reading) > 0)
    (1.0, 1.0, 1.0)
    """
    if n_tasks < 2:
        raise InputError(f"n_tasks = {n_tasks} is below 2: balancing needs at least two losses")
    if not 0 < smallest <= largest < math.inf:
        raise InputError(
            f"smallest = {smallest}, largest = {largest}: give 0 < smallest <= largest"
        )
    whole = st.integers(1, 1000).map(float).filter(lambda x: smallest <= x <= largest)
    decades = st.builds(
        lambda x: min(max(math.exp(x), smallest), largest),
        st.floats(math.log(smallest), math.log(largest)),
    )
    norm = decades if not smallest <= 1.0 <= largest else st.one_of(whole, decades)
    allowed = {0.0: allow_zero, math.nan: allow_nan, math.inf: allow_infinity}
    special = [x for x, wanted in allowed.items() if wanted]
    if special:
        norm = st.one_of(norm, st.sampled_from(special))
    if allow_subnormal:
        norm = st.one_of(norm, st.integers(1, 2**20).map(lambda n: n * 5e-324))
    index = st.integers(0, n_tasks - 1)
    equal = norm.map(lambda x: (x,) * n_tasks)
    odd_one = st.builds(
        lambda x, y, i: tuple(y if j == i else x for j in range(n_tasks)), norm, norm, index
    )
    return st.one_of(equal, odd_one, st.tuples(*[norm] * n_tasks))


@st.composite
def cases(
    _draw: Any, /, n_tasks: int = 2, *, max_steps: int = 500, max_segments: int = 6, **reading: Any
) -> Case:
    """A sequence of readings, each held for some steps.

    Parameters
    ----------
    n_tasks : int, at least 2
        Number of tasks K.
    max_steps : int
        Longest sequence; a long memory (beta near 1) and a warm-up need long ones.
    max_segments : int
        Most different readings in a row.
    **reading
        As in :func:`grad_norms`.

    Returns
    -------
    hypothesis.strategies.SearchStrategy of Case
        With spikes (one step), drops, repeats and permutations of readings already there.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(cases(2, max_steps=20), lambda case: case.n_steps > 3).n_steps
    4
    """
    segments: list[Segment] = []
    left = max_steps
    fresh = grad_norms(n_tasks, **reading)
    for _ in range(_draw(st.integers(1, max_segments))):
        if left < 1:
            break
        row = _draw(fresh)
        if segments and _draw(st.booleans()):
            earlier = segments[_draw(st.integers(0, len(segments) - 1))].reading
            row = tuple(_draw(st.permutations(earlier)))
        repeat = _draw(st.one_of(st.just(1), st.integers(1, left)))
        segments.append(Segment(row, repeat))
        left -= repeat
    return Case(tuple(segments))


def readings(n_tasks: int = 2, *, max_steps: int = 500, **reading: Any) -> Any:
    """As :func:`cases`, as an array of shape (steps, n_tasks).

    Parameters
    ----------
    n_tasks : int, at least 2
        Number of tasks K.
    max_steps : int
        Longest sequence.
    **reading
        As in :func:`cases` and :func:`grad_norms`.

    Returns
    -------
    hypothesis.strategies.SearchStrategy of array

    Examples
    --------
    >>> from hypothesis import find
    >>> find(readings(3, max_steps=5), lambda array: True).shape
    (1, 3)
    """
    return cases(n_tasks, max_steps=max_steps, **reading).map(Case.readings)


@st.composite
def specs(_draw: Any, /, max_tasks: int = 6, **fixed: Any) -> GabaSpec:
    """Settings of a GABA controller, all laws, floor modes and guards.

    Parameters
    ----------
    max_tasks : int
        Most tasks.
    **fixed
        Settings that shall not vary.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(specs(guard="none"), lambda spec: spec.n_tasks > 2).guard
    'none'
    """
    k = fixed.get("n_tasks") or _draw(st.integers(2, max_tasks))
    drawn = {
        "n_tasks": k,
        "beta": _draw(st.sampled_from([0.99, 0.0, 0.5, 0.9, 0.999]) | st.floats(0.0, 0.9999)),
        "floor": _draw(st.sampled_from([0.05, 0.0, 0.2]) | st.floats(0.0, 0.99)) / k,
        "warmup": _draw(st.integers(0, 3) | st.just(100)),
        **{name: _draw(st.sampled_from(allowed)) for name, allowed in CHOICES.items()},
        "interval": _draw(st.sampled_from([1, 2, 10])),
    }
    return GabaSpec(**{**drawn, **fixed})
