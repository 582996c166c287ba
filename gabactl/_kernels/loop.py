"""One closed loop, step by step, with every signal kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gabactl._kernels.controller import (
    CLAMP_STATE,
    HOLD,
    is_reading,
    project_into,
    raw_into,
    saturate_into,
    usable_reading,
)
from gabactl._kernels.elementary import exp, log
from gabactl._kernels.jit import compiled
from gabactl._kernels.random import fill_normals

__all__ = ["TINY", "run_loop", "run_pair"]

#: Stands in for a weight of 0, which has no logarithm.
TINY = 2.2250738585072014e-308


@compiled
def run_loop(
    log_norms: Any,
    lost: Any,
    noise_std: float,
    seed: int,
    loop: int,
    pole: Any,
    floor: Any,
    warmup: Any,
    interval: Any,
    law: Any,
    floor_mode: Any,
    guard: Any,
    rho: Any,
    a: Any,
    delay: Any,
    first_step: int,
    state: Any,
    lag: Any,
    queue: Any,
    grad_norms: Any,
    readings: Any,
    raw: Any,
    ema: Any,
    weights: Any,
) -> None:
    """GABA against a log-ratio plant on a disturbance.

    Parameters
    ----------
    log_norms, lost : arrays, shape (steps, K)
        Disturbance and sensor failures.
    noise_std : float
        Standard deviation of the noise on each log reading.
    seed, loop : int
        Of the noise.
    pole, floor, warmup, interval, law, floor_mode, guard
        As in :class:`gabactl._kernels.controller.Codes`.
    rho, a, delay
        As in :class:`gabactl.plants.LogRatio`; rho = 0 is the open loop.
    first_step : int
        Steps taken before this call (0 at first).
    state, lag, queue : arrays, shapes (K,), (K,), (max(delay, 1), K)
        Average, plant and its delay line; changed in place, so that a long run can go on in a
        next call. At first 1/K, 0 and 0.
    grad_norms, readings, raw, ema, weights : arrays, shape (steps, K)
        Output: norms without noise, what the sensor reads, raw weights (NaN where nothing was
        read), average and applied weights.

    Examples
    --------
    >>> from gabactl._kernels.controller import codes
    >>> from gabactl.spec import GabaSpec
    >>> out = [np.empty((1, 2)) for _ in range(5)]
    >>> run_loop(np.log([[3.0, 1.0]]), np.zeros((1, 2), bool), 0.0, 0, 0,
    ...          *codes(GabaSpec(beta=0, warmup=0)), 0.0, 0.0, 0,
    ...          0, np.full(2, 0.5), np.zeros(2), np.zeros((1, 2)), *out)
    >>> out[4].round(6).tolist()
    [[0.25, 0.75]]
    """
    steps, k = log_norms.shape
    reading, drawn, applied = np.empty(k), np.empty(k), np.empty(k)
    scratch, logits = np.empty(k), np.empty(k)
    noise = np.zeros((1, k))
    for t in range(steps):
        if noise_std > 0:
            fill_normals(noise, seed, loop, first_step + t)
        for i in range(k):
            level = log_norms[t, i] - rho * lag[i]
            clean = exp(level)
            grad_norms[t, i] = clean
            if noise_std > 0:
                clean = exp(level + noise_std * noise[0, i])
            reading[i] = np.nan if lost[t, i] else clean
            readings[t, i] = reading[i]
        # The stages one by one: observe() would make a view of every array at every step.
        step = first_step + t + 1
        moved = is_reading(step, warmup, interval) and (
            guard != HOLD or usable_reading(reading, law)
        )
        if moved:
            raw_into(drawn, reading, law, guard)
            for i in range(k):
                state[i] = pole * state[i] + (1 - pole) * drawn[i]
            if floor_mode == CLAMP_STATE:
                project_into(state, state, floor, scratch)
        if step <= warmup:
            for i in range(k):
                applied[i] = 1.0 / k
        else:
            saturate_into(applied, state, floor, floor_mode, scratch)
        for i in range(k):
            raw[t, i] = drawn[i] if moved else np.nan
            ema[t, i] = state[i]
            weights[t, i] = applied[i]
        if rho == 0:
            continue
        mean = 0.0
        for i in range(k):
            logits[i] = log(max(applied[i], TINY))
            mean += logits[i]
        mean /= k
        for i in range(k):
            u = logits[i] - mean
            if delay > 0:
                slot = (first_step + t) % delay
                u, queue[slot, i] = queue[slot, i], u
            lag[i] = a * lag[i] + (1 - a) * u


@compiled
def run_pair(
    log_norms: Any,
    pole: float,
    floor: float,
    warmup: int,
    interval: int,
    rho: float,
    a: float,
    first_step: int,
    state: Any,
    lag: Any,
    grad_norms: Any,
    raw: Any,
    ema: Any,
    weights: Any,
) -> None:
    """:func:`run_loop` for the most common loop, several times as fast.

    Two tasks, the complement law, clamp and renormalise, the guard, a plant without extra delay,
    no noise and no lost reading; the floor is above 0. Given the readings, ``raw``, ``ema`` and
    ``weights`` are those of :func:`run_loop` to the last bit. The plant's answer differs in the
    last places: a step waits for nothing but one exponential, two divisions and one logarithm (the
    C library's, which are quickest for one number at a time).

    Parameters
    ----------
    log_norms, pole, floor, warmup, interval, rho, a, first_step, state, lag
        As in :func:`run_loop`.
    grad_norms, raw, ema, weights : arrays, shape (steps, 2)
        Output, as in :func:`run_loop`; what the sensor reads is the norms.

    Examples
    --------
    >>> out = [np.empty((1, 2)) for _ in range(4)]
    >>> run_pair(np.log([[3.0, 1.0]]), 0.0, 0.05, 0, 1, 0.0, 0.0, 0, np.full(2, 0.5),
    ...          np.zeros(2), *out)
    >>> out[3].round(6).tolist()
    [[0.25, 0.75]]
    """
    e0, e1 = state[0], state[1]
    l0, l1 = lag[0], lag[1]
    keep, half = 1 - pole, 0.5 * (1 - a)
    wait = max(warmup - first_step, 0)
    if first_step > warmup:
        wait = (warmup - first_step) % interval
    for t in range(log_norms.shape[0]):
        g0 = math.exp(log_norms[t, 0] - rho * l0)
        g1 = math.exp(log_norms[t, 1] - rho * l1)
        total = g0 + g1
        r0 = r1 = np.nan
        if wait == 0:
            wait = interval
            if total > 0 and total < np.inf:
                r0, r1 = (total - g0) / total, (total - g1) / total
                e0 = pole * e0 + keep * r0
                e1 = pole * e1 + keep * r1
        wait -= 1
        v0 = floor if e0 < floor else e0
        v1 = floor if e1 < floor else e1
        total = v0 + v1
        grad_norms[t, 0], grad_norms[t, 1] = g0, g1
        raw[t, 0], raw[t, 1] = r0, r1
        ema[t, 0], ema[t, 1] = e0, e1
        if first_step + t < warmup:
            weights[t, 0] = weights[t, 1] = 0.5
        else:
            weights[t, 0], weights[t, 1] = v0 / total, v1 / total
        if rho != 0:
            u = half * math.log(v0 / v1)
            l0, l1 = a * l0 + u, a * l1 - u
    state[0], state[1] = e0, e1
    lag[0], lag[1] = l0, l1
