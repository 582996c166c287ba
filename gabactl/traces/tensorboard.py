"""TensorBoard event files as traces: a file, or the folder of one run.

Read through the event loader of the ``tensorboard`` package. Its format: length, checksum, event,
checksum, over and over (TFRecord); lengths are held against the file before the loader sees it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gabactl.base.errors import InputError, packages_for
from gabactl.traces.foreign import ForeignSource, Series, columns_from_series, match_columns
from gabactl.traces.schema import MAX_CELLS, short_name
from gabactl.traces.wandb import own_log_refused

#: What every writer puts into the first record of an event file.
_MARK = b"brain.Event:"
_MAX_BYTES = 4 << 30
_MAX_FILES = 1000

#: Step, value, time.
_Point = tuple[int, float, float]


def is_event_file(start: bytes) -> bool:
    """Whether a file is an event file.

    Parameters
    ----------
    start : bytes
        Its first 64 bytes, or more.

    Examples
    --------
    >>> is_event_file(b"step,grad_norm_a")
    False
    """
    return _MARK in start[12:64]


def read_events(path: str | Path, given: Mapping[str, str] | None = None) -> ForeignSource:
    """Read the scalars of one run.

    Parameters
    ----------
    path : path
        An event file, or a run's folder: all its event files in the order of their names (which
        begin with the time), and the folders that ``add_scalars`` makes below it.
    given : mapping of str to str, optional
        As for :func:`gabactl.traces.foreign.match_columns`.

    Returns
    -------
    ForeignSource
        ``truncated`` where the last record of a file is incomplete: a run still going, or killed.

    Raises
    ------
    InputError
        No event file, those of several runs, a damaged one, no gradient norms among the scalars,
        or no ``tensorboard`` package.

    Examples
    --------
    >>> import tempfile
    >>> read_events(tempfile.mkdtemp())
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: ...: no event file (events.out.tfevents.*) in this folder: ...
    """
    root = Path(path)
    source = short_name(path)
    files = _event_files(root, source) if root.is_dir() else [(root, "")]
    found: dict[str, list[_Point]] = {}
    truncated = False
    for file, folder in files:
        truncated |= _read_file(file, folder, found, source)
    matched = match_columns(list(found), source, given)
    series = {column: _series(found[name], 1) for column, name in matched.items()}
    step, time = _series(max((found[name] for name in matched.values()), key=len), 2)
    with np.errstate(invalid="ignore"):  # a time of infinity is kept as no time
        since = time - time.min()
    columns = columns_from_series(series, source, (step, since))
    return ForeignSource("tensorboard", columns, matched, source, "float32", truncated)


def _series(points: list[_Point], field: int) -> Series:
    table = np.array([point[field] for point in points], dtype=np.float64)
    return np.array([point[0] for point in points], dtype=np.int64), table


def _event_files(root: Path, source: str) -> list[tuple[Path, str]]:
    """The event files of the one run in a folder, and the name of the folder each lies in."""
    below = sorted(root.rglob("*tfevents*"))[: _MAX_FILES + 1]
    files = [f for f in below if f.is_file() and "profile-empty" not in f.name]
    if not files:
        own = sorted(root.glob("*.wandb"))
        if own:
            raise own_log_refused(source, own[0].name)
        raise InputError(
            f"{source}: no event file (events.out.tfevents.*) in this folder: give the log_dir of "
            "the SummaryWriter"
        )
    if len(files) > _MAX_FILES:
        raise InputError(f"{source}: more than {_MAX_FILES} event files: give one run's folder")
    folders = list(dict.fromkeys(f.parent for f in files))
    if root in folders:
        # Folders right below are those of add_scalars; anything else there is another run.
        return [(f, "" if f.parent == root else f.parent.name) for f in files if _near(f, root)]
    if len(folders) == 1:
        return [(f, "") for f in files]
    names = ", ".join(str(f.relative_to(root)) for f in folders[:6])
    raise InputError(f"{source}: holds several runs ({names}): give the folder of one")


def _near(file: Path, root: Path) -> bool:
    return file.parent == root or file.parent.parent == root


def _read_file(
    file: Path,
    folder: str,
    found: dict[str, list[_Point]],
    source: str,
) -> bool:
    """Add a file's scalars to those found; returns whether it ends inside a record."""
    with packages_for(f"{source}: reading event files"):
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    records, whole = _count_records(file, source)
    seen = total = 0
    try:
        for event in LegacyEventFileLoader(str(file)).Load():
            seen += 1
            for value in event.summary.value:
                number = _scalar(value)
                if number is None:
                    continue
                name = _name(value.tag, folder)
                if name is None:
                    continue
                found.setdefault(name, []).append((event.step, number, event.wall_time))
                total += 1
                if 4 * total > MAX_CELLS:
                    raise InputError(f"{source}: too many scalars to hold at once: split the log")
    except InputError:
        raise
    except Exception as error:
        # Of the protocol buffer library, which has several, and of TensorFlow where it is there.
        said = " ".join(str(error).split())[:120]
        raise InputError(f"{source}: {file.name} is damaged ({said}): copy it again") from None
    if seen < records:
        raise InputError(
            f"{source}: {file.name} is damaged after {seen} of {records} records: copy it again"
        )
    return not whole


def _count_records(file: Path, source: str) -> tuple[int, bool]:
    """How many whole records a file has, and whether it ends with the last of them."""
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise InputError(
            f"{source}: {file.name} has {size} bytes, more than the {_MAX_BYTES} that are read: "
            "log the scalars to a file of their own"
        )
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    records = at = 0
    with open(file, "rb") as stream:
        while at < size:
            header = stream.read(12)
            length = int.from_bytes(header[:8], "little")
            if len(header) < 12:
                return records, False
            if at + 16 + length > size:
                if masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
                    raise InputError(
                        f"{source}: {file.name} is damaged at byte {at}: copy it again"
                    )
                return records, False
            at += 16 + length
            records += 1
            stream.seek(at, os.SEEK_SET)
    return records, True


def _scalar(value: Any) -> float | None:
    """The number in a summary value, whichever writer made it; None where it is no number."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or any(d.size != 1 for d in value.tensor.tensor_shape.dim):
        return None
    plugin = value.metadata.plugin_data.plugin_name
    if plugin not in ("", "scalars"):
        return None
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(value.tensor)
    return float(array.reshape(())) if array.dtype.kind in "fiu" and array.size == 1 else None


def _name(tag: str, folder: str) -> str | None:
    """The tag, or, in a folder of ``add_scalars``, the tag and the key it was given."""
    if not folder:
        return tag
    start = tag.replace("/", "_") + "_"
    return f"{tag}/{folder.removeprefix(start)}" if folder.startswith(start) else None
