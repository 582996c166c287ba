"""Rows of numbers in which a block of loops is held, for the fast kernel."""

from __future__ import annotations

import numpy as np

__all__ = [
    "LANES",
    "LIMITS",
    "MAX_TASKS",
    "OUTPUTS",
    "SINGLE",
    "STRIDE",
    "initial_rows",
    "layout",
    "row_names",
]

#: Loops that share a block: in flight together, so that some work while others wait.
LANES = 64

#: Numbers from one row to the next: rows a multiple of 4 kB apart look like one to the processor.
STRIDE = LANES + 16

#: A step is unrolled over the tasks, so that more of them would take long to compile.
MAX_TASKS = 8

#: Per type: largest log of a contribution ratio, largest log of a reading's ratio, steps that share
#: a product (a product of so many largest ratios is still a float).
LIMITS = {"float64": (85.0, 300.0, 8), "float32": (40.0, 40.0, 2)}
#: A loop's settings.
_SETTINGS = (
    "pole",
    "gain",
    "floor",
    "interval",
    "response",
    "a",
    "noise",
    "amplitude",
    "next",
    "spread_above",
    "spread_below",
)

#: What comes back of a loop, beside the averages of its tasks.
OUTPUTS = (
    "saturated",
    "worst_before",
    "largest_before",
    "early_peak",
    "late_peak",
    "start",
    "sum",
    "square",
    "last_weights",
    "last_spread",
    "error",
    "worst_spread",
    "spread",
)

#: Extremes of the weights in this window, and what the contributions are multiplied up to.
_WORKING = (
    "worst",
    "largest",
    "scale",
    "product_high",
    "product_low",
    "doublings",
    "worst_high",
    "worst_low",
    "high",
    "low",
)

SINGLE = (*_SETTINGS, *OUTPUTS, *_WORKING)
_PER_TASK = (
    "ema",
    "lag",
    "level",
    "norm",
    "draw",
    "drive",
    "told",
    "weight_above",
    "weight_below",
)


def row_names(n_tasks: int) -> list[str]:
    """Names of the rows of a block: those of a loop, then those of its tasks.

    Examples
    --------
    >>> row_names(2)[-2:]
    ['weight_below 0', 'weight_below 1']
    """
    return [*SINGLE, *(f"{name} {i}" for name in _PER_TASK for i in range(n_tasks))]


def initial_rows(n_tasks: int) -> list[float]:
    """What the rows hold before the first step, where no setting says otherwise.

    Examples
    --------
    >>> initial_rows(2)[row_names(2).index("ema 1")]
    0.5
    """
    start = {
        **dict.fromkeys(("worst", "worst_before"), np.inf),
        **dict.fromkeys(("largest", "largest_before"), -np.inf),
        **dict.fromkeys(("last_weights", "last_spread"), -1.0),
        **dict.fromkeys(("product_high", "product_low", "worst_high", "worst_low"), 1.0),
        **{f"ema {i}": 1.0 / n_tasks for i in range(n_tasks)},
    }
    return [start.get(name, 0.0) for name in row_names(n_tasks)]


def layout(
    n_tasks: int, feedback: bool, delayed: bool, noisy: bool, settling: bool
) -> tuple[tuple[int, ...], ...]:
    """What a kernel is compiled for, as lengths of tuples, which a compiler sees as types.

    Examples
    --------
    >>> layout(2, True, False, False, False)
    ((0, 0), (0,), (), (), ())
    """
    return ((0,) * n_tasks, *((0,) * int(b) for b in (feedback, delayed, noisy, settling)))
