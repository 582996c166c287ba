"""From one form of a trace to another, atomically: the old file stays until the new one is whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.files import whole_file
from gabactl.base.lock import FileLock
from gabactl.traces.metadata import METADATA_KEY, dump_metadata
from gabactl.traces.reader import open_source, open_stream, read_trace
from gabactl.traces.schema import GROUPS, SINGLE, Trace, short_name
from gabactl.traces.stream import Framer

__all__ = ["convert", "finish"]

_ROW_GROUP = 1 << 16


def finish(
    path: str | Path, output: str | Path | None = None, *, salvage: bool = False
) -> tuple[Path, int]:
    """Turn the stream of a killed (or finished) run into Parquet; the stream stays.

    Parameters
    ----------
    path : path
        The ``.arrows`` stream.
    output : path, optional
        Default: the same name with ``.parquet``.
    salvage : bool
        Keep what precedes a damaged batch.

    Returns
    -------
    path : Path
        The file written.
    rows : int
        Steps in it.

    Raises
    ------
    InputError
        The stream is damaged, is being written right now, or there is no space.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.traces import TraceWriter, read_trace
    >>> file = Path(tempfile.mkdtemp()) / "run.arrows"
    >>> writer = TraceWriter(file, ["a", "b"], groups=["grad_norm"])
    >>> writer.append({"step": [1], "grad_norm_a": [2.0], "grad_norm_b": [3.0]})
    >>> _ = writer.close(finish=False)  # as if it had been killed
    >>> done, rows = finish(file)
    >>> done.name, rows, read_trace(done).truncated
    ('run.parquet', 1, True)
    """
    stream = Path(path)
    target = stream.with_suffix(".parquet") if output is None else Path(output)
    if target.resolve() == stream.resolve():
        raise InputError(f"{short_name(target)}: that is the stream itself: choose another name")
    if not stream.exists():
        raise InputError(f"{short_name(stream)}: there is no such recording: check the path")
    lock = FileLock(stream)
    lock.acquire()
    try:
        with open(stream, "rb") as held:
            lock.cover(held.fileno())
            rows = write_parquet_from_stream(stream, target, salvage=salvage)
            lock.uncover()
    finally:
        lock.release()
    return target, rows


def convert(
    path: str | Path, output: str | Path, *, columns: Mapping[str, str] | None = None
) -> Trace:
    """Rewrite a trace of any format as Parquet or CSV, by the ending of ``output``.

    CSV drops the metadata.

    Parameters
    ----------
    path, output : path
        From, to.
    columns : mapping of str to str, optional
        As for :func:`gabactl.traces.read_trace`.

    Returns
    -------
    Trace
        What was written.

    Raises
    ------
    InputError
        Another ending than .parquet or .csv, or the input itself.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "run.csv").write_text("grad_norm_a,grad_norm_b\\n250,0.5\\n")
    >>> len(convert(folder / "run.csv", folder / "run.parquet"))
    1
    """
    target = Path(output)
    if target.resolve() == Path(path).resolve():
        raise InputError(f"{short_name(target)}: that is the input itself: choose another name")
    writers: dict[str, Callable[[Trace, Path], Path]] = {
        ".parquet": write_parquet,
        ".csv": write_csv,
    }
    writer = writers.get(target.suffix.lower())
    if writer is None:
        raise InputError(
            f"{short_name(target)}: traces are converted to .parquet or .csv: choose one"
        )
    trace = read_trace(path, columns=columns)
    writer(trace, target)
    return trace


def write_parquet(trace: Trace, path: str | Path) -> Path:
    """Write a trace as Parquet, atomically.

    Parameters
    ----------
    trace : Trace
        What to write. Averages of precision "float32" are stored as float32.
    path : path
        Where to.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.parquet"
    >>> write_parquet(Trace.from_arrays([[1.0, 2.0]]), file).name
    'run.parquet'
    """
    import pyarrow as pa

    kind = pa.float32() if trace.precision == "float32" else pa.float64()
    fields, arrays = [pa.field("step", pa.int64(), nullable=False)], [pa.array(trace.step)]
    for name, values, missing in _columns(trace):
        fields.append(pa.field(name, pa.float64() if name in SINGLE else kind))
        column = np.ascontiguousarray(values.astype(fields[-1].type.to_pandas_dtype()))
        arrays.append(pa.array(column, mask=missing, from_pandas=False))
    for task, table in (trace.param_norms or {}).items():
        flat = pa.array(table.reshape(-1).astype(kind.to_pandas_dtype()), from_pandas=False)
        fields.append(pa.field(f"param_norms_{task}", pa.list_(kind, table.shape[1])))
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=fields[-1].type))
    header = {**trace.metadata, "complete": not trace.truncated}
    schema = pa.schema(fields, metadata={METADATA_KEY: dump_metadata(header, short_name(path))})
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    with whole_file(path, "check the folder, the rights and the space") as file:
        _write_batches(file, schema, iter([batch]))
    return Path(path)


def write_csv(trace: Trace, path: str | Path) -> Path:
    """Write a trace as CSV, atomically; numbers read back exactly, metadata is dropped.

    Parameters
    ----------
    trace : Trace
        What to write.
    path : path
        Where to.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.csv"
    >>> print(write_csv(Trace.from_arrays([[1.0, 2.0]]), file).read_text())
    step,grad_norm_task_0,grad_norm_task_1
    1,1.0,2.0
    """
    columns: dict[str, list[str]] = {"step": [str(s) for s in trace.step.tolist()]}

    for name, values, missing in _columns(trace):
        # repr gives the shortest text that reads back to the same number.
        columns[name] = [
            "" if none else repr(value)
            for value, none in zip(values.tolist(), missing.tolist(), strict=True)
        ]
    with whole_file(path, "check the folder, the rights and the space") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        text.flush()
        text.detach()
    return Path(path)


def _columns(trace: Trace) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]:
    """Name, values and missing ones of each column of floats."""
    for name in SINGLE:
        values = getattr(trace, name)
        if values is not None:
            yield name, values, np.isnan(values)
    for prefix, attribute in GROUPS.items():
        table = getattr(trace, attribute)
        for i, task in enumerate(trace.tasks if table is not None else ()):
            yield f"{prefix}_{task}", table[:, i], ~trace.present[attribute]


def write_parquet_from_stream(stream: Path, target: Path, *, salvage: bool = False) -> int:
    """Convert a stream to Parquet batch by batch, whole or not at all.

    Parameters
    ----------
    stream : path
        The Arrow stream; it stays.
    target : path
        The Parquet file; replaced if it exists.
    salvage : bool
        As for :func:`gabactl.traces.read_trace`.

    Returns
    -------
    int
        How many rows.

    Raises
    ------
    InputError
        The stream cannot be read, or the target cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.traces import TraceWriter, read_trace
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stream, target = Path(folder) / "run.arrows", Path(folder) / "run.parquet"
    ...     with TraceWriter(stream, ["a", "b"], groups=["grad_norm"]) as writer:
    ...         writer.append({"step": [1], "grad_norm_a": [5.0], "grad_norm_b": [2.0]})
    ...     write_parquet_from_stream(stream, target), read_trace(target).grad_norms.tolist()
    (1, [[5.0, 2.0]])
    """
    with open_stream(stream, salvage=salvage) as source:
        # Whether it was closed is known at its end only, and is needed in the header first.
        for _ in source.batches():
            pass
        complete = not source.truncated
    rows = 0
    with (
        open_stream(stream, salvage=salvage) as source,
        whole_file(target, "check the folder, the rights and the space") as file,
    ):
        header = {**source.metadata, "complete": complete}
        schema = source.schema.with_metadata(
            {METADATA_KEY: dump_metadata(header, short_name(target))}
        )

        def counted() -> Iterator[Any]:
            nonlocal rows
            for batch in source.batches():
                rows += batch.num_rows
                yield batch.replace_schema_metadata(schema.metadata)

        _write_batches(file, schema, counted())
    return rows


def rewrite_stream(source: Path, target: Path, after_step: int | None) -> None:
    """Write a stream anew without the rows after a step and without an end marker, whole or not at all.

    Parameters
    ----------
    source : path
        The Arrow stream.
    target : path
        The new one; may be the same file.
    after_step : int or None
        The last step that is kept; None keeps all.

    Raises
    ------
    InputError
        The stream cannot be read, or the target cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.traces import TraceWriter, read_trace
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file, shorter = Path(folder) / "run.arrows", Path(folder) / "shorter.arrows"
    ...     with TraceWriter(file, ["a", "b"], groups=["grad_norm"]) as writer:
    ...         writer.append({"step": [1, 2], "grad_norm_a": [5.0, 6.0], "grad_norm_b": [2.0, 2.0]})
    ...     rewrite_stream(file, shorter, after_step=1)
    ...     read_trace(shorter).step.tolist(), read_trace(shorter).truncated
    ([1], True)
    """
    from pyarrow import compute

    with open_source(source) as opened:
        schema = opened.schema  # type: ignore[attr-defined]
        metadata = {k: v for k, v in opened.metadata.items() if k != "complete"}
        schema = schema.with_metadata({METADATA_KEY: dump_metadata(metadata, short_name(target))})

        def kept() -> Iterator[Any]:
            for batch in opened.batches():  # type: ignore[attr-defined]
                batch = batch.replace_schema_metadata(schema.metadata)
                if after_step is not None:
                    batch = batch.filter(compute.less_equal(batch.column("step"), after_step))
                if batch.num_rows:
                    yield batch

        with whole_file(target, "check the folder, the rights and the space") as file:
            framer = Framer(schema)
            file.write(framer.header)
            for batch in kept():
                file.write(framer.frame(batch))


def _write_batches(file: BinaryIO, schema: Any, batches: Iterator[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Split bytes of floats compress far better; steps are nearly constant differences.
    encodings = {
        (f"{field.name}.list.element" if pa.types.is_fixed_size_list(field.type) else field.name): (
            "DELTA_BINARY_PACKED" if field.name == "step" else "BYTE_STREAM_SPLIT"
        )
        for field in schema
    }
    with pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=9,
        use_dictionary=False,
        column_encoding=encodings,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        pending: list[Any] = []
        rows = 0
        for batch in batches:
            pending.append(_with_nan_lists(batch))
            rows += batch.num_rows
            if rows >= _ROW_GROUP:
                writer.write_table(pa.Table.from_batches(pending, schema))
                pending, rows = [], 0
        if rows:
            writer.write_table(pa.Table.from_batches(pending, schema).combine_chunks())


def _with_nan_lists(batch: Any) -> Any:
    """The batch with lists of NaN in place of null lists, which mean the same: nothing measured.

    Arrow before 26 cannot read a null list of fixed size back from Parquet.
    """
    import pyarrow as pa

    for i, field in enumerate(batch.schema):
        column = batch.column(i)
        if pa.types.is_fixed_size_list(field.type) and column.null_count:
            kept = np.asarray(column.is_valid())
            values = np.full((len(column), field.type.list_size), np.nan)
            values[kept] = column.drop_null().flatten().to_numpy().reshape(-1, field.type.list_size)
            flat = pa.array(values.reshape(-1), type=field.type.value_type, from_pandas=False)
            lists = pa.FixedSizeListArray.from_arrays(flat, type=field.type)
            batch = batch.set_column(i, field, lists)
    return batch
