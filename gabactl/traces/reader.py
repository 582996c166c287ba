"""Reading traces, whoever wrote them.

Ours are Parquet and the Arrow stream of a running or killed run; others' are CSV, TensorBoard
event files and histories exported from Weights & Biases.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import Absent, InputError
from gabactl.traces.csv import CsvSource, CsvTable
from gabactl.traces.metadata import MAX_HEADER_BYTES, METADATA_KEY, parse_metadata
from gabactl.traces.pages import check_pages
from gabactl.traces.schema import (
    MAX_CELLS,
    Columns,
    Precision,
    Trace,
    column_names,
    joined,
    short_name,
    trace_from_columns,
)
from gabactl.traces.stream import CONTINUATION, StreamReader
from gabactl.traces.tensorboard import is_event_file, read_events
from gabactl.traces.wandb import (
    OWN_LOG,
    is_export,
    own_log_refused,
    read_json,
    read_parquet,
    read_table,
)

__all__ = ["iter_trace", "read_trace"]

#: Columns of some rows, and the per-parameter norms by task.
Chunk = tuple[Columns, dict[str, NDArray[np.float64]]]

_ROWS = 1 << 16
_PARQUET = b"PAR1"


class Source(Protocol):
    """An open trace file, whatever its format."""

    format: str
    metadata: dict[str, Any]
    precision: Precision
    truncated: bool

    def chunks(self) -> Iterator[Chunk]:
        """Columns of some rows at a time, and the per-parameter norms by task."""
        ...

    def close(self) -> None:
        """Let go of what the format's parser holds."""
        ...


def read_trace(
    path: str | Path, *, salvage: bool = False, columns: Mapping[str, str] | None = None
) -> Trace:
    """Read a trace.

    Parameters
    ----------
    path : path
        ``.parquet``, ``.arrows`` (running and killed runs too), CSV, a TensorBoard event file or
        its folder, or a history exported from Weights & Biases (CSV, JSON, JSON lines, Parquet);
        told apart by content.
    salvage : bool
        From a stream with a damaged batch in the middle, return what precedes it.
    columns : mapping of str to str, optional
        For the logs of others: column of the trace schema (``grad_norm_rul``) to the name it was
        logged under. Default: found by their names, as ``grad_norm/rul`` is.

    Returns
    -------
    Trace
        Arrays in float64. ``truncated`` is set where the recording was not closed.

    Raises
    ------
    InputError
        The file is missing, damaged, of an unknown version, or not a trace: one line that names
        the file, the problem and the remedy.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.csv"
    >>> _ = file.write_text("grad_norm_a,grad_norm_b\\n250,0.5\\n300,0.4\\n")
    >>> read_trace(file).grad_norms.tolist()
    [[250.0, 0.5], [300.0, 0.4]]
    """
    parts: list[Trace] = []
    cells = 0
    for part in iter_trace(path, salvage=salvage, columns=columns):
        parts.append(part)
        arrays = (*vars(part).values(), *(part.param_norms or {}).values())
        cells += sum(array.size for array in arrays if isinstance(array, np.ndarray))
        if cells > MAX_CELLS:
            raise InputError(
                f"{short_name(path)}: more than {MAX_CELLS} numbers, too many to hold at "
                "once: read it in pieces with iter_trace"
            )
    if not parts:
        raise InputError(f"{short_name(path)}: the trace has no rows yet: nothing was recorded")
    return joined(parts)


def iter_trace(
    path: str | Path, *, salvage: bool = False, columns: Mapping[str, str] | None = None
) -> Iterator[Trace]:
    """Read a trace a piece at a time, for runs that do not fit into memory.

    Parameters
    ----------
    path : path
        As for :func:`read_trace`.
    salvage, columns
        As for :func:`read_trace`.

    Yields
    ------
    Trace
        Consecutive rows, some 65,536 of them. ``truncated`` is
        known, and right, with the last piece only.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.csv"
    >>> _ = file.write_text("grad_norm_a,grad_norm_b\\n250,0.5\\n300,0.4\\n")
    >>> [len(piece) for piece in iter_trace(file)]
    [2]
    """
    last = rows = 0
    with open_source(path, salvage=salvage, columns=columns) as source:
        pending: Trace | None = None
        for piece, norms in source.chunks():
            if not len(piece["step"][0]):
                continue
            if pending is not None:
                yield pending
            pending = trace_from_columns(
                piece,
                source.metadata,
                source=short_name(path),
                precision=source.precision,
                param_norms=norms or None,
                after_step=last,
                rows_before=rows,
            )
            last, rows = int(pending.step[-1]), rows + len(pending)
        if pending is not None:
            yield pending.replace(truncated=source.truncated)


@contextlib.contextmanager
def open_source(
    path: str | Path, *, salvage: bool = False, columns: Mapping[str, str] | None = None
) -> Iterator[Source]:
    """Open a trace of any format; what pyarrow raises on the way becomes one line.

    Parameters
    ----------
    path : path
        As for :func:`read_trace`.
    salvage : bool
        As for :func:`read_trace`.
    columns : mapping of str to str, optional
        As for :func:`read_trace`.

    Yields
    ------
    Source
        Closed at the end of the ``with`` block.

    Raises
    ------
    InputError
        The file cannot be read, is empty, damaged, or no trace.

    Examples
    --------
    >>> with open_source("nowhere.parquet") as source:
    ...     pass
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: nowhere.parquet: cannot be read (No such file or directory): check the path
    """
    source = short_name(path)
    if os.path.isdir(path):
        with one_line(source):
            yield read_events(path, columns)
        return
    with _open(path) as file, one_line(source):
        size = os.fstat(file.fileno()).st_size
        start = file.read(64)
        if size == 0:
            raise Absent(f"{source}: the file is empty: nothing was recorded")
        with contextlib.closing(_opened(path, file, size, start, salvage, columns)) as opened:
            yield opened


def _opened(
    path: str | Path,
    file: BinaryIO,
    size: int,
    start: bytes,
    salvage: bool,
    columns: Mapping[str, str] | None,
) -> Source:
    """The reader for what the file begins with."""
    source = short_name(path)
    if start.startswith(_PARQUET):
        parquet = _open_parquet(file, size, source)
        known = METADATA_KEY in (parquet.schema_arrow.metadata or {})
        if known or not is_export(parquet.schema_arrow.names, columns):
            return ParquetSource(parquet, source)
        _check_sizes(parquet.metadata, parquet.schema_arrow, source)
        return read_parquet(parquet, source, columns)
    if CONTINUATION.startswith(start[:4]):
        return StreamSource(file, size, source, salvage)
    if start.startswith(b"ARROW1"):
        raise InputError(
            f"{source}: an Arrow file (Feather), which traces are not: rewrite it as CSV"
        )
    if is_event_file(start):
        return read_events(path, columns)
    if start.startswith(OWN_LOG):
        raise own_log_refused(source, Path(path).name)
    suffix = Path(path).suffix.lower()
    wide = start[:2] in (b"\xff\xfe", b"\xfe\xff")  # UTF-16, which the CSV reader names
    if suffix in (".parquet", ".arrows") or (b"\0" in start[:8] and not wide):
        raise InputError(
            f"{source}: neither Parquet, an Arrow stream, an event file nor text: the file is "
            "damaged, or no trace"
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return read_json(file, size, source, columns)
    table = CsvTable(file, source)
    return read_table(table, columns) if is_export(table.names, columns) else CsvSource(table)


@contextlib.contextmanager
def open_stream(path: str | Path, *, salvage: bool = False) -> Iterator[StreamSource]:
    """Open an Arrow stream alone, for those who append to it.

    Parameters
    ----------
    path : path
        The file.
    salvage : bool
        As for :func:`read_trace`.

    Yields
    ------
    StreamSource
        Closed at the end of the ``with`` block.

    Raises
    ------
    InputError
        The file cannot be read, or is no stream of a trace.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.traces import TraceWriter
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "run.arrows"
    ...     with TraceWriter(file, ["a", "b"], groups=["grad_norm"]) as writer:
    ...         writer.append({"step": [1], "grad_norm_a": [5.0], "grad_norm_b": [2.0]})
    ...     with open_stream(file) as source:
    ...         [batch.num_rows for batch in source.batches()]
    [1]
    """
    source = short_name(path)
    with _open(path) as file, one_line(source):
        size = os.fstat(file.fileno()).st_size
        yield StreamSource(file, size, source, salvage)


class StreamSource:
    """The Arrow stream: whole batches only, whatever the end of the file looks like."""

    format = "arrow stream"

    def __init__(self, file: BinaryIO, size: int, source: str, salvage: bool) -> None:
        self.reader = StreamReader(file, size, source, salvage)
        self.schema = self.reader.schema
        self.metadata = parse_metadata((self.schema.metadata or {}).get(METADATA_KEY), source)
        self.precision = check_schema(self.schema, self.metadata, source)
        self.truncated = True

    def batches(self) -> Iterator[Any]:
        """Whole record batches."""
        yield from self.reader
        self.truncated = not self.reader.closed

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`Source`."""
        return _chunks(self.batches(), self.schema, self.metadata)

    def close(self) -> None:
        """See :class:`Source`."""


class ParquetSource:
    """A Parquet trace; declared sizes are held against the file and the caps first."""

    format = "parquet"

    def __init__(self, parquet: Any, source: str) -> None:
        import pyarrow as pa

        self.source = source
        self._file = parquet
        self.schema = self._file.schema_arrow
        self.metadata = parse_metadata((self.schema.metadata or {}).get(METADATA_KEY), source)
        self.precision = check_schema(self.schema, self.metadata, source)
        known = column_names(self.metadata["tasks"], excitation=True, param_norms=True)
        self.schema = pa.schema(
            [field for field in self.schema if field.name in known], self.schema.metadata
        )
        self.truncated = self.metadata.get("complete") is False
        _check_sizes(self._file.metadata, self.schema, source)

    def batches(self) -> Iterator[Any]:
        """Record batches of the columns that the schema documents."""
        rows = 0
        names = self.schema.names
        for batch in self._file.iter_batches(_ROWS, columns=names, use_threads=False):
            batch = batch.select(names)
            batch.validate(full=True)
            rows += batch.num_rows
            yield batch
        if rows != self._file.metadata.num_rows:
            raise InputError(
                f"{self.source}: holds {rows} rows of {self._file.metadata.num_rows}: damaged"
            )

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`Source`."""
        return _chunks(self.batches(), self.schema, self.metadata)

    def close(self) -> None:
        """See :class:`Source`."""
        self._file.close()


def _open_parquet(file: BinaryIO, size: int, source: str) -> Any:
    """The file under pyarrow's reader, once its end has been looked at."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.seek(max(0, size - 8))
    tail = file.read(8)
    if size < 12 or tail[4:] != _PARQUET:
        raise InputError(
            f"{source}: the Parquet file stops before its end: copy it again, or finish its "
            ".arrows stream if that is still there"
        )
    footer = int.from_bytes(tail[:4], "little")
    if footer > min(size - 12, MAX_HEADER_BYTES):
        raise InputError(
            f"{source}: the Parquet footer declares {footer} bytes (the file has {size}, a "
            f"trace at most {MAX_HEADER_BYTES}): the file is damaged"
        )
    check_pages(file, size, footer, source)
    file.seek(0)
    return pq.ParquetFile(
        pa.PythonFile(file, mode="r"),
        thrift_string_size_limit=MAX_HEADER_BYTES,
        thrift_container_size_limit=1 << 20,
        page_checksum_verification=True,
        pre_buffer=False,  # else iterating keeps every row group it has read
    )


def _check_sizes(footer: Any, schema: Any, source: str) -> None:
    """Hold what a Parquet file declares to hold against what a trace may."""
    # Of the groups as a whole: asking pyarrow 26 for one column's metadata ends the process
    # when its level histogram is damaged (an exception nobody catches).
    cells = footer.num_rows * sum(getattr(kind, "list_size", 1) for kind in schema.types)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    if min([cells, size, *(group.num_rows for group in groups)]) < 0:
        raise InputError(f"{source}: declares a negative size: the file is damaged")
    # Flat numbers need 8 bytes each at most; the headers of the pages come on top.
    if cells > MAX_CELLS or size > 16 * MAX_CELLS:
        raise InputError(
            f"{source}: declares {cells} numbers in {size} bytes, more than the "
            f"{MAX_CELLS} a trace may hold: damaged, or to be split"
        )


def check_schema(schema: Any, metadata: dict[str, Any], source: str) -> Precision:
    """Hold the Arrow columns against the trace schema, and say what the averages are kept in.

    Raises
    ------
    InputError
        A column twice, of a wrong type or with a name that is no text, or no ``step``.
    """
    import pyarrow as pa

    try:
        names = schema.names
    except UnicodeDecodeError:  # Arrow does not check them when it reads the schema.
        raise InputError(f"{source}: a column's name is not UTF-8: the file is damaged") from None
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source}: column {twice!r} is there twice: the file is damaged")
    if "step" not in names:
        raise InputError(f"{source}: no column step: the file is damaged, or no trace")
    tasks = metadata["tasks"]
    known = set(column_names(tasks, excitation=True, param_norms=True))
    for name, kind in zip(names, schema.types, strict=True):
        if name == "step":
            good = kind == pa.int64()
        elif name.startswith("param_norms_") and name in known:
            good = (
                pa.types.is_fixed_size_list(kind)
                and kind.value_type in (pa.float32(), pa.float64())
                and kind.list_size == len(metadata.get("param_names") or [])
            )
        elif name in known:
            good = kind in (pa.float32(), pa.float64())
        else:
            # Not ours to read, but an Arrow batch is decoded whole: plain numbers only.
            good = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if not good:
            raise InputError(
                f"{source}: column {name[:80]!r} is of type {str(kind)[:80]}, which the trace "
                "schema does not allow: the file is damaged, or no trace"
            )
    for group in ("ema", "raw", "weight", "grad_norm"):
        kinds = {schema.field(n).type for n in names if n in [f"{group}_{task}" for task in tasks]}
        if kinds:
            return "float32" if pa.float32() in kinds else "float64"
    return "unknown"


def _chunks(batches: Iterator[Any], schema: Any, metadata: dict[str, Any]) -> Iterator[Chunk]:
    """Batches joined to pieces of a size that NumPy likes; an empty piece where there are none."""
    import pyarrow as pa

    pending: list[Any] = []
    first, rows = True, 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        if rows >= _ROWS:
            yield _from_batch(pa.Table.from_batches(pending, schema), metadata)
            pending, first, rows = [], False, 0
    if pending or first:
        yield _from_batch(pa.Table.from_batches(pending, schema), metadata)


def _from_batch(table: Any, metadata: dict[str, Any]) -> Chunk:
    columns: Columns = {}
    params: dict[str, NDArray[np.float64]] = {}
    tasks = metadata["tasks"]
    known = set(column_names(tasks, excitation=True))
    for name in table.schema.names:
        column = table.column(name)
        if name in known:
            valid = _valid(column)
            values = column.to_numpy()
            if name == "step":
                # With a null in it, Arrow hands out floats; the mask says which row to blame.
                columns[name] = (np.where(valid, values, 0).astype(np.int64), valid)
            else:
                with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
                    columns[name] = (values.astype(np.float64), valid)
        elif name.startswith("param_norms_") and name.removeprefix("param_norms_") in tasks:
            valid = _valid(column)
            norms = np.full((len(column), column.type.list_size), np.nan)
            norms[valid] = (
                column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False)
            ).reshape(-1, column.type.list_size)
            params[name.removeprefix("param_norms_")] = norms
    return columns, params


def _valid(column: Any) -> NDArray[np.bool_]:
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    return np.asarray(column.is_valid().to_numpy(), dtype=bool)


def _open(path: str | Path) -> BinaryIO:
    # Without blocking, or a named pipe would wait for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = open(os.open(path, flags), "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{short_name(path)}: cannot be read ({reason}): check the path") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{short_name(path)}: not a regular file: give the trace itself")
    return file


@contextlib.contextmanager
def one_line(source: str) -> Iterator[None]:
    """Whatever the parsers raise on damaged bytes, as one line.

    Parameters
    ----------
    source : str
        The file, for the message.

    Raises
    ------
    InputError
        A parser failed in the ``with`` block.

    Examples
    --------
    >>> with one_line("run.arrows"):
    ...     raise UnicodeError("no text")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: run.arrows: the file is damaged (no text): copy or record it again
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not _is_parser_error(error):
            raise
        said = " ".join(str(error).split())[:200]
        if isinstance(error, MemoryError):
            raise InputError(
                f"{source}: no memory for what it declares to hold{said and f' ({said})'}: free some, read it in "
                "pieces, or, if it should be small, copy it again: it is damaged"
            ) from None
        raise InputError(
            f"{source}: the file is damaged ({said}): copy or record it again"
        ) from None


def _is_parser_error(error: Exception) -> bool:
    import pyarrow as pa

    return isinstance(error, (pa.ArrowException, OSError, UnicodeError, MemoryError))
