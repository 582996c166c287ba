"""From one run, or a pair of twins, to the plant, its intervals, its checks and a verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.identification.arx import ArxOrders, select_arx
from gabactl.identification.likelihood import ProfileLikelihood
from gabactl.identification.noise import NoiseModel, fit_noise
from gabactl.identification.output_error import OutputErrorFit, fit_output_error, lag_response
from gabactl.identification.randomisation import Placebo, Randomisation, placebo, randomise
from gabactl.identification.signals import ExcitedRun, difference, from_run
from gabactl.identification.verdict import LoopVerdict, Sign, judge_loop, judge_sign
from gabactl.law.spec import GabaSpec
from gabactl.runs.run import Run

__all__ = ["Identification", "identify", "identify_paired"]

_NEAR_ONE = 0.8
_HELD_OUT = 0.2
_LEAST_HELD_OUT = 100
_LJUNG_BOX_LAGS = 20


@dataclass(frozen=True)
class Identification(Result):
    """The identified log-ratio plant.

    y = -rho (1-a) z^-(1+delay) / (1 - a z^-1) u + drift + noise, with y = log(g_1/g_2) and
    u = log(w_1/w_2); rho > 0 is positive feedback (the louder task is starved).

    Parameters
    ----------
    name : str
        Which run.
    paired : bool
        Whether it is the difference of twins.
    readings : int
        Steps with a reading.
    rho, a, delay : float, float, int
        Estimates: gain, pole of the lag per step, extra delay in steps.
    rho_interval, a_interval : pairs of floats
        Confidence intervals.
    delays : tuple of int
        Extra delays not rejected.
    level : float
        Confidence level.
    sign : {"negative", "positive", "none"}
        Feedback detected; "none" where the interval covers 0.
    p_value : float
        Of no feedback, by simulation.
    randomisation : Randomisation
        The interval that rests on the coin of the excitation alone.
    placebo : Placebo
        The same estimator on the excitation of the future.
    arx : ArxOrders
        Orders by information criterion.
    loop : LoopVerdict
        Stability with ``spec``.
    spec : GabaSpec
        The controller judged.
    noise : NoiseModel
        Of the disturbance.
    fit_percent, fit_percent_without_feedback : float or None
        100 (1 - rms error / standard deviation) of one-step predictions on the last fifth of the
        readings, fitted on the rest, with and without the weights as an input.
    ljung_box_p_value : float
        Residual whiteness over 20 lags.
    input_residual_p_value : float
        Residual against the excitation, present and past (over-identification test).
    saturated_fraction : float or None
        Share of readings at which the weights were at the floor.
    max_lag_steps : float
        Longest lag searched, steps.
    seed : int
        Of the simulated critical values and the re-randomisation.
    notes : tuple of str
        What a reader must know.
    signals : ExcitedRun
        What was identified from.
    fit : OutputErrorFit
        The fit behind the estimates.
    """

    name: str
    paired: bool
    readings: int
    rho: float
    rho_interval: tuple[float, float]
    a: float
    a_interval: tuple[float, float]
    delay: int
    delays: tuple[int, ...]
    level: float
    sign: Sign
    p_value: float
    randomisation: Randomisation
    placebo: Placebo
    arx: ArxOrders
    loop: LoopVerdict
    spec: GabaSpec
    noise: NoiseModel
    fit_percent: float | None
    fit_percent_without_feedback: float | None
    ljung_box_p_value: float
    input_residual_p_value: float
    saturated_fraction: float | None
    max_lag_steps: float
    seed: int
    notes: tuple[str, ...]
    signals: ExcitedRun
    fit: OutputErrorFit

    @property
    def title(self) -> str:  # type: ignore[override]
        """Heading of the table."""
        return f"Identified plant: {self.name}{' (paired)' if self.paired else ''}"

    @property
    def lag_steps(self) -> float:
        """Time constant of the lag, steps; 0 for a = 0."""
        return _lag(self.a)

    @property
    def verdict(self) -> str:
        """The sign of the feedback, with its interval, in words."""
        interval = _pair(self.rho_interval)
        percent = f"{100 * self.level:g} %"
        if self.sign == "none":
            return f"no detectable feedback: rho in {interval} ({percent}) covers 0"
        means = (
            "more weight, larger gradients"
            if self.sign == "negative"
            else "more weight, smaller gradients"
        )
        return f"{self.sign} feedback ({means}): rho in {interval} ({percent})"

    def facts(self) -> dict[str, Any]:
        """The result as plain values.

        Keys: source, paired, readings, rho, rho_low, rho_high, a, a_low, a_high, lag_steps, delay,
        delays, level, feedback, p_value, verdict, loop, randomisation, placebo, arx, noise,
        fit_percent, fit_percent_without_feedback, ljung_box_p_value, input_residual_p_value,
        saturated_fraction, max_lag_steps, spec, seed, notes.
        """
        noise = self.noise
        return {
            "source": self.name,
            "paired": self.paired,
            "readings": self.readings,
            "rho": self.rho,
            "rho_low": self.rho_interval[0],
            "rho_high": self.rho_interval[1],
            "a": self.a,
            "a_low": self.a_interval[0],
            "a_high": self.a_interval[1],
            "lag_steps": self.lag_steps,
            "delay": self.delay,
            "delays": list(self.delays),
            "level": self.level,
            "feedback": self.sign,
            "p_value": self.p_value,
            "verdict": self.verdict,
            "loop": asdict(self.loop),
            "randomisation": asdict(self.randomisation),
            "placebo": {**asdict(self.placebo), "passed": self.placebo.passed},
            "arx": {**asdict(self.arx), "prefers_input": self.arx.prefers_input},
            "noise": {
                "step_std": noise.step_std,
                "correlation_time": noise.correlation_time,
                "drift_std": noise.drift_std,
                "ar": noise.ar,
            },
            "fit_percent": self.fit_percent,
            "fit_percent_without_feedback": self.fit_percent_without_feedback,
            "ljung_box_p_value": self.ljung_box_p_value,
            "input_residual_p_value": self.input_residual_p_value,
            "saturated_fraction": self.saturated_fraction,
            "max_lag_steps": self.max_lag_steps,
            "spec": self.spec.to_dict(),
            "seed": self.seed,
            "notes": list(self.notes),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Table rows."""
        noise, arx, level = self.noise, self.arx, f"{100 * self.level:g} %"
        rows: list[tuple[str, ...]] = [
            ("verdict", self.verdict),
            ("loop with this controller", _loop_words(self)),
            ("rho", f"{self.rho:.3f}, {level} {_pair(self.rho_interval)}"),
            (
                "  by randomisation",
                f"{level} {_pair((self.randomisation.low, self.randomisation.high))}, "
                f"p = {self.randomisation.p_value:.3g} of 0, {self.randomisation.blocks} blocks",
            ),
            ("  p of no feedback", f"{self.p_value:.3g}"),
            (
                "  placebo, future weights",
                f"{self.placebo.rho:.3f}, {level} {_pair((self.placebo.low, self.placebo.high))}: "
                + ("passed" if self.placebo.passed else "FAILED"),
            ),
            (
                "lag, steps",
                f"{self.lag_steps:.1f}, {level} "
                f"[{_lag(self.a_interval[0]):.1f}, {_lag(self.a_interval[1]):.1f}]",
            ),
            ("extra delay, steps", f"{self.delay}, not rejected: {_listed(self.delays)}"),
            (
                "noise per reading",
                f"{noise.step_std:.3f} nats, correlation time {noise.correlation_time:.1f}, "
                f"drift {noise.drift_std:.2g} per reading",
            ),
            (
                "ARX orders by " + arx.criterion.upper(),
                f"{arx.n_ar} of y, {arx.n_inputs} of u "
                f"({arx.value:.1f}, without u {arx.value_without_input:.1f})",
            ),
            ("residual whiteness", f"p = {self.ljung_box_p_value:.3g} (Ljung-Box, 20 lags)"),
            ("residual against input", f"p = {self.input_residual_p_value:.3g}"),
        ]
        if self.fit_percent is not None:
            rows.append(
                (
                    "fit, held-out steps",
                    f"{self.fit_percent:.2f} %, without the weights "
                    f"{self.fit_percent_without_feedback:.2f} %",
                )
            )
        return [*rows, ("readings", str(self.readings)), *(("note", n) for n in self.notes)]

    def plot(self, ax: Any | None = None) -> Any:
        """The average response after a switch of the excitation, measured and fitted.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw.

        Returns
        -------
        matplotlib axes
        """
        from gabactl.base.plots import PALETTE, axes

        ax = axes(ax)
        steps, mean, error, model = _switch_response(self.signals, self.fit)
        ax.fill_between(
            steps, mean - 1.96 * error, mean + 1.96 * error, color=PALETTE[0], alpha=0.2, lw=0
        )
        ax.plot(steps, mean, color=PALETTE[0], label="measured, 95 %")
        ax.plot(steps, model, color=PALETTE[1], label=f"fitted, rho = {self.rho:.3f}")
        ax.set_xlabel("steps since the excitation switched up")
        ax.set_ylabel("log ratio, nats")
        ax.set_title(f"{self.sign} feedback" if self.sign != "none" else "no detectable feedback")
        ax.legend()
        return ax


def identify(
    run: Any,
    *,
    spec: GabaSpec | None = None,
    max_lag: float | None = None,
    max_delay: int = 5,
    level: float = 0.95,
    draws: int = 1999,
    criterion: str = "bic",
    seed: int = 0,
    name: str | None = None,
) -> Identification:
    """Identify how gradient norms answer to loss weights, from one excited run.

    Parameters
    ----------
    run : Run, Trace, path or ExcitedRun
        A recorded run of two tasks with an excitation, or signals made by hand.
    spec : GabaSpec, optional
        The controller whose loop is judged; default: the recorded one.
    max_lag : float, optional
        Longest lag looked for, steps; default: one block of the excitation. Much longer lags
        cannot be told from drift.
    max_delay : int
        Largest extra delay looked for, steps.
    level : float in (0, 1)
        Confidence level.
    draws : int
        Simulated data sets behind each critical value, and sign sequences drawn.
    criterion : {"bic", "aic"}
        For the ARX orders.
    seed : int
        For both.
    name : str, optional
        What to call the run; default: the trace's file.

    Returns
    -------
    Identification

    Raises
    ------
    InputError
        No excitation (then closed-loop data cannot tell the plant from the noise), not two tasks,
        or too few readings.

    Examples
    --------
    >>> from gabactl.identification import simulate_excited
    >>> run = simulate_excited(rho=-0.5, a=0.9, steps=4000, seed=3).run(0)
    >>> found = identify(run)
    >>> found.sign, found.loop.verdict
    ('negative', 'stable')
    """
    signals = _as_signals(run, name)
    return _identify(signals, False, spec, max_lag, max_delay, level, draws, criterion, seed)


def identify_paired(
    run: Any,
    twin: Any,
    *,
    spec: GabaSpec | None = None,
    max_lag: float | None = None,
    max_delay: int = 5,
    level: float = 0.95,
    draws: int = 1999,
    criterion: str = "bic",
    seed: int = 0,
) -> Identification:
    """Identify the plant from twins: same seed and batches, inverted excitation, subtracted.

    Parameters
    ----------
    run, twin : Run, Trace, path or ExcitedRun
        The two runs.
    spec, max_lag, max_delay, level, draws, criterion, seed
        As for :func:`identify`.

    Raises
    ------
    InputError
        The two are not twins, or as for :func:`identify`.

    Examples
    --------
    >>> import dataclasses
    >>> from gabactl.identification import simulate_excited
    >>> run = simulate_excited(rho=-0.5, steps=3000, seed=3).run(0)
    >>> try:
    ...     identify_paired(run, run)
    ... except ValueError as error:
    ...     print(str(error)[-61:])
    the second run with the same --seed and --excite ...,inverted
    """
    first, second = _as_signals(run, None), _as_signals(twin, None)
    signals = difference(first, second)
    return _identify(signals, True, spec, max_lag, max_delay, level, draws, criterion, seed)


def _as_signals(run: Any, name: str | None) -> ExcitedRun:
    if isinstance(run, ExcitedRun):
        return run
    return from_run(Run.of(run), name)


def _identify(
    signals: ExcitedRun,
    paired: bool,
    spec: GabaSpec | None,
    max_lag: float | None,
    max_delay: int,
    level: float,
    draws: int,
    criterion: str,
    seed: int,
) -> Identification:
    lag = float(signals.block) if max_lag is None else float(max_lag)
    _check_search(lag, max_delay, level, draws, criterion)
    lag = max(lag, 1.0)
    fit = fit_output_error(signals, lag, max_delay)
    profile = ProfileLikelihood(fit, draws=draws, seed=seed, level=level)
    rho_interval, a_interval, delays = (
        profile.rho_interval(),
        profile.a_interval(),
        profile.delays(),
    )
    controller = signals.spec if spec is None else spec
    held_out = _held_out_fit(signals, lag, max_delay)
    found = Identification(
        name=signals.name,
        paired=paired,
        readings=int(signals.measured.sum()),
        rho=fit.rho,
        rho_interval=rho_interval,
        a=fit.a,
        a_interval=a_interval,
        delay=fit.delay,
        delays=delays,
        level=level,
        sign=judge_sign(rho_interval),
        p_value=profile.p_value_without_feedback(),
        randomisation=randomise(signals, fit, sequences=draws, seed=seed, level=level),
        placebo=placebo(signals, fit, level=level),
        arx=select_arx(signals, drift=fit.noise.drift_pole_gap, criterion=criterion),
        loop=judge_loop(controller, rho_interval, a_interval, delays),
        spec=controller,
        noise=fit.noise,
        fit_percent=held_out[0],
        fit_percent_without_feedback=held_out[1],
        ljung_box_p_value=_ljung_box(fit),
        input_residual_p_value=_input_residual(fit, profile),
        saturated_fraction=None if paired else _saturated_fraction(signals),
        max_lag_steps=lag,
        seed=seed,
        notes=(),
        signals=signals,
        fit=fit,
    )
    object.__setattr__(found, "notes", _notes(found))
    return found


def _check_search(lag: float, max_delay: int, level: float, draws: int, criterion: str) -> None:
    if not (math.isfinite(lag) and lag > 0):
        raise InputError(f"max_lag = {lag} must be a positive number of steps, such as 50")
    if not 0 <= max_delay <= 200:
        raise InputError(f"max_delay = {max_delay} is not in [0, 200]: try 5")
    if not 0.5 <= level < 1.0:
        raise InputError(f"level = {level} is not in [0.5, 1): try 0.95")
    if draws < 99:
        raise InputError(f"draws = {draws} are too few for a critical value: give at least 99")
    if criterion not in ("aic", "bic"):
        raise InputError(f"criterion = {criterion!r} is unknown: choose aic or bic")


def _ljung_box(fit: OutputErrorFit) -> float:
    from statsmodels.stats.diagnostic import acorr_ljungbox

    table = acorr_ljungbox(
        fit.whitened, lags=[_LJUNG_BOX_LAGS], model_df=fit.noise.ar.size + 1, return_df=True
    )
    return float(table["lb_pvalue"].iloc[0])


def _input_residual(fit: OutputErrorFit, profile: ProfileLikelihood) -> float:
    from scipy.stats import chi2

    left = float(fit.response @ fit.response) - profile.misfit_without_feedback()
    return float(chi2.sf(max(left, 0.0), max(fit.response.size - 2, 1)))


def _saturated_fraction(signals: ExcitedRun) -> float:
    floor = signals.spec.floor
    if floor <= 0:
        return 0.0
    chosen = np.abs(signals.actuation - signals.excitation)[signals.measured]
    return float(np.mean(chosen >= math.log((1.0 - floor) / floor)))


def _held_out_fit(
    signals: ExcitedRun, max_lag: float, max_delay: int
) -> tuple[float | None, float | None]:
    rows = np.flatnonzero(signals.measured)
    held = int(_HELD_OUT * rows.size)
    end = int(rows[-held])
    try:
        early = ExcitedRun(
            signals.log_ratio[:end],
            signals.actuation[:end],
            signals.excitation[:end],
            spec=signals.spec,
            name=signals.name,
        )
    except InputError:
        return None, None
    if held < _LEAST_HELD_OUT:
        return None, None
    fit = fit_output_error(early, max_lag, max_delay)
    y = signals.log_ratio[rows]
    without = fit_noise(y[:-held])
    answer = fit.rho * lag_response(signals.actuation, fit.a, fit.delay)[rows]
    spread = float(np.std(y[-held:]))

    def percent(noise: NoiseModel, disturbance: np.ndarray[Any, Any]) -> float:
        start = disturbance[:20].mean()
        error = noise.whiten(disturbance - start)[-held:]
        return 100.0 * (1.0 - float(np.sqrt(np.mean(error**2))) / spread)

    return percent(fit.noise, y - answer), percent(without, y)


def _notes(found: Identification) -> tuple[str, ...]:
    notes = []
    if (
        found.max_lag_steps > 0
        and found.lag_steps > 0.9 * found.max_lag_steps
        and found.sign != "none"
    ):
        notes.append(
            f"the lag is at the end of the search ({found.max_lag_steps:g} steps): rho is the gain up to "
            "that time scale; a longer excitation period sees further"
        )
    if found.sign != "none" and found.delay + 1 == len(found.fit.regressors) > 1:
        notes.append(
            f"the extra delay is at the end of the search ({found.delay} steps), as happens when "
            "the response starts gradually: search further with a larger max_delay"
        )
    if found.rho_interval[1] > _NEAR_ONE:
        notes.append(
            "rho may be near 1, where the loop answers over (1/(1 - rho))/(1 - beta) steps: intervals "
            "from 4,000 steps then covered the truth in 93.8 to 94.0 % of 2,000 runs, not 95 %"
        )
    if found.ljung_box_p_value < 0.01:
        notes.append("the residual is not white: the noise model misses something, see rho by")
        notes[-1] += " randomisation, which does not rest on it"
    if found.saturated_fraction is not None and found.saturated_fraction > 0.1:
        notes.append(
            f"the weights were at the floor for {100 * found.saturated_fraction:.0f} % of the run: "
            "there the loop is open, whatever the plant, and the loop's verdict does not apply"
        )
    if found.input_residual_p_value < 0.01:
        notes.append("the residual still follows the excitation: one lag and delay do not describe")
        notes[-1] += " the response"
    if not found.placebo.passed:
        notes.append(
            "the placebo failed: weights of the future seem to act, so something else than the "
            "plant is in the data (5 % of sound experiments fail by chance)"
        )
    if found.sign == "none":
        needed = found.readings * ((found.rho_interval[1] - found.rho_interval[0]) / (2 * 0.1)) ** 2
        notes.append(
            f"to see |rho| = 0.1 with this excitation takes about {_rounded(needed)} readings; "
            "twin runs or a larger amplitude take fewer"
        )
    if found.sign == "negative" or found.sign == "none":
        return tuple(notes)
    if found.rho_interval[0] < 1 <= found.rho_interval[1]:
        notes.append("rho = 1 (a neutral loop that keeps any weights it has) is not excluded")
    return tuple(notes)


def _loop_words(found: Identification) -> str:
    loop = found.loop
    radii = f"spectral radius {loop.radius_low:.4f} to {loop.radius_high:.4f}"
    return f"{loop.verdict} inside the floor ({radii})"


def _switch_response(signals: ExcitedRun, fit: OutputErrorFit) -> tuple[Any, Any, Any, Any]:
    """Mean of the noise-whitened-free data around switches: steps, mean, error, model."""
    jumps = np.flatnonzero(np.diff(signals.excitation)) + 1
    span = min(2 * signals.block, len(signals.excitation) // 4)
    before = signals.block // 2
    jumps = jumps[(jumps >= before) & (jumps + span <= len(signals.excitation))]
    signs = np.sign(signals.excitation[jumps] - signals.excitation[jumps - 1])
    model = fit.rho * lag_response(signals.actuation, fit.a, fit.delay)
    windows = jumps[:, None] + np.arange(-before, span)

    def averaged(values: Any) -> tuple[Any, Any]:
        cut = values[windows]
        cut = signs[:, None] * (cut - np.nanmean(cut[:, :before], axis=1, keepdims=True))
        count = np.isfinite(cut).sum(0)
        return np.nanmean(cut, axis=0), np.nanstd(cut, axis=0) / np.sqrt(np.maximum(count, 1))

    mean, error = averaged(signals.log_ratio)
    return np.arange(-before, span), mean, error, averaged(model)[0]


def _lag(a: float) -> float:
    return -1.0 / math.log(a) if a > 0 else 0.0


def _pair(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _listed(delays: tuple[int, ...]) -> str:
    return ", ".join(map(str, delays))


def _rounded(value: float) -> str:
    digits = max(0, len(str(int(value))) - 2)
    return str(round(int(value), -digits))
