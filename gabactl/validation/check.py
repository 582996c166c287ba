"""Validation: does our controller, fed with the recorded gradient norms, do what was recorded?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.spec import GabaSpec
from gabactl.runs.run import Run
from gabactl.traces.schema import Precision, Trace

if TYPE_CHECKING:
    from gabactl.validation.prediction import Prediction

__all__ = ["Validation", "check", "default_tolerance"]

Array = NDArray[np.float64]

#: Steps of a file whose errors are kept for the picture; beyond, the largest of each stretch.
_KEPT = 1 << 16


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
    precision : {"float32", "float64", "unknown"}
        Of the recorded numbers.
    truncated : bool
        The recording was not closed: the run was killed, or still goes on.
    assumed : bool
        The trace names no settings, and none were given: the defaults were replayed.
    reason : str or None
        Why an error is None.
    step, error : array, shape (n,)
        Per step, the largest difference of ema and weights; NaN where nothing is compared. All
        steps, or, of a long run read from its file, the largest of each stretch and the first
        beyond the tolerance.
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

    def facts(self) -> dict[str, Any]:
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
        verdict = {
            True: "agrees: the recorded weights follow from the recorded gradient norms",
            False: "DIFFERS: the record does not follow from the gradient norms and the settings "
            "below",
            None: "not compared",
        }[self.ok]
        if self.first_difference is not None:
            verdict += f", from step {self.first_difference} on"
        lines: list[tuple[str, str]] = [
            ("verdict", verdict),
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
        ]
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
        from gabactl.base import plots

        with plots.style():
            ax = plots.axes(ax)
            finite = np.where(np.isfinite(self.error), self.error, np.nan)
            shown = plots.thin(self.step, np.maximum(finite, 1e-18))
            ax.semilogy(*shown, label="recorded against replayed")
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

    Returns
    -------
    float
        Absolute difference of weights.

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


def check(
    run: Run | Trace | str | Path, spec: GabaSpec | None = None, *, tolerance: float | None = None
) -> Validation:
    """Replay a run's gradient norms and compare each stage with what was recorded.

    Parameters
    ----------
    run : Run, Trace or path
        The record. One made by another balancer is replayed as what GABA would have done, and
        nothing is compared. Of a path, or the name of a bundled trace, only a piece at a time is
        held, however long the run; the figures are the same to the last bit.
    spec : GabaSpec, optional
        Default: the run's own settings, or the package's defaults for its number of tasks.
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
    >>> from gabactl.runs.replay import replay
    >>> spec, norms = GabaSpec(warmup=0), [[250.0, 0.5], [300.0, 0.4]]
    >>> trace = Trace.from_arrays(norms, ema=replay(spec, norms).ema)
    >>> found = check(trace, spec)
    >>> found.ok, found.max_abs_error_ema, found.max_abs_error_weights
    (True, 0.0, None)
    """
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance = {tolerance} is not a number >= 0: try 5e-6")
    compared = _Comparison(tolerance, None if isinstance(run, (Run, Trace)) else _KEPT)
    for piece in Run.pieces(run, spec):
        compared.add(piece)
    return compared.result()


class _Comparison:
    """The comparison, and what is kept of it from piece to piece."""

    def __init__(self, tolerance: float | None, kept: int | None) -> None:
        self._first: Run | None = None
        self._tolerance, self._kept = tolerance, kept
        self._largest: dict[str, float | None] = {"raw": None, "ema": None, "weights": None}
        self._rows = self._active = self._low = self._readings = self._unrecorded = 0

    def add(self, run: Run) -> None:
        piece, done, spec = run.trace, run.replay, run.spec
        if self._first is None:
            self._first = run.head
            if self._tolerance is None:
                self._tolerance = default_tolerance(piece.precision, spec)
            self._series = _Extremes(float(self._tolerance), self._kept)
        self._rows += len(piece)
        self._active += int(done.active.sum())
        self._low += int((done.ema[done.active] < spec.floor).any(axis=1).sum())
        self._readings += done.readings
        self._unrecorded += done.unrecorded_readings
        self._truncated = piece.truncated
        replayed = {
            "raw": done.raw,
            "ema": done.ema,
            "weights": _excited(piece, done.weights),
        }
        error = np.zeros(len(piece))
        for name, values in replayed.items():
            differences = _differences(piece, name, values)
            if differences is None:
                continue
            self._largest[name] = max(
                self._largest[name] or 0.0, float(differences.max(initial=0.0))
            )
            if name != "raw":
                error = np.maximum(error, differences)
        self._series.add(piece.step, error)

    def result(self) -> Validation:
        run, tolerance = self._first, self._tolerance
        assert run is not None and tolerance is not None  # noqa: PT018
        first = run.trace
        reason = _why_not(run, self._unrecorded)
        largest = self._largest
        if reason is not None:
            largest = dict.fromkeys(largest)
        else:
            missing = [name for name, value in largest.items() if value is None]
            if missing:
                reason = f"the trace has no {' and no '.join(missing)} to compare with"
        step, error = self._series.arrays()
        if largest["ema"] is None and largest["weights"] is None:
            error = np.full(len(step), np.nan)
        return Validation(
            source=first.source,
            balancer=first.balancer,
            spec=run.spec,
            steps=self._rows,
            active_steps=self._active,
            readings=self._readings,
            max_abs_error_raw=largest["raw"],
            max_abs_error_ema=largest["ema"],
            max_abs_error_weights=largest["weights"],
            saturated_fraction=self._low / self._active if self._active else math.nan,
            tolerance=float(tolerance),
            precision=first.precision,
            truncated=self._truncated,
            assumed=run.spec_from == "assumed",
            reason=reason,
            step=step,
            error=error,
        )


class _Extremes:
    """A series of errors, or the largest of each stretch of it, and the first beyond a limit."""

    def __init__(self, limit: float, kept: int | None) -> None:
        self._limit, self._kept = limit, kept
        self._stretch, self._count = 1, 0
        self._steps: list[NDArray[np.int64]] = []
        self._errors: list[Array] = []
        self._beyond: tuple[int, float] | None = None

    def add(self, step: NDArray[np.int64], error: Array) -> None:
        if self._beyond is None and (error > self._limit).any():
            row = int(np.argmax(error > self._limit))
            self._beyond = int(step[row]), float(error[row])
        self._append(*_largest_of(step, error, self._stretch))
        if self._kept is not None and self._count > 2 * self._kept:
            self._stretch *= 2
            step, error = np.concatenate(self._steps), np.concatenate(self._errors)
            self._steps, self._errors, self._count = [], [], 0
            self._append(*_largest_of(step, error, 2))

    def arrays(self) -> tuple[NDArray[np.int64], Array]:
        step, error = np.concatenate(self._steps), np.concatenate(self._errors)
        if self._beyond is not None and self._beyond[0] not in step:
            at = int(np.searchsorted(step, self._beyond[0]))
            step = np.insert(step, at, self._beyond[0])
            error = np.insert(error, at, self._beyond[1])
        return step, error

    def _append(self, step: NDArray[np.int64], error: Array) -> None:
        self._steps.append(step)
        self._errors.append(error)
        self._count += len(step)


def _largest_of(
    step: NDArray[np.int64], error: Array, stretch: int
) -> tuple[NDArray[np.int64], Array]:
    """Of each so many rows the one with the largest error."""
    if stretch == 1:
        return step, error
    n = len(step)
    padded = np.full(-(-n // stretch) * stretch, -np.inf)
    padded[:n] = error
    rows = padded.reshape(-1, stretch).argmax(axis=1) + stretch * np.arange(len(padded) // stretch)
    return step[rows], error[rows]


def _why_not(run: Run, unrecorded: int) -> str | None:
    if run.trace.balancer not in (None, "gaba"):
        return f"recorded under {run.trace.balancer}: replayed as what GABA would have done"
    if not run.start_known:
        return (
            f"starts at step {run.trace.step[0]}, after the first reading, and has no ema to "
            "continue from"
        )
    if unrecorded:
        return (
            f"{unrecorded} readings fall on steps that were not recorded, so the "
            "average cannot be rebuilt"
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
