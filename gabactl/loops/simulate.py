"""One closed loop: a balancer, a disturbance and a plant, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.balancers import Balancer, Fixed, Gaba, GradNorm, UserBalancer, make_balancer
from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import raw_weights, saturate
from gabactl.loops.compiled import CompiledLoop, Signals
from gabactl.loops.profiles import Profile, non_negative
from gabactl.loops.result import SegmentResponse, SimulationResult, spread
from gabactl.plants import LogRatio, Plant, describe_plant

__all__ = ["simulate"]

Array = NDArray[np.float64]

#: Norms, readings, raw and smoothed weights (of GABA alone), applied weights.
_Run = tuple[Array, Array, Array | None, Array | None, Array]
#: Settled weights, centred log contributions, and their spread.
_Settled = tuple[Array, Array, float]

#: Weights beyond this count as diverged.
DIVERGED = 1e6

#: Share of a level's end that is averaged for its settled value, where no longer run is possible.
_TAIL = 0.1


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
    >>> from gabactl.loops.profiles import constant
    >>> result = simulate(GabaSpec(), constant(500.0, 1000))
    >>> result.responses[0].settled_weights[0]  # m / (m + R/(1+R))
    0.0477...
    >>> round(result.responses[0].settled_contribution_ratio, 2)  # m (1 + R)
    25.05
    """
    rule = as_balancer(balancer, profile.n_tasks)
    _check(rule, profile, plant, noise, tolerance)
    from gabactl.loops.kernels.random import check_seed

    seed = check_seed(seed)
    signals: _Run
    if type(rule) is Gaba and (plant is None or type(plant) is LogRatio):
        signals = _run_compiled(rule.spec, profile, plant, noise, seed)
        settled = [_hold(rule.spec, profile, stop, plant) for _, stop in profile.segments]
    else:
        if _is_record(rule, profile, plant):
            signals = _run_record(rule, profile, noise, seed)
        else:
            signals = _run_python(rule, profile, plant, noise, seed)
        settled = [_tail(signals[4][a:b], signals[0][a:b]) for a, b in profile.segments]
    return _result(
        rule, profile, signals, settled,
        plant="no feedback" if plant is None else describe_plant(plant),
        noise=float(noise), seed=seed, tolerance=float(tolerance),
    )  # fmt: skip


def recorded(
    balancer: Balancer | GabaSpec | str | Callable[..., Any],
    profile: Profile,
    *,
    first_step: int = 1,
    stages: tuple[Array, Array, Array] | None = None,
    tolerance: float = 0.02,
) -> SimulationResult:
    """What a balancer does on a record, which does not answer it.

    Parameters
    ----------
    balancer : Balancer, GabaSpec, name or callable
        As for :func:`simulate`.
    profile : Profile
        The record.
    first_step : int
        Number of its first step.
    stages : tuple of three arrays, shape (steps, K), optional
        Raw weights, averages and weights, of GABA, where they are known: a record that begins in
        the middle of a training has an average that began before.
    tolerance : float in (0, 1)
        As for :func:`simulate`.

    Examples
    --------
    >>> from gabactl.loops.profiles import constant
    >>> recorded("fixed", constant(500.0, 10), first_step=101).step.tolist()[:2]
    [101, 102]
    """
    if stages is None:
        return replace(simulate(balancer, profile, tolerance=tolerance), first_step=first_step)
    rule = as_balancer(balancer, profile.n_tasks)
    _check(rule, profile, None, 0.0, tolerance)
    raw, ema, weights = stages
    norms = np.exp(profile.log_norms)
    return _result(
        rule, profile, (norms, norms, raw, ema, weights), [_limit(rule.spec, norms[-1], ema[-1])],  # type: ignore[attr-defined]
        plant="no feedback", noise=0.0, seed=0, tolerance=float(tolerance), first_step=first_step,
    )  # fmt: skip


def _result(
    rule: Balancer,
    profile: Profile,
    signals: _Run,
    settled: list[_Settled],
    *,
    tolerance: float,
    first_step: int = 1,
    **facts: Any,
) -> SimulationResult:
    grad_norms, readings, raw, ema, weights = signals
    below: NDArray[np.bool_] | None = None
    active: NDArray[np.bool_] = np.ones(profile.steps, dtype=bool)
    if ema is not None and isinstance(rule, Gaba):
        active = np.arange(first_step, first_step + profile.steps) > rule.spec.warmup
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
        tolerance=tolerance,
        grad_norms=grad_norms,
        readings=readings,
        weights=weights,
        raw=raw,
        ema=ema,
        responses=responses,
        smallest_weight=float(np.min(weights[finite], initial=np.inf)),
        largest_weight=float(np.max(weights[finite], initial=-np.inf)),
        saturated_fraction=None if below is None else _mean(below[active]),
        saturated_steps=None if below is None else int(below[active].sum()),
        sign_changes=int((signs[1:] * signs[:-1] < 0).sum()),
        negative_fraction=float((weights < 0).any(axis=1).mean()),
        diverged_at=first_step + int(np.argmax(bad)) if bad.any() else None,
        first_step=first_step,
        **facts,
    )


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
        return make_balancer(balancer, n_tasks)
    return UserBalancer(balancer, n_tasks)


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


def _is_record(rule: Balancer, profile: Profile, plant: Plant | None) -> bool:
    """Whether nothing answers, so that the rule can take the whole record at once, bit for bit."""
    if plant is not None or profile.lost.any():  # type: ignore[union-attr]
        return False
    return type(rule) is Fixed or (type(rule) is GradNorm and rule.n_tasks < 8)


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


def _limit(spec: GabaSpec, norms: Array, ema: Array) -> _Settled:
    """The same where nothing answers: the weights of the last reading, if it can be acted on."""
    raw = raw_weights(norms, spec.law, spec.guard)
    rest = raw if np.isfinite(raw).all() and np.isfinite(ema).all() else ema
    weights = saturate(rest, spec.floor, spec.floor_mode)
    contributions = weights * norms
    return weights, _centred(contributions), float(spread(contributions))


def _tail(weights: Array, grad_norms: Array) -> _Settled:
    last = max(1, int(len(weights) * _TAIL))
    w, c = weights[-last:], weights[-last:] * grad_norms[-last:]
    return w.mean(axis=0), _centred(c).mean(axis=0), float(spread(c).mean())


def _run_record(rule: Balancer, profile: Profile, noise: float, seed: int) -> _Run:
    rule.reset()
    grad_norms = np.exp(profile.log_norms)
    readings = grad_norms * np.exp(_draws(profile, noise, seed)) if noise > 0 else grad_norms
    with np.errstate(all="ignore"):
        weights = rule.run(readings, profile.losses)  # type: ignore[attr-defined]
    return grad_norms, readings, None, None, weights


def _draws(profile: Profile, noise: float, seed: int) -> Array:
    from gabactl.loops.kernels.random import normals

    shape = profile.steps, profile.n_tasks
    return noise * normals(seed, 0, *shape) if noise > 0 else np.zeros(shape)


def _run_python(
    rule: Balancer, profile: Profile, plant: Plant | None, noise: float, seed: int
) -> _Run:
    steps, k = profile.steps, profile.n_tasks
    draws = _draws(profile, noise, seed)
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
    stages = (raw, ema) if gaba is not None else (None, None)
    return grad_norms, readings, *stages, weights


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
