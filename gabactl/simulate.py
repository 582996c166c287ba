"""One closed loop: a balancer, a disturbance and a plant, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gabactl.balancers import Balancer, Gaba, UserBalancer, make
from gabactl.errors import InputError
from gabactl.plants import LogRatio, Plant
from gabactl.profiles import Profile, non_negative
from gabactl.results import Result
from gabactl.spec import GabaSpec

__all__ = [
    "CompiledLoop",
    "SegmentResponse",
    "Signals",
    "SimulationResult",
    "as_balancer",
    "simulate",
    "spread",
]

Array = NDArray[np.float64]

#: Settled weights, centred log contributions, and their spread.
_Settled = tuple[Array, Array, float]

#: Weights beyond this count as diverged.
DIVERGED = 1e6

#: Share of a level's end that is averaged for its settled value, where no longer run is possible.
_TAIL = 0.1


@dataclass(frozen=True)
class SegmentResponse:
    """The answer to one level of a disturbance. Steps count from the level's first one.

    Attributes
    ----------
    start, stop : int
        First step (from 0) and the one after the last.
    disturbance_ratio : float
        Largest over smallest norm under uniform weights, at the end of the level.
    settled_weights : tuple of float
        Weights the loop tends to at this level.
    settled_contribution_ratio : float
        Largest over smallest contribution w_i g_i there (1 is balanced).
    settling_weights, settling_contributions : int or None
        Updates until the weights (log contributions) stay within ``tolerance`` of the whole
        change; None where they do not within the level, or the disturbance does not come to rest
        in it.
    integrated_error : float
        Sum over the level of the log of largest over smallest contribution (steps).
    worst_contribution_ratio : float
        Largest over smallest contribution, at its worst.
    saturated_fraction : float or None
        Share of active steps with some ema below the floor; None for other balancers.
    """

    start: int
    stop: int
    disturbance_ratio: float
    settled_weights: tuple[float, ...]
    settled_contribution_ratio: float
    settling_weights: int | None
    settling_contributions: int | None
    integrated_error: float
    worst_contribution_ratio: float
    saturated_fraction: float | None


@dataclass(frozen=True, eq=False)
class SimulationResult(Result):
    """Everything a simulated loop did.

    Attributes
    ----------
    balancer : str
        Name.
    settings : mapping
        Of the balancer.
    profile : Profile
        The disturbance.
    plant : str
        What answered.
    noise : float
        Standard deviation of the noise on each log reading.
    seed : int
        Of noise and plant.
    tolerance : float
        Band of the settling times, as a share of the change.
    grad_norms : array, shape (steps, K)
        Norms without the noise of the reading.
    readings : array, shape (steps, K)
        What the sensor gave.
    weights : array, shape (steps, K)
        Applied weights.
    raw, ema : array, shape (steps, K), or None
        The other stages, for GABA.
    responses : tuple of SegmentResponse
        One per level of the disturbance.
    worst_weight, largest_weight : float
        Extremes of the applied weights.
    saturated_fraction : float or None
        Share of active steps with some ema below the floor (GABA).
    saturated_steps : int or None
        The same as a number of steps.
    sign_changes : int
        How often a weight changed its sign.
    negative_fraction : float
        Share of steps with a negative weight.
    diverged_at : int or None
        First step (from 1) with a weight that is not finite or beyond 10^6.
    """

    balancer: str
    settings: Mapping[str, Any]
    profile: Profile
    plant: str
    noise: float
    seed: int
    tolerance: float
    grad_norms: Array
    readings: Array
    weights: Array
    raw: Array | None
    ema: Array | None
    responses: tuple[SegmentResponse, ...]
    worst_weight: float
    largest_weight: float
    saturated_fraction: float | None
    saturated_steps: int | None
    sign_changes: int
    negative_fraction: float
    diverged_at: int | None

    @property
    def title(self) -> str:  # type: ignore[override]
        """Balancer, disturbance and plant in one line."""
        return f"{self.balancer} on {self.profile.title or 'a disturbance'} ({self.plant})"

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.weights)

    @property
    def contributions(self) -> Array:
        """c_i = w_i g_i, shape (steps, K)."""
        return self.weights * self.grad_norms

    @property
    def contribution_ratios(self) -> Array:
        """Largest over smallest |c_i| per step, shape (steps,); infinite where one is 0."""
        return np.exp(spread(self.contributions))

    @property
    def integrated_error(self) -> float:
        """Sum over all steps of the log of largest over smallest contribution."""
        return math.fsum(r.integrated_error for r in self.responses)

    def to_dict(self, trajectories: bool = False) -> dict[str, Any]:
        """Settings and figures; ``trajectories`` adds the signals."""
        record = {
            "balancer": self.balancer,
            "settings": dict(self.settings),
            "disturbance": self.profile.title,
            "plant": self.plant,
            "noise": self.noise,
            "seed": self.seed,
            "tolerance": self.tolerance,
            "steps": self.steps,
            "responses": [_with_reasons(asdict(r)) for r in self.responses],
            "integrated_error": self.integrated_error,
            "worst_weight": self.worst_weight,
            "largest_weight": self.largest_weight,
            "saturated_fraction": self.saturated_fraction,
            "saturated_steps": self.saturated_steps,
            "sign_changes": self.sign_changes,
            "negative_fraction": self.negative_fraction,
            "diverged_at": self.diverged_at,
        }
        if trajectories:
            record |= {
                name: getattr(self, name)
                for name in ("grad_norms", "readings", "raw", "ema", "weights")
            }
        return record

    def rows(self) -> Sequence[Sequence[str]]:
        """One row per level, and the figures of the whole run."""
        table: list[tuple[str, ...]] = [
            (
                "level",
                "steps",
                "imbalance",
                "settled weights",
                "left over",
                "settling: weights",
                "contributions",
                "saturated",
            )
        ]
        for n, r in enumerate(self.responses, 1):
            weights = " ".join(f"{w:.4g}" for w in r.settled_weights[:4])
            table.append(
                (
                    str(n),
                    f"{r.start}-{r.stop - 1}",
                    _times(r.disturbance_ratio),
                    weights + (" ..." if len(r.settled_weights) > 4 else ""),
                    _times(r.settled_contribution_ratio),
                    _steps(r.settling_weights),
                    _steps(r.settling_contributions),
                    "-" if r.saturated_fraction is None else f"{r.saturated_fraction:.0%}",
                )
            )
        table.append(("all", f"weights {self.worst_weight:.4g} to {self.largest_weight:.4g}"))
        table.append(("", f"integrated contribution error {self.integrated_error:.1f} steps"))
        if self.sign_changes:
            table.append(
                (
                    "",
                    f"{self.sign_changes} sign changes of a weight, "
                    f"negative {self.negative_fraction:.0%} of the time",
                )
            )
        if self.diverged_at is not None:
            table.append(("", f"diverged at step {self.diverged_at}"))
        return table

    def plot(
        self,
        ax: Any | None = None,
        what: Literal["weights", "contributions", "norms"] = "weights",
    ) -> Any:
        """One signal over the steps.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        what : {"weights", "contributions", "norms"}
            Applied weights; ratio of the contributions; gradient norms.

        Examples
        --------
        >>> from gabactl.profiles import constant
        >>> len(simulate(GabaSpec(), constant(500.0, 300)).plot().lines)
        2
        """
        from gabactl import plots

        with plots.style():
            ax = plots.axes(ax)
            steps = np.arange(1, self.steps + 1)
            if what == "weights":
                for i, column in enumerate(self.weights.T):
                    ax.plot(steps, column, label=f"task {i + 1}")
                ax.set_ylabel("applied weight")
            elif what == "contributions":
                ratios = self.contribution_ratios
                ax.plot(steps, np.where(np.isfinite(ratios), ratios, np.nan), label=self.balancer)
                ax.set(yscale="log", ylabel="largest / smallest contribution")
            elif what == "norms":
                for i, column in enumerate(self.readings.T):
                    shown = np.where(column > 0, column, np.nan)
                    ax.plot(steps, shown, label=f"task {i + 1}", linewidth=0.8)
                ax.set(yscale="log", ylabel="gradient norm")
            else:
                raise InputError(
                    f"what = {what!r} cannot be drawn: choose weights, contributions or norms"
                )
            for event in self.profile.events[1:]:
                ax.axvline(event + 1, color="0.6", linewidth=0.8, linestyle=":")
            ax.set_xlabel("step")
            ax.legend()
        return ax

    def figure(self, figure: Any | None = None) -> Any:
        """Norms, weights and contributions below one another.

        Parameters
        ----------
        figure : matplotlib.figure.Figure, optional
            Where to draw; default a new one.

        Examples
        --------
        >>> from gabactl.profiles import constant
        >>> len(simulate(GabaSpec(), constant(500.0, 300)).figure().axes)
        3
        """
        from matplotlib.figure import Figure

        from gabactl import plots

        with plots.style():
            if figure is None:
                figure = Figure(figsize=(7.0, 8.0), layout="constrained")
            panels = figure.subplots(3, sharex=True)
            for panel, what in zip(panels, ("norms", "weights", "contributions"), strict=True):
                self.plot(panel, what)  # type: ignore[arg-type]
                panel.set_xlabel("")
            panels[0].set_title(self.title)
            panels[-1].set_xlabel("step")
        return figure


def simulate(
    balancer: Balancer | GabaSpec | str | Callable[..., Any],
    profile: Profile,
    plant: Plant | None = None,
    *,
    noise: float = 0.0,
    seed: int = 0,
    tolerance: float = 0.02,
) -> SimulationResult:
    """Run one loop and measure its answer to every level of the disturbance.

    Parameters
    ----------
    balancer : Balancer, GabaSpec, name or callable
        What sets the weights. A Balancer is reset first.
    profile : Profile
        What the gradient norms do on their own; the plant's answer is added to their logarithm.
    plant : Plant, optional
        What answers to the weights; default nothing does (open loop).
    noise : float, at least 0
        Standard deviation of white Gaussian noise on the logarithm of each reading.
    seed : int in [0, 2^63)
        Of the noise and the plant.
    tolerance : float in (0, 1)
        Band of the settling times, as a share of the change.

    Raises
    ------
    InputError
        Tasks that do not match, or a value out of range.

    Notes
    -----
    GABA on its own or against a :class:`gabactl.plants.LogRatio` runs compiled, and its settled
    values come from holding each level until nothing moves. For everything else they are the
    mean over the last tenth of the level, so hold levels long enough. Contributions are counted
    on the norms without the noise of the reading.

    Examples
    --------
    >>> from gabactl.profiles import constant
    >>> result = simulate(GabaSpec(), constant(500.0, 1000))
    >>> result.responses[0].settled_weights[0]  # m / (m + R/(1+R))
    0.0477...
    >>> round(result.responses[0].settled_contribution_ratio, 2)  # m (1 + R)
    25.05
    """
    rule = as_balancer(balancer, profile.n_tasks)
    _check(rule, profile, plant, noise, tolerance)
    from gabactl._kernels.random import check_seed

    seed = check_seed(seed)
    compiled = type(rule) is Gaba and (plant is None or type(plant) is LogRatio)
    raw = ema = None
    if compiled:
        signals = _run_compiled(rule.spec, profile, plant, noise, seed)  # type: ignore[attr-defined, arg-type]
        grad_norms, readings, raw, ema, weights = signals
        settled = [
            _hold(rule.spec, profile, stop, plant)  # type: ignore[attr-defined, arg-type]
            for _, stop in profile.segments
        ]
    else:
        grad_norms, readings, weights, stages = _run_python(rule, profile, plant, noise, seed)
        if stages is not None:
            raw, ema = stages
        settled = [_tail(weights[a:b], grad_norms[a:b]) for a, b in profile.segments]
    below: NDArray[np.bool_] | None = None
    active: NDArray[np.bool_] = np.ones(profile.steps, dtype=bool)
    if ema is not None and isinstance(rule, Gaba):
        active = np.arange(1, profile.steps + 1) > rule.spec.warmup
        below = np.asarray((ema < rule.spec.floor).any(axis=1))
    responses = tuple(
        _response(profile, segment, weights, grad_norms, target, below, active, tolerance)
        for segment, target in zip(profile.segments, settled, strict=True)
    )
    bad = ~(np.abs(weights) <= DIVERGED).all(axis=1)
    signs = np.sign(weights)
    finite = np.isfinite(weights)
    return SimulationResult(
        balancer=getattr(rule, "title", rule.name) or rule.name,
        settings=rule.settings(),
        profile=profile,
        plant="no feedback" if plant is None else _describe(plant),
        noise=float(noise),
        seed=seed,
        tolerance=float(tolerance),
        grad_norms=grad_norms,
        readings=readings,
        weights=weights,
        raw=raw,
        ema=ema,
        responses=responses,
        worst_weight=float(np.min(weights[finite], initial=np.inf)),
        largest_weight=float(np.max(weights[finite], initial=-np.inf)),
        saturated_fraction=None if below is None else _mean(below[active]),
        saturated_steps=None if below is None else int(below[active].sum()),
        sign_changes=int((signs[1:] * signs[:-1] < 0).sum()),
        negative_fraction=float((weights < 0).any(axis=1).mean()),
        diverged_at=int(np.argmax(bad)) + 1 if bad.any() else None,
    )


class Signals(NamedTuple):
    """Signals of some steps, each of shape (steps, K)."""

    grad_norms: Array
    readings: Array
    raw: Array
    ema: Array
    weights: Array


class CompiledLoop:
    """GABA against a log-ratio plant, compiled, in pieces as long as one likes.

    Parameters
    ----------
    spec : GabaSpec
        The controller.
    plant : LogRatio, optional
        What answers; default nothing does.
    noise : float
        Standard deviation of the noise on each log reading.
    seed, loop : int
        Of the noise; ``loop`` is the number the loop has in a batch.

    Examples
    --------
    >>> loop = CompiledLoop(GabaSpec(warmup=0, beta=0))
    >>> signals = loop.advance(np.log([[3.0, 1.0]]), np.zeros((1, 2), bool))
    >>> signals.weights.round(6).tolist()
    [[0.25, 0.75]]
    """

    def __init__(
        self,
        spec: GabaSpec,
        plant: LogRatio | None = None,
        noise: float = 0.0,
        seed: int = 0,
        loop: int = 0,
    ) -> None:
        from gabactl._kernels.controller import codes

        k = spec.n_tasks
        self._feedback = (
            (0.0, 0.0, 0) if plant is None else (float(plant.rho), float(plant.a), int(plant.delay))
        )
        self._noise = (float(noise), int(seed), int(loop))
        self._codes = codes(spec)
        self._state = np.full(k, 1.0 / k)
        self._lag = np.zeros(k)
        self._queue = np.zeros((max(self._feedback[2], 1), k))
        self.steps = 0

    def advance(self, log_norms: Array, lost: NDArray[np.bool_]) -> Signals:
        """The next steps.

        Parameters
        ----------
        log_norms, lost : arrays, shape (steps, K)
            Disturbance and sensor failures of these steps.
        """
        from gabactl._kernels.controller import COMPLEMENT, HOLD, RENORMALISE
        from gabactl._kernels.loop import run_loop, run_pair

        rho, a, delay = self._feedback
        code = self._codes
        if (
            log_norms.shape[1] == 2
            and (code.law, code.floor_mode, code.guard) == (COMPLEMENT, RENORMALISE, HOLD)
            and code.floor > 0
            and self._noise[0] == 0
            and delay == 0
            and not lost.any()
        ):
            grad_norms, raw, ema, weights = (np.empty(log_norms.shape) for _ in range(4))
            run_pair(
                np.ascontiguousarray(log_norms),
                *code[:4],
                rho,
                a,
                self.steps,
                self._state,
                self._lag,
                grad_norms,
                raw,
                ema,
                weights,
            )
            self.steps += len(log_norms)
            return Signals(grad_norms, grad_norms, raw, ema, weights)
        outputs = tuple(np.empty(log_norms.shape) for _ in range(5))
        run_loop(
            np.ascontiguousarray(log_norms),
            np.ascontiguousarray(lost),
            *self._noise,
            *self._codes,
            *self._feedback,
            self.steps,
            self._state,
            self._lag,
            self._queue,
            *outputs,
        )
        self.steps += len(log_norms)
        return Signals(*outputs)


def as_balancer(
    balancer: Balancer | GabaSpec | str | Callable[..., Any], n_tasks: int = 2
) -> Balancer:
    """A balancer from a spec, a name, a function or itself.

    Parameters
    ----------
    balancer : Balancer, GabaSpec, str or callable
        What to turn into one.
    n_tasks : int
        Number of tasks, where the balancer does not say.

    Examples
    --------
    >>> as_balancer("fixed", 4).n_tasks
    4
    """
    if isinstance(balancer, Balancer):
        return balancer
    if isinstance(balancer, GabaSpec):
        return Gaba(balancer)
    if isinstance(balancer, str):
        return make(balancer, n_tasks)
    return UserBalancer(balancer, n_tasks)


def spread(contributions: Array) -> Array:
    """ln(max |c_i| / min |c_i|) per step, shape (steps,): 0 is balanced.

    Parameters
    ----------
    contributions : array, shape (steps, K)
        Weighted norms.

    Examples
    --------
    >>> spread(np.array([[1.0, 1.0], [-4.0, 1.0]])).round(4).tolist()
    [0.0, 1.3863]
    """
    size = np.abs(contributions)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(size.max(axis=-1)) - np.log(size.min(axis=-1))


def _check(
    rule: Balancer, profile: Profile, plant: Plant | None, noise: float, tolerance: float
) -> None:
    if rule.n_tasks != profile.n_tasks:
        raise InputError(
            f"the balancer has {rule.n_tasks} tasks and the disturbance {profile.n_tasks}: "
            "make n_tasks equal"
        )
    if plant is not None and plant.n_tasks != profile.n_tasks:
        raise InputError(
            f"the plant has {plant.n_tasks} tasks and the disturbance {profile.n_tasks}: "
            "make n_tasks equal"
        )
    non_negative("noise", noise)
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance = {tolerance} is not in (0, 1): choose for example 0.02")


def _run_compiled(
    spec: GabaSpec, profile: Profile, plant: LogRatio | None, noise: float, seed: int
) -> Signals:
    loop = CompiledLoop(spec, plant, noise, seed)
    return loop.advance(profile.log_norms, profile.lost)  # type: ignore[arg-type]


def _hold(spec: GabaSpec, profile: Profile, stop: int, plant: LogRatio | None) -> _Settled:
    """Weights and norms after the disturbance has stayed where it is at the end of a level."""
    pole = max(spec.beta, abs(plant.a) if plant is not None else 0.0)
    extra = 2000 if pole == 0 else min(200_000, 2000 + int(40 / -math.log(pole)))
    held = Profile(
        np.concatenate(
            [profile.log_norms[:stop], np.repeat(profile.log_norms[stop - 1 : stop], extra, 0)]
        ),
        lost=np.concatenate([profile.lost[:stop], np.zeros((extra, profile.n_tasks), bool)]),  # type: ignore[index]
    )
    grad_norms, _, _, _, weights = _run_compiled(spec, held, plant, 0.0, 0)
    contributions = weights[-1] * grad_norms[-1]
    return weights[-1], _centred(contributions), float(spread(contributions))


def _tail(weights: Array, grad_norms: Array) -> _Settled:
    last = max(1, int(len(weights) * _TAIL))
    w, c = weights[-last:], weights[-last:] * grad_norms[-last:]
    return w.mean(axis=0), _centred(c).mean(axis=0), float(spread(c).mean())


def _run_python(
    rule: Balancer, profile: Profile, plant: Plant | None, noise: float, seed: int
) -> tuple[Array, Array, Array, tuple[Array, Array] | None]:
    from gabactl._kernels.random import normals

    steps, k = profile.steps, profile.n_tasks
    draws = noise * normals(seed, 0, steps, k) if noise > 0 else np.zeros((steps, k))
    state = None if plant is None else plant.start(seed)
    rule.reset()
    grad_norms, weights = np.empty((steps, k)), np.empty((steps, k))
    readings = np.empty((steps, k))
    gaba = rule if isinstance(rule, Gaba) else None
    raw, ema = np.full((steps, k), np.nan), np.empty((steps, k))
    if rule.needs_gradients and not hasattr(state, "gradients"):
        raise InputError(
            f"{getattr(rule, 'method', rule.name)} acts on gradient directions, which this plant "
            "does not have: use the plant QuadraticBowls (bowls:...)"
        )
    with np.errstate(all="ignore"):
        for t in range(steps):
            clean = (
                np.exp(profile.log_norms[t])
                if state is None
                else state.measure(profile.log_norms[t])
            )
            factor = np.exp(draws[t])
            reading: Array = np.where(profile.lost[t], np.nan, clean * factor)  # type: ignore[index]
            losses = getattr(state, "losses", profile.losses[t])  # type: ignore[index]
            grad_norms[t], readings[t] = clean, reading
            if rule.needs_gradients:
                reading = state.gradients * factor[:, None]  # type: ignore[union-attr]
            if gaba is not None:
                measuring = gaba.controller.will_measure
            weights[t] = rule.step(reading, losses)
            if gaba is not None:
                ema[t] = gaba.controller.ema_weights
                if measuring:
                    raw[t] = gaba.controller.last_raw_weights
            if state is not None:
                state.apply(weights[t])
    return grad_norms, readings, weights, (raw, ema) if gaba is not None else None


def _centred(contributions: Array) -> Array:
    """log |c_i| less its mean over the tasks."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.abs(contributions))
        return np.asarray(logs - logs.mean(axis=-1, keepdims=True))


def _response(
    profile: Profile,
    segment: tuple[int, int],
    weights: Array,
    grad_norms: Array,
    settled: _Settled,
    below: NDArray[np.bool_] | None,
    active: NDArray[np.bool_],
    tolerance: float,
) -> SegmentResponse:
    start, stop = segment
    target_weights, target_logs, target_spread = settled
    inside = weights[start:stop]
    contributions = inside * grad_norms[start:stop]
    centred = _centred(contributions)
    k = profile.n_tasks
    before = weights[start - 1] if start else np.full(k, 1.0 / k)
    spreads = spread(contributions)
    finite = spreads[np.isfinite(spreads)]
    saturated = None
    if below is not None:
        saturated = _mean(below[start:stop][active[start:stop]])
    tail = profile.log_norms[stop - max(1, int((stop - start) * _TAIL)) : stop]
    resting = bool((tail == tail[-1]).all())
    return SegmentResponse(
        start=start,
        stop=stop,
        disturbance_ratio=_ratio(profile.log_norms[stop - 1]),
        settled_weights=tuple(float(w) for w in target_weights),
        settled_contribution_ratio=float(np.exp(target_spread)),
        settling_weights=_settling(inside, target_weights, before, tolerance) if resting else None,
        settling_contributions=_settling(centred, target_logs, centred[0], tolerance)
        if resting
        else None,
        integrated_error=math.fsum(finite),
        worst_contribution_ratio=float(np.exp(np.fmax.reduce(spreads, initial=0.0))),
        saturated_fraction=saturated,
    )


def _settling(signal: Array, target: Array, before: Array, tolerance: float) -> int | None:
    """Updates until the signal stays within the band; 0 where there was nothing to settle."""
    change = float(np.max(np.abs(before - target)))
    if not math.isfinite(change):
        return None
    error = np.max(np.abs(signal - target), axis=1)
    band = max(tolerance * change, 1e-12)
    outside = np.flatnonzero(~(error <= band))
    if not outside.size:
        return 0 if change <= 1e-12 else 1
    last = int(outside[-1])
    return None if last == len(signal) - 1 else last + 2


def _ratio(logs: Array) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.exp(logs.max() - logs.min()))


def _mean(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if flags.size else None


def _describe(plant: Any) -> str:
    text = repr(plant)
    return text if len(text) <= 120 else type(plant).__name__


def _with_reasons(record: dict[str, Any]) -> dict[str, Any]:
    """A reason beside every number that JSON cannot hold, and beside a settling time of None."""
    for key in ("disturbance_ratio", "settled_contribution_ratio", "worst_contribution_ratio"):
        if not math.isfinite(record[key]):
            record[f"{key}_reason"] = "a norm or weight is 0, or not finite"
    for key in ("settling_weights", "settling_contributions"):
        if record[key] is None:
            record[f"{key}_reason"] = "not within the level, or the disturbance never rests"
    return record


def _times(ratio: float) -> str:
    return f"{ratio:,.4g}x" if math.isfinite(ratio) else "-"


def _steps(count: int | None) -> str:
    return "-" if count is None else str(count)
