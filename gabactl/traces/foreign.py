"""Logs that others wrote: which of their columns are ours, and a trace's columns out of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.traces.metadata import MAX_TASKS, SCHEMA_VERSION, check_metadata
from gabactl.traces.schema import GROUPS, MAX_CELLS, Columns, Precision

#: Values of one quantity and the steps they were logged at, in the order of the log.
Series = tuple[NDArray[np.int64], NDArray[np.float64]]

#: How the groups are spelled in logs; the task follows, after one of ``/ . _ - :``.
_SPELLINGS = {
    "grad_norm": r"grad(?:ient)?[_-]?norms?",
    "raw": r"raw(?:[_-]weights?)?",
    "ema": r"ema(?:[_-]weights?)?",
    "weight": r"(?:applied[_-])?weights?",
    "loss": r"loss(?:es)?",
}
_PATTERNS = {
    group: re.compile(rf"^(?P<prefix>.*[/.: ])?(?:{spelling})[/._:-](?P<task>[^/]+)$", re.I)
    for group, spelling in _SPELLINGS.items()
}


def match_columns(
    names: Sequence[str], source: str, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Find the columns of the trace schema among a log's names.

    ``grad_norm/rul``, ``balance/grad_norm_rul`` (what ``log_to_tensorboard`` writes) and
    ``train/grad_norm.rul`` all are the gradient norm of the task ``rul``; ``weight``, ``raw``,
    ``ema`` and ``loss`` are found in the same way for the tasks that have one. Where two names
    could be meant, the one under the gradient norms' own prefix is, and else none.

    Parameters
    ----------
    names : sequence of str
        Names in the log.
    source : str
        File name, for messages.
    given : mapping of str to str, optional
        Column of the trace schema (``grad_norm_rul``) to the log's name for it; then exactly
        these are read.

    Returns
    -------
    dict of str to str
        Column of the schema to name in the log; gradient norms first, in the order of the log.

    Raises
    ------
    InputError
        No gradient norms, those of one task, or under two prefixes; a given name that the log
        does not have.

    Examples
    --------
    >>> match_columns(["lr", "balance/grad_norm_a", "balance/grad_norm_b", "loss/a"], "run")
    {'grad_norm_a': 'balance/grad_norm_a', 'grad_norm_b': 'balance/grad_norm_b'}
    >>> match_columns(["g0", "g1"], "run", {"grad_norm_a": "g0", "grad_norm_b": "g1"})
    {'grad_norm_a': 'g0', 'grad_norm_b': 'g1'}
    """
    if given:
        return _given(names, source, given)
    found: dict[str, list[tuple[str, str, str]]] = {group: [] for group in GROUPS}
    for name in names:
        for group, pattern in _PATTERNS.items():
            match = pattern.match(name)
            if match:
                found[group].append((match["prefix"] or "", match["task"], name))
                break
    norms = found["grad_norm"]
    prefixes = list(dict.fromkeys(prefix for prefix, _, _ in norms))
    tasks = [task for _, task, _ in norms]
    if not norms:
        shown = ", ".join(names[:6])[:120]
        raise InputError(
            f"{source}: no column grad_norm/<task> (found: {shown!r}): name the gradient norms "
            f"{_remedy(source)}"
        )
    if len(prefixes) > 1 or len(set(tasks)) != len(tasks):
        raise InputError(
            f"{source}: gradient norms under several names ({', '.join(n for _, _, n in norms)[:120]}"
            f"): say which {_remedy(source)}"
        )
    columns = {f"grad_norm_{task}": name for _, task, name in norms}
    for group in list(GROUPS)[1:]:
        chosen: dict[str, str] = {}
        for task in tasks:
            candidates = [(p, n) for p, t, n in found[group] if t == task]
            own = [n for p, n in candidates if p == prefixes[0]]
            if len(own) == 1:
                chosen[f"{group}_{task}"] = own[0]
            elif not own and len(candidates) == 1:
                chosen[f"{group}_{task}"] = candidates[0][1]
        if len(chosen) == len(tasks):
            columns |= chosen
    return columns


def _given(names: Sequence[str], source: str, given: Mapping[str, str]) -> dict[str, str]:
    known = tuple(f"{group}_" for group in GROUPS)
    for column, name in given.items():
        if not column.startswith(known):
            raise InputError(
                f"{source}: {column!r} is no column of a trace: use grad_norm_<task>, raw_<task>, "
                "ema_<task>, weight_<task> or loss_<task>"
            )
        if name not in names:
            shown = ", ".join(names[:12])[:200]
            raise InputError(f"{source}: has no {name!r}: choose one of {shown}")
    return dict(given)


def _remedy(source: str) -> str:
    return f"with `gabactl trace convert {source} -o run.parquet --column grad_norm_rul=NAME ...`"


def columns_from_series(
    series: Mapping[str, Series],
    source: str,
    wall_time: Series | None = None,
    *,
    counted_from: int | None = None,
) -> Columns:
    """Put quantities that were logged one by one side by side, a row for each step.

    A log that goes back in its steps was continued from a checkpoint: what it had logged at those
    steps and later is replaced. Steps counted from 0 are moved by one, as a trace counts from 1.
    Steps at which none of these was logged make no row, and neither does a last step that lacks
    the norm of a task: it was being written.

    Parameters
    ----------
    series : mapping of str to (steps, values)
        By column of the trace schema.
    source : str
        File name, for messages.
    wall_time : (steps, seconds), optional
        Seconds since the start of the run.
    counted_from : int, optional
        First step of the log, where others than these were logged earlier.

    Returns
    -------
    Columns
        With ``step``; what was not logged at a step is missing there.

    Raises
    ------
    InputError
        A step below 0, or more numbers than a trace may hold.

    Examples
    --------
    >>> a = (np.array([0, 1, 2, 1]), np.array([5.0, 6.0, 7.0, 8.0]))
    >>> b = (np.array([0, 1]), np.array([1.0, 2.0]))
    >>> found = columns_from_series({"grad_norm_a": a, "loss_a": b}, "run")
    >>> {name: values.tolist() for name, (values, _) in found.items()}
    {'step': [1, 2], 'grad_norm_a': [5.0, 8.0], 'loss_a': [1.0, 2.0]}
    """
    kept = {name: _latest(*pair) for name, pair in series.items()}
    steps = np.unique(np.concatenate([step for step, _ in kept.values()]))
    if len(steps) and steps[0] < 0:
        raise InputError(f"{source}: step {steps[0]}: steps are counted from 0 or 1")
    if len(steps) * (len(kept) + 2) > MAX_CELLS:
        raise InputError(f"{source}: {len(steps)} steps, more than a trace may hold: split the log")
    ends = [step[-1] if len(step) else 0 for c, (step, _) in kept.items() if c[:4] == "grad"]
    if len(steps) > 1 and steps[-1] == max(ends, default=0) != min(ends, default=0):
        steps = steps[:-1]
    shift = 1 if 0 in (*steps[:1].tolist(), counted_from) else 0
    columns: Columns = {"step": (steps + shift, np.ones(len(steps), dtype=bool))}
    if wall_time is not None:
        kept = {"wall_time": _latest(*wall_time), **kept}
    for name, (step, values) in kept.items():
        step, values = step[np.isin(step, steps)], values[np.isin(step, steps)]
        at = np.searchsorted(steps, step)
        filled = np.full(len(steps), np.nan)
        valid = np.zeros(len(steps), dtype=bool)
        filled[at], valid[at] = values, True
        columns[name] = (filled, valid)
    return columns


def _latest(step: NDArray[np.int64], values: NDArray[np.float64]) -> Series:
    """What is left when each step back replaces what was logged from there on."""
    if not len(step):
        return step, values
    lowest_after = np.minimum.accumulate(step[::-1])[::-1]
    keep = np.append(step[:-1] < lowest_after[1:], True)
    return step[keep], values[keep]


class ForeignSource:
    """A log read whole, as :class:`gabactl.traces.reader.Source`.

    Parameters
    ----------
    name : str
        Of the format.
    columns : Columns
        From :func:`columns_from_series`.
    matched : mapping of str to str
        From :func:`match_columns`; kept in the metadata as ``logged_as``.
    source : str
        File name, for messages.
    precision : {"float32", "float64", "unknown"}
        What the log keeps its numbers in.
    truncated : bool
        The log ends inside a record.

    Raises
    ------
    InputError
        Fewer than 2 tasks, or too many.
    """

    def __init__(
        self,
        name: str,
        columns: Columns,
        matched: Mapping[str, str],
        source: str,
        precision: Precision = "unknown",
        truncated: bool = False,
    ) -> None:
        tasks = [c.removeprefix("grad_norm_") for c in matched if c.startswith("grad_norm_")]
        if not 2 <= len(tasks) <= MAX_TASKS:
            raise InputError(
                f"{source}: gradient norms of {len(tasks)} task(s): a trace has 2 to {MAX_TASKS}"
            )
        self.format = name
        self.metadata: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "tasks": tasks,
            "logged_as": dict(matched),
        }
        check_metadata(self.metadata, source)
        self.precision: Precision = precision
        self.truncated = truncated
        self._columns = columns

    def chunks(self) -> Iterator[tuple[Columns, dict[str, NDArray[np.float64]]]]:
        """See :class:`gabactl.traces.reader.Source`."""
        yield self._columns, {}

    def close(self) -> None:
        """See :class:`gabactl.traces.reader.Source`."""
