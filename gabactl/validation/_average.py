"""The average after the warm-up: its closed form, simulated runs of it, and the noise it lets through.

All of it is about one task's average, of readings x (raw weights): ema_n = p ema_(n-1) + (1 - p) x_n
from 1/K, with p = beta^interval.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from gabactl.identification.noise import NoiseModel, fit_noise
from gabactl.law.filter import filter_facts
from gabactl.law.spec import GabaSpec

Array = NDArray[np.float64]

#: Simulated readings held at once: 8 MiB, a few times over.
_HELD = 1 << 20


def short_memory(x: Array) -> NoiseModel:
    """Noise model of the log odds of the raw weight (its short memory is what is used)."""
    return fit_noise(_log_odds(x))


def _log_odds(x: Array) -> Array:
    safe = np.clip(x, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(safe) - np.log1p(-safe))


def simulated_averages(
    x: Array,
    noise: NoiseModel,
    spec: GabaSpec,
    draws: int,
    seed: int,
    seen: int,
    shown: NDArray[np.intp],
) -> tuple[dict[str, Array], Array]:
    """Averages that the first readings foretell: their level, noise as measured, exact filter.

    The level is uncertain by its standard error over the readings seen; drift is not foretold.
    Only some draws are held at once. Returned are the :func:`step_statistics` of all, and their
    averages at the readings ``shown``, shape (draws, shown).
    """
    level = float(_log_odds(x[:seen]).mean())
    denominator = np.concatenate(([1.0], -noise.ar))
    long_run = noise.innovation_std / abs(1.0 - float(noise.ar.sum()))
    length = x.size + 50
    at_once = max(1, _HELD // length)
    pieces = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    levels_rng = np.random.default_rng(seed)
    # The levels are drawn after all innovations, which are then drawn a second time.
    for count in pieces:
        levels_rng.standard_normal((count, length))
    levels = level + long_run / math.sqrt(seen) * levels_rng.standard_normal((draws, 1))
    rng = np.random.default_rng(seed)
    pole = spec.beta**spec.interval
    statistics: list[dict[str, Array]] = []
    kept: list[Array] = []
    for first, count in zip(itertools.accumulate(pieces, initial=0), pieces, strict=False):
        eps = noise.innovation_std * rng.standard_normal((count, length))
        y = signal.lfilter([1.0], denominator, eps, axis=1)[:, 50:]
        y += levels[first : first + count]
        raw = 1.0 / (1.0 + np.exp(-y))
        start = np.full((count, 1), pole / spec.n_tasks)
        ema = signal.lfilter([1.0 - pole], [1.0, -pole], raw, axis=1, zi=start)[0]
        statistics.append(step_statistics(ema, spec))
        kept.append(ema[:, shown])
    found = {name: np.concatenate([s[name] for s in statistics]) for name in statistics[0]}
    return found, np.concatenate(kept)


def step_statistics(ema: Array, spec: GabaSpec) -> dict[str, Array]:
    """Of averages, shape (..., readings): readings to the floor, rise, settling, saturated share.

    Settling is towards the mean over the readings after the predicted settling time, as long again.
    """
    settling = filter_facts(spec).settling_updates
    window = min(2 * settling, ema.shape[-1])
    end = ema[..., settling:window].mean(axis=-1, keepdims=True)
    done = (1.0 / spec.n_tasks - ema[..., :window]) / (1.0 / spec.n_tasks - end)
    low = ema < spec.floor
    outside = np.abs(1.0 - done) > 0.02
    last = window - np.argmax(outside[..., ::-1], axis=-1)
    rise = np.argmax(done >= 0.9, axis=-1) - np.argmax(done >= 0.1, axis=-1)
    return {
        "rise": np.asarray(rise, dtype=np.float64),
        "settling": np.where(outside.any(axis=-1), last + 1.0, 1.0),
        "floor": np.where(low.any(axis=-1), np.argmax(low, axis=-1) + 1.0, np.inf),
        "saturated": low.mean(axis=-1),
    }


def closed_form(level: float, readings: int, spec: GabaSpec) -> Array:
    """c + (1/K - c) p^n: the average's way from the warm-up to a constant raw weight."""
    pole = spec.beta**spec.interval
    n = np.arange(1, readings + 1)
    return np.asarray(level + (1.0 / spec.n_tasks - level) * pole**n, dtype=np.float64)


def without_drift(values: Array, width: int) -> Array:
    """Less the centred moving mean; shorter by width - 1."""
    half = width // 2
    mean = np.convolve(values, np.full(width, 1.0 / width), mode="valid")
    return np.asarray(values[half : values.size - half] - mean)


def gain_without_drift(covariance: Array, pole: float, width: int) -> float:
    """Noise gain of the filter when both sides lost their moving mean, by spectra."""
    w = (np.arange(16384) + 0.5) * np.pi / 16384
    lags = np.arange(1, covariance.size)
    spectrum = covariance[0] + 2.0 * np.cos(np.outer(w, lags)) @ covariance[1:]
    mean = np.sin(0.5 * width * w) / (width * np.sin(0.5 * w))
    kept = spectrum * (1.0 - mean) ** 2
    power = (1.0 - pole) ** 2 / (1.0 - 2.0 * pole * np.cos(w) + pole**2)
    return float((power * kept).sum() / kept.sum())
