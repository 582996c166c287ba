"""One closed loop, step by step, with every signal kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from gabactl.loops.kernels.controller import follow_into, is_reading, raw_into, saturate_into
from gabactl.loops.kernels.elementary import exp, fma, log, quick_exp, quick_log
from gabactl.loops.kernels.jit import compiled, inlined
from gabactl.loops.kernels.random import fill_normals

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
        As in :class:`gabactl.loops.kernels.controller.Codes`.
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
    >>> from gabactl.loops.kernels.controller import codes
    >>> from gabactl.law.spec import GabaSpec
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
        for i in range(k):
            raw[t, i] = np.nan
        if is_reading(step, warmup, interval):
            raw_into(drawn, reading, law, guard, scratch)
            for i in range(k):
                raw[t, i] = drawn[i]
            follow_into(state, drawn, pole, floor, floor_mode, guard, scratch)
        if step <= warmup:
            for i in range(k):
                applied[i] = 1.0 / k
        else:
            saturate_into(applied, state, floor, floor_mode, scratch)
        for i in range(k):
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


#: Relative change of the ratio of the clamped weights up to which a power is a short polynomial,
#: and the exponent up to which the polynomial holds: the first term left out is below 2^-54.
_NEAR, _LARGEST_POWER = 0.015625, 1.0


@compiled
def _binomial(power: float) -> tuple[float, float, float, float, float, float, float, float]:
    """Coefficients of x, x^2, ..., x^8 of (1 + x)^power."""
    c, term = np.empty(8), 1.0
    for n in range(8):
        term = term * (power - n) / (n + 1)
        c[n] = term
    return c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]


@inlined
def _grown(x: float, base: float, c: Any) -> float:
    """base (1 + c_1 x + ... + c_8 x^8), in pairs of terms, so that no term waits long for another."""
    x2 = x * x
    low = fma(fma(x, c[3], c[2]), x2, fma(x, c[1], c[0]))
    high = fma(fma(x, c[7], c[6]), x2, fma(x, c[5], c[4]))
    return fma(base * x, fma(high, x2 * x2, low), base)


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
    past: Any,
    grad_norms: Any,
    raw: Any,
    ema: Any,
    weights: Any,
) -> None:
    """:func:`run_loop` for the most common loop, many times as fast.

    Two tasks, the complement law, clamp and renormalise, the guard, a plant without extra delay,
    no noise and no lost reading; the floor is at least 1e-300. Given the readings, ``raw``, ``ema``
    and ``weights`` are those of :func:`run_loop` to the last bit. The plant's answer differs in the
    last places.

    Nothing can be done about the order: a reading needs the weights, the weights need the reading.
    So what a step waits for is kept short. With v_1, v_2 the clamped averages and q = v_1/v_2, the
    first norm of a step is

        g = exp(d - rho (a^2 l' + (1 - a^2)/2 ln q')) (q/q')^(-rho (1 - a)/2)

    with q' of one step before q and the lag l' of one step before that. The exponential needs no
    number of the newest step and is computed beside it. The power has a base near 1, because the
    average is slow: eight terms of the binomial series. Where the base is further off, the
    exponential is taken as it stands.

    Parameters
    ----------
    log_norms, pole, floor, warmup, interval, rho, a, first_step, state, lag
        As in :func:`run_loop`.
    past : array, shape (6,)
        Changed in place: what the coming norms are expected from. Lags one step before ``lag``;
        lags and ln q another step before; relative change of q in the last step. NaN at first:
        nothing is expected then.
    grad_norms, raw, ema, weights : arrays, shape (steps, 2)
        Output, as in :func:`run_loop`; what the sensor reads is the norms.

    Examples
    --------
    >>> out = [np.empty((1, 2)) for _ in range(4)]
    >>> run_pair(np.log([[3.0, 1.0]]), 0.0, 0.05, 0, 1, 0.0, 0.0, 0, np.full(2, 0.5),
    ...          np.zeros(2), np.full(6, np.nan), *out)
    >>> out[3].round(6).tolist()
    [[0.25, 0.75]]
    """
    steps = log_norms.shape[0]
    if steps == 0:
        return
    e = state[0], state[1]
    l0, l1 = lag[0], lag[1]
    keep, half = 1 - pole, 0.5 * (1 - a)
    wait = max(warmup - first_step, 0)
    if first_step > warmup:
        wait = (warmup - first_step) % interval
    answers = rho != 0
    power = rho * half
    falling, rising = _binomial(-power), _binomial(power)
    near = _NEAR if abs(power) <= _LARGEST_POWER else -1.0
    # What the exponent of the expected norms takes of the lag and of ln q.
    of_lag, of_log = rho * a * a, power * (1 + a)
    v = max(e[0], floor), max(e[1], floor)
    q, before = v[0] / v[1], v[1] / v[0]
    y = quick_log(q)
    k0, k1, h0, h1, z, change = past[0], past[1], past[2], past[3], past[4], past[5]
    if not answers:
        k0 = k1 = h0 = h1 = z = y = change = 0.0
    d0, d1 = log_norms[0, 0], log_norms[0, 1]
    x = fma(-of_log, z, d0 - of_lag * h0), fma(of_log, z, d1 - of_lag * h1)
    expected = quick_exp(x[0]), quick_exp(x[1])
    for t in range(steps):
        if abs(change) < near and abs(x[0]) <= 700.0 and abs(x[1]) <= 700.0:
            g = _grown(change, expected[0], falling), _grown(change, expected[1], rising)
            total, usable = g[0] + g[1], True  # neither 0 nor infinite
        else:
            g0 = quick_exp(log_norms[t, 0] - rho * l0)
            g = g0, quick_exp(log_norms[t, 1] - rho * l1)
            total = g[0] + g[1]
            usable = total > 0 and total < np.inf
        # The next norms, as they would be if q stayed where it is; here, so that a processor that
        # looks some two hundred instructions ahead sees the work in time.
        ahead = min(t + 1, steps - 1)
        d0, d1 = log_norms[ahead, 0], log_norms[ahead, 1]
        h0, h1, z = k0, k1, y
        x = fma(-of_log, z, d0 - of_lag * h0), fma(of_log, z, d1 - of_lag * h1)
        expected = quick_exp(x[0]), quick_exp(x[1])
        r = np.nan, np.nan
        if wait == 0:
            wait = interval
            if usable:
                r = (total - g[0]) / total, (total - g[1]) / total
                e = pole * e[0] + keep * r[0], pole * e[1] + keep * r[1]
        wait -= 1
        v = max(e[0], floor), max(e[1], floor)
        whole = v[0] + v[1]
        w = v[0] / whole, v[1] / whole
        grad_norms[t, 0], grad_norms[t, 1] = g
        raw[t, 0], raw[t, 1] = r
        ema[t, 0], ema[t, 1] = e
        weights[t, 0], weights[t, 1] = w
        if answers:
            q, inverse = v[0] / v[1], v[1] / v[0]
            change, before = fma(q, before, -1.0), inverse
            y = quick_log(q)
            k0, k1 = l0, l1
            l0, l1 = fma(half, y, a * l0), fma(-half, y, a * l1)
    weights[: max(warmup - first_step, 0)] = 0.5
    state[0], state[1] = e
    lag[0], lag[1] = l0, l1
    past[0], past[1], past[2], past[3], past[4], past[5] = k0, k1, h0, h1, z, change
