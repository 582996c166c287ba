"""Pages of Parquet files that would become gigabytes are refused before they do."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gabactl.base.errors import InputError
from gabactl.traces import Trace, bundled, load_bundled, read_trace, write_parquet
from gabactl.traces.pages import MAX_PAGE_BYTES, check_pages

ROWS = 20_000


def zigzag(number: int) -> bytes:
    """A number as Thrift's compact protocol writes it."""
    left, out = (number << 1) ^ (number >> 63), b""
    while left > 127:
        left, out = left >> 7, out + bytes([left & 127 | 128])
    return out + bytes([left])


def checked(data: bytes) -> None:
    check_pages(io.BytesIO(data), len(data), int.from_bytes(data[-8:-4], "little"), "a file")


def with_page(path: Path, declared: int, body: bytes) -> Path:
    """A sound recording in which one page has another body, its checksum mended."""
    norms = np.random.default_rng(0).lognormal(size=(ROWS, 2))
    write_parquet(Trace.from_arrays(norms), path)
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    assert column.path_in_schema == "grad_norm_task_0"
    (crc,) = struct.unpack("<i", struct.pack("<I", zlib.crc32(body)))
    numbers = b"".join(b"\x15" + zigzag(n) for n in (0, declared, len(body), crc))
    values = b"".join(b"\x15" + zigzag(n) for n in (ROWS, 9, 3, 3))
    page = numbers + b"\x1c" + values + b"\0\0" + body
    assert len(page) < column.total_compressed_size
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + len(page)] = page
    path.write_bytes(data)
    return path


def test_the_header_is_written_as_parquet_has_it(tmp_path: Path) -> None:
    """The helper's page is one that pyarrow reads, so that what follows is a test of sizes."""
    # Definition levels first: none are null.
    levels = b"\x04\x00\x00\x00" + b"\xc0\xb8\x02\x01"
    body = pa.compress(levels + bytes(8 * ROWS), codec="zstd", asbytes=True)
    file = with_page(tmp_path / "run.parquet", len(levels) + 8 * ROWS, body)
    assert (read_trace(file).grad_norms[:, 0] == 0.0).all()


@pytest.mark.parametrize("declared", [MAX_PAGE_BYTES + 1, 2**31 - 1])
def test_a_page_that_declares_too_much_is_refused(tmp_path: Path, declared: int) -> None:
    body = pa.compress(bytes(1 << 20), codec="zstd", asbytes=True)
    file = with_page(tmp_path / "run.parquet", declared, body)
    with pytest.raises(InputError, match=rf"a page declares {declared} bytes, more than"):
        read_trace(file)


def test_a_page_below_the_cap_is_left_to_the_reader(tmp_path: Path) -> None:
    file = with_page(tmp_path / "run.parquet", MAX_PAGE_BYTES, b"no zstd at all")
    with pytest.raises(InputError, match="ecompression"):
        read_trace(file)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_page_version": "2.0", "write_page_index": True, "data_page_size": 500},
        {"compression": "none", "row_group_size": 700, "write_page_checksum": True},
        {"use_dictionary": False, "compression": "gzip", "write_statistics": False},
    ],
)
def test_files_of_every_kind_pass(options: dict[str, object]) -> None:
    n = 5000
    table = pa.table(
        {
            "number": np.arange(n) % 7 * 1.0,
            "text": [f"x{i % 50}" for i in range(n)],
            "long": ["y" * 2000] * n,
            "list": pa.array([[1.0, 2.0], None] * (n // 2)),
            "truth": pa.array([None, True] * (n // 2)),
            "nothing": pa.nulls(n),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    checked(out.getvalue())


def test_bundled_recordings_pass() -> None:
    assert all(len(load_bundled(name)) for name in bundled())


def footer_of(footer: bytes) -> bytes:
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    "footer",
    [
        b"\x49" + b"\x19" * 100_000,  # lists in lists
        b"\x4c" * 100_000,  # structs in structs
        b"\x49\xf1\xff\xff\xff\xff\x7f",  # a list longer than the file
        b"\x49\xf1" + b"\xff" * 11,  # a number that does not end
        b"\x48\xff\xff\xff\xff\x7f",  # a text longer than the file
        b"\x49\x15\x02\x00",  # row groups that are numbers
        b"\x4d\x00",  # no such kind
        b"\x49\xf3\x80\x80\x80\x02" + bytes(1 << 22),  # four million values
    ],
)
def test_a_malformed_footer_is_refused(footer: bytes) -> None:
    with pytest.raises(InputError, match="malformed"):
        checked(footer_of(footer))


def test_every_change_of_a_byte_is_read_or_refused(tmp_path: Path) -> None:
    file = write_parquet(Trace.from_arrays([[250.0, 0.5]] * 30), tmp_path / "run.parquet")
    data = file.read_bytes()
    refused = 0
    for at in range(4, len(data) - 8):
        for value in (0, 0x49, 0xFF):
            changed = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                checked(changed)
            except InputError:
                refused += 1
    assert refused > 10
