"""Measured against predicted: does a recorded run do what the theory of its controller says?

The replay check asks whether our code is the code that ran. This asks more: whether the closed
forms (time constant, settling, noise gain, floor) and an identified plant foretell what was
recorded. Every figure comes with an interval or with the reason why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.control.linear import open_loop
from gabactl.control.noise import autocovariance, noise_gain
from gabactl.law.authority import residual_ratio
from gabactl.law.filter import filter_facts
from gabactl.law.floors import FLOORS
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import raw_weights, saturate
from gabactl.plants import LogRatio, describe_plant
from gabactl.runs.run import Run
from gabactl.traces import Trace
from gabactl.validation import _average
from gabactl.validation.forecast import (
    ForecastScore,
    block_bootstrap,
    free_run_fits,
    run_signals,
    score_forecasts,
)

__all__ = ["Prediction", "predict"]

Array = NDArray[np.float64]
Range = tuple[float, float]

#: What a line that is off says, and what it does not.
_HOW_TO_READ = (
    "whether the controller did what it should is the replay check; the theory here also takes the "
    "imbalance to stand still under white noise, and a line not as foretold mostly says that this "
    "run's did not"
)
#: Readings at the start that a forecast of the rest may look at.
_SEEN = 20
_LEAST_READINGS = 300
_CONSTANT = "not enough data"
_LAGS = 30
#: Readings of a picture: more than a screen has columns.
_SHOWN = 2400


@dataclass(frozen=True)
class Comparison:
    """One figure, measured and predicted.

    Attributes
    ----------
    key, what, unit : str
        Name, words and unit.
    measured, predicted : float or None
        None with the ``reason``.
    measured_interval, predicted_interval : (float, float) or None
        95 %, where there is one.
    agrees : bool or None
        Whether they are compatible; None where nothing was compared.
    reason : str
        Why something is missing, or "".
    """

    key: str
    what: str
    unit: str = ""
    measured: float | None = None
    predicted: float | None = None
    measured_interval: Range | None = None
    predicted_interval: Range | None = None
    agrees: bool | None = None
    reason: str = ""

    def row(self) -> tuple[str, str]:
        """Words for the table."""
        unit = f" {self.unit}" if self.unit else ""
        if self.measured is None or self.predicted is None:
            return self.what, self.reason or _CONSTANT
        mark = {True: "as foretold", False: "not as foretold", None: "not judged"}[self.agrees]
        measured = _figure(self.measured, self.measured_interval)
        predicted = _figure(self.predicted, self.predicted_interval)
        why = f" ({self.reason})" if self.reason else ""
        return self.what, f"measured {measured}{unit}, predicted {predicted}{unit}: {mark}{why}"


@dataclass(frozen=True)
class Prediction(Result):
    """How well a run was foretold.

    Attributes
    ----------
    source : str
        The trace.
    comparisons : tuple of Comparison
        Of the controller: filter, step response, floor, noise.
    plant : LogRatio or None
        The plant the forecasts use.
    plant_from : str
        Where it comes from, or why there is none.
    forecasts : tuple of ForecastScore
        From every step of the later half.
    free_run_fit_percent, free_run_open_loop_fit_percent, free_run_last_value_fit_percent : float or None
        Of log(ema_1/ema_2) over the whole run, foretold from its first 20 readings: the loop with
        the plant, without it, and the last value that was seen.
    notes : tuple of str
        What a reader must know.
    curves : dict of str to array, shape (n,)
        What the picture draws, by name: the step response recorded and foretold, per reading.
    """

    source: str
    comparisons: tuple[Comparison, ...]
    plant: LogRatio | None
    plant_from: str
    forecasts: tuple[ForecastScore, ...]
    free_run_fit_percent: float | None
    free_run_open_loop_fit_percent: float | None
    free_run_last_value_fit_percent: float | None
    notes: tuple[str, ...]
    curves: dict[str, Array] = field(repr=False)

    @property
    def title(self) -> str:  # type: ignore[override]
        """Heading of the table."""
        return f"Measured against predicted: {self.source}"

    def comparison(self, key: str) -> Comparison:
        """One of the comparisons, by its key.

        Parameters
        ----------
        key : str
            Such as ``time_constant``.
        """
        return next(item for item in self.comparisons if item.key == key)

    def facts(self) -> dict[str, Any]:
        """Keys: comparisons, plant, plant_from, forecasts, the free run's fits, notes."""
        facts = super().facts()
        del facts["source"], facts["curves"]
        return facts | {"plant": None if self.plant is None else describe_plant(self.plant)}

    def rows(self) -> list[tuple[str, ...]]:
        """Comparisons, then forecasts."""
        rows: list[tuple[str, ...]] = [item.row() for item in self.comparisons]
        if any(item.agrees is False for item in self.comparisons):
            rows.insert(0, ("how to read this", _HOW_TO_READ))
        plant, what = self.plant, "none: "
        if plant is not None:
            what = f"rho {plant.rho:.3f}, lag pole {plant.a:.3f}, extra delay {plant.delay} "
        said = self.plant_from if plant is None else f"({self.plant_from})"
        rows += [("plant", what + said), *map(_forecast_row, self.forecasts)]
        if self.free_run_fit_percent is not None:
            words = (
                f"fit {self.free_run_fit_percent:.1f} % of the log ema ratio; without the plant "
                f"{self.free_run_open_loop_fit_percent:.1f} %, last value "
                f"{self.free_run_last_value_fit_percent:.1f} %"
            )
            rows.append((f"free run from {_SEEN} readings", words))
        return [*rows, *(("note", note) for note in self.notes)]

    def plot(self, ax: Any | None = None) -> Any:
        """The average after the warm-up against its closed form, on a logarithmic axis."""
        from gabactl.base import plots

        with plots.style():
            ax = plots.axes(ax)
            if not self.curves:
                ax.text(0.5, 0.5, "no recorded average", ha="center", transform=ax.transAxes)
                return ax
            n, low, high = (self.curves[name] for name in ("reading", "low", "high"))
            ax.plot(n, self.curves["measured"], label="recorded ema of the louder task")
            ax.plot(n, self.curves["predicted"], "--", label="closed form")
            band = {"color": plots.PALETTE[1], "alpha": 0.2, "lw": 0}
            ax.fill_between(n, low, high, label="95 % of forecasts", **band)
            ax.axhline(self.curves["floor"][0], color="0.4", lw=0.8, label="floor")
            ax.set(xlabel="readings since the warm-up", ylabel="ema", yscale="log")
            ax.legend()
        return ax


def predict(
    run: Run | Trace | str | Path,
    spec: GabaSpec | None = None,
    *,
    plant: LogRatio | None = None,
    plant_from: str = "given",
    draws: int = 400,
    seed: int = 0,
) -> Prediction:
    """Compare a recorded run with what theory and an identified plant say of it.

    Parameters
    ----------
    run : Run, Trace or path
        Two tasks, norms at every step. The controller's part needs GABA's recorded average.
    spec : GabaSpec, optional
        Default: the run's own.
    plant : LogRatio, optional
        For the forecasts. Default: for a trace with an excitation, identified on its first half.
    plant_from : str
        Where a given plant comes from, for the table.
    draws : int
        Simulated runs behind each predicted interval.
    seed : int
        Of these, and of the bootstrap.

    Returns
    -------
    Prediction

    Examples
    --------
    >>> from gabactl.runs.replay import replay
    >>> norms = np.exp(np.random.default_rng(0).normal([3.0, -3.0], 0.3, (2000, 2)))
    >>> done = replay(GabaSpec(), norms)
    >>> trace = Trace.from_arrays(norms, raw=done.raw, ema=done.ema, weights=done.weights,
    ...     metadata={"balancer": "gaba", "spec": GabaSpec().to_dict()})
    >>> found = predict(trace)
    >>> round(found.comparison("time_constant").measured, 2), found.comparison("noise_gain").agrees
    (99.5, True)
    """
    run = Run.of(run, spec)
    notes: list[str] = []
    comparisons, curves = _controller(run, draws, seed)
    start = None
    if len(run.tasks) != 2:
        plant, plant_from = None, f"{len(run.tasks)} tasks: plants are identified for two"
    elif plant is None:
        plant, plant_from, start = _identified(run)
    forecasts: list[ForecastScore] = []
    fits: tuple[float | None, float | None, float | None] = (None, None, None)
    if plant is not None:
        signals = run_signals(run)
        if isinstance(signals, str):
            notes.append(f"no forecasts: {signals}")
        else:
            forecasts = score_forecasts(signals, plant, start=start, seed=seed)
            if not forecasts:
                notes.append(f"no forecasts: {len(signals.log_ratio)} steps are too few")
            if signals.ema is not None and len(signals.log_ratio) > 10 * _SEEN:
                fits = free_run_fits(signals, plant, seen=_SEEN)
            notes += _plain_words(forecasts)
    scores, said = tuple(forecasts), tuple(notes)
    return Prediction(run.source, comparisons, plant, plant_from, scores, *fits, said, curves)


def _identified(run: Run) -> tuple[LogRatio | None, str, int | None]:
    """The plant of an excited run, from its first half, so that the rest is held out."""
    trace = run.trace
    if trace.excitation is None or not np.ptp(np.nan_to_num(trace.excitation)) > 0:
        why = "the weights were not excited; give one with --plant (an excited trace, or its pair)"
        return None, why, None
    from gabactl.identification.output_error import fit_output_error
    from gabactl.identification.signals import from_run

    whole = from_run(run)
    half = len(whole.log_ratio) // 2
    try:
        early = whole.before(half)
    except InputError as error:
        return None, f"{_CONSTANT}: {error}", None
    fit = fit_output_error(early, float(whole.block), 5)
    return LogRatio(fit.rho, fit.a, fit.delay), "identified on the first half of this run", half


def _plain_words(forecasts: Sequence[ForecastScore]) -> list[str]:
    """What the forecasts say of the plant, without gloss."""
    notes = []
    for name, words in (("log_ratio", "the imbalance"), ("log_ema", "the log ema ratio")):
        of = [score for score in forecasts if score.signal == name]
        lost = ", ".join(str(s.horizon) for s in of if s.beats_last_value is not True)
        useless = ", ".join(str(s.horizon) for s in of if s.beats_open_loop is not True)
        if lost:
            notes.append(
                f"of {words}, the loop does NOT demonstrably beat the last value {lost} steps ahead"
            )
        if useless:
            notes.append(
                f"of {words}, knowing the plant does NOT demonstrably help {useless} steps ahead: "
                "the same noise model without it does as well"
            )
    return notes


def _forecast_row(score: ForecastScore) -> tuple[str, str]:
    name = "log ratio" if score.signal == "log_ratio" else "log ema ratio"

    def beats(gain: tuple[float, float, float] | None, verdict: bool | None) -> str:
        if gain is None:
            return f"gain {_CONSTANT}"
        word = {True: "better", False: "WORSE", None: "no difference shown"}[verdict]
        return f"{word}: error power {-gain[0]:+.1f} % [{-gain[2]:+.1f}, {-gain[1]:+.1f}]"

    return (
        f"{name}, {score.horizon} ahead",
        f"fit {score.fit_percent:.1f} %; last value {score.last_value_fit_percent:.1f} % "
        f"({beats(score.gain_over_last_value, score.beats_last_value)}); without the plant "
        f"{score.open_loop_fit_percent:.1f} % "
        f"({beats(score.gain_over_open_loop, score.beats_open_loop)})",
    )


# The controller: filter, step response, floor, noise.


def _controller(run: Run, draws: int, seed: int) -> tuple[tuple[Comparison, ...], dict[str, Array]]:
    why = _no_controller(run)
    if why:
        return (Comparison("controller", "controller", reason=f"not compared: {why}"),), {}
    trace, spec, done = run.trace, run.spec, run.replay
    rows = np.flatnonzero(np.isfinite(done.raw).all(axis=1) & done.active)
    raw = raw_weights(trace.grad_norms[rows], spec.law, spec.guard)
    assert trace.ema is not None
    recorded = trace.ema[rows]
    comparisons = [_time_constant(raw, recorded, spec, trace.precision)]
    if rows.size < _LEAST_READINGS:
        reason = f"{_CONSTANT}: {rows.size} readings, {_LEAST_READINGS} are needed"
        comparisons.append(Comparison("step_response", "step response", reason=reason))
        return tuple(comparisons), {}
    loud = int(np.argmin(raw[:_SEEN].mean(axis=0)))
    # Where the average was thinned out, the replay (checked against it elsewhere) fills in.
    ema = np.where(np.isfinite(recorded), recorded, done.ema[rows])[:, loud]
    x = raw[:, loud]
    noise = _average.short_memory(x)
    shown = np.unique(np.linspace(0, rows.size - 1, min(rows.size, _SHOWN)).astype(np.intp))
    spread, simulated = _average.simulated_averages(x, noise, spec, draws, seed, _SEEN, shown)
    comparisons += _step_response(ema, spread, x, spec)
    comparisons += _floor(trace, spec, rows, ema, x, seed)
    comparisons.append(_noise(ema, x, spec, seed))
    low, high = np.quantile(simulated, [0.025, 0.975], axis=0)
    curves = {
        "reading": shown + 1.0,
        "measured": ema[shown],
        "predicted": _average.closed_form(float(x[:_SEEN].mean()), rows.size, spec)[shown],
        "low": low,
        "high": high,
        "floor": np.array([spec.floor]),
    }
    return tuple(comparisons), curves


def _no_controller(run: Run) -> str:
    trace, spec = run.trace, run.spec
    if trace.balancer not in (None, "gaba"):
        return f"the weights are those of {trace.balancer}"
    if trace.ema is None:
        return "the trace has no recorded average"
    if spec.beta == 0.0 or FLOORS[spec.floor_mode].replaces_state:
        return "the average is clamped or not smoothed, so the filter's closed forms do not hold"
    if len(trace) == 0 or run.starts_late:
        return "the trace starts after the end of the warm-up"
    if run.estimated:
        return f"{run.replay.unrecorded_readings} readings fall on steps that were not recorded"
    return ""


def _time_constant(raw: Array, ema: Array, spec: GabaSpec, precision: str) -> Comparison:
    """The pole, from consecutive recorded averages: ema_n - ema_(n-1) = (1 - p)(raw - ema_(n-1))."""
    key, what = "time_constant", "time constant of the average"
    known: NDArray[np.bool_] = np.asarray(np.isfinite(ema).all(axis=1), dtype=bool)
    both = np.flatnonzero(known[1:] & known[:-1])
    if both.size < _SEEN:
        reason = f"{_CONSTANT}: the average is not recorded at consecutive readings"
        return Comparison(key, what, "steps", reason=reason)
    drive = (raw[1:] - ema[:-1])[both].ravel()
    moved = (ema[1:] - ema[:-1])[both].ravel()
    power = float(drive @ drive)
    gain = float(drive @ moved) / power
    left = moved - gain * drive
    error = 1.96 * float(np.sqrt(left @ left / max(left.size - 1, 1) / power))
    # The pole is stored in the run's precision.
    error += 2.0**-25 if precision != "float64" else 2.0**-53
    predicted = filter_facts(spec).time_constant_steps

    def steps(value: float) -> float:
        return -spec.interval / math.log1p(-min(max(value, 1e-300), 1 - 1e-16))

    slack = 1e-9 * predicted
    low, high = steps(gain + error), steps(gain - error)
    agrees = low - slack <= predicted <= high + slack
    return Comparison(key, what, "steps", steps(gain), predicted, (low, high), None, agrees)


def _step_response(
    ema: Array, spread: dict[str, Array], x: Array, spec: GabaSpec
) -> list[Comparison]:
    settling = filter_facts(spec).settling_updates
    closed = _average.step_statistics(
        _average.closed_form(float(x[:_SEEN].mean()), ema.size, spec), spec
    )
    measured = _average.step_statistics(ema, spec)
    found = []
    for name, key, what, unit in (
        ("rise", "rise_time", "rise 10-90 % after the warm-up", "steps"),
        ("settling", "settling_time", "settling to 2 % after the warm-up", "steps"),
        ("floor", "time_to_floor", "from the warm-up to the floor", "steps"),
        ("saturated", "saturated_fraction", "saturated share of active readings", ""),
    ):
        if name in ("rise", "settling") and ema.size < 2 * settling:
            reason = f"{_CONSTANT}: {ema.size} readings, {2 * settling} are needed"
            found.append(Comparison(key, what, unit, reason=reason))
            continue
        # Whole readings: the closed form of a continuous rise is within one of its reading.
        scale, slack = (spec.interval, spec.interval) if unit else (1, 0)
        value, expected = float(measured[name]) * scale, float(closed[name]) * scale
        ends = np.quantile(spread[name], [0.025, 0.975], method="nearest") * scale
        low, high = float(ends[0]), float(ends[1])
        agrees = low - slack <= value <= high + slack
        if not (math.isfinite(value) and math.isfinite(expected)):
            one, other = ("never" if math.isinf(v) else "reached" for v in (value, expected))
            reason = f"measured: {one}; predicted: {other}"
            found.append(Comparison(key, what, unit, agrees=agrees, reason=reason))
            continue
        reason = "" if agrees else f"the imbalance drifted after the first {_SEEN} readings"
        seen = Comparison(key, what, unit, value, expected, None, (low, high), agrees, reason)
        found.append(seen)
    return found


def _floor(
    trace: Trace, spec: GabaSpec, rows: NDArray[np.intp], ema: Array, x: Array, seed: int
) -> list[Comparison]:
    """Settled weight and residual over the last half, against the floor's closed forms."""
    late = rows[rows.size // 2 :]
    weight = "settled_weight", "settled weight of the louder task"
    residual = "residual_ratio", "contributions left apart (geometric mean)"
    if spec.n_tasks != 2:
        return [Comparison(*weight, reason="for two tasks only")]
    block = math.ceil(filter_facts(spec).time_constant_steps / spec.interval)
    x, ema = x[-late.size :], ema[-late.size :]

    def applied(average: Any) -> Any:
        both = np.stack([average, 1.0 - np.asarray(average)], axis=-1)
        return saturate(both, spec.floor, spec.floor_mode)

    weights, norms = applied(ema), trace.grad_norms[late]
    loud = int(np.argmax(np.median(norms, axis=0)))
    ratio = norms[:, loud] / norms[:, 1 - loud]
    left = ratio * weights[:, 0] / weights[:, 1]
    series = (x, weights[:, 0], np.log(left), np.log(ratio))
    means = [block_bootstrap(v[None], lambda m: m[..., 0], block, seed) for v in series]
    known = [mean for mean in means if mean is not None]
    if len(known) < len(means):
        reason = f"{_CONSTANT}: the last half has fewer than 8 blocks of {block} readings"
        return [Comparison(*weight, reason=reason), Comparison(*residual, reason=reason)]
    raw, settled, log_left, log_ratio = known
    apart = [float(residual_ratio(spec, math.exp(v))) for v in log_ratio]
    return [
        _overlapping(*weight, "", settled, applied(raw)[:, 0].tolist()),
        _overlapping(*residual, "to 1", [math.exp(v) for v in log_left], apart),
    ]


def _overlapping(
    key: str, what: str, unit: str, measured: Sequence[float], predicted: Sequence[float]
) -> Comparison:
    """Of two estimates, each with the ends of its interval."""
    (one, low, high), (other, least, most) = measured, predicted
    agrees = max(low, least) <= min(high, most)
    return Comparison(key, what, unit, one, other, (low, high), (least, most), agrees)


def _noise(ema: Array, x: Array, spec: GabaSpec, seed: int) -> Comparison:
    """Variance of the average over that of the raw weights, drift removed from both.

    Drift is removed by subtracting a moving mean over three time constants, from raw and average
    alike. That takes some of the noise with it; how much follows from the measured autocorrelation,
    and the measured gain is put right by that factor.
    """
    key, what = "noise_gain", "noise power, average over raw"
    pole = spec.beta**spec.interval
    constant = -1.0 / math.log(pole)
    width = 2 * round(1.5 * constant) + 1
    block = max(5, math.ceil(constant))
    # The start of the average, a decaying known exponential, is no noise.
    n = np.arange(1, x.size + 1)
    level = float(x.mean())
    answer = ema - pole**n / spec.n_tasks - level * (1.0 - pole**n)
    if x.size - width < 8 * block + block:
        reason = f"{_CONSTANT}: {x.size} readings, {width + 9 * block} are needed"
        return Comparison(key, what, reason=reason)
    fast, slow = (
        _average.without_drift(x - level, width)[block:],
        _average.without_drift(answer, width)[block:],
    )
    powers = np.stack([slow**2, fast**2])
    found = block_bootstrap(powers, lambda m: m[..., 0] / m[..., 1], block, seed)
    covariance = autocovariance(fast, _LAGS)
    # Per reading: the filter's pole is that of the readings, whatever the interval.
    repeated = np.repeat(covariance, spec.interval)
    predicted = noise_gain(open_loop(spec, LogRatio(0.0)), autocovariances=repeated)
    if found is None:
        return Comparison(key, what, predicted=predicted, reason=_CONSTANT)
    correction = predicted / _average.gain_without_drift(covariance, pole, width)
    gain, low, high = (value * correction for value in found)
    reason = f"white noise: {filter_facts(spec).noise_power_gain:.4g}"
    reason += "" if low <= predicted else "; the rest is drift that was not removed"
    agrees = low <= predicted <= high
    return Comparison(key, what, "", gain, predicted, (low, high), None, agrees, reason)


def _figure(value: float, interval: Range | None) -> str:
    ends = "" if interval is None else f" [{interval[0]:.5g}, {interval[1]:.5g}]"
    return f"{value:.5g}{ends}"
