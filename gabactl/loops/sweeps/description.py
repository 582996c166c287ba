"""Sweeps: many loops over grids or Sobol samples of their settings, in durable chunks.

.. code-block:: toml

    title = "Settling over beta and rho"
    tasks = 2

    [disturbance]                  # as in a scenario
    kind = "levels"
    ratios = [4]
    holds = [2000]

    [axes]                         # lists, or ranges
    beta = { from = 0.9, to = 0.999, points = 64, scale = "log1m" }
    rho = { from = -3, to = 1.2, points = 64 }

    [fixed]                        # loop parameters and common settings
    warmup = 0
    a = 0.5
    delay = 0
    law = "complement"

    [run]
    method = "grid"                # or "sobol" with samples = 65536
    repeats = 1                    # loops per point, each with its own noise
    seed = 0
    chunk = 65536                  # loops per part of the result

A chunk is a pure function of the description and its number, so that it does not matter who
computes it, when, or how often: engines, restarts and killed workers cannot change the result.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.files import check_keys, read_toml
from gabactl.base.settings import sub_table, where, whole_number
from gabactl.law.spec import GabaSpec
from gabactl.loops.batch import LOOP_PARAMETERS, complete_parameters, run_batch
from gabactl.loops.profiles import Profile
from gabactl.loops.scenarios import build_profile, find_description

__all__ = ["load_sweep"]

#: Version of the folder of results.
FORMAT = 1
_COMMON: dict[str, Any] = {
    "law": GabaSpec.law,
    "floor_mode": GabaSpec.floor_mode,
    "guard": GabaSpec.guard,
    "delay": 0,
}
_OPTIONS: dict[str, Any] = {
    "settling": True,
    "stability": True,
    "tolerance": 0.02,
    "dtype": "float64",
}
_MAX_LOOPS = 10**12
#: Points of one axis, and loops of one part, that a description may ask for.
_MAX_POINTS = 100_000
_MAX_CHUNK = 1 << 22
#: Every loop remembers so many steps.
_MAX_DELAY = 10_000


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep, read and checked.

    Attributes
    ----------
    title : str
        For tables and pictures.
    profile : Profile
        The disturbance all loops share.
    axes : mapping name -> array, shape (n,)
        Values of a grid; for Sobol samples the two ends.
    scales : mapping name -> str
        linear, log or log1m, per axis.
    fixed : mapping name -> number
        Loop parameters that do not vary.
    common : mapping
        law, floor_mode, guard, delay.
    method : {"grid", "sobol"}
        How points are placed.
    points : int
        Number of points.
    repeats : int
        Loops per point.
    seed : int
        Of noise and Sobol scrambling.
    chunk : int
        Loops per part.
    options : mapping
        settling, stability, tolerance, dtype.
    source : str
        The file.
    """

    title: str
    profile: Profile
    axes: Mapping[str, NDArray[np.float64]]
    scales: Mapping[str, str]
    fixed: Mapping[str, float]
    common: Mapping[str, Any]
    method: str
    points: int
    repeats: int = 1
    seed: int = 0
    chunk: int = 65536
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def loops(self) -> int:
        """Points times repeats."""
        return self.points * self.repeats

    @property
    def chunks(self) -> int:
        """Number of parts."""
        return -(-self.loops // self.chunk)

    def parameters(self, first: int, count: int) -> dict[str, NDArray[np.float64]]:
        """The varying parameters of loops ``first`` to ``first + count - 1``.

        Parameters
        ----------
        first : int
            From 0.
        count : int, at least 1
            How many loops.

        Returns
        -------
        dict of str to array, shape (count,)
            By name of the parameter.

        Examples
        --------
        >>> sweep = load_sweep("sweep_stability")
        >>> sorted(sweep.parameters(0, 3))
        ['beta', 'rho']
        """
        point = np.arange(first, first + count) // self.repeats
        if self.method == "grid":
            shape = tuple(len(values) for values in self.axes.values())
            indices = np.unravel_index(point, shape)
            return {
                name: values[index]
                for (name, values), index in zip(self.axes.items(), indices, strict=True)
            }
        low, high = int(point[0]), int(point[-1]) + 1
        unit = _sobol(len(self.axes), low, high - low, self.seed)
        out = {}
        for n, (name, ends) in enumerate(self.axes.items()):
            values = stretch(unit[:, n], ends[0], ends[1], self.scales[name])
            if name in ("warmup", "interval"):
                values = np.round(values)
            out[name] = values[point - low]
        return out

    def describe(self) -> dict[str, Any]:
        """What the results depend on, as plain values."""
        return {
            "format": FORMAT,
            "title": self.title,
            "tasks": self.profile.n_tasks,
            "steps": self.profile.steps,
            "disturbance": self.profile.title,
            "disturbance_sha256": hashlib.sha256(
                self.profile.log_norms.tobytes()
                + np.asarray(self.profile.lost).tobytes()
                + repr(self.profile.events).encode()
            ).hexdigest(),
            "axes": {name: values.tolist() for name, values in self.axes.items()},
            **{
                name: dict(getattr(self, name)) for name in ("scales", "fixed", "common", "options")
            },
            **{name: getattr(self, name) for name in ("method", "points", "repeats", "seed")},
            **{name: getattr(self, name) for name in ("chunk", "chunks", "loops")},
        }


def load_sweep(name: str | Path) -> Sweep:
    """Read and check a sweep.

    Parameters
    ----------
    name : str or path
        A TOML file, or the name of a bundled sweep.

    Raises
    ------
    InputError
        One line: the file, the key, what is wrong with it and what to do.

    Examples
    --------
    >>> load_sweep("sweep_stability").method
    'grid'
    """
    file = find_description(name, "sweep")
    table = read_toml(file)
    check_keys(
        file, "the top level", table, ("title", "tasks", "disturbance", "axes", "fixed", "run")
    )
    tasks = whole_number(file, "tasks", table.get("tasks", 2), 2, 64)
    run = sub_table(file, "run", table.get("run", {}))
    check_keys(file, "[run]", run, ("method", "samples", "repeats", "seed", "chunk", *_OPTIONS))
    method = run.get("method", "grid")
    if method not in ("grid", "sobol"):
        raise InputError(f"{file}: run.method = {method!r} is unknown: choose grid or sobol")
    axes, scales = _axes(file, sub_table(file, "axes", table.get("axes")), method)
    given = sub_table(file, "fixed", table.get("fixed", {}))
    check_keys(file, "[fixed]", given, (*LOOP_PARAMETERS, *_COMMON))
    for key in given:
        if key in axes:
            raise InputError(f"{file}: {key} is in both [axes] and [fixed]: keep one of them")
    fixed = {key: given[key] for key in LOOP_PARAMETERS if key in given}
    common = {key: given.get(key, default) for key, default in _COMMON.items()}
    common["delay"] = whole_number(file, "fixed.delay", common["delay"], least=0, most=_MAX_DELAY)
    if method == "sobol":  # whose sequence ends there
        points = whole_number(file, "run.samples", run.get("samples", 65536), most=2**30)
    elif "samples" in run:
        raise InputError(f'{file}: run.samples belongs to method = "sobol": leave it out')
    else:
        points = math.prod(len(values) for values in axes.values())
    repeats = whole_number(file, "run.repeats", run.get("repeats", 1))
    if points * repeats > _MAX_LOOPS:
        raise InputError(f"{file}: {points * repeats:,} loops are too many: thin the axes")
    options = {key: run.get(key, default) for key, default in _OPTIONS.items()}
    for key in ("settling", "stability"):
        if not isinstance(options[key], bool):
            raise InputError(f"{file}: run.{key} = {options[key]!r} is neither true nor false")
    profile = build_profile(file, table, tasks)
    sweep = Sweep(
        title=str(table.get("title", file.stem)),
        profile=profile,
        axes=axes,
        scales=scales,
        fixed=fixed,
        common=common,
        method=method,
        points=points,
        repeats=repeats,
        seed=whole_number(file, "run.seed", run.get("seed", 0), least=0),
        chunk=whole_number(file, "run.chunk", run.get("chunk", 65536), most=_MAX_CHUNK),
        options=options,
        source=str(file),
    )
    # The corners are tried now, so that a bad value is not found hours later in a worker.
    with where(file, "axes or fixed"):
        ends = {name: np.array([values.min(), values.max()]) for name, values in axes.items()}
        complete_parameters({**fixed, **ends}, tasks)
        probe = Profile(profile.log_norms[:1], lost=profile.lost[:1])  # type: ignore[index]
        run_batch(
            probe, {**fixed, **ends}, seed=sweep.seed, **common, **{**options, "stability": False}
        )
    return sweep


def _axes(
    file: Path, given: Mapping[str, Any], method: str
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    check_keys(file, "[axes]", given, tuple(LOOP_PARAMETERS))
    if not given:
        raise InputError(
            f"{file}: [axes] is empty: vary at least one of {', '.join(LOOP_PARAMETERS)}"
        )
    axes: dict[str, NDArray[np.float64]] = {}
    scales: dict[str, str] = {}
    for name, value in given.items():
        scales[name] = "linear"
        if isinstance(value, list):
            if method == "sobol":
                raise InputError(f"{file}: axes.{name}: Sobol samples need a range {{from, to}}")
            with where(file, f"axes.{name}"):
                axes[name] = np.array(value, dtype=float)
            good = axes[name].ndim == 1 and axes[name].size and np.isfinite(axes[name]).all()
            if not good:
                raise InputError(f"{file}: axes.{name} = {value!r}: give a list of finite numbers")
            continue
        if not isinstance(value, dict):
            raise InputError(f"{file}: axes.{name}: give a list, or {{from, to, points}}")
        check_keys(file, f"axes.{name}", value, ("from", "to", "points", "scale"))
        scale = value.get("scale", "linear")
        if scale not in ("linear", "log", "log1m"):
            raise InputError(
                f"{file}: axes.{name}.scale = {scale!r} is unknown: choose linear, log or log1m"
            )
        ends = [value.get("from"), value.get("to")]
        if any(isinstance(e, bool) or not isinstance(e, (int, float)) for e in ends) or not all(
            map(math.isfinite, ends)  # type: ignore[arg-type]
        ):
            raise InputError(f"{file}: axes.{name}: from and to must be finite numbers")
        low, high = (float(e) for e in ends)  # type: ignore[arg-type]
        positive = (low > 0 and high > 0) if scale == "log" else (low < 1 and high < 1)
        if scale != "linear" and not positive:
            limit = "above 0" if scale == "log" else "below 1"
            raise InputError(f"{file}: axes.{name}: scale {scale} needs from and to {limit}")
        scales[name] = scale
        if method == "sobol":
            axes[name] = np.array([low, high])
            continue
        points = whole_number(
            file, f"axes.{name}.points", value.get("points", 32), most=_MAX_POINTS
        )
        axes[name] = stretch(np.linspace(0, 1, points), low, high, scale)
        if name in ("warmup", "interval"):
            axes[name] = np.unique(np.round(axes[name]))
    return axes, scales


def _sobol(dimensions: int, first: int, count: int, seed: int) -> NDArray[np.float64]:
    from scipy.stats import qmc

    sampler = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    if first:
        sampler.fast_forward(first)
        return np.asarray(sampler.random(count), dtype=np.float64)
    # SciPy warns of a first draw that is no power of 2, even where it is one of several chunks.
    begun = sampler.random(1)
    rest = sampler.random(count - 1) if count > 1 else begun[:0]
    return np.concatenate([begun, rest], dtype=np.float64)


def stretch(unit: NDArray[np.float64], low: float, high: float, scale: str) -> NDArray[np.float64]:
    """Numbers of [0, 1] onto [low, high], evenly on a scale.

    Parameters
    ----------
    unit : array, any shape
        Numbers of [0, 1].
    low, high : float
        The ends.
    scale : {"linear", "log", "log1m"}
        ``log1m`` is logarithmic in 1 - x, as suits the pole of a filter.

    Returns
    -------
    array, of the shape of ``unit``

    Examples
    --------
    >>> stretch(np.array([0.0, 0.5, 1.0]), 0.9, 0.999, "log1m").round(4).tolist()
    [0.9, 0.99, 0.999]
    """
    if scale == "log":
        return _log_spaced(unit, low, high)
    if scale == "log1m":
        return np.asarray(1.0 - _log_spaced(unit, 1 - low, 1 - high))
    if not np.isfinite(high - low):  # ends as far apart as floats go
        return np.asarray(low * (1.0 - unit) + high * unit)
    return np.asarray(low + unit * (high - low))


def _log_spaced(unit: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    ratio = high / low
    # Ends as far apart as floats go: neither their quotient nor the last exponential need fit.
    span = np.log(ratio) if 0 < ratio < np.inf else np.log(high) - np.log(low)
    with np.errstate(over="ignore"):
        values = np.exp(np.log(low) + unit * span)
    return np.asarray(np.where(np.isfinite(values), values, high))
