"""Many closed loops at once: GABA on log-ratio plants, each loop with its own settings.

The figures of a loop depend on its settings, the seed and its number, and on nothing else: not on
the batch it was in, nor on how many threads ran. Memory does not grow with the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.errors import InputError
from gabactl.profiles import Profile
from gabactl.spec import FloorMode, GabaSpec, Guard, Law

__all__ = ["COLUMNS", "LOOP_PARAMETERS", "complete_parameters", "run_batch"]

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
    "worst_weight": "smallest applied weight",
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

#: Longest loop and largest batch of one call.
_MAX_TASKS = 64

#: Size of the impulse that tells a stable loop from an unstable one.
_IMPULSE = 1e-6


def run_batch(
    profile: Profile,
    parameters: Mapping[str, ArrayLike],
    *,
    law: Law = "complement",
    floor_mode: FloorMode = "renormalise",
    guard: Guard = "hold",
    delay: int = 0,
    seed: int = 0,
    first_loop: int = 0,
    tolerance: float = 0.02,
    settling: bool = True,
    stability: bool = True,
    dtype: Literal["float64", "float32"] = "float64",
    threads: int = 1,
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
        Threads; the results do not depend on them.

    Returns
    -------
    dict name -> array, shape (loops,)
        The columns of ``COLUMNS``.

    Raises
    ------
    InputError
        An unknown parameter, one out of range, or shapes that do not match.

    Notes
    -----
    Settling is measured from the last event of the profile, on the loop without noise, against
    where it ends; hold the last level long enough. Stability is that of the loop about uniform
    weights: a loop without warm-up gets an impulse of 1e-6 on the log norm of task 0 at the first
    step and none after, and the peak distance of the weights from 1/K in the last quarter of the
    steps is set against that in the third.

    Examples
    --------
    >>> from gabactl.profiles import constant
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
    runner = _Runner(law, floor_mode, guard, delay, seed, first_loop, dtype, threads)
    single, per_task = runner.run(profile, table)
    k = profile.n_tasks
    mean = per_task["mean_weights"][0]
    variance = np.maximum(per_task["square_weights"][0] - mean**2, 0.0)
    out: dict[str, NDArray[Any]] = {
        "worst_weight": single["worst_weight"],
        "largest_weight": single["largest_weight"],
        "saturated_fraction": single["saturated_steps"] / np.maximum(single["active_steps"], 1.0),
        "mean_log_spread": single["integrated_error"] / profile.steps,
        "worst_log_spread": single["worst_log_spread"],
        "final_log_spread": single["final_log_spread"],
        "final_weight": per_task["final_weights"][0],
        "mean_weight": mean + 1.0 / k,
        "weight_std": np.sqrt(variance),
    }
    nothing = np.full(loops, np.nan)
    settled = _settling(runner, profile, table, tolerance) if settling else (nothing, nothing)
    out["settling_weights"], out["settling_contributions"] = settled
    growth, stable = _stability(runner, profile, table) if stability else (nothing, nothing)
    out["growth"], out["stable"] = growth, stable
    return {name: out[name] for name in COLUMNS}


def _settling(
    runner: _Runner, profile: Profile, table: dict[str, NDArray[np.float64]], tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two passes: where the loop ends, and when it was last away from there."""
    quiet = {**table, "noise": np.zeros_like(table["noise"])}
    single, per_task = runner.run(profile, quiet)
    goal_weights, goal_spread = per_task["final_weights"], single["final_log_spread"]
    start = profile.events[-1]
    k = profile.n_tasks
    if start:
        head = Profile(profile.log_norms[:start], lost=profile.lost[:start])  # type: ignore[index]
        _, before = runner.run(head, quiet)
        weights_before = before["final_weights"]
    else:
        weights_before = np.full((k, len(goal_spread)), 1.0 / k)
    change = np.abs(weights_before - goal_weights).max(axis=0)
    # The first spread of the level, with the weights from before it.
    logs = profile.log_norms[start][:, None] * table["amplitude"]
    contributions = np.log(np.maximum(weights_before, 1e-300)) + logs
    first = contributions.max(axis=0) - contributions.min(axis=0)
    least = 1e-12 if runner.dtype == np.float64 else 1e-6
    bands = np.maximum(tolerance * np.stack([change, np.abs(first - goal_spread)]), least)
    goals = np.concatenate([goal_weights, goal_spread[None]])
    last, _ = runner.run(profile, quiet, goals, bands)
    out = []
    for key in ("last_outside_weights", "last_outside_contributions"):
        outside = last[key]
        updates = np.where(outside < start, 1.0, outside - start + 2.0)
        # The goal is where the loop ended, so a loop that oscillates is near it now and then: it has
        # settled only if it stayed for the last twentieth of the level.
        late = profile.steps - 1 - (profile.steps - start) // 20
        out.append(np.where(outside >= late, -1.0, updates))
    return out[0], out[1]


def _stability(
    runner: _Runner, profile: Profile, table: dict[str, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    impulse = np.zeros((max(profile.steps, 400), profile.n_tasks))
    impulse[0, 0] = _IMPULSE
    zero = np.zeros_like(table["noise"])
    quiet = {**table, "noise": zero, "warmup": zero, "amplitude": zero + 1.0, "floor": zero}
    single, _ = runner.run(Profile(impulse), quiet)
    early, late = single["early_peak"], single["late_peak"]
    rest = 1e-13 if runner.dtype == np.float64 else 1e-7
    growth = late / np.maximum(early, rest)
    stable = (late <= rest) | ((growth < 1 - 1e-9) & (late < 1e-3))
    return growth, np.asarray(stable, dtype=np.float64)


class _Runner:
    """Packs loops into blocks of lanes, runs them on threads, and unpacks what they give."""

    def __init__(
        self,
        law: Law,
        floor_mode: FloorMode,
        guard: Guard,
        delay: int,
        seed: int,
        first_loop: int,
        dtype: str,
        threads: int,
    ) -> None:
        from gabactl._kernels.controller import codes
        from gabactl._kernels.random import check_seed

        spec = GabaSpec(law=law, floor_mode=floor_mode, guard=guard)
        self._codes = codes(spec)[4:]
        self._delay = delay
        self._seed = check_seed(seed)
        self._first = first_loop
        self.dtype = np.dtype(dtype)
        if threads < 1:
            raise InputError(f"threads = {threads} is below 1: choose 1 or more")
        self._threads = threads

    def run(
        self,
        profile: Profile,
        table: Mapping[str, NDArray[np.float64]],
        goals: NDArray[np.float64] | None = None,
        bands: NDArray[np.float64] | None = None,
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
        """Statistics per loop, and per task and loop."""
        from gabactl._kernels import batch as kernel

        k, steps = profile.n_tasks, profile.steps
        loops = len(table["beta"])
        n = kernel.LANES
        # Blocks sit on multiples of LANES of the loop's number, so that a loop keeps its lane.
        lead = self._first % n
        blocks = -(-(lead + loops) // n)
        rows = np.stack([table[name] for name in kernel.PARAMETERS])
        rows[0] = rows[0] ** table["interval"]
        packed = _pack(rows, lead, blocks, n, self.dtype)
        aims = _pack(
            np.zeros((k + 1, loops)) if goals is None else goals, lead, blocks, n, self.dtype
        )
        widths = _pack(
            np.zeros((2, loops)) if bands is None else bands, lead, blocks, n, self.dtype
        )
        first = (self._first - lead) + n * np.arange(blocks, dtype=np.int64)
        single = np.empty((blocks, len(kernel.STATISTICS), n), self.dtype)
        per_task = np.empty((blocks, len(kernel.TASK_STATISTICS), k, n), self.dtype)
        lost = np.ascontiguousarray(profile.lost)
        logs = np.ascontiguousarray(profile.log_norms, dtype=self.dtype)
        constants = kernel.constants_of(k, self.dtype)

        def work(part: slice) -> None:
            kernel.run_blocks(
                logs,
                lost,
                bool(lost.any()),
                packed[part],
                aims[part],
                widths[part],
                self._delay,
                *self._codes,
                self._seed,
                first[part],
                bool((table["noise"] > 0).any()),
                bool((table["rho"] != 0).any()),
                goals is not None,
                steps // 2,
                3 * steps // 4,
                constants,
                single[part],
                per_task[part],
            )

        parts = [
            slice(int(c[0]), int(c[-1]) + 1)
            for c in np.array_split(np.arange(blocks), min(self._threads, blocks))
        ]
        if len(parts) == 1:
            work(parts[0])
        else:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(work, parts))
        chosen = slice(lead, lead + loops)
        flat = single.transpose(1, 0, 2).reshape(len(kernel.STATISTICS), -1)[:, chosen]
        flat_task = per_task.transpose(1, 2, 0, 3).reshape(len(kernel.TASK_STATISTICS), k, -1)
        return (
            dict(zip(kernel.STATISTICS, flat.astype(np.float64), strict=True)),
            dict(
                zip(kernel.TASK_STATISTICS, flat_task[..., chosen].astype(np.float64), strict=True)
            ),
        )


def _pack(
    rows: NDArray[np.float64], lead: int, blocks: int, lanes: int, dtype: Any
) -> NDArray[Any]:
    """(rows, loops) into (blocks, rows, lanes); unused lanes repeat the nearest loop."""
    columns = np.clip(np.arange(blocks * lanes) - lead, 0, rows.shape[1] - 1)
    spread_out = rows[:, columns].reshape(rows.shape[0], blocks, lanes)
    return np.ascontiguousarray(spread_out.transpose(1, 0, 2), dtype=dtype)


def complete_parameters(
    parameters: Mapping[str, ArrayLike], n_tasks: int
) -> tuple[dict[str, NDArray[np.float64]], int]:
    """All of ``LOOP_PARAMETERS`` as arrays of one length, checked, and that length.

    Parameters
    ----------
    parameters : mapping name -> array, shape (loops,), or number
        Any of ``LOOP_PARAMETERS``.
    n_tasks : int
        Number of tasks K, which bounds the floor.

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
