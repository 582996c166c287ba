"""What a fuzz run reports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gabactl.base.plots import axes
from gabactl.base.results import Result
from gabactl.fuzzing.cases import Case
from gabactl.fuzzing.coverage import Coverage
from gabactl.fuzzing.target import Target, run_case
from gabactl.law.spec import GabaSpec

__all__ = ["FuzzReport", "FuzzResult", "Verdict", "pytest_snippet", "python_snippet"]

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
    steps: int
    seconds: float
    violations: int
    worst_low: float
    worst_high: float
    witness: Case | None
    message: str
    first_violation_s: float | None
    from_corpus: bool
    reach: tuple[float, float] | None
    reach_readings: int | None
    coverage: Coverage
    seed: int

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
        return {
            "target": self.target.name,
            "n_tasks": self.target.n_tasks,
            "spec": None if self.target.spec is None else self.target.spec.to_dict(),
            "property": self.property_name,
            "verdict": self.verdict,
            "bound": None if self.bound is None else list(self.bound),
            "bound_name": self.bound_name,
            "steps": self.steps,
            "seconds": self.seconds,
            "steps_per_second": self.steps_per_second,
            "violations": self.violations,
            "worst_low": self.worst_low,
            "worst_high": self.worst_high,
            "witness": None if self.witness is None else self.witness.to_dict(),
            "message": self.message,
            "python": self.python,
            "pytest": self.pytest,
            "first_violation_s": self.first_violation_s,
            "from_corpus": self.from_corpus,
            "reach": None if self.reach is None else list(self.reach),
            "reach_readings": self.reach_readings,
            "coverage": self.coverage.to_dict(),
            "seed": self.seed,
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
    case = _required(result.witness)
    lines = [
        "import numpy as np",
        *(["import gabactl"] if _needs_gabactl(result) else []),
        *(["nan, inf = float('nan'), float('inf')"] if not _finite(case) else []),
        *_build(result, case),
        "for step, row in enumerate(readings):",
        f"    weights = {_call(result)}",
        "print(weights)",
    ]
    return "\n".join([f"# {result.message}", *lines])


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
    # A factory states its settings itself.
    spec = None if result.target.expression else result.target.spec
    spec_text = "" if spec is None else f", spec={_spec_text(spec, case)}"
    return "\n".join(
        [
            *(["import gabactl"] if spec_text else []),
            "from gabactl.fuzzing import Case, Segment, check_case",
            "",
            "",
            f"def test_{result.property_name}_of_{_identifier(result.target.name)}():",
            f"    case = {body}",
            f"    check_case({_expression(result)}, {result.property_name!r}, case{bound}{spec_text})",
        ]
    )


def _needs_gabactl(result: FuzzResult) -> bool:
    return result.target.spec is not None and not result.target.expression


def _expression(result: FuzzResult) -> str:
    return result.target.expression or repr(result.target.name)


def _finite(case: Case) -> bool:
    return bool(np.isfinite(case.readings()).all())


def _build(result: FuzzResult, case: Case) -> list[str]:
    lines = [f"readings = np.array({case.expression()})"]
    if result.target.uses_losses:
        lines.append(f"losses = np.array({case.losses_expression()})")
    name, spec = result.target.name, result.target.spec
    if name == "gaba" and spec is not None:
        lines.append(f"rule = gabactl.Controller({_spec_text(spec, case)})")
    else:
        given = "" if spec is None or result.target.expression else f", {_spec_text(spec, case)}"
        lines.append("from gabactl.fuzzing import as_target")
        lines.append(f"rule = as_target({_expression(result)}{given}).start({case.n_tasks})")
    return lines


def _call(result: FuzzResult) -> str:
    if result.target.name == "gaba":
        return "rule.observe(row)"
    losses = "losses[step]" if result.target.uses_losses else "np.ones(len(row))"
    return f"rule.step(row, {losses})"


def _spec_text(spec: GabaSpec, case: Case) -> str:
    """The settings that are not the defaults, as an expression."""
    own, usual = spec.replace(n_tasks=case.n_tasks).to_dict(), GabaSpec().to_dict()
    changed = ", ".join(f"{key}={x!r}" for key, x in own.items() if x != usual[key])
    return f"gabactl.GabaSpec({changed})"


def _case_text(case: Case) -> str:
    segments = []
    for s in case.segments:
        losses = "" if s.losses is None else f", {s.losses!r}"
        segments.append(f"Segment({s.reading!r}, {s.repeat}{losses})")
    given = "".join(
        f", {name}={getattr(case, name)!r}"
        for name in ("permutation", "exponent", "save_after")
        if getattr(case, name) is not None
    )
    return f"Case(({', '.join(segments)},){given})"


def _named(text: str) -> str:
    return re.sub(r"\b(nan|inf)\b", r'float("\1")', text)


def _required(case: Case | None) -> Case:
    if case is None:
        raise ValueError("this result has no witness")
    return case


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
