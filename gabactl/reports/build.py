"""What a report contains: every analysis of one recorded run, under one set of settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gabactl.balancers import GradNorm
from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.fuzzing import FuzzResult, fuzz_bounds
from gabactl.law.authority import WeightBounds, weight_bounds
from gabactl.law.filter import FilterFacts, filter_facts
from gabactl.law.spec import GabaSpec
from gabactl.loops.compare import CompareResult
from gabactl.loops.profiles import published_disturbance
from gabactl.loops.result import SimulationResult
from gabactl.loops.simulate import simulate
from gabactl.runs.comparison import compare_on_run
from gabactl.runs.run import Run
from gabactl.runs.saturation import Saturation, saturation
from gabactl.runs.units import UnitAdvice, unit_advice
from gabactl.traces import Trace
from gabactl.validation.check import Validation, check

__all__ = ["Report", "report"]

#: Controller steps of the report's fuzz.
FUZZ_STEPS = 1_000_000


@dataclass(frozen=True)
class Report(Result):
    """Every finding on one run.

    Attributes
    ----------
    run : Run
        The run, under the settings it is analysed with.
    units, saturation, bounds, filter, replay, step_response, fuzz, comparison
        One result object per question; the JSON has them under the same names.
    """

    run: Run
    units: UnitAdvice
    saturation: Saturation
    bounds: WeightBounds
    filter: FilterFacts
    replay: Validation
    step_response: SimulationResult
    fuzz: FuzzResult
    comparison: CompareResult

    @property
    def title(self) -> str:  # type: ignore[override]
        """Which run."""
        return f"Report on {self.run.source}"

    def plot(self, ax: Any | None = None) -> Any:
        """What the floor leaves of the run's imbalance; returns the axes."""
        return self.saturation.plot(ax)

    def facts(self) -> dict[str, Any]:
        """One key per section."""
        return {
            "trace": self.recorded,
            "spec": self.run.spec.to_dict(),
            **{name: found for name, found in self._fields().items() if name != "run"},
        }

    @property
    def recorded(self) -> dict[str, Any]:
        """What the record says of itself."""
        trace, replay = self.run.trace, self.run.replay
        kept = ("balancer", "model", "data", "optimizer", "seed", "device", "versions", "command")
        return {
            "source": trace.source,
            "tasks": list(trace.tasks),
            "steps": len(trace),
            "first_step": int(trace.step[0]),
            "last_step": int(trace.step[-1]),
            "readings": int(trace.measured.sum()),
            "held_readings": replay.held_readings,
            "unrecorded_readings": replay.unrecorded_readings,
            "truncated": trace.truncated,
            "spec_from": self.run.spec_from,
            "metadata": {key: trace.metadata.get(key) for key in kept},
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The answers, one line each: for the terminal."""
        bounds, replay, fuzz, judged = self.bounds, self.replay, self.fuzz, self.saturation
        held = "as stated" if bounds.lower_holds and bounds.upper_holds else "NOT as stated"
        if replay.ok is None:
            checked = f"not compared: {replay.reason}"
        else:
            checked = (
                f"{'agrees' if replay.ok else 'DIFFERS'}: largest error "
                f"{_error(replay.max_abs_error_ema)} in ema, "
                f"{_error(replay.max_abs_error_weights)} in weights "
                f"(tolerance {replay.tolerance:.0e})"
            )
        return [
            ("run", _described(self.recorded)),
            ("units", self.units.advice),
            *([("weights as trained", judged.trained)] if judged.trained else []),
            ("floor saturated?", judged.verdict),
            ("floor it would take", f"{judged.floor_needed:.3g} (is {judged.spec.floor:g})"),
            (
                "weight bounds",
                f"[{bounds.lower:.6f}, {bounds.upper:.6f}], {held}: "
                f"[{bounds.stated_lower:g}, {bounds.stated_upper:g}]",
            ),
            (
                "fuzz of the bounds",
                f"{fuzz.violations} violations in {fuzz.steps:,} controller steps; weights seen "
                f"[{fuzz.worst_low:.6f}, {fuzz.worst_high:.6f}]",
            ),
            ("replay check", checked),
            (
                "filter",
                f"time constant {self.filter.time_constant_steps:.2f} steps, white noise "
                f"{self.filter.noise_power_gain_db:.2f} dB, settles in "
                f"{self.filter.settling_steps} steps",
            ),
            *(
                (
                    f"step to {response.disturbance_ratio:,.0f}x",
                    f"weights settle in {_steps(response.settling_weights)}, contributions end "
                    f"{response.settled_contribution_ratio:.4g} to 1",
                )
                for response in self.step_response.responses
            ),
            *(
                (
                    f"{name} on these norms",
                    f"weights in [{run.smallest_weight:.4g}, {run.largest_weight:.4g}], contributions "
                    f"end {run.contribution_ratios[-1]:.4g} to 1, negative in "
                    f"{run.negative_fraction:.0%} of steps",
                )
                for name, run in self.comparison.results.items()
            ),
        ]


def report(
    run: Run | Trace | str | Path,
    spec: GabaSpec | None = None,
    *,
    seed: int = 0,
    fuzz_steps: int = FUZZ_STEPS,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Analyse a recorded run in every way the report shows.

    Parameters
    ----------
    run : Run, Trace or path
        The run; it must have gradient norms.
    spec : GabaSpec, optional
        Settings; default: the run's own, or the published ones with the default guard.
    seed : int
        Seed of the fuzz.
    fuzz_steps : int, at least 100,000
        Controller steps of the fuzz.
    progress : function of a str, optional
        Told what is being done.

    Returns
    -------
    Report
        One result object per section.

    Raises
    ------
    InputError
        The run holds no reading to analyse, or its tasks do not fit the settings.

    Examples
    --------
    >>> import numpy as np
    >>> trace = Trace.from_arrays(np.tile([500.0, 1.0], (1000, 1)), tasks=("rul", "health"))
    >>> report(trace, fuzz_steps=100_000).fuzz.violations
    0
    """
    if fuzz_steps < 100_000:
        raise InputError(f"fuzz_steps = {fuzz_steps} is below 100,000: fewer say nothing")
    run = Run.of(run, spec)
    spec, k = run.spec, len(run.tasks)
    tell = progress or (lambda _: None)

    tell("units and saturation")
    if not run.trace.measured.any():
        raise InputError(
            f"{run.source}: no gradient norm was recorded: record with shared_params given"
        )
    judged = saturation(run)
    advice = unit_advice(run)
    tell("replay check")
    # Of what was recorded: a what-if is another run, and no fault of the record.
    checked = check(Run(run.trace) if run.spec_from == "what-if" else run)
    tell("step response")
    response = simulate(spec, published_disturbance(n_tasks=k))
    tell("GABA against GradNorm")
    compared = compare_on_run(
        {
            "gaba": spec,
            "gradnorm (chen2018)": GradNorm("chen2018", n_tasks=k),
            "gradnorm (textbook)": GradNorm("textbook", n_tasks=k),
            "equal": "fixed",
        },
        run,
    )
    tell("fuzzing the weight bounds")
    fuzzed = fuzz_bounds(spec, steps=fuzz_steps, seed=seed)
    return Report(
        run=run,
        units=advice,
        saturation=judged,
        bounds=weight_bounds(spec),
        filter=filter_facts(spec),
        replay=checked,
        step_response=response,
        fuzz=fuzzed,
        comparison=compared,
    )


def _described(recorded: dict[str, Any]) -> str:
    text = f"{recorded['steps']} steps, {recorded['readings']} readings"
    if recorded["held_readings"]:
        text += f", {recorded['held_readings']} of them not usable (held)"
    if recorded["unrecorded_readings"]:
        text += (
            f"; {recorded['unrecorded_readings']} more were not logged, so what a replay says is an "
            "estimate"
        )
    return text


def _steps(count: int | None) -> str:
    return "no time seen" if count is None else f"{count} steps"


def _error(value: float | None) -> str:
    return "(not recorded)" if value is None else f"{value:.1e}"
