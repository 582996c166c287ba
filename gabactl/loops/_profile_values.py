"""What the numbers of a profile must be, and how they become norms per step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError

__all__ = ["level_name", "log_level", "per_task", "positive", "refuse_size"]

#: Steps times tasks: with the copies that building takes, some 2 GiB.
_MAX_NUMBERS = 1 << 25


def log_level(level: float | Sequence[float], n_tasks: int, quiet: float) -> NDArray[np.float64]:
    """Logarithms of the norms of a level: a ratio of the first to the others, or a norm per task."""
    positive("quiet_norm", quiet)
    if np.ndim(level) == 0:
        ratio = float(level)  # type: ignore[arg-type]
        positive("ratio", ratio)
        logs = np.full(n_tasks, math.log(quiet))
        logs[0] += math.log(ratio)
        return logs
    norms = np.asarray(level, dtype=float)
    if norms.shape != (n_tasks,):
        raise InputError(
            f"level {list(norms)} has {norms.size} norms: give {n_tasks}, one per task"
        )
    for norm in norms:
        positive("norm", float(norm))
    return np.log(norms)


def level_name(level: float | Sequence[float]) -> str:
    """A level in words."""
    if np.ndim(level) == 0:
        return f"{level:,g}x"
    return "(" + ", ".join(f"{float(v):g}" for v in level) + ")"  # type: ignore[union-attr]


def per_task(value: ArrayLike, k: int) -> NDArray[np.float64]:
    """One number for all tasks, or one per task, shape (k,)."""
    array = np.asarray(value, dtype=float)
    if array.ndim and array.shape != (k,):
        raise InputError(f"got {array.size} values for {k} tasks: give one number, or one per task")
    return np.broadcast_to(array, (k,))


def refuse_size(steps: int, n_tasks: int) -> None:
    """Refuse more numbers than a profile may hold."""
    if steps * n_tasks > _MAX_NUMBERS:
        raise InputError(
            f"{steps:,} steps of {n_tasks} tasks are more than the {_MAX_NUMBERS:,} numbers a "
            "profile may hold: shorten it"
        )


def positive(name: str, value: float) -> None:
    """Refuse what is no positive number."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} = {value} is not a positive number: give one such as 50")
