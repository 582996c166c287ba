"""What a theorem is: a named statement, how it is decided, and the errors that must turn it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from gabactl.base.errors import InputError, printable

__all__ = ["Outcome", "theorem"]

Verdict = Literal["proved", "refuted", "unknown"]

#: symbolic: algebra for every K. SMT: a solver refutes the negation. exact: rational arithmetic on
#: the stage functions. interval: outward-rounded enclosures. rounding: IEEE arithmetic through
#: the error model of rounding to nearest. certificate: a witness checked in rationals.
Method = Literal["symbolic", "SMT", "exact", "interval", "rounding", "certificate"]


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes
    ----------
    verdict : {"proved", "refuted", "unknown"}
        A step that cannot be decided, or a counterexample that does not replay, gives ``unknown``.
    derivation : tuple of str
        The derivation, one checked step a line.
    core : tuple of str
        Names of the hypotheses a solver needed.
    counterexample : mapping of str to str, or None
        Exact values (rationals as ``p/q``).
    replays : tuple of str
        Where the counterexample was run, and what came out.
    certificate : mapping of str to str, or None
        Values whose check proves the statement.
    reason : str
        Why the verdict is ``unknown``.
    """

    verdict: Verdict
    derivation: tuple[str, ...] = ()
    core: tuple[str, ...] = ()
    counterexample: Mapping[str, str] | None = None
    replays: tuple[str, ...] = ()
    certificate: Mapping[str, str] | None = None
    reason: str = ""

    @property
    def witness(self) -> str:
        """The witness in one line."""
        if self.verdict == "unknown":
            return self.reason or "no step decided"
        if self.counterexample is not None:
            values = ", ".join(f"{name} = {value}" for name, value in self.counterexample.items())
            return f"counterexample {values}"
        if self.certificate is not None:
            return "certificate " + ", ".join(f"{n} = {v}" for n, v in self.certificate.items())
        parts = []
        if self.derivation:
            parts.append(f"{len(self.derivation)} steps" if len(self.derivation) > 1 else "1 step")
        if self.core:
            parts.append("core " + ", ".join(self.core))
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; :meth:`from_dict` reads them back."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """The outcome written by :meth:`to_dict`.

        Parameters
        ----------
        values : mapping
            Read from JSON.

        Raises
        ------
        KeyError, TypeError
            It is none: what a theorem file prints may come in between.

        Examples
        --------
        >>> Outcome.from_dict(Outcome("proved", derivation=("0 = 0",)).to_dict()).witness
        '1 step'
        """
        if not isinstance(values, dict) or values["verdict"] not in get_args(Verdict):
            raise TypeError("no verdict")
        return cls(
            verdict=values["verdict"],
            derivation=_lines(values["derivation"]),
            core=_lines(values["core"]),
            counterexample=_named(values["counterexample"]),
            replays=_lines(values["replays"]),
            certificate=_named(values["certificate"]),
            reason=_line(values["reason"]),
        )


def _line(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} for a text")
    return printable(value)


def _lines(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{type(values).__name__} for a list of texts")
    return tuple(_line(value) for value in values)


def _named(values: Any) -> dict[str, str] | None:
    if values is None:
        return None
    if not isinstance(values, dict):
        raise TypeError(f"{type(values).__name__} for named values")
    return {_line(name): _line(str(value)) for name, value in values.items()}


@dataclass(frozen=True)
class Theorem:
    """A statement, its hypotheses, and the function that decides it.

    Made by :func:`theorem`. ``check`` takes keyword arguments with defaults; a mutant replaces
    some of them.

    Attributes
    ----------
    id, statement : str
        Short name, and the statement in words and formulas.
    given : tuple of str
        Hypotheses.
    method : str
        Main back end.
    expect : {"proved", "refuted"}
        Verdict the author expects.
    mutants : mapping of str to mapping
        Name of a planted error, and the arguments that plant it.
    check : callable
        Returns an :class:`Outcome`.
    source : str
        Where the statement comes from.
    budget : float
        Seconds after which the verdict is ``unknown``.
    family : str
        The file it is in, without the suffix; set on loading.
    """

    id: str
    statement: str
    given: tuple[str, ...]
    method: Method
    expect: Verdict
    mutants: Mapping[str, Mapping[str, Any]]
    check: Callable[..., Outcome] = field(repr=False, compare=False)
    source: str = ""
    budget: float = 60.0
    family: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What is claimed, as plain values."""
        names = ("id", "family", "statement", "method", "source", "expect")
        return {**{name: getattr(self, name) for name in names}, "given": list(self.given)}

    def prove(self, mutant: str | None = None) -> Outcome:
        """Decide the statement (or its mutant) here and now, without a time limit.

        Any error inside the check gives ``unknown``, with the error as the reason.

        Parameters
        ----------
        mutant : str, optional
            Plant this error first.

        Raises
        ------
        InputError
            There is no such mutant.
        """
        if mutant is not None and mutant not in self.mutants:
            raise InputError(
                f"{self.id} has no mutant {mutant!r}: choose one of {', '.join(self.mutants)}"
            )
        arguments = self.mutants[mutant] if mutant is not None else {}
        try:
            outcome = self.check(**arguments)
        except Exception as error:
            return Outcome("unknown", reason=f"{type(error).__name__}: {error}")
        if not isinstance(outcome, Outcome):
            return Outcome("unknown", reason=f"the check returned {type(outcome).__name__}")
        return outcome


def theorem(
    id: str,
    statement: str,
    *,
    given: Sequence[str] = (),
    method: Method = "symbolic",
    expect: Verdict = "proved",
    mutants: Mapping[str, Mapping[str, Any]],
    source: str = "",
    budget: float = 60.0,
) -> Callable[[Callable[..., Outcome]], Theorem]:
    """Make a check a :class:`Theorem`.

    Parameters
    ----------
    id, statement, given, method, expect, source, budget
        As in :class:`Theorem`.
    mutants : mapping of str to mapping, at least one
        Planted errors. A check that no error can turn shows nothing.

    Raises
    ------
    InputError
        No mutant, an unknown method or verdict, a budget outside (0, 1e6] s, or text that is
        none.

    Examples
    --------
    >>> @theorem("ODD", "2 n + 1 is odd", method="exact", mutants={"even": {"shift": 0}})
    ... def odd(shift=1):
    ...     ok = all((2 * n + shift) % 2 == 1 for n in range(9))
    ...     return Outcome("proved" if ok else "refuted")
    >>> odd.prove().verdict, odd.prove("even").verdict
    ('proved', 'refuted')
    """
    texts = {"id": id, "statement": statement, "source": source}
    for name, text in texts.items():
        if not isinstance(text, str) or not (text or name == "source") or not text.isprintable():
            raise InputError(f"theorem {id!r}: {name} = {text!r} is not one line of text")
    lines = list(given) if isinstance(given, (list, tuple)) else [given]
    if not all(isinstance(line, str) and line.isprintable() for line in lines) or lines == [given]:
        raise InputError(f"theorem {id!r}: given = {given!r}: give a list of lines of text")
    if not mutants:
        raise InputError(f"theorem {id!r} has no mutant: give one planted error that turns it")
    if not isinstance(mutants, Mapping) or not all(
        isinstance(name, str) and name.isprintable() and isinstance(changes, Mapping)
        for name, changes in mutants.items()
    ):
        raise InputError(
            f"theorem {id!r}: mutants = {mutants!r}: give names and the arguments that plant them"
        )
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget <= 1e6:
        raise InputError(f"theorem {id!r}: budget = {budget!r} is not in (0, 1e6] s: such as 60")
    if method not in get_args(Method):
        raise InputError(f"method = {method!r}: choose one of {', '.join(get_args(Method))}")
    if expect not in ("proved", "refuted"):
        raise InputError(f"expect = {expect!r}: choose proved or refuted")

    def decorate(check: Callable[..., Outcome]) -> Theorem:
        return Theorem(
            id, statement, tuple(given), method, expect, dict(mutants), check, source, budget
        )

    return decorate
