"""The recorded traces that come with the package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from gabactl.errors import InputError
from gabactl.traces.reader import iter_trace, read_trace
from gabactl.traces.schema import Trace

__all__ = ["bundled", "load_bundled", "load_trace", "trace_pieces"]


def bundled() -> tuple[str, ...]:
    """Names of the bundled traces, sorted.

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
    gabactl.errors.InputError: bundled trace 'nothing' is unknown: choose one of ...
    """
    for file in _files():
        if file.name == f"{name}.parquet":
            with resources.as_file(file) as path:
                return read_trace(path).replace(source=name)
    known = ", ".join(bundled()) or "none (this copy was built without them)"
    raise InputError(f"bundled trace {name!r} is unknown: choose one of {known}")


def load_trace(path: str | Path) -> Trace:
    """Read a trace file, or a bundled trace by its name where no such file exists.

    Parameters
    ----------
    path : path or str
        A file, or one of :func:`bundled`.

    Examples
    --------
    >>> load_trace("nowhere.parquet")
    Traceback (most recent call last):
        ...
    gabactl.errors.InputError: nowhere.parquet: cannot be read (No such file or directory): check the path
    """
    name = str(path)
    if name in bundled() and not Path(path).exists():
        return load_bundled(name)
    return read_trace(path)


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

    Examples
    --------
    >>> sum(len(piece) for piece in trace_pieces("fd001-gaba")) == len(load_trace("fd001-gaba"))
    True
    """
    name = str(path)
    if name in bundled() and not Path(path).exists():
        yield load_bundled(name)
    else:
        yield from iter_trace(path)


def _files() -> list[Traversable]:
    folder = resources.files("gabactl.traces") / "bundled"
    if not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if file.name.endswith(".parquet")]
