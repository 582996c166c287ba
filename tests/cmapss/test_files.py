"""Reading the C-MAPSS files, good and bad."""

from __future__ import annotations

import io
import lzma
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gabactl import cmapss
from gabactl.base.errors import InputError
from gabactl.cmapss import files

ROW = "1 1 " + " ".join(["0.5"] * 24)


def write(folder: Path, text: str | bytes, name: str = "train_FD001.txt") -> Path:
    data = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROW.rsplit(" ", 1)[0] + "\n", "line 1: 25 columns instead of 26"),
        (ROW + "\n" + ROW.replace("1 1 ", "1 2 ") + " 7\n", "line 2: 27 columns instead of 26"),
        (ROW[:-3] + "abc\n", "line 1: sensor 21 is 'abc', not a finite number"),
        (ROW[:-3] + "nan\n", "line 1: sensor 21 is 'nan', not a finite number"),
        (ROW.replace("1 1 0.5", "1 1 inf") + "\n", "line 1: setting 1 is 'inf'"),
        (ROW[:-3] + "\xe9\n", "line 1: sensor 21 is"),
        (ROW[:-3] + "0x1\n", "line 1: sensor 21 is '0x1'"),
        (ROW + "\n" + ROW.replace("1 1 ", "1 3 ") + "\n", "line 2: cycle 3 of unit 1 where 2"),
        (ROW + "\n" + ROW + "\n", "line 2: cycle 1 of unit 1 where 2 was due"),
        (ROW.replace("1 1 ", "1 0 ") + "\n", "line 1: cycle 0 is not a whole number >= 1"),
        (ROW.replace("1 1 ", "1.5 1 ") + "\n", "line 1: unit 1.5 is not a whole number"),
        (ROW.replace("1 1 ", "2 1 ") + "\n", "line 1: unit 2 follows unit 0"),
        (ROW + "\n" + ROW.replace("1 1 ", "3 1 ") + "\n", "line 2: unit 3 follows unit 1"),
        ("", "has no rows"),
        ("\n \n", "has no rows"),
        ("# comment\n" + ROW, "line 1: 2 columns"),
        ("\0\0\0\0", "line 1: 1 columns"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, text)
    with pytest.raises(InputError) as error:
        cmapss.read_engines(tmp_path, "train_FD001.txt")
    assert message in str(error.value)
    assert "train_FD001.txt" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_good_file_is_read_exactly(tmp_path: Path) -> None:
    cells = np.arange(24) / 7
    lines = [f"{u} {c} " + " ".join(map(repr, cells.tolist())) for u in (1, 2) for c in (1, 2, 3)]
    write(tmp_path, "\r\n".join(lines) + "\r\n")
    engines = cmapss.read_engines(tmp_path, "train_FD001.txt")
    assert engines.units == [1, 2]
    assert engines.cycle.tolist() == [1, 2, 3, 1, 2, 3]
    assert (engines.settings == cells[:3]).all()
    assert (engines.sensors == cells[3:]).all()
    assert [(u, s.start, s.stop) for u, s in engines.slices()] == [(1, 0, 3), (2, 3, 6)]


def test_rul_must_fit_the_engines(tmp_path: Path) -> None:
    write(tmp_path, "1\n2\n", "RUL_FD001.txt")
    with pytest.raises(InputError, match="has 2 lines for 3 test engines"):
        cmapss.read_rul(tmp_path, "RUL_FD001.txt", engines=3)
    write(tmp_path, "1\n-2\n", "RUL_FD001.txt")
    with pytest.raises(InputError, match="line 2: RUL -2 is negative"):
        cmapss.read_rul(tmp_path, "RUL_FD001.txt")
    write(tmp_path, "1\ntwo\n", "RUL_FD001.txt")
    with pytest.raises(InputError, match="line 2: RUL is 'two'"):
        cmapss.read_rul(tmp_path, "RUL_FD001.txt")


def test_xz_is_read_and_damage_is_said(tmp_path: Path) -> None:
    packed = lzma.compress(b"12\n34\n")
    write(tmp_path, packed, "RUL_FD001.txt.xz")
    assert cmapss.read_rul(tmp_path, "RUL_FD001.txt").tolist() == [12, 34]
    for damaged in (packed[:-9], b"no xz at all", b""):
        write(tmp_path, damaged, "RUL_FD001.txt.xz")
        with pytest.raises(InputError, match=r"damaged xz file|has 0"):
            cmapss.read_rul(tmp_path, "RUL_FD001.txt", engines=2)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    write(tmp_path, lzma.compress(b"0" * 100_000), "RUL_FD001.txt.xz")
    with pytest.raises(InputError, match="which no C-MAPSS file is"):
        cmapss.read_rul(tmp_path, "RUL_FD001.txt")
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("RUL_FD001.txt", "0" * 100_000)
    with pytest.raises(InputError, match="which no C-MAPSS file is"):
        cmapss.read_rul(archive, "RUL_FD001.txt")


@pytest.mark.parametrize("nested", [False, True])
def test_zip_archives_are_read_in_place(tmp_path: Path, nested: bool) -> None:
    archive = tmp_path / "cmapss.zip"
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("CMAPSSData/RUL_FD001.txt", "5\n6\n")
    if nested:
        with zipfile.ZipFile(archive, "w") as z:
            z.writestr("6. Data Set/readme.txt", "hello")
            z.writestr("6. Data Set/CMAPSSData.zip", inner.getvalue())
    else:
        archive.write_bytes(inner.getvalue())
    assert cmapss.read_rul(archive, "RUL_FD001.txt").tolist() == [5, 6]
    with pytest.raises(InputError, match=r"holds no RUL_FD002\.txt"):
        cmapss.read_rul(archive, "RUL_FD002.txt")
    checks = {c.name: c.status for c in cmapss.verify(archive, ["FD001"]).files}
    assert checks == {
        "train_FD001.txt": "missing",
        "test_FD001.txt": "missing",
        "RUL_FD001.txt": "differs",
    }
    data = archive.read_bytes()
    flipped = bytearray(data)
    flipped[data.index(b"RUL_FD001.txt") + len("RUL_FD001.txt")] ^= 0x55
    for damaged in (data[: len(data) // 2], bytes(flipped)):
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged zip archive"):
            cmapss.read_rul(archive, "RUL_FD001.txt")


def test_absent_sources_name_the_remedy(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="gabactl cmapss data fetch"):
            cmapss.read_engines(place, "train_FD001.txt")
    with pytest.raises(InputError, match="no such folder"):
        cmapss.verify(tmp_path / "nowhere")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(InputError, match="damaged zip archive"):
        cmapss.read_engines(tmp_path / "text", "train_FD001.txt")


@pytest.mark.cmapss
def test_the_real_files_are_the_originals(cmapss_dir: Path, tmp_path: Path) -> None:
    result = cmapss.verify(cmapss_dir)
    assert result.ok
    assert len(result.files) == 12
    # One byte off, and it is seen.
    data = bytearray(files.open_member(cmapss_dir, "RUL_FD001.txt")[1])
    data[0] ^= 1
    write(tmp_path, bytes(data), "RUL_FD001.txt")
    found = {c.name: c.status for c in cmapss.verify(tmp_path, ["FD001"]).files}
    assert found["RUL_FD001.txt"] == "differs"


@pytest.mark.cmapss
@pytest.mark.parametrize(
    ("name", "rows", "engines"),
    [("train_FD001.txt", 20631, 100), ("test_FD002.txt", 33991, 259)],
)
def test_the_real_files_have_the_stated_sizes(
    cmapss_dir: Path, name: str, rows: int, engines: int
) -> None:
    # Rows and engines: the data set's README.
    read = cmapss.read_engines(cmapss_dir, name)
    assert len(read) == rows
    assert len(read.units) == engines


@pytest.mark.cmapss
def test_real_files_with_one_bad_cell_or_column(cmapss_dir: Path, tmp_path: Path) -> None:
    lines = files.open_member(cmapss_dir, "train_FD001.txt")[1].decode().splitlines()
    cells = lines[499].split()
    for broken, message in (
        (" ".join(cells[:-1]), "line 500: 25 columns instead of 26"),
        (" ".join([*cells[:7], "high", *cells[8:]]), "line 500: sensor 3 is 'high'"),
    ):
        write(tmp_path, "\n".join([*lines[:499], broken, *lines[500:]]))
        with pytest.raises(InputError, match=message):
            cmapss.read_engines(tmp_path, "train_FD001.txt")


def test_load_reads_a_folder_of_plain_files(
    make_cmapss: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_cmapss()
    packed = tmp_path / "packed"
    packed.mkdir()
    for file in folder.iterdir():
        (packed / f"{file.name}.xz").write_bytes(lzma.compress(file.read_bytes()))
    a, b = cmapss.load(folder), cmapss.load(packed)
    assert (a.train.inputs == b.train.inputs).all()
    shutil.rmtree(packed)
