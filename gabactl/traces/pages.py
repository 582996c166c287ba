"""What the pages of a Parquet file declare to hold, before a reader asks for that much memory.

A page says how many bytes it becomes when it is decompressed, up to 2 GiB, and readers ask for
them first: 150 kB of file can take 2 GiB. The footer and the headers of the pages are structs of
Thrift's compact protocol, of which all kinds of fields are skipped here and a few numbers kept.
Format: Apache Parquet, parquet.thrift; Apache Thrift, "Thrift Compact Protocol Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from gabactl.base.errors import InputError

#: Most bytes of one page: writers make pages of a megabyte, some one for each row group.
MAX_PAGE_BYTES = 128 << 20
#: Most pages of a file; the smallest are some 20 bytes.
_MAX_PAGES = 1 << 20
#: A header without statistics takes some 30 bytes.
_HEADER, _MAX_HEADER = 512, 1 << 20
_DEPTH = 16
#: Most values of a footer or header: more would take seconds.
_MAX_VALUES = 1 << 21

# Numbers of the fields, as parquet.thrift has them.
_ROW_GROUPS, _COLUMNS, _META_DATA = 4, 1, 3
_CHUNK_VALUES, _CHUNK_BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET = 5, 7, 9, 11
_UNCOMPRESSED, _COMPRESSED, _DATA, _DATA_V2, _PAGE_VALUES = 2, 3, 5, 8, 1


def check_pages(file: BinaryIO, size: int, footer: int, source: str) -> None:
    """Refuse a Parquet file with a page too large to be decompressed.

    Parameters
    ----------
    file : binary file
        Open for reading; its position is moved.
    size, footer : int
        Bytes of the file, and of its footer (magic and length not counted).
    source : str
        For messages.

    Raises
    ------
    InputError
        A page of more than 128 MiB, or a footer or header of a page that is none.

    Examples
    --------
    >>> import io
    >>> check_pages(io.BytesIO(b"PAR1" + bytes(1) + b"PAR1"), 13, 1, "run.parquet")
    """
    file.seek(size - 8 - footer)
    try:
        chunks = list(_chunks(_Struct(file.read(footer)).fields()))
        pages = 0
        for start, end, values in chunks:
            seen = 0
            while start < min(end, size) and seen < values:
                start, page_bytes, count = _page(file, start)
                if page_bytes > MAX_PAGE_BYTES:
                    raise InputError(
                        f"{source}: a page declares {page_bytes} bytes, more than the "
                        f"{MAX_PAGE_BYTES} that are read at once: the file is damaged, or to be "
                        "written again with smaller row groups"
                    )
                seen += count
                pages += 1
                if pages > _MAX_PAGES:
                    raise InputError(
                        f"{source}: more than {_MAX_PAGES} pages: the file is damaged, or to be "
                        "written again with larger ones"
                    )
    except _Malformed:
        raise InputError(
            f"{source}: its footer or the header of a page is malformed: the file is damaged; "
            "copy or record it again"
        ) from None


class _Malformed(Exception):
    """Bytes that are no struct of the compact protocol."""


class _CutOff(_Malformed):
    """Bytes that end inside one."""


def _chunks(footer: dict[int, Any]) -> Iterator[tuple[int, int, int]]:
    """Start, end and number of values of every column chunk."""
    for group in _structs(footer.get(_ROW_GROUPS)):
        for column in _structs(group.get(_COLUMNS)):
            found = column.get(_META_DATA)
            if not isinstance(found, dict):
                continue  # kept in another file
            data, total = _number(found, _DATA_OFFSET), _number(found, _CHUNK_BYTES)
            dictionary = found.get(_DICTIONARY_OFFSET)
            start = data
            if isinstance(dictionary, int) and 0 < dictionary < data:
                start = dictionary
            # Some old writers count the bytes of a dictionary's header short.
            yield start, start + total + 100, _number(found, _CHUNK_VALUES)


def _page(file: BinaryIO, start: int) -> tuple[int, int, int]:
    """Where the page at ``start`` ends, the bytes it becomes, and its values (of a data page)."""
    length = _HEADER
    while True:
        file.seek(start)
        header = _Struct(file.read(length))
        try:
            fields = header.fields()
            break
        except _CutOff:
            if length >= _MAX_HEADER:
                raise
            length *= 16
    body = _number(fields, _COMPRESSED)
    counted = fields.get(_DATA) or fields.get(_DATA_V2)
    values = _number(counted, _PAGE_VALUES) if isinstance(counted, dict) else 0
    return start + header.at + body, _number(fields, _UNCOMPRESSED), values


def _number(fields: dict[int, Any], key: int) -> int:
    value = fields.get(key)
    if not isinstance(value, int) or value < 0:
        raise _Malformed
    return value


def _structs(value: Any) -> list[dict[int, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _Malformed
    return value


class _Struct:
    """A struct of Thrift's compact protocol: numbers, lists and structs by the number of a field."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._values = 0
        self.at = 0

    def fields(self, depth: int = 0) -> dict[int, Any]:
        """The fields from here on; what is neither number, list nor struct is None."""
        found: dict[int, Any] = {}
        key = 0
        while head := self._byte():
            key = key + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            found[key] = kind == 1 if kind <= 2 else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        self._values += 1
        if depth > _DEPTH or self._values > _MAX_VALUES:
            raise _Malformed
        if kind in (1, 2, 3):  # truth values (in a list) and bytes
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            return self._skip(self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in self._counted(count)]
        if kind == 11:
            count = self._varint()
            kinds = self._byte() if count else 0
            for _ in self._counted(count):
                self._value(kinds >> 4, depth + 1)
                self._value(kinds & 15, depth + 1)
            return None
        if kind == 12:
            return self.fields(depth + 1)
        raise _Malformed

    def _counted(self, count: int) -> range:
        # Every item takes a byte at least.
        if count > len(self._data) - self.at:
            raise _CutOff
        return range(count)

    def _byte(self) -> int:
        if self.at >= len(self._data):
            raise _CutOff
        self.at += 1
        return self._data[self.at - 1]

    def _skip(self, length: int) -> None:
        if length > len(self._data) - self.at:
            raise _CutOff
        self.at += length

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise _Malformed

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
