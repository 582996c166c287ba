"""Many closed loops at once: GABA on log-ratio plants, each loop with its own settings.

The figures of a loop depend on its settings, the seed and its number, and on nothing else: not on
the batch it was in, nor on how many threads ran. Memory does not grow with the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError, packages_for
from gabactl.law.floors import FloorMode
from gabactl.law.laws import Guard, Law
from gabactl.law.spec import GabaSpec
from gabactl.loops.profiles import LEAST_LOG_NORM, Profile

if TYPE_CHECKING:
    from gabactl.loops.kernels.runner import Figures, Runner
    from gabactl.loops.kernels.torch_batch import TorchRunner

    _Runner = Runner | TorchRunner

__all__ = ["run_batch"]

Array = NDArray[np.float64]
#: Parameter to its value in each loop.
Table = dict[str, Array]

#: What may differ from loop to loop, with its default.
LOOP_PARAMETERS: dict[str, float] = {
    "beta": 0.99,
    "floor": 0.05,
    "warmup": 100.0,
    "interval": 1.0,
    "rho": 0.0,
    "a": 0.0,
    "noise": 0.0,
    "amplitude": 1.0,
}

#: What comes back per loop, with its meaning.
COLUMNS: dict[str, str] = {
    "smallest_weight": "smallest applied weight",
    "largest_weight": "largest applied weight",
    "saturated_fraction": "share of active steps with some ema below the floor",
    "mean_log_spread": "mean over the steps of ln(largest / smallest contribution)",
    "worst_log_spread": "largest of them",
    "final_log_spread": "the one of the last step",
    "final_weight": "applied weight of task 0 at the last step",
    "mean_weight": "mean applied weight of task 0 over the last quarter",
    "weight_std": "its standard deviation there",
    "settling_weights": "updates until the weights stay within the band, without noise; -1: they "
    "do not for the last twentieth of the level",
    "settling_contributions": "the same for the log spread",
    "growth": "late over early peak of the weights after an impulse of 1e-6, without floor or noise",
    "stable": "1 where that impulse dies out, 0 where it does not",
}

#: Log norms of a disturbance: from the smallest normal number to the largest.
LOG_RANGE = {"float64": (LEAST_LOG_NORM, 709.78), "float32": (-87.0, 88.72)}

#: Longest loop and largest batch of one call.
_MAX_TASKS = 64

#: Size of the impulse that tells a stable loop from an unstable one.
_IMPULSE = 1e-6


def run_batch(
    profile: Profile,
    parameters: Mapping[str, ArrayLike],
    *,
    law: Law = GabaSpec.law,
    floor_mode: FloorMode = GabaSpec.floor_mode,
    guard: Guard = GabaSpec.guard,
    delay: int = 0,
    seed: int = 0,
    first_loop: int = 0,
    tolerance: float = 0.02,
    settling: bool = True,
    stability: bool = True,
    dtype: Literal["float64", "float32"] = "float64",
    threads: int = 1,
    device: str | None = None,
) -> dict[str, NDArray[Any]]:
    """Run one loop per row of the parameters through the same disturbance.

    Parameters
    ----------
    profile : Profile
        Disturbance; each loop multiplies its logarithm by its ``amplitude``. K is its number of
        tasks, at most 64.
    parameters : mapping name -> array, shape (loops,), or number
        Any of ``LOOP_PARAMETERS``; single numbers hold for every loop.
    law, floor_mode, guard, delay
        Common to all loops.
    seed, first_loop : int
        Loop n of this batch draws the noise of loop ``first_loop + n`` of the seed.
    tolerance : float in (0, 1)
        Band of the settling times, as a share of the change.
    settling, stability : bool
        Whether to run the extra passes for those columns (NaN otherwise).
    dtype : {"float64", "float32"}
        Precision.
    threads : int, at least 1
        Threads of the compiled kernels; the results do not depend on them.
    device : str, optional
        Run in PyTorch there (``cpu``, ``cuda``, ``cuda:1``; needs gabactl[torch]) instead of
        compiled on the processor. The results agree to rounding, not to the last bit.

    Returns
    -------
    dict name -> array, shape (loops,)
        The columns of ``COLUMNS``.

    Raises
    ------
    InputError
        An unknown parameter, one out of range, shapes that do not match, or a disturbance that
        leaves the normal numbers of ``dtype`` (with ``guard="none"`` also one whose published
        denominator (K - 1) S could overflow).

    Notes
    -----
    Settling is measured from the last event of the profile, on the loop without noise, against
    where it ends; hold the last level long enough. Stability is that of the loop about uniform
    weights: a loop without warm-up gets an impulse of 1e-6 on the log norm of task 0 at the first
    step and none after, and the peak distance of the weights from 1/K in the last quarter of the
    steps is set against that in the third.

    Examples
    --------
    >>> from gabactl.loops.profiles import constant
    >>> out = run_batch(constant(500.0, 1000), {"floor": [0.05, 0.01]})
    >>> out["final_weight"].round(5).tolist()
    [0.04771, 0.00992]
    """
    table, loops = complete_parameters(parameters, profile.n_tasks)
    if profile.n_tasks > _MAX_TASKS:
        raise InputError(f"{profile.n_tasks} tasks are more than the {_MAX_TASKS} a batch takes")
    if dtype not in ("float64", "float32"):
        raise InputError(f"dtype = {dtype!r} is unknown: choose float64 or float32")
    if not isinstance(delay, int) or delay < 0:
        raise InputError(f"delay = {delay!r} is not a whole number of steps >= 0")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance = {tolerance} is not in (0, 1): choose for example 0.02")
    if threads < 1:
        raise InputError(f"threads = {threads} is below 1: choose 1 or more")
    _check_range(profile, table["amplitude"], dtype, guard)
    from gabactl.loops.kernels.controller import codes
    from gabactl.loops.kernels.random import check_seed
    from gabactl.loops.kernels.runner import Runner

    spec = GabaSpec(law=law, floor_mode=floor_mode, guard=guard)
    common = (delay, check_seed(seed), first_loop, dtype)
    runner: Runner | TorchRunner
    if device is None:
        runner = Runner(codes(spec)[4:], *common, threads)
    else:
        runner = _on_device((spec.law, spec.floor_mode, spec.guard), *common, device)
    single, final_weights = _run(runner, profile, table)
    out: dict[str, NDArray[Any]] = {
        "smallest_weight": single["smallest_weight"],
        "largest_weight": single["largest_weight"],
        "saturated_fraction": single["saturated_steps"] / np.maximum(single["active_steps"], 1.0),
        "mean_log_spread": single["integrated_error"] / profile.steps,
        "worst_log_spread": single["worst_log_spread"],
        "final_log_spread": single["final_log_spread"],
        "final_weight": final_weights[0],
        "mean_weight": single["mean_weight"],
        "weight_std": np.sqrt(single["weight_variance"]),
    }
    nothing = np.full(loops, np.nan)
    double = dtype == "float64"
    settled = peaks = (nothing, nothing)
    if settling:
        settled = _settling(runner, profile, table, tolerance, 1e-12 if double else 1e-6)
    if stability:
        peaks = _stability(runner, profile, table, 1e-13 if double else 1e-7)
    out["settling_weights"], out["settling_contributions"] = settled
    out["growth"], out["stable"] = peaks
    return {name: out[name] for name in COLUMNS}


def _check_range(
    profile: Profile, amplitude: NDArray[np.float64], dtype: str, guard: Guard
) -> None:
    """Refuse a disturbance where the batch would differ from the law.

    Its kernels take a norm that is not a normal number for 0, and divide by S and K - 1 where the
    published law divides by their product, which overflows first.
    """
    logs = profile.log_norms[np.isfinite(profile.log_norms)]
    if not logs.size:
        return
    ends = np.outer([logs.min(), logs.max()], amplitude)
    k = profile.n_tasks
    lowest, highest = LOG_RANGE[dtype]
    if guard == "none":
        highest -= math.log(k * (k - 1))
    for end in (ends.min(), ends.max() if guard == "none" else highest):
        if not lowest <= end <= highest:
            raise InputError(
                f"amplitude times log norm reaches {end:.6g}, outside [{lowest:.4g}, {highest:.4g}] "
                f"for {dtype} and guard = {guard!r}: scale all the norms, which changes no weight, "
                "or narrow the amplitudes"
            )


def _on_device(*settings: Any) -> TorchRunner:
    """A runner in PyTorch, or an error that says what is missing."""
    device = settings[-1]
    with packages_for(f"device = {device!r}"):
        import torch
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(
            f"device = {device!r} is not there: choose cpu, or cuda on a machine that has it"
        ) from None
    from gabactl.loops.kernels.torch_batch import TorchRunner

    return TorchRunner(*settings)


def _run(runner: _Runner, profile: Profile, table: Table, goals: Any = None) -> Figures:
    return runner.run(profile.log_norms, np.asarray(profile.lost), table, goals)


def _settling(
    runner: _Runner, profile: Profile, table: Table, tolerance: float, least: float
) -> tuple[Array, Array]:
    """Two passes: where the loop ends, and when it was last away from there."""
    from gabactl.loops.kernels.runner import Goals

    quiet = {**table, "noise": np.zeros_like(table["noise"])}
    single, goal_weights = _run(runner, profile, quiet)
    goal_spread = single["final_log_spread"]
    start = profile.events[-1]
    k = profile.n_tasks
    if start:
        head = Profile(profile.log_norms[:start], lost=profile.lost[:start])  # type: ignore[index]
        _, weights_before = _run(runner, head, quiet)
    else:
        weights_before = np.full((k, len(goal_spread)), 1.0 / k)
    change = np.abs(weights_before - goal_weights).max(axis=0)
    # The first spread of the level, with the weights from before it.
    logs = profile.log_norms[start][:, None] * table["amplitude"]
    contributions = np.log(np.maximum(weights_before, 1e-300)) + logs
    first = contributions.max(axis=0) - contributions.min(axis=0)
    bands = np.maximum(tolerance * np.stack([change, np.abs(first - goal_spread)]), least)
    last, _ = _run(runner, profile, quiet, Goals(goal_weights, goal_spread, bands))
    out = []
    for key in ("last_outside_weights", "last_outside_contributions"):
        outside = last[key]
        updates = np.where(outside < start, 1.0, outside - start + 2.0)
        # The goal is where the loop ended, so a loop that oscillates is near it now and then: it has
        # settled only if it stayed for the last twentieth of the level.
        late = profile.steps - 1 - (profile.steps - start) // 20
        out.append(np.where(outside >= late, -1.0, updates))
    return out[0], out[1]


def _stability(runner: _Runner, profile: Profile, table: Table, rest: float) -> tuple[Array, Array]:
    impulse = np.zeros((max(profile.steps, 400), profile.n_tasks))
    impulse[0, 0] = _IMPULSE
    zero = np.zeros_like(table["noise"])
    quiet = {**table, "noise": zero, "warmup": zero, "amplitude": zero + 1.0, "floor": zero}
    single, _ = _run(runner, Profile(impulse), quiet)
    early, late = single["early_peak"], single["late_peak"]
    growth = late / np.maximum(early, rest)
    stable = (late <= rest) | ((growth < 1 - 1e-9) & (late < 1e-3))
    return growth, np.asarray(stable, dtype=np.float64)


def complete_parameters(parameters: Mapping[str, ArrayLike], n_tasks: int) -> tuple[Table, int]:
    """All of ``LOOP_PARAMETERS`` as arrays of one length, checked.

    Parameters
    ----------
    parameters : mapping name -> array, shape (loops,), or number
        Any of ``LOOP_PARAMETERS``.
    n_tasks : int
        Number of tasks K, which bounds the floor.

    Returns
    -------
    table : dict of str to array, shape (loops,)
        Numbers are repeated, and what was not given has its default.
    loops : int
        How many loops.

    Raises
    ------
    InputError
        An unknown name, arrays of different lengths or empty ones, or a value out of range.

    Examples
    --------
    >>> table, loops = complete_parameters({"beta": [0.9, 0.99]}, 2)
    >>> loops, table["floor"].tolist()
    (2, [0.05, 0.05])
    """
    for name in parameters:
        if name not in LOOP_PARAMETERS:
            raise InputError(
                f"unknown loop parameter {name!r}: choose from {', '.join(LOOP_PARAMETERS)}"
            )
    given = {
        name: np.asarray(parameters.get(name, d), float) for name, d in LOOP_PARAMETERS.items()
    }
    lengths = {array.size for array in given.values() if array.ndim}
    if len(lengths) > 1 or any(array.ndim > 1 for array in given.values()):
        raise InputError(
            f"loop parameters have lengths {sorted(lengths)}: give arrays of one length, or numbers"
        )
    loops = lengths.pop() if lengths else 1
    if loops < 1:
        raise InputError("loop parameters are empty: give at least one loop")
    table = {name: np.ascontiguousarray(np.broadcast_to(a, (loops,))) for name, a in given.items()}
    limits: dict[str, tuple[float, float, str]] = {
        "beta": (0.0, math.nextafter(1.0, 0.0), "[0, 1)"),
        "floor": (0.0, math.nextafter(1.0 / n_tasks, 0.0), f"[0, 1/{n_tasks})"),
        "warmup": (0.0, 2.0**24, "whole numbers from 0 to 2^24"),
        "interval": (1.0, 2.0**24, "whole numbers from 1 to 2^24"),
        "rho": (-1e6, 1e6, "[-1e6, 1e6]"),
        "a": (math.nextafter(-1.0, 0.0), math.nextafter(1.0, 0.0), "(-1, 1)"),
        "noise": (0.0, 1e3, "[0, 1000]"),
        "amplitude": (-1e6, 1e6, "[-1e6, 1e6]"),
    }
    for name, (low, high, words) in limits.items():
        column = table[name]
        bad = ~((column >= low) & (column <= high))
        if name in ("warmup", "interval"):
            bad |= column != np.floor(column)
        if bad.any():
            raise InputError(
                f"{name} = {column[np.argmax(bad)]:g} is not in {words}: choose values inside"
            )
    return table, loops
