"""SMT back end: polynomial and piecewise statements over the reals, by z3.

A statement is proved when the solver shows its negation inconsistent with the hypotheses; the
hypotheses it needed come back as the core. A solver that gives up, or whose counterexample does
not check in exact rationals, gives ``unknown``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from gabactl.base.errors import InputError
from gabactl.proving.theorem import Outcome

__all__ = ["both", "decide", "largest", "reals", "value", "within"]


def reals(names: str) -> list[Any]:
    """Real variables.

    Parameters
    ----------
    names : str
        Parted by blanks.

    Returns
    -------
    list of z3 real terms

    Examples
    --------
    >>> reals("m e")
    [m, e]
    """
    import z3

    return list(z3.Reals(names))


def within(low: Any, x: Any, high: Any) -> Any:
    """The constraint low <= x <= high.

    Parameters
    ----------
    low, x, high : z3 real terms or numbers
        The ends and what is between; at least one is a term.

    Returns
    -------
    z3 Boolean

    Examples
    --------
    >>> within(0, reals("x")[0], 1)
    And(x >= 0, x <= 1)
    """
    import z3

    return z3.And(x >= low, x <= high)


def largest(x: Any, y: Any) -> Any:
    """max(x, y) as a solver term.

    Parameters
    ----------
    x, y : z3 real terms
        Real terms, or one of them a number.

    Returns
    -------
    z3 real term

    Examples
    --------
    >>> largest(*reals("e m"))
    If(e >= m, e, m)
    """
    import z3

    return z3.If(x >= y, x, y)


def value(number: Fraction | int | str) -> Any:
    """An exact rational constant.

    Parameters
    ----------
    number : Fraction, int or str
        Exact; a str such as "1/20" or "0.05".

    Returns
    -------
    z3 real constant

    Examples
    --------
    >>> value(Fraction(1, 20))
    1/20
    """
    import z3

    return z3.RealVal(str(Fraction(number)))


def decide(goal: Any, *, timeout: float = 30.0, **given: Any) -> Outcome:
    """Prove or refute ``given implies goal`` for all reals.

    Parameters
    ----------
    goal : z3 Boolean
        The statement.
    timeout : float, above 0
        Seconds; past it the verdict is ``unknown``. The solver stops where it looks for a signal:
        a fraction of a second later, at most a few.
    **given : z3 Boolean
        Named hypotheses.

    Returns
    -------
    Outcome
        With the core (proved) or an exact counterexample (refuted).

    Raises
    ------
    InputError
        A timeout that is not a positive number of seconds.

    Examples
    --------
    >>> x, = reals("x")
    >>> decide(x * x >= x, size=x >= 1).core
    ('size',)
    >>> decide(x * x >= x, sign=x >= 0).verdict
    'refuted'
    """
    import z3

    if not 0.0 < timeout <= threading.TIMEOUT_MAX:
        raise InputError(f"timeout = {timeout!r}: give a number of seconds above 0, such as 30")
    solver = z3.Solver()
    for name, hypothesis in given.items():
        solver.assert_and_track(hypothesis, name)
    solver.add(z3.Not(goal))
    answer, late = _stopped_after(timeout, solver)
    if answer == z3.unsat:
        core = {str(name) for name in solver.unsat_core()}
        return Outcome("proved", core=tuple(name for name in given if name in core))
    if answer == z3.unknown:
        why = f"no answer within {timeout:g} s" if late else solver.reason_unknown()
        return Outcome("unknown", reason=f"the solver gave up: {why}")
    return _refuted(solver.model(), goal, list(given.values()))


def both(outcomes: Iterable[Outcome]) -> Outcome:
    """The conjunction: refuted by the first refuted part, proved when all parts are.

    Parameters
    ----------
    outcomes : iterable of Outcome
        The parts, any number of them.

    Returns
    -------
    Outcome
        ``unknown`` where no part is refuted and one is unknown.

    Examples
    --------
    >>> both([Outcome("proved", core=("a",)), Outcome("proved", core=("a", "b"))]).core
    ('a', 'b')
    """
    found = list(outcomes)
    steps = tuple(step for part in found for step in part.derivation)
    for verdict in ("refuted", "unknown"):
        for part in found:
            if part.verdict == verdict:
                return Outcome(
                    part.verdict,
                    steps,
                    counterexample=part.counterexample,
                    replays=part.replays,
                    reason=part.reason,
                )
    core = tuple(dict.fromkeys(name for part in found for name in part.core))
    return Outcome("proved", steps, core)


def _stopped_after(seconds: float, solver: Any) -> tuple[Any, bool]:
    """The solver's answer, and whether it was told to stop: after ``seconds``, and until it does.

    The solver's own timeout is a single signal, which it can lose between two of its procedures
    (seen with 2 ms, after which it ran on for minutes).
    """
    answered, late = threading.Event(), threading.Event()

    def watch() -> None:
        wait = seconds
        while not answered.wait(wait):
            late.set()
            solver.ctx.interrupt()
            wait = 0.01

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return solver.check(), late.is_set()
    finally:
        answered.set()
        watcher.join()


def _refuted(model: Any, goal: Any, given: list[Any]) -> Outcome:
    import z3

    names = sorted((d for d in model.decls() if d.arity() == 0), key=str)
    values = {str(d): _fraction(model[d]) for d in names if not z3.is_bool(model[d])}
    exact = [(z3.Real(name), value(number)) for name, number in values.items()]
    statement = z3.simplify(z3.substitute(z3.And(*given, z3.Not(goal)), *exact))
    if not z3.is_true(statement):
        return Outcome(
            "unknown", reason="the solver's counterexample is irrational and did not check rounded"
        )
    return Outcome("refuted", counterexample={n: str(v) for n, v in values.items()})


def _fraction(number: Any) -> Fraction:
    import z3

    if z3.is_rational_value(number) or z3.is_int_value(number):
        return Fraction(str(number.as_fraction() if hasattr(number, "as_fraction") else number))
    approximation = number.approx(30)
    return Fraction(str(approximation.as_fraction()))
