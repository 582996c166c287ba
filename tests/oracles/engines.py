"""Every engine that runs the law, in one form: the weights of a setting on given gradient norms.

A new engine is a row of ``ENGINES``. What it does not take it refuses with an ``InputError``.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.fuzzing import _lanes, lanes
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, raw_weights, saturate, usable
from gabactl.loops.batch import run_batch
from gabactl.loops.compiled import CompiledLoop
from gabactl.loops.kernels.controller import codes, observe
from gabactl.loops.profiles import Profile
from gabactl.proving.replay import through_loss
from gabactl.runs.replay import replay

Array = NDArray[Any]

ULP = float(np.finfo(np.float64).eps)
#: What rounding to float32 leaves of a weight after a dozen steps.
SINGLE = 3e-6
#: A norm from its logarithm is off by some hundred ulp, at the ends of the range.
FROM_LOG = 1e-12


class Engine(NamedTuple):
    """``run(spec, norms)`` takes norms, shape (steps, K), a step each, of a spec without warm-up.

    It gives the weights of the last steps, shape (any, K); or, with ``figures``, the last weight of
    task 0 and the smallest and largest weight of all. ``tolerance`` is how far they may be from
    the reference; 0 is to the last bit.
    """

    run: Callable[[GabaSpec, Array], Array]
    tolerance: float
    figures: bool = False


def reference(spec: GabaSpec, norms: Array) -> Array:
    controller = Controller(spec)
    return np.array([controller.observe(g) for g in norms])


def _numpy_stages(spec: GabaSpec, norms: Array) -> Array:
    """The pure stages, on two runs at once: the other has the tasks the other way round."""
    g = np.stack([norms[:, ::-1], norms], axis=1)
    ema, out = np.full(g.shape[1:], 1.0 / spec.n_tasks), []
    for step, reading in enumerate(g, start=1):
        if spec.measures_at(step):
            raw = raw_weights(reading, spec.law, spec.guard)
            new = follow(ema, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode)
            ok = usable(reading, spec.law) | (spec.guard == "none")
            ema = np.where(ok[:, None], new, ema)
        out.append(saturate(ema, spec.floor, spec.floor_mode)[1])
    return np.array(out)


def _fractions(spec: GabaSpec, norms: Array) -> Array:
    published = spec.guard == "none" and spec.law == "complement"
    if not np.isfinite(norms.sum(axis=1) * (spec.n_tasks - 1 if published else 1)).all():
        raise InputError("exact numbers do not overflow, or the norms are not finite")
    beta, floor = Fraction(spec.beta**spec.interval), Fraction(spec.floor)
    ema = np.array([Fraction(1, spec.n_tasks)] * spec.n_tasks)
    for step, row in enumerate(norms, start=1):
        reading = np.array([Fraction(x) for x in row.tolist()])
        if spec.measures_at(step) and (spec.guard == "none" or usable(reading, spec.law)):
            raw = raw_weights(reading, spec.law, spec.guard)
            ema = follow(ema, raw, beta, 1, floor, spec.floor_mode)
            # What is kept is cut to 300 bits, or it would grow without end.
            ema = np.array([Fraction(round(x * 2**300), 2**300) for x in ema])
    return saturate(ema, floor, spec.floor_mode).astype(float)[None]


def _in_single(norms: Array) -> None:
    size = norms[np.isfinite(norms) & (norms > 0)]
    if size.size and not (size.min() > 1e-37 and norms.shape[1] ** 2 * size.max() < 3e38):
        raise InputError("norms beyond float32")


def _torch_stages(dtype: torch.dtype) -> Callable[[GabaSpec, Array], Array]:
    def run(spec: GabaSpec, norms: Array) -> Array:
        if dtype == torch.float32:
            _in_single(norms)
        ema, out = torch.full((spec.n_tasks,), 1.0 / spec.n_tasks, dtype=dtype), []
        for step, reading in enumerate(torch.tensor(norms, dtype=dtype), start=1):
            if spec.measures_at(step):
                raw = raw_weights(reading, spec.law, spec.guard)
                new = follow(ema, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode)
                if spec.guard == "hold":
                    new = torch.where(usable(reading, spec.law), new, ema)
                ema = new
            out.append(saturate(ema, spec.floor, spec.floor_mode).double().numpy())
        return np.array(out)

    return run


def _module(spec: GabaSpec, norms: Array) -> Array:
    """``GABALoss`` in float32, at the end of its training."""
    _in_single(norms)
    return np.asarray(through_loss(spec, norms.tolist()))[None]


def _compiled_step(spec: GabaSpec, norms: Array) -> Array:
    k = spec.n_tasks
    ema, scratch, out = np.full(k, 1.0 / k), np.empty(2 * k), np.empty(norms.shape)
    for step, (g, weights) in enumerate(zip(norms, out, strict=True), start=1):
        observe(g, step, ema, weights, scratch, *codes(spec))
    return out


def _profile(norms: Array) -> Profile:
    with np.errstate(divide="ignore"):
        return Profile(np.log(np.where(np.isnan(norms), 1.0, norms)), lost=np.isnan(norms))


def _compiled_loop(spec: GabaSpec, norms: Array) -> Array:
    profile = _profile(norms)
    return CompiledLoop(spec).advance(profile.log_norms, np.asarray(profile.lost)).weights


def _batch(dtype: str, device: str | None = None) -> Callable[[GabaSpec, Array], Array]:
    def run(spec: GabaSpec, norms: Array) -> Array:
        out = run_batch(
            _profile(norms),
            {name: getattr(spec, name) for name in ("beta", "floor", "warmup", "interval")},
            law=spec.law,
            floor_mode=spec.floor_mode,
            guard=spec.guard,
            settling=False,
            stability=False,
            dtype=dtype,  # type: ignore[arg-type]
            device=device,
        )
        names = ("final_weight", "smallest_weight", "largest_weight")
        return np.array([out[name][0] for name in names])

    return run


def _lane(spec: GabaSpec, norms: Array) -> Array:
    """A lane of the fuzzer's searcher, in the middle of others."""
    read = norms[:: spec.interval]
    steps, k = read.shape
    base = np.ascontiguousarray(np.stack([read + 1.0, read, read * 0.5], axis=-1))
    nothing, trail = np.zeros(3, np.uint64), np.empty((steps, k, 3))
    code = codes(spec)
    _lanes.run_block(
        base, np.arange(1, steps + 1), np.ones(3, np.uint64), nothing, nothing, code.pole,
        code.floor, code.law, code.floor_mode, code.guard, np.empty((len(lanes.STATS), 3)),
        np.empty((k, 3)), trail,
    )  # fmt: skip
    return np.repeat(trail[:, :, 1], spec.interval, axis=0)[: len(norms)]


def _replayed(spec: GabaSpec, norms: Array) -> Array:
    return replay(spec, norms, np.ones(len(norms), dtype=bool)).weights


ENGINES: dict[str, Engine] = {
    "stages, NumPy": Engine(_numpy_stages, 0.0),
    "stages, fractions": Engine(_fractions, 1e-13),
    "stages, torch float64": Engine(_torch_stages(torch.float64), 4 * ULP),
    "stages, torch float32": Engine(_torch_stages(torch.float32), SINGLE),
    "GABALoss": Engine(_module, SINGLE),
    "compiled step": Engine(_compiled_step, 0.0),
    "compiled loop": Engine(_compiled_loop, FROM_LOG),
    "batch float64": Engine(_batch("float64"), FROM_LOG, figures=True),
    "batch float32": Engine(_batch("float32"), 3e-5, figures=True),
    "batch on a device": Engine(_batch("float64", "cpu"), FROM_LOG, figures=True),
    "fuzz lanes": Engine(_lane, 0.0),
    "replay": Engine(_replayed, 0.0),
}
