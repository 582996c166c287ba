"""Symbolic back end: derivations by sympy, with sums over a symbolic number of tasks.

A :class:`Derivation` is a list of steps, each checked by algebra, by the SMT back end or by exact
arithmetic. It is proved when every step holds and refuted by the first that fails at an exact
rational point; what comes after that is not looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import gabactl.proving.smt as smt
from gabactl.proving.theorem import Outcome


def sum_over(term: Any, index: Any, count: Any, known: Mapping[Any, Any]) -> Any:
    """Sum of ``term`` over ``index`` = 1..``count``, by linearity.

    Parameters
    ----------
    term : sympy expression
        Linear in the terms of ``known``.
    index, count : sympy symbols
        The index and its (symbolic) last value.
    known : mapping
        Sums that have a name, such as ``{g[i]: S}``.

    Returns
    -------
    sympy expression
        Free of the index.

    Raises
    ------
    ValueError
        A term depends on the index in another way.

    Examples
    --------
    >>> import sympy
    >>> i, K, S = sympy.symbols("i K S")
    >>> g = sympy.IndexedBase("g")
    >>> sum_over((S - g[i]) / S, i, K, {g[i]: S})
    K - 1
    """
    import sympy

    total: Any = sympy.Integer(0)
    for part in sympy.Add.make_args(sympy.expand(term)):
        factors = sympy.Mul.make_args(part)
        free = sympy.Mul(*[f for f in factors if not f.has(index)])
        bound = sympy.Mul(*[f for f in factors if f.has(index)])
        if bound == 1:
            total += free * count
        elif bound in known:
            total += free * known[bound]
        else:
            raise ValueError(f"no name for the sum of {bound} over {index}")
    return sympy.simplify(total)


class Derivation:
    """Steps of a proof, each checked as it is written.

    Examples
    --------
    >>> import sympy
    >>> x = sympy.Symbol("x", positive=True)
    >>> proof = Derivation()
    >>> proof.equal("a square", (x + 1) ** 2, x**2 + 2 * x + 1)
    >>> proof.done().derivation
    ('a square: equal by algebra',)
    """

    def __init__(self) -> None:
        self._steps: list[str] = []
        self._core: list[str] = []
        self._counterexample: dict[str, str] | None = None
        self._replays: tuple[str, ...] = ()
        self._undecided: str = ""
        self._refuted = False

    def argue(self, text: str) -> None:
        """A line of reasoning that no machine checks, marked as such.

        Parameters
        ----------
        text : str
            The reasoning.
        """
        self._steps.append(f"argument: {text}")

    def equal(self, text: str, left: Any, right: Any) -> None:
        """left = right for all values of their symbols (within their sympy assumptions).

        Parameters
        ----------
        text : str
            What the step says.
        left, right : sympy expression
            Its sides. A point where they differ refutes; where sympy finds neither, it is undecided.
        """
        import sympy

        if self._refuted:
            return
        difference = sympy.simplify(sympy.sympify(left) - sympy.sympify(right))
        if difference != 0:
            difference = sympy.simplify(sympy.powsimp(sympy.expand(difference), force=True))
        if difference == 0:
            self._steps.append(f"{text}: equal by algebra")
            return
        point = _point_apart(difference)
        if point is None:
            self._give_up(text, f"sympy leaves {difference}")
        else:
            self._fail(text, point)

    def holds(self, text: str, goal: Any, *, timeout: float = 30.0, **given: Any) -> None:
        """``given`` implies ``goal``, for the SMT back end (:func:`gabactl.proving.smt.decide`).

        Parameters
        ----------
        text : str
            What the step says.
        goal : z3 Boolean
            What is to follow.
        timeout : float, positive
            Seconds for the solver.
        **given : z3 Boolean
            Named hypotheses.
        """
        if self._refuted:
            return
        found = smt.decide(goal, timeout=timeout, **given)
        if found.verdict == "proved":
            self._core += found.core
            self._steps.append(
                f"{text}: SMT" + (f" ({', '.join(found.core)})" if found.core else "")
            )
        elif found.verdict == "refuted":
            self._fail(text, dict(found.counterexample or {}))
        else:
            self._give_up(text, found.reason)

    def exact(
        self, text: str, truth: bool, counterexample: Mapping[str, object] | None = None
    ) -> None:
        """A fact computed in exact (or outward-rounded) arithmetic.

        Parameters
        ----------
        text : str
            What the step says.
        truth : bool
            Whether it came out so; False refutes.
        counterexample : mapping, optional
            Values, by name, where it does not hold.
        """
        if truth:
            self._steps.append(f"{text}: computed")
        else:
            self._fail(text, {n: str(v) for n, v in (counterexample or {}).items()})

    def include(self, text: str, outcome: Outcome) -> None:
        """A part decided elsewhere.

        Parameters
        ----------
        text : str
            What the step says, where the outcome has no derivation of its own.
        outcome : Outcome
            Proved, refuted or unknown: so is this proof then.
        """
        if outcome.verdict == "proved":
            self._steps += outcome.derivation or [text]
            self._core += outcome.core
        elif outcome.verdict == "refuted":
            self._fail(text, dict(outcome.counterexample or {}))
            self._replays += outcome.replays
        else:
            self._give_up(text, outcome.reason)

    def replayed(self, lines: tuple[str, ...]) -> None:
        """Where the counterexample was run.

        Parameters
        ----------
        lines : tuple of str
            One for each place, as :func:`gabactl.proving.replay.confirm` gives them.
        """
        self._replays += lines

    def done(self) -> Outcome:
        """The verdict: refuted if a step failed, else unknown if one is open, else proved."""
        steps, core = tuple(self._steps), tuple(dict.fromkeys(self._core))
        if self._refuted:
            return Outcome(
                "refuted", steps, counterexample=self._counterexample, replays=self._replays
            )
        if self._undecided or not any(not s.startswith("argument") for s in steps):
            return Outcome("unknown", steps, reason=self._undecided or "no step was checked")
        return Outcome("proved", steps, core, replays=self._replays)

    def _fail(self, text: str, point: Mapping[str, str]) -> None:
        self._steps.append(f"{text}: FAILS")
        if not self._refuted:
            self._refuted, self._counterexample = True, dict(point)

    def _give_up(self, text: str, reason: str) -> None:
        self._steps.append(f"{text}: undecided")
        self._undecided = self._undecided or f"{text}: {reason}"


def _point_apart(difference: Any) -> dict[str, str] | None:
    """A rational point where the expression is not zero."""
    import sympy

    symbols = sorted(difference.free_symbols, key=str)
    if any(not s.is_Symbol for s in symbols):
        return None
    choices = [_candidates(s) for s in symbols]
    for point in itertools.islice(itertools.product(*choices), 400):
        at = difference.subs({s: sympy.Rational(v) for s, v in zip(symbols, point, strict=True)})
        if at.is_number and at.is_finite and at.is_zero is False:
            return {str(s): str(v) for s, v in zip(symbols, point, strict=True)}
    return None


def _candidates(symbol: Any) -> list[Fraction]:
    numbers = [2, 3, 4] if symbol.is_integer else ["1/3", "2", "3/5", "5", "1"]
    sign = -1 if symbol.is_negative else 1
    return [sign * Fraction(n) for n in numbers]
