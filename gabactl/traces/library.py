"""The recorded traces that come with the package."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from gabactl.base.errors import InputError
from gabactl.traces.reader import iter_trace, read_trace
from gabactl.traces.schema import Trace, joined, short_name

__all__ = ["load_bundled", "load_trace"]

#: Steps of a run that a report (some 0.5 kB each) or forecasts (some 1 kB each) hold at once.
MOST_STEPS = 1_000_000


def bundled() -> tuple[str, ...]:
    """Names of the bundled traces, sorted.

    Returns
    -------
    tuple of str
        What :func:`load_bundled` takes.

    Examples
    --------
    >>> isinstance(bundled(), tuple)
    True
    """
    return tuple(sorted(file.name.removesuffix(".parquet") for file in _files()))


def load_bundled(name: str) -> Trace:
    """Read a bundled trace.

    Parameters
    ----------
    name : str
        One of :func:`bundled`.

    Raises
    ------
    InputError
        There is no trace of that name.

    Examples
    --------
    >>> load_bundled("nothing")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: bundled trace 'nothing' is unknown: choose one of ...
    """
    for file in _files():
        if file.name == f"{name}.parquet":
            with resources.as_file(file) as path:
                return read_trace(path).replace(source=name)
    known = ", ".join(bundled()) or "none (this copy was built without them)"
    raise InputError(f"bundled trace {name!r} is unknown: choose one of {known}")


def load_trace(
    path: str | Path,
    *,
    last: int | None = None,
    most_steps: int | None = None,
    before: Callable[[Trace], object] | None = None,
) -> Trace:
    """Read a trace file, or a bundled trace by its name where no such file exists.

    Parameters
    ----------
    path : path or str
        A file, or one of :func:`bundled`.
    last : int, at least 1, optional
        Only so many rows of its end, of a run of any length.
    most_steps : int, optional
        Refuse a longer one, before it fills the memory.
    before : function of a Trace, optional
        With ``last``: called with each piece of the rows before these, in their order.

    Raises
    ------
    InputError
        As :func:`gabactl.traces.read_trace`, or more steps than ``most_steps``.

    Examples
    --------
    >>> load_trace("nowhere.parquet")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: nowhere.parquet: cannot be read (No such file or directory): check the path
    >>> len(load_trace("fd001-gaba", last=100))
    100
    >>> load_trace("fd001-gaba", most_steps=100)
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: fd001-gaba: has more than 100 steps, too many to hold at once here: ...
    """
    if last is not None and last < 1:
        raise InputError(f"last = {last} is below 1: give the number of steps to keep")
    held: deque[Trace] = deque()
    rows = 0
    for piece in trace_pieces(path):
        held.append(piece)
        rows += len(piece)
        if last is not None:
            while rows - len(held[0]) >= last:
                gone = held.popleft()
                rows -= len(gone)
                if before is not None:
                    before(gone)
        if most_steps is not None and min(rows, last or rows) > most_steps:
            raise InputError(
                f"{short_name(path)}: has more than {most_steps:,} steps, too many to hold at once "
                f"here: take its end alone (--last {most_steps}), or "
                "ask what reads a run of any length: `gabactl report --saturation-only`, "
                "`gabactl check --replay-only`"
            )
    if not held:
        raise InputError(f"{short_name(path)}: the trace has no rows yet: nothing was recorded")
    whole = joined(held)
    if last is None or len(whole) <= last:
        return whole
    if before is not None:
        before(whole.rows(slice(None, -last)))
    return whole.rows(slice(-last, None))


def trace_pieces(path: str | Path) -> Iterator[Trace]:
    """As :func:`load_trace`, a piece at a time: for runs that do not fit into memory.

    Parameters
    ----------
    path : path or str
        A file, or one of :func:`bundled`.

    Yields
    ------
    Trace
        Consecutive rows; see :func:`gabactl.traces.iter_trace`.

    Raises
    ------
    InputError
        Neither a file nor a bundled run, or a file that cannot be read.

    Examples
    --------
    >>> sum(len(piece) for piece in trace_pieces("fd001-gaba")) == len(load_trace("fd001-gaba"))
    True
    """
    name = str(path)
    if os.path.exists(path) or "." in name or os.path.basename(name) != name:
        yield from iter_trace(path)
    elif name in bundled():
        yield load_bundled(name)
    else:
        raise InputError(
            f"{short_name(path)}: is neither a file nor one of {', '.join(bundled())}: check the path"
        )


def _files() -> list[Traversable]:
    folder = resources.files("gabactl.traces") / "bundled"
    if not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if file.name.endswith(".parquet")]
