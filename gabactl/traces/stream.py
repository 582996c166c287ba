"""The Arrow IPC stream as bytes: find whole batches, whatever happened to the file's end.

pyarrow's own stream reader raises on a partial tail and trusts declared sizes. Here every length
is held against the file before a byte reaches pyarrow, and a checksum of the values tells a
damaged batch from a sound one.
Format: Apache Arrow, "Serialization and Interprocess Communication (IPC)", encapsulated messages;
the message header is a FlatBuffer, of which the few fields needed are read directly.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from gabactl.base.errors import Absent, InputError
from gabactl.traces.metadata import MAX_HEADER_BYTES
from gabactl.traces.schema import MAX_CELLS

CONTINUATION = b"\xff\xff\xff\xff"
END = CONTINUATION + b"\0\0\0\0"
#: Message metadata key with the checksum of the batch, as decimal text.
CRC_KEY = b"crc32"
#: Schema metadata that promises such a checksum in every batch, so that none can lose its own.
_SEALED = {b"gabactl.checksum": CRC_KEY}
_SCHEMA, _BATCH = 1, 3
_LOOK_AHEAD = 1 << 20


class StreamReader:
    """Read the schema, then iterate over the whole batches, and say how the stream ends.

    Parameters
    ----------
    file : binary file
        Open for reading.
    size : int
        Bytes of the file that may be looked at.
    source : str
        File name, for messages.
    salvage : bool
        Stop before a damaged batch instead of raising.

    Attributes
    ----------
    schema : pyarrow.Schema
        Columns and metadata.
    good_end : int
        Offset behind the last whole message (end marker not counted).
    closed : bool
        Whether the end marker was met: the recording was closed.

    Raises
    ------
    InputError
        Bytes that are no Arrow stream, a header over the cap, a damaged batch before the end.
        A partial or damaged last batch is no error: it is left out.

    Examples
    --------
    >>> import io
    >>> StreamReader(io.BytesIO(b"text"), 4, "run.arrows")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: run.arrows: byte 0 begins no Arrow message: the file is damaged, or no Arrow stream
    """

    def __init__(self, file: BinaryIO, size: int, source: str, salvage: bool = False) -> None:
        import pyarrow as pa

        self.good_end = 0
        self.closed = False
        self._file, self._size, self._source, self._salvage = file, size, source, salvage
        self._before: Any = None
        self.schema: Any = None
        try:
            message = self._message()
            if message is None:
                raise Absent(
                    f"{source}: the recording stops inside its header: nothing was recorded, "
                    "start it again"
                )
            try:
                self.schema = pa.ipc.read_schema(pa.py_buffer(message))
            except _pyarrow_errors() as error:
                raise _Damaged(f"the header is malformed ({_brief(error)})") from None
        except _Damaged as error:
            raise InputError(
                f"{source}: {error}: the file is damaged, or no Arrow stream"
            ) from None
        self.good_end = len(message)

    def grow(self, file: BinaryIO, size: int) -> None:
        """Go on from :attr:`good_end` in a file that has become longer.

        Parameters
        ----------
        file : binary file
            The same file, open for reading.
        size : int
            Bytes of it that may be looked at now.
        """
        self._file, self._size, self.closed = file, size, False

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                batch = self._batch()
            except _Damaged as error:
                if self._salvage:
                    return
                raise InputError(
                    f"{self._source}: {error}: `gabactl trace finish --salvage` keeps the batches "
                    "before it"
                ) from None
            if batch is None:
                return
            yield batch

    def _batch(self) -> Any:
        """The next record batch, or None at the end of what is whole."""
        import pyarrow as pa

        start = self.good_end
        message = self._message()
        if message is None:
            return None
        end = start + len(message)
        try:
            batch = pa.ipc.read_record_batch(
                pa.ipc.read_message(pa.py_buffer(message)), self.schema
            )
            batch.validate(full=True)
            expected = self._crc
            sealed = _SEALED.items() <= (self.schema.metadata or {}).items()
            if (sealed or expected is not None) and checksum(batch) != expected:
                raise ValueError("the checksum of the values differs")
        except _pyarrow_errors() as error:
            if end == self._size:
                # The last write of a machine that lost power: its blocks were never filled.
                return None
            raise _Damaged(f"the batch at byte {start} is damaged ({_brief(error)})") from None
        self.good_end = end
        return self._unrepeated(batch)

    def _unrepeated(self, batch: Any) -> Any:
        """The batch without the rows of the one before it, where it begins with them once more.

        Earlier writers wrote them twice when an interrupt fell between a write and its bookkeeping.
        """
        before, self._before = self._before, batch
        if before is None or not 0 < before.num_rows <= batch.num_rows:
            return batch
        if not batch.num_columns or batch.column(0)[0] != before.column(0)[0]:
            return batch
        again = batch.slice(0, before.num_rows)
        return batch.slice(before.num_rows) if checksum(again) == checksum(before) else batch

    def _message(self) -> bytes | None:
        """The bytes of the next message, or None where the file ends or stops inside it."""
        start, size = self.good_end, self._size
        self._file.seek(start)
        prefix = self._file.read(min(8, size - start))
        if not CONTINUATION.startswith(prefix[:4]):
            if self._rest_is_zero(prefix):
                return None
            raise _Damaged(f"byte {start} begins no Arrow message")
        if len(prefix) < 8:
            return None
        length = int.from_bytes(prefix[4:8], "little", signed=True)
        if length == 0:
            if start + 8 != size:
                raise _Damaged(f"{size - start - 8} bytes follow the end marker at byte {start}")
            self.closed = True
            return None
        if not 0 < length <= MAX_HEADER_BYTES:
            raise _Damaged(
                f"byte {start} declares a header of {length} bytes (at most {MAX_HEADER_BYTES})"
            )
        if start + 8 + length > size:
            self._refuse_if_more_follows(start)
            return None
        header = self._file.read(length)
        if len(header) < length or self._rest_is_zero(header):
            return None
        try:
            kind, body_length, rows, compressed, self._crc = _peek(header)
        except struct.error:
            raise _Damaged(f"the message header at byte {start} is malformed") from None
        if kind != (_BATCH if start else _SCHEMA) or body_length < 0:
            raise _Damaged(f"the message at byte {start} is of a kind that no trace holds")
        if compressed:
            raise _Damaged(f"the batch at byte {start} is compressed, which no trace stream is")
        # Every row has its step, of 8 bytes: more rows than that are a lie, or a bomb.
        if rows < 0 or rows * 8 > body_length or rows > MAX_CELLS:
            raise _Damaged(f"the batch at byte {start} declares {rows} rows in {body_length} bytes")
        if start + 8 + length + body_length > size:
            self._refuse_if_more_follows(start)
            return None
        body = self._file.read(body_length)
        return prefix + header + body if len(body) == body_length else None

    def _refuse_if_more_follows(self, start: int) -> None:
        """A message that reaches past the end is a cut, unless whole messages follow it."""
        self._file.seek(start + 8)
        rest = self._file.read(_LOOK_AHEAD)
        at = rest.find(CONTINUATION)
        while at >= 0:
            length = int.from_bytes(rest[at + 4 : at + 8], "little")
            if at % 8 == 0 and 0 < length <= len(rest) - at - 8:
                with contextlib.suppress(struct.error):
                    if _peek(rest[at + 8 : at + 8 + length])[4] is not None:
                        raise _Damaged(f"the message at byte {start} declares a wrong size")
            at = rest.find(CONTINUATION, at + 1)

    def _rest_is_zero(self, seen: bytes) -> bool:
        """Whether nothing but zeros follows: blocks allocated, never written."""
        if seen.strip(b"\0"):
            return False
        while chunk := self._file.read(1 << 16):
            if chunk.strip(b"\0"):
                return False
        return True


def checksum(batch: Any) -> int:
    """CRC-32 of a batch's values and nulls, column by column, whatever their layout in memory.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        Columns of int64, float32, float64, or fixed-size lists of floats.

    Examples
    --------
    >>> import pyarrow as pa
    >>> checksum(pa.record_batch({"step": pa.array([1, 2])}))
    16178617
    """
    crc = 0
    for column in batch.columns:
        if column.null_count:
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            crc = zlib.crc32(np.packbits(valid), crc)
            column = column.drop_null()
        if hasattr(column.type, "list_size"):
            column = column.flatten()
        numbers = column.to_numpy(zero_copy_only=False)
        crc = zlib.crc32(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False), crc)
    return crc


def _pyarrow_errors() -> tuple[type[Exception], ...]:
    """What pyarrow raises on damaged bytes."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, ValueError, MemoryError)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


class _Damaged(Exception):
    pass


def _peek(header: bytes) -> tuple[int, int, int, bool, int | None]:
    """Kind, body length, rows, whether compressed, and checksum, of a FlatBuffer Message."""
    message = _Table.root(header)
    kind = message.scalar(1, "<B", 0)
    body_length = message.scalar(3, "<q", 0)
    rows, compressed = 0, False
    if kind == _BATCH:
        batch = message.table(2)
        rows, compressed = batch.scalar(0, "<q", 0), batch.has(3)
    crc = None
    for pair in message.tables(4):
        if pair.text(0) == CRC_KEY:
            digits = pair.text(1)
            if not digits.isdigit() or len(digits) > 10:
                raise struct.error
            crc = int(digits)
    return kind, body_length, rows, compressed, crc


class _Table:
    """Just enough FlatBuffers: bounds-checked field access (struct.error outside the buffer)."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - _unpack("<i", data, at)
        self._vsize = _unpack("<H", data, self._vtable)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, _unpack("<I", data, 0))

    def _field(self, index: int) -> int:
        slot = 4 + 2 * index
        if slot + 2 > self._vsize:
            return 0
        return _unpack("<H", self._data, self._vtable + slot)

    def has(self, index: int) -> bool:
        return self._field(index) != 0

    def scalar(self, index: int, form: str, default: int) -> int:
        offset = self._field(index)
        return _unpack(form, self._data, self._at + offset) if offset else default

    def _follow(self, index: int) -> int:
        offset = self._field(index)
        if not offset:
            raise struct.error
        at = self._at + offset
        return at + _unpack("<I", self._data, at)

    def table(self, index: int) -> _Table:
        return _Table(self._data, self._follow(index))

    def tables(self, index: int) -> Iterator[_Table]:
        if not self.has(index):
            return
        at = self._follow(index)
        count = _unpack("<I", self._data, at)
        if count > 64:
            raise struct.error
        for i in range(count):
            slot = at + 4 + 4 * i
            yield _Table(self._data, slot + _unpack("<I", self._data, slot))

    def text(self, index: int) -> bytes:
        at = self._follow(index)
        length = _unpack("<I", self._data, at)
        if at + 4 + length > len(self._data):
            raise struct.error
        return self._data[at + 4 : at + 4 + length]


def _unpack(form: str, data: bytes, at: int) -> int:
    if at < 0:
        raise struct.error
    return int(struct.unpack_from(form, data, at)[0])


class Framer:
    """Record batches as the bytes of stream messages, each with the checksum of its body.

    Parameters
    ----------
    schema : pyarrow.Schema
        Schema of the batches.

    Attributes
    ----------
    header : bytes
        The schema message that begins a stream.
    """

    def __init__(self, schema: Any) -> None:

        self._schema = schema.with_metadata({**(schema.metadata or {}), **_SEALED})
        self.header = self._begin()

    def frame(self, batch: Any) -> bytes:
        """One batch as one message.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
            Of the schema.
        """
        try:
            self._writer.write_batch(
                batch, custom_metadata={CRC_KEY: str(checksum(batch)).encode()}
            )
            return self._take()
        except BaseException:  # an interrupt, say: half a batch may lie in the sink
            self._begin()
            raise

    def _begin(self) -> bytes:
        import pyarrow as pa

        self._sink = io.BytesIO()
        self._writer = pa.ipc.new_stream(self._sink, self._schema)
        # The schema message is written with the first batch: an empty one brings it out.
        self._writer.write_batch(pa.RecordBatch.from_pylist([], schema=self._schema))
        first = self._take()
        return first[: 8 + int.from_bytes(first[4:8], "little")]

    def _take(self) -> bytes:
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data
