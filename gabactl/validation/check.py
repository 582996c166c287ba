"""Validation: does our controller, fed with the recorded gradient norms, do what was recorded?"""

from __future__ import annotations

import itertools
import math
from collections import Counter
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

__all__ = ["Validation", "check"]

Array = NDArray[np.float64]

#: Steps of a file whose errors are kept for the picture; beyond, the largest of each stretch.
_KEPT = 1 << 16
_ERRORS = ("max_abs_error_raw", "max_abs_error_ema", "max_abs_error_weights")


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
        errors = [getattr(self, name) for name in _ERRORS]
        within = [error <= self.tolerance for error in errors if error is not None]
        return all(within) if within else None

    def facts(self) -> dict[str, Any]:
        """Plain values; an infinite error is None, with its reason beside it."""
        values = super().facts() | {"ok": self.ok, "first_difference": self.first_difference}
        for name in _ERRORS:
            if values[name] == math.inf:
                values[f"{name}_reason"] = "NaN on one side only"
        if math.isnan(self.saturated_fraction):
            values["saturated_fraction_reason"] = "no step past the warm-up"
        if self.prediction is None:
            del values["prediction"]
        return values

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
            *((f"largest error of {name[14:]}", _number(getattr(self, name))) for name in _ERRORS),
            ("tolerance", f"{self.tolerance:.3g} ({self.precision})"),
            ("saturated fraction", _number(self.saturated_fraction)),
        ]
        notes = (
            (self.assumed, "the trace names no settings: those above are the defaults"),
            (self.truncated, "the recording was not closed: killed, or still running"),
            (self.reason, self.reason or ""),
        )
        return lines + [("note", words) for holds, words in notes if holds]

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
    pieces = Run.pieces(run, spec)
    start = next(pieces)  # there is one, or an error says why not
    first, trace = start.head, start.head.trace
    limit = default_tolerance(trace.precision, first.spec) if tolerance is None else tolerance
    series = _Extremes(float(limit), None if isinstance(run, (Run, Trace)) else _KEPT)
    largest: dict[str, float | None] = {"raw": None, "ema": None, "weights": None}
    counts: Counter[str] = Counter()
    for piece in itertools.chain([start], pieces):
        done = piece.replay
        low = (done.ema[done.active] < first.spec.floor).any(axis=1)
        counts.update(steps=len(piece.trace), active=int(done.active.sum()), low=int(low.sum()))
        counts.update(readings=done.readings, unrecorded=done.unrecorded_readings)
        series.add(piece.trace.step, _largest_difference(piece, largest))
    reason = _why_not(first, counts["unrecorded"])
    missing = [name for name, value in largest.items() if value is None]
    if reason is not None:
        largest = dict.fromkeys(largest)
    elif missing:
        reason = f"the trace has no {' and no '.join(missing)} to compare with"
    step, error = series.arrays()
    if largest["ema"] is None and largest["weights"] is None:
        error = np.full(len(step), np.nan)
    return Validation(
        source=trace.source,
        balancer=trace.balancer,
        spec=first.spec,
        steps=counts["steps"],
        active_steps=counts["active"],
        readings=counts["readings"],
        max_abs_error_raw=largest["raw"],
        max_abs_error_ema=largest["ema"],
        max_abs_error_weights=largest["weights"],
        saturated_fraction=counts["low"] / counts["active"] if counts["active"] else math.nan,
        tolerance=float(limit),
        precision=trace.precision,
        truncated=piece.trace.truncated,
        assumed=first.spec_from == "assumed",
        reason=reason,
        step=step,
        error=error,
    )


def _largest_difference(run: Run, largest: dict[str, float | None]) -> Array:
    """Per step, that of ema and weights; the largest of each stage so far is put into ``largest``."""
    done, error = run.replay, np.zeros(len(run.trace))
    weights = _excited(run.trace, done.weights)
    for name, values in (("raw", done.raw), ("ema", done.ema), ("weights", weights)):
        differences = _differences(run.trace, name, values)
        if differences is not None:
            largest[name] = max(largest[name] or 0.0, float(differences.max(initial=0.0)))
            error = error if name == "raw" else np.maximum(error, differences)
    return error


class _Extremes:
    """A series of errors, or the largest of each stretch of it, and the first beyond a limit."""

    def __init__(self, limit: float, kept: int | None) -> None:
        self._limit, self._kept = limit, kept
        self._stretch = 1
        self._pieces: list[tuple[NDArray[np.int64], Array]] = []
        self._beyond: list[tuple[NDArray[np.int64], Array]] = []

    def add(self, step: NDArray[np.int64], error: Array) -> None:
        if not self._beyond and (error > self._limit).any():
            first = [int(np.argmax(error > self._limit))]
            self._beyond = [(step[first], error[first])]
        self._pieces.append(_largest_of(step, error, self._stretch))
        if self._kept is not None and sum(len(steps) for steps, _ in self._pieces) > 2 * self._kept:
            self._stretch *= 2
            self._pieces = [_largest_of(*_joined(self._pieces), 2)]

    def arrays(self) -> tuple[NDArray[np.int64], Array]:
        step, error = _joined(self._pieces + self._beyond)
        step, rows = np.unique(step, return_index=True)
        return step, error[rows]


def _joined(pieces: list[tuple[NDArray[np.int64], Array]]) -> tuple[NDArray[np.int64], Array]:
    steps, errors = zip(*pieces, strict=True)
    return np.concatenate(steps), np.concatenate(errors)


def _largest_of(
    step: NDArray[np.int64], error: Array, stretch: int
) -> tuple[NDArray[np.int64], Array]:
    """Of each so many rows the one with the largest error."""
    padded = np.pad(error, (0, -len(error) % stretch), constant_values=-np.inf)
    stretches = padded.reshape(-1, stretch)
    rows = stretches.argmax(axis=1) + stretch * np.arange(len(stretches))
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
