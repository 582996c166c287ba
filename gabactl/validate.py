"""Validation: does our controller, fed with the recorded gradient norms, do what was recorded?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gabactl.errors import InputError
from gabactl.replay import Replay, replay_trace, starts_late
from gabactl.results import Result
from gabactl.spec import GabaSpec
from gabactl.traces.schema import Precision, Trace

if TYPE_CHECKING:
    from gabactl.prediction import Prediction

__all__ = ["Validation", "default_tolerance", "validate"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Validation(Result):
    """How far a recorded run is from our model of its controller.

    Attributes
    ----------
    source : str
        The trace.
    balancer : str or None
        What made the recorded weights.
    spec : GabaSpec
        Settings replayed.
    steps, active_steps, readings : int
        Rows, rows past the warm-up, and readings that moved or met the guard.
    max_abs_error_raw, max_abs_error_ema, max_abs_error_weights : float or None
        Largest absolute difference over all steps and tasks; infinite where one side is NaN and
        the other is not; None where there is nothing to compare (``reason`` says why).
    saturated_fraction : float
        Share of active steps with some ema_i < floor, of the replay; NaN without active steps.
    tolerance : float
        What each error is held against.
    assumed : bool
        The trace names no settings, and none were given: the defaults were replayed.
    reason : str or None
        Why an error is None.
    error : array, shape (steps,)
        Per step, the largest difference of ema and weights; NaN where nothing is compared.
    prediction : Prediction or None
        The run against what theory and an identified plant foretell, where asked for.
    """

    source: str
    balancer: str | None
    spec: GabaSpec
    steps: int
    active_steps: int
    readings: int
    max_abs_error_raw: float | None
    max_abs_error_ema: float | None
    max_abs_error_weights: float | None
    saturated_fraction: float
    tolerance: float
    precision: Precision
    truncated: bool
    assumed: bool
    reason: str | None
    step: NDArray[np.int64] = field(repr=False)
    error: Array = field(repr=False)
    prediction: Prediction | None = None

    @property
    def title(self) -> str:  # type: ignore[override]
        """Heading of the table."""
        return f"Replay check of {self.source}"

    @property
    def first_difference(self) -> int | None:
        """First step whose ``error`` exceeds the tolerance."""
        beyond = np.flatnonzero(self.error > self.tolerance)
        return int(self.step[beyond[0]]) if len(beyond) else None

    @property
    def ok(self) -> bool | None:
        """Whether every error is within the tolerance; None where nothing could be compared."""
        errors = [
            self.max_abs_error_raw,
            self.max_abs_error_ema,
            self.max_abs_error_weights,
        ]
        compared = [error for error in errors if error is not None]
        return all(error <= self.tolerance for error in compared) if compared else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; an infinite error is None, with its reason beside it."""
        values: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "source",
                "balancer",
                "steps",
                "active_steps",
                "readings",
                "max_abs_error_raw",
                "max_abs_error_ema",
                "max_abs_error_weights",
                "saturated_fraction",
                "tolerance",
                "ok",
                "first_difference",
                "reason",
                "precision",
                "truncated",
                "assumed",
            )
        }
        for name in ("max_abs_error_raw", "max_abs_error_ema", "max_abs_error_weights"):
            if values[name] == math.inf:
                values[f"{name}_reason"] = "NaN on one side only"
        if math.isnan(self.saturated_fraction):
            values["saturated_fraction_reason"] = "no step past the warm-up"
        if self.prediction is not None:
            values["prediction"] = self.prediction.to_dict()
        return {**values, "spec": self.spec.to_dict()}

    def rows(self) -> list[tuple[str, str]]:
        """Table rows."""
        spec = self.spec
        lines: list[tuple[str, str]] = [
            ("balancer", self.balancer or "not said"),
            (
                "replayed with",
                f"beta {spec.beta:g}, floor {spec.floor:g}, warm-up {spec.warmup}, {spec.law}, "
                f"{spec.floor_mode}, guard {spec.guard}, interval {spec.interval}",
            ),
            ("steps", f"{self.steps} ({self.active_steps} active, {self.readings} readings)"),
            ("largest error of raw", _number(self.max_abs_error_raw)),
            ("largest error of ema", _number(self.max_abs_error_ema)),
            ("largest error of weights", _number(self.max_abs_error_weights)),
            ("tolerance", f"{self.tolerance:.3g} ({self.precision})"),
            ("saturated fraction", _number(self.saturated_fraction)),
            ("verdict", {True: "agrees", False: "DIFFERS", None: "not compared"}[self.ok]),
        ]
        if self.first_difference is not None:
            lines.append(("first at step", str(self.first_difference)))
        if self.assumed:
            lines.append(("note", "the trace names no settings: those above are the defaults"))
        if self.truncated:
            lines.append(("note", "the recording was not closed: killed, or still running"))
        if self.reason:
            lines.append(("note", self.reason))
        return lines

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.prediction is None else f"{text}\n{self.prediction}"

    def plot(self, ax: Any | None = None) -> Any:
        """Absolute difference against the step, with the tolerance; returns the axes."""
        from gabactl import plots

        with plots.style():
            ax = plots.axes(ax)
            finite = np.where(np.isfinite(self.error), self.error, np.nan)
            ax.semilogy(self.step, np.maximum(finite, 1e-18), label="recorded against replayed")
            ax.axhline(self.tolerance, color=plots.PALETTE[1], ls="--", label="tolerance")
            ax.set_xlabel("step")
            ax.set_ylabel("largest absolute difference")
            ax.legend()
        return ax


def default_tolerance(precision: Precision, spec: GabaSpec) -> float:
    """How far apart a faithful recording and its replay can be.

    float64: 1e-12. float32 (and unknown): 5e-6 at beta = 0.99. There the pole is stored with an
    error of up to 2^-25 = 3e-8, which the filter's gain 1/(1 - beta) turns into 3e-6 of the
    average; rounding of the average itself adds some 1e-7. The gain grows with the pole, and so
    does the tolerance beyond 0.99.

    Parameters
    ----------
    precision : {"float32", "float64", "unknown"}
        What the averages were computed in.
    spec : GabaSpec
        Settings; the pole is beta**interval.

    Examples
    --------
    >>> default_tolerance("float64", GabaSpec()), default_tolerance("float32", GabaSpec(beta=0.9))
    (1e-12, 5e-06)
    >>> f'{default_tolerance("float32", GabaSpec(beta=0.999)):.1e}'
    '5.0e-05'
    """
    if precision == "float64":
        return 1e-12
    distance = 1.0 - spec.beta**spec.interval
    return 5e-6 * max(1.0, 0.01 / distance)


def validate(
    trace: Trace, spec: GabaSpec | None = None, *, tolerance: float | None = None
) -> Validation:
    """Replay a trace's gradient norms and compare each stage with what was recorded.

    Parameters
    ----------
    trace : Trace
        The record. One made by another balancer is replayed as what GABA would have done, and
        nothing is compared.
    spec : GabaSpec, optional
        Default: the trace's own settings, or the package's defaults for its number of tasks.
    tolerance : float, optional
        Largest absolute error accepted; default :func:`default_tolerance`.

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        The number of tasks does not fit, or the tolerance is no number >= 0.

    Examples
    --------
    >>> from gabactl.replay import replay
    >>> spec, norms = GabaSpec(warmup=0), [[250.0, 0.5], [300.0, 0.4]]
    >>> trace = Trace.from_arrays(norms, ema=replay(spec, norms).ema)
    >>> found = validate(trace, spec)
    >>> found.ok, found.max_abs_error_ema, found.max_abs_error_weights
    (True, 0.0, None)
    """
    assumed = spec is None and trace.spec is None
    if spec is None:
        spec = trace.spec or GabaSpec(n_tasks=len(trace.tasks))
    if tolerance is None:
        tolerance = default_tolerance(trace.precision, spec)
    elif not math.isfinite(tolerance) or tolerance < 0:
        raise InputError(f"tolerance = {tolerance} is not a number >= 0: try 5e-6")
    own = trace.balancer in (None, "gaba")
    done = replay_trace(trace, spec, unmeasured="uniform" if own else "hold")
    reason = _why_not(trace, done, spec)
    errors: dict[str, Array | None] = {"raw": None, "ema": None, "weights": None}
    if reason is None:
        errors = {
            "raw": _differences(trace, "raw", done.raw),
            "ema": _differences(trace, "ema", done.ema),
            "weights": _differences(trace, "weights", _excited(trace, done.weights)),
        }
        missing = [name for name, values in errors.items() if values is None]
        if missing:
            reason = f"the trace has no {' and no '.join(missing)} to compare with"
    largest = {
        name: None if values is None else float(values.max(initial=0.0))
        for name, values in errors.items()
    }
    compared = (errors["ema"], errors["weights"])
    series = [values for values in compared if values is not None]
    return Validation(
        source=trace.source,
        balancer=trace.balancer,
        spec=spec,
        steps=len(trace),
        active_steps=int(done.active.sum()),
        readings=done.readings,
        max_abs_error_raw=largest["raw"],
        max_abs_error_ema=largest["ema"],
        max_abs_error_weights=largest["weights"],
        saturated_fraction=done.saturated_fraction,
        tolerance=float(tolerance),
        precision=trace.precision,
        truncated=trace.truncated,
        assumed=assumed,
        reason=reason,
        step=trace.step,
        error=np.max(series, axis=0) if series else np.full(len(trace), np.nan),
    )


def _why_not(trace: Trace, done: Replay, spec: GabaSpec) -> str | None:
    if trace.balancer not in (None, "gaba"):
        return f"recorded under {trace.balancer}: replayed as what GABA would have done"
    if done.unrecorded_readings:
        return (
            f"{done.unrecorded_readings} readings fall on steps that were not recorded, so the "
            "average cannot be rebuilt"
        )
    if starts_late(trace, spec) and trace.ema is None:
        return (
            f"starts at step {trace.step[0]}, after the first reading, and has no ema to "
            "continue from"
        )
    return None


def _differences(trace: Trace, attribute: str, replayed: Array) -> Array | None:
    """Per step, the largest absolute difference; 0 where there is nothing to compare."""
    recorded = getattr(trace, attribute)
    if recorded is None:
        return None
    present = trace.present[attribute].copy()
    if attribute == "raw":
        present &= ~np.isnan(replayed).all(axis=1)
    if not present.any():
        return None
    with np.errstate(invalid="ignore"):
        difference = np.abs(recorded - replayed)
    same = (recorded == replayed) | (np.isnan(recorded) & np.isnan(replayed))
    difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
    return np.where(present, difference.max(axis=1), 0.0)


def _excited(trace: Trace, weights: Array) -> Array:
    """Weights with the recorded excitation on the logit of the first one."""
    if trace.excitation is None:
        return weights
    pushed = weights.copy()
    pushed[:, 0] *= np.exp(np.nan_to_num(trace.excitation))
    return pushed * (weights.sum(axis=1) / pushed.sum(axis=1))[:, None]


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "none"
    return f"{value:.3g}"
