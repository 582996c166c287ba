"""Small traces that several tests write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gabactl.base.errors import InputError
from gabactl.traces import TraceWriter, read_trace

TASKS = ["rul", "health"]


GROUPS = ("grad_norm", "raw", "ema", "weight", "loss")


def some_columns(
    first: int, count: int, groups: tuple[str, ...] = GROUPS
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows whose every value is a function of the step, so that an invented one is noticed."""
    step = np.arange(first, first + count)
    columns: dict[str, Any] = {"step": step, "wall_time": 0.01 * step}
    for i, task in enumerate(TASKS):
        for j, group in enumerate(GROUPS):
            if group in groups:
                columns[f"{group}_{task}"] = step * 10.0 + i + j / 8
    measured = step % 3 != 0
    valid = {name: measured for name in columns if name.startswith(("grad_norm", "raw"))}
    return columns, valid


def assert_rows_are_true(trace: Any, rows: int) -> None:
    """The trace holds exactly the first rows of what :func:`some_columns` makes."""
    step = np.arange(1, rows + 1)
    np.testing.assert_array_equal(trace.step, step)
    np.testing.assert_array_equal(trace.measured, step % 3 != 0)
    for j, name in enumerate(("grad_norms", "raw", "ema", "weights", "losses")):
        if getattr(trace, name) is None:
            continue
        for i in range(2):
            expected = step * 10.0 + i + j / 8
            if j < 2:
                expected = np.where(trace.measured, expected, np.nan)
            np.testing.assert_array_equal(getattr(trace, name)[:, i], expected)


def write_some(
    path: Path,
    batches: int = 3,
    rows: int = 4,
    finish: bool = True,
    groups: tuple[str, ...] = GROUPS,
    **options: Any,
) -> Path:
    """A recording of some batches."""
    writer = TraceWriter(path, TASKS, {"seed": 3}, groups=groups, sync=False, **options)
    for i in range(batches):
        writer.append(*some_columns(1 + i * rows, rows, groups))
    return writer.close(finish)


def trace_or_complaint(path: Path) -> Any:
    """The trace, or the one line that refuses it; anything else raised is a failure."""
    try:
        return read_trace(path)
    except InputError as error:
        return str(error)
