"""What a fuzz run reports."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gabactl.base.plots import axes
from gabactl.base.results import Result
from gabactl.fuzzing.cases import RELATIONS, Case
from gabactl.fuzzing.coverage import Coverage
from gabactl.fuzzing.target import Target, run_case
from gabactl.law.spec import GabaSpec

__all__ = ["FuzzReport", "FuzzResult"]

Verdict = Literal["violated", "held", "skipped"]


@dataclass(frozen=True)
class FuzzResult(Result):
    """One property of one target.

    Attributes
    ----------
    target : Target
        What was fuzzed.
    property_name : str
        Which guarantee.
    verdict : {"violated", "held", "skipped"}
        ``held`` means that nothing was found, not that nothing is there.
    bound_name : str or None
        ``tight``, ``published`` or ``given``; None for other properties than bounds.
    bound : (low, high) or None
        The range, without what it is widened by for rounding.
    steps, seconds : int, float
        Controller steps run while searching, and the time that took.
    violations : int
        Cases that broke the property (the search stops soon after the first).
    worst_low, worst_high : float
        Least and largest finite weight seen.
    witness : Case or None
        The smallest failing case.
    message : str
        What is wrong with it, or why the property was skipped.
    first_violation_s : float or None
        Seconds until the first violation.
    from_corpus : bool
        Whether the failing case came from the corpus.
    reach : (low, high) or None
        For our own controllers and bounds: the weights that are exactly reachable in
        ``reach_readings`` readings, to measure the search against.
    reach_readings : int or None
        How many readings that are.
    coverage : Coverage
        Decades and branches visited.
    seed : int
        Of everything random.
    """

    target: Target
    property_name: str
    verdict: Verdict
    bound_name: str | None
    bound: tuple[float, float] | None
    steps: int = 0
    seconds: float = 0.0
    violations: int = 0
    worst_low: float = math.nan
    worst_high: float = math.nan
    witness: Case | None = None
    message: str = ""
    first_violation_s: float | None = None
    from_corpus: bool = False
    reach: tuple[float, float] | None = None
    reach_readings: int | None = None
    coverage: Coverage = field(default_factory=Coverage)
    seed: int = 0

    @property
    def title(self) -> str:  # type: ignore[override]
        """One line: target, property, verdict."""
        return f"{self.property_name} of {self.target.name}: {self.verdict}"

    @property
    def violated(self) -> bool:
        """Whether a violation was found."""
        return self.verdict == "violated"

    @property
    def steps_per_second(self) -> float:
        """Controller steps a second while searching."""
        return self.steps / self.seconds if self.seconds > 0 else 0.0

    def facts(self) -> dict[str, Any]:
        """Keys: target, property, verdict, bound, bound_name, steps, seconds, steps_per_second,
        violations, worst_low, worst_high, witness, message, python, pytest, ..."""
        told = super().facts()
        target, name = self.target, told.pop("property_name")
        del told["target"]
        return {
            "target": target.name,
            "n_tasks": target.n_tasks,
            "spec": None if target.spec is None else target.spec.to_dict(),
            "property": name,
            **told,
            "steps_per_second": self.steps_per_second,
            "bound": None if self.bound is None else list(self.bound),
            "reach": None if self.reach is None else list(self.reach),
            "witness": None if self.witness is None else self.witness.to_dict(),
            "python": self.python,
            "pytest": self.pytest,
            "coverage": self.coverage.to_dict(),
        }

    @property
    def python(self) -> str | None:
        """The witness as a script, or None."""
        return None if self.witness is None else python_snippet(self)

    @property
    def pytest(self) -> str | None:
        """The witness as a test, or None."""
        return None if self.witness is None else pytest_snippet(self)

    def rows(self) -> list[tuple[str, ...]]:
        """Verdict, worst weights, speed and coverage."""
        if self.verdict == "skipped":
            return [("skipped", self.message)]
        out: list[tuple[str, ...]] = []
        if self.bound is not None:
            low, high = self.bound
            out.append(
                (f"bound ({self.bound_name})", f"[{low:.9g}, {high:.9g}] widened for rounding")
            )
        out.append(("weights seen", f"[{self.worst_low:.9g}, {self.worst_high:.9g}]"))
        if self.reach is not None:
            low, high = self.reach
            out.append(("reachable", f"[{low:.9g}, {high:.9g}] in {self.reach_readings} readings"))
        out += [
            ("steps", f"{self.steps:,} in {self.seconds:.2f} s ({self.steps_per_second:,.0f}/s)"),
            ("decades", f"{self.coverage.decades_visited} of 633"),
            (
                "branches",
                f"warm-up {self.coverage.warmup_steps:,}, active {self.coverage.active_steps:,}, "
                f"held {self.coverage.held_steps:,}, floor on by task "
                f"{self.coverage.floor_on.tolist()}",
            ),
            ("seed", str(self.seed)),
        ]
        if self.witness is not None:
            when = (
                "the corpus" if self.from_corpus else f"after {self.first_violation_s or 0:.2f} s"
            )
            out += [
                ("found", when),
                ("smallest", self.witness.expression()),
                ("finding", self.message),
            ]
        return out

    def __str__(self) -> str:
        text = super().__str__()
        if self.witness is None:
            return text
        return f"{text}\n\n{self.python}\n\n{self.pytest}"

    def plot(self, ax: Any | None = None) -> Any:
        """The weights along the witness, with the bound; without one, readings by decade."""
        from gabactl.base.plots import PALETTE

        ax = axes(ax)
        if self.witness is None:
            decades = np.flatnonzero(self.coverage.decades)
            ax.bar(decades - 324, self.coverage.decades[decades], width=1.0, color=PALETTE[0])
            ax.set(xlabel="decade of the reading", ylabel="readings", title=self.title)
            ax.set_yscale("log")
            return ax
        target = self.target.with_tasks(self.witness.n_tasks) or self.target
        weights = run_case(target, self.witness).weights
        steps = np.arange(1, len(weights) + 1)
        for task in range(weights.shape[1]):
            ax.plot(steps, weights[:, task], color=PALETTE[task % 8], label=f"task {task}")
        for end in self.bound or ():
            if np.isfinite(end):
                ax.axhline(end, color="0.5", linestyle="--", linewidth=0.8)
        ax.set(xlabel="step", ylabel="applied weight", title=self.title)
        ax.legend()
        return ax


@dataclass(frozen=True)
class FuzzReport(Result):
    """Several properties of one target.

    Attributes
    ----------
    results : tuple of FuzzResult
        In the order they were asked.
    """

    results: tuple[FuzzResult, ...]

    title = "Fuzzing"

    @property
    def violated(self) -> bool:
        """Whether any property was violated."""
        return any(result.violated for result in self.results)

    def facts(self) -> dict[str, Any]:
        """Keys: violated, results (each as :meth:`FuzzResult.to_dict`)."""
        return {
            "violated": self.violated,
            "results": [result.to_dict() for result in self.results],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """One row per property."""
        return [(r.property_name, r.verdict, r.message) for r in self.results]

    def __str__(self) -> str:
        return "\n\n".join(str(result) for result in self.results)


def python_snippet(result: FuzzResult) -> str:
    """The smallest failing case as a script that shows it.

    Parameters
    ----------
    result : FuzzResult
        One with a witness.

    Examples
    --------
    >>> from gabactl import GabaSpec
    >>> from gabactl.fuzzing import fuzz
    >>> spec = GabaSpec(beta=0.0, warmup=0, guard="none")
    >>> found = fuzz("gaba", "bounds", spec=spec, bound="published", steps=2000).results[0]
    >>> python_snippet(found).splitlines()[1]
    'import numpy as np'
    """
    case, target = _required(result.witness), result.target
    settings = _settings(result, case)
    if target.name == "gaba" and settings:
        rule, call = [f"rule = gabactl.Controller({settings})"], "rule.observe(row)"
    else:
        given = ", ".join(filter(None, [_expression(result), settings]))
        start = f"rule = as_target({given}).start({case.n_tasks})"
        rule = ["from gabactl.fuzzing import as_target", start]
        call = f"rule.step(row, {'losses[step]' if target.uses_losses else 'np.ones(len(row))'})"
    finite = np.isfinite(case.readings()).all()
    lines = [
        f"# {result.message}",
        "import numpy as np",
        "import gabactl" if settings else "",
        "" if finite else "nan, inf = float('nan'), float('inf')",
        f"readings = np.array({case.expression()})",
        f"losses = np.array({case.losses_expression()})" if target.uses_losses else "",
        *rule,
        "for step, row in enumerate(readings):",
        f"    weights = {call}",
        "print(weights)",
    ]
    return "\n".join(filter(None, lines))


def pytest_snippet(result: FuzzResult) -> str:
    """The smallest failing case as a regression test (it fails until the rule is mended).

    Parameters
    ----------
    result : FuzzResult
        One with a witness.

    Examples
    --------
    >>> from gabactl import GabaSpec
    >>> from gabactl.fuzzing import fuzz
    >>> spec = GabaSpec(beta=0.0, warmup=0, guard="none")
    >>> found = fuzz("gaba", "bounds", spec=spec, bound="published", steps=2000).results[0]
    >>> "check_case" in pytest_snippet(found)
    True
    """
    case = _required(result.witness)
    body = _named(_case_text(case))
    bound = "" if result.bound is None else f", bound={_named(repr(result.bound))}"
    settings = _settings(result, case)
    spec = f", spec={settings}" if settings else ""
    name = "".join(c if c.isalnum() else "_" for c in result.target.name)
    return "\n".join(
        [
            *(["import gabactl"] if settings else []),
            "from gabactl.fuzzing import Case, Segment, check_case",
            "",
            "",
            f"def test_{result.property_name}_of_{name}():",
            f"    case = {body}",
            f"    check_case({_expression(result)}, {result.property_name!r}, case{bound}{spec})",
        ]
    )


def _expression(result: FuzzResult) -> str:
    return result.target.expression or repr(result.target.name)


def _settings(result: FuzzResult, case: Case) -> str:
    """The settings that are not the defaults, as an expression; a factory states its own."""
    spec = result.target.spec
    if spec is None or result.target.expression:
        return ""
    own, usual = spec.replace(n_tasks=case.n_tasks).to_dict(), GabaSpec().to_dict()
    changed = ", ".join(f"{key}={x!r}" for key, x in own.items() if x != usual[key])
    return f"gabactl.GabaSpec({changed})"


def _case_text(case: Case) -> str:
    segments = []
    for s in case.segments:
        losses = "" if s.losses is None else f", {s.losses!r}"
        segments.append(f"Segment({s.reading!r}, {s.repeat}{losses})")
    relation = {name: getattr(case, name) for name in RELATIONS}
    given = "".join(f", {name}={x!r}" for name, x in relation.items() if x is not None)
    return f"Case(({', '.join(segments)},){given})"


def _named(text: str) -> str:
    return re.sub(r"\b(nan|inf)\b", r'float("\1")', text)


def _required(case: Case | None) -> Case:
    if case is None:
        raise ValueError("this result has no witness")
    return case
