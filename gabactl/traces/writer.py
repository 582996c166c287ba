"""Writing traces: an append-only Arrow stream that survives a kill, and Parquet at the end."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import Absent, InputError
from gabactl.base.lock import FileLock, same_file
from gabactl.traces.metadata import (
    METADATA_KEY,
    SCHEMA_VERSION,
    dump_metadata,
    parse_metadata,
)
from gabactl.traces.schema import GROUPS, column_names, short_name
from gabactl.traces.stream import END, Framer

__all__ = ["TraceWriter"]


def stream_path(path: str | Path) -> Path:
    """Where a run is recorded while it goes: ``run.arrows`` beside ``run.parquet``.

    Parameters
    ----------
    path : path
        The recording asked for, ``.parquet`` or ``.arrows``.

    Raises
    ------
    InputError
        The ending is neither ``.parquet`` nor ``.arrows``.

    Examples
    --------
    >>> stream_path("out/run.parquet").name
    'run.arrows'
    """
    file = Path(path)
    if file.suffix.lower() not in (".parquet", ".arrows"):
        raise InputError(
            f"{short_name(file)}: runs are recorded as .parquet, or .arrows to keep the stream: "
            "choose one of these endings"
        )
    return file.with_suffix(".arrows")


class _Written(NamedTuple):
    """What is on the disk for certain: bytes, rows, and the last row's step and wall time."""

    end: int
    rows: int
    last_step: int
    last_wall_time: float


class TraceWriter:
    """Append rows to a trace; one writer per file, nothing lost but what was not yet flushed.

    Parameters
    ----------
    path : path
        ``run.parquet``: recorded in ``run.arrows`` beside it, converted on a clean end.
        ``run.arrows``: the stream stays.
    tasks : sequence of str
        Task names.
    metadata : mapping, optional
        Documented keys (see the trace format), and any others that are plain JSON.
    groups : sequence of str
        Which of ``grad_norm``, ``raw``, ``ema``, ``weight``, ``loss`` are recorded.
    dtypes : mapping of str to {"float32", "float64"}
        Per group, default float64.
    excitation : bool
        Record a column ``excitation``.
    param_names : sequence of str, optional
        Record per-parameter norms of these parameters.
    overwrite : bool
        Replace an earlier recording instead of refusing.
    sync : bool
        Force every append to the disk (fsync), so that even a power cut loses only what came
        after it. A killed process loses nothing either way.

    Raises
    ------
    InputError
        The file is there already, another writer holds it, or the disk is full; one line.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.traces import read_trace
    >>> file = Path(tempfile.mkdtemp()) / "run.parquet"
    >>> with TraceWriter(file, ["rul", "health"], groups=["grad_norm"]) as writer:
    ...     writer.append({"step": [1, 2], "wall_time": [0.0, 0.1],
    ...                    "grad_norm_rul": [250.0, 300.0], "grad_norm_health": [0.5, 0.4]})
    >>> read_trace(file).grad_norms.tolist()
    [[250.0, 0.5], [300.0, 0.4]]
    """

    _written: _Written
    _file: io.FileIO | None
    _schema: Any
    _framer: Framer

    def __init__(
        self,
        path: str | Path,
        tasks: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
        *,
        groups: Sequence[str] = tuple(GROUPS),
        dtypes: Mapping[str, str] | None = None,
        excitation: bool = False,
        param_names: Sequence[str] | None = None,
        overwrite: bool = False,
        sync: bool = True,
    ) -> None:
        header = {"schema_version": SCHEMA_VERSION, **(metadata or {}), "tasks": list(tasks)}
        header.pop("complete", None)
        if param_names is not None:
            header["param_names"] = list(param_names)
        names = column_names(
            tasks, groups, excitation=excitation, param_norms=param_names is not None
        )
        schema = _arrow_schema(names, header, dtypes or {}, short_name(path))
        self._prepare(path, sync)
        try:
            if self._stream.is_symlink():
                raise InputError(
                    f"{short_name(self._stream)}: is a link, and nothing is written through links: "
                    "delete it, or record under the name it leads to"
                )
            if not overwrite:
                _refuse_existing(self._stream, self._target)
            with _io_errors(self._stream, "is not started"):
                # Made, or found to be nobody's, before what is in it goes.
                self._open(os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0))
            self._start(schema)
            self._put(self._framer.header)
        except BaseException:
            self._abandon()
            raise

    @classmethod
    def resume(
        cls, path: str | Path, after_step: int | None = None, *, sync: bool = True
    ) -> TraceWriter:
        """Continue an earlier recording, after a kill or a clean end.

        Parameters
        ----------
        path : path
            As it was given to the first writer.
        after_step : int, optional
            Drop the rows after this step first (a checkpoint is often older than the last
            recorded step). Done in a temporary file that then replaces the old one.
        sync : bool
            As for the class.

        Raises
        ------
        InputError
            There is nothing to resume, the file is damaged, or another writer holds it.

        Examples
        --------
        >>> TraceWriter.resume("nowhere.arrows")
        Traceback (most recent call last):
            ...
        gabactl.base.errors.Absent: nowhere.arrows: there is no recording to resume: start a new one
        """
        self = cls.__new__(cls)
        self._prepare(path, sync)
        try:
            self._reopen(after_step)
        except BaseException:
            self._abandon()
            raise
        return self

    # -- what was recorded -------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The stream that is being appended to."""
        return self._stream

    @property
    def last_step(self) -> int:
        """The last recorded step, 0 when there is none."""
        return self._written.last_step

    @property
    def rows(self) -> int:
        """Rows recorded so far, earlier sessions included."""
        return self._written.rows

    @property
    def last_wall_time(self) -> float:
        """The last recorded wall time in seconds, 0.0 when there is none."""
        return self._written.last_wall_time

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata as it stands in the file."""
        return parse_metadata(self._schema.metadata[METADATA_KEY], short_name(self._stream))

    @property
    def columns(self) -> dict[str, str]:
        """Column name to its type, as Arrow names it."""
        return {field.name: str(field.type) for field in self._schema}

    # -- writing -----------------------------------------------------------------------------

    def append(
        self, columns: Mapping[str, ArrayLike], valid: Mapping[str, ArrayLike] | None = None
    ) -> None:
        """Append rows, and see them on the disk before returning.

        Parameters
        ----------
        columns : mapping of str to array, shape (rows,)
            One entry per column, (rows, P) for ``param_norms_``. A column that is absent is null.
        valid : mapping of str to array of bool, shape (rows,), optional
            False where a column is null; default everywhere valid.

        Raises
        ------
        InputError
            An unknown column, steps that do not increase, a full disk. Nothing recorded before
            is lost; after a full disk the same rows can be appended again.
        """
        import pyarrow as pa

        source = short_name(self._stream)
        if self._file is None:
            raise InputError(f"{source}: the writer is closed: resume the recording first")
        unknown = [name for name in columns if name not in self._schema.names]
        if unknown:
            raise InputError(f"{source}: unknown column {unknown[0]!r}: it was not announced")
        steps = np.asarray(columns.get("step", ()), dtype=np.int64)
        if len(steps) == 0:
            return
        last_step = self._written.last_step
        if steps[0] <= last_step or (np.diff(steps) <= 0).any():
            raise InputError(
                f"{source}: steps {steps[0]}..{steps[-1]} do not continue after step "
                f"{last_step}: resume with after_step={max(int(steps[0]) - 1, 0)} to "
                "replace what was recorded, or record elsewhere"
            )
        arrays = []
        for field in self._schema:
            mask = None if valid is None or field.name not in valid else valid[field.name]
            arrays.append(_array(field, columns.get(field.name), mask, len(steps), source))
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        wall = np.asarray(columns.get("wall_time", ()), dtype=np.float64)
        known = len(wall) and np.isfinite(wall[-1])
        self._put(
            self._framer.frame(batch),
            rows=self._written.rows + len(steps),
            last_step=int(steps[-1]),
            last_wall_time=float(wall[-1]) if known else self._written.last_wall_time,
        )

    def close(self, finish: bool = True) -> Path:
        """End the recording cleanly, and return the file that holds it.

        Parameters
        ----------
        finish : bool
            Write the Parquet file that was asked for and remove the stream. False leaves the
            stream without its end marker: readable, resumable, and reported as truncated.
        """
        if self._file is None:
            self._lock.release()  # Ctrl-C may have come just before it
            return self._target if self._target.exists() else self._stream
        try:
            if os.getpid() != self._process:  # a fork: the recording is the parent's to end
                return self._stream
            if finish:
                self._put(END)
            self._close_file()
            if finish and self._target != self._stream:
                from gabactl.traces.rewrite import write_parquet_from_stream

                write_parquet_from_stream(self._stream, self._target)
                with contextlib.suppress(OSError):
                    self._stream.unlink()
                return self._target
        finally:
            self._abandon()
        return self._stream

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(finish=error is None)

    # -- inside ------------------------------------------------------------------------------

    def _prepare(self, path: str | Path, sync: bool) -> None:
        self._target = Path(path)
        self._stream = stream_path(path)
        self._sync = sync
        self._process = os.getpid()
        self._written = _Written(0, 0, 0, 0.0)
        self._file = None
        self._lock = FileLock(self._stream)
        self._lock.acquire()

    def _open(self, flags: int) -> io.FileIO:
        descriptor = os.open(self._stream, flags | getattr(os, "O_BINARY", 0), 0o666)
        self._file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115
        self._lock.cover(descriptor)
        return self._file

    def _start(self, schema: Any) -> None:
        self._schema = schema
        self._framer = Framer(schema)

    def _reopen(self, after_step: int | None) -> None:
        import pyarrow as pa

        from gabactl.traces.reader import open_stream
        from gabactl.traces.rewrite import rewrite_stream

        source = short_name(self._stream)
        if not self._stream.exists():
            if not self._target.exists():
                raise Absent(f"{source}: there is no recording to resume: start a new one")
            # Finished already: go on in a stream again.
            rewrite_stream(self._target, self._stream, after_step)
        elif after_step is not None:
            rewrite_stream(self._stream, self._stream, after_step)
        with open_stream(self._stream) as stream:
            schema = stream.schema
            # One made here has the byte order of this machine, in which the rest would be written.
            if not pa.schema(list(schema)).equals(schema):
                raise InputError(
                    f"{source}: is in another byte order than this machine writes: finish it, and "
                    "record elsewhere"
                )
            rows, last_step, wall_time = 0, 0, 0.0
            for batch in stream.batches():
                rows += batch.num_rows
                if batch.num_rows:
                    last_step = batch.column("step")[-1].as_py()
                    if last_step is None:
                        raise InputError(
                            f"{source}: row {rows} has no step: give every row its step"
                        )
                    if "wall_time" in schema.names:  # others may write streams without it
                        wall_time = float(batch.column("wall_time")[-1].as_py() or 0.0)
            end = stream.reader.good_end
        with _io_errors(self._stream, "cannot be resumed"):
            self._open(os.O_RDWR).truncate(end)
        self._written = _Written(end, rows, last_step, wall_time)
        self._start(schema)

    def _put(self, data: bytes, **now: Any) -> None:
        """Write behind what is known to be written; ``now`` is what is recorded afterwards.

        Whatever ends this in the middle (Ctrl-C between two lines of it, say), the next write
        begins where this one began: rows that are given again are not written twice.
        """
        assert self._file is not None
        if os.getpid() != self._process:
            raise InputError(
                f"{short_name(self._stream)}: this is a fork of the process that records: record "
                "there, or elsewhere"
            )
        if not same_file(self._file.fileno(), self._stream):
            # Deleted or replaced: what is appended now, nobody would ever find.
            raise InputError(
                f"{short_name(self._stream)}: the recording is gone (moved, deleted or replaced): "
                "put it back, or record elsewhere"
            )
        start = self._written.end
        try:
            self._file.truncate(start)
            self._file.seek(start)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(start)  # a partial message would be dropped on reading anyway
            raise InputError(
                f"{short_name(self._stream)}: cannot append ({error.strerror or error}): "
                f"everything up to step {self._written.last_step} is safe; free some space and resume"
            ) from None
        # One assignment: either all of it has happened, or nothing.
        self._written = self._written._replace(end=start + len(data), **now)

    def _close_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self._lock.uncover()
            file.close()

    def _abandon(self) -> None:
        self._close_file()
        self._lock.release()


@contextlib.contextmanager
def _io_errors(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{short_name(path)}: {what} ({error.strerror or error}): check the folder, the "
            "rights and the space"
        ) from None


def _nothing_recorded(stream: Path) -> bool:
    """Whether the recorder was killed before the header was whole."""
    from gabactl.traces.reader import open_stream

    try:
        with open_stream(stream):
            return False
    except Absent:
        return True
    except InputError:
        return False


def _refuse_existing(stream: Path, target: Path) -> None:
    for file in (stream, target):
        if file.exists() and not (file == stream and _nothing_recorded(stream)):
            raise InputError(
                f"{short_name(file)}: there is a recording already: resume it, choose another "
                "name, or delete it"
            )


def _arrow_schema(
    names: Sequence[str], header: Mapping[str, Any], dtypes: Mapping[str, str], source: str
) -> Any:
    import pyarrow as pa

    unknown = [group for group in dtypes if group not in (*GROUPS, "param_norms")]
    if unknown:
        raise InputError(f"{source}: unknown group {unknown[0]!r}: choose from {', '.join(GROUPS)}")
    kinds = {"float32": pa.float32(), "float64": pa.float64()}
    groups = {
        f"{group}_{task}": kinds[dtypes.get(group, "float64")]
        for group in (*GROUPS, "param_norms")
        for task in header["tasks"]
    }
    fields = []
    for name in names:
        if name == "step":
            fields.append(pa.field(name, pa.int64(), nullable=False))
        elif name in ("wall_time", "excitation"):
            fields.append(pa.field(name, pa.float64()))
        elif name.startswith("param_norms_"):
            fields.append(pa.field(name, pa.list_(groups[name], len(header["param_names"]))))
        else:
            fields.append(pa.field(name, groups[name]))
    return pa.schema(fields, metadata={METADATA_KEY: dump_metadata(header, source)})


def _array(
    field: Any, values: ArrayLike | None, valid: ArrayLike | None, rows: int, source: str
) -> Any:
    import pyarrow as pa

    if values is None:
        return pa.nulls(rows, field.type)
    fixed = pa.types.is_fixed_size_list(field.type)
    inner = field.type.value_type if fixed else field.type
    array: NDArray[Any] = np.ascontiguousarray(values, dtype=inner.to_pandas_dtype())
    shape = (rows, field.type.list_size) if fixed else (rows,)
    if array.shape != shape:
        raise InputError(f"{source}: column {field.name} has shape {array.shape}: give {shape}")
    mask = None if valid is None else ~np.asarray(valid, dtype=bool)
    if mask is not None and mask.shape != (rows,):
        raise InputError(
            f"{source}: the mask of {field.name} has shape {mask.shape}: give ({rows},)"
        )
    # from_pandas=False keeps NaN a value, distinct from null.
    if not fixed:
        return pa.array(array, type=inner, mask=mask, from_pandas=False)
    flat = pa.array(array.reshape(-1), type=inner, from_pandas=False)
    return pa.FixedSizeListArray.from_arrays(
        flat, type=field.type, mask=None if mask is None else pa.array(mask)
    )
