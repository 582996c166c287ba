"""The twelve C-MAPSS files: where they may lie, what must be in them, and their SHA-256.

A source is a folder (holding ``train_FD001.txt`` or ``train_FD001.txt.xz``, ...) or a zip archive
(NASA's own, in which the files lie in an archive inside the archive, is one).
"""

from __future__ import annotations

import hashlib
import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import Absent, InputError
from gabactl.base.results import Result

Subset = Literal["FD001", "FD002", "FD003", "FD004"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)

#: Columns of the train and test files, in order.
COLUMNS = (
    "unit",
    "cycle",
    *(f"setting {i}" for i in range(1, 4)),
    *(f"sensor {i}" for i in range(1, 22)),
)

#: The largest original is 10.4 MB: anything near this is no C-MAPSS file (or a bomb).
MAX_FILE_BYTES = 64 << 20
_MAX_ARCHIVE_BYTES = 256 << 20
_MAX_MEMBERS = 1000
#: What zipfile and the decompressors raise for a damaged archive.
ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    MemoryError,  # a dictionary of up to 4 GiB, as an entry may declare
)
#: Memory that unpacking an xz file may take; NASA's files need 10 MB of it.
_XZ_MEMORY = 128 << 20
_CHUNK = 1 << 16

#: SHA-256 of the originals, uncompressed.
CHECKSUMS: Mapping[str, str] = MappingProxyType(
    {
        "train_FD001.txt": "963b5e22825b34d8b21c69e1aeb4af3e647050eb672ee8834ba4b5d91d2de0f8",
        "train_FD002.txt": "dac6c4dbc4e7c1bdeb5747da3d313d05c395bb99801b44a002b26a2ba13d788f",
        "train_FD003.txt": "2abbe9968cc5e8eb091980f51b20f62bb4127336d3482cb52071d53bf23329e2",
        "train_FD004.txt": "27ef6160b6a1dcb2613a88de9c239f763b223f02cdc41dc5cdedc5dc189b6218",
        "test_FD001.txt": "3cda7109ce17bafb5443f2ac926cfcf88154b941b8c4cf95eb55d1ddd6f52851",
        "test_FD002.txt": "de7b5bf7e998a985c378488480528b7c02cff1406a46740def362dda8d9b4e02",
        "test_FD003.txt": "299babd63c8d987cef079c4a425429f33b3a34797d803bbe2ad48c29dbd0d790",
        "test_FD004.txt": "1dc675fff0624bac10786927c6715b37d1297657137400d2b1a3138d777a3ba5",
        "RUL_FD001.txt": "a19c8ec94931949d0485bdc35118206e9c81c4547b422efb9cf86f4ceddbceca",
        "RUL_FD002.txt": "c851dd96a6ea6998d3c4a8f834d3c8013aa90e93a6ed950dc826ad0655b2906b",
        "RUL_FD003.txt": "df1e0566306b174a2de41c67a3e7a51877889598b78643fc3e5685259091b7cb",
        "RUL_FD004.txt": "196b836b85a95ac7fdbbf29c5fdf1657382eafa445644d114ffaaf50dc2975e1",
    }
)


@dataclass(frozen=True)
class Engines:
    """The rows of a train or test file.

    Attributes
    ----------
    unit, cycle : int arrays, shape (rows,)
        Engine number from 1, and cycle from 1 without gaps in each engine.
    settings : float array, shape (rows, 3)
        Altitude in kft, Mach number, throttle resolver angle in degrees.
    sensors : float array, shape (rows, 21)
        Sensor s is column s - 1.
    """

    unit: NDArray[np.int64]
    cycle: NDArray[np.int64]
    settings: NDArray[np.float64]
    sensors: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def units(self) -> list[int]:
        """Engine numbers, in order."""
        return [int(u) for u in np.unique(self.unit)]

    def slices(self) -> Iterator[tuple[int, slice]]:
        """Each engine's number and its rows.

        Yields
        ------
        unit : int
            From 1.
        rows : slice
            Of every array here.
        """
        starts = np.flatnonzero(np.diff(self.unit, prepend=self.unit[:1] - 1))
        for start, stop in zip(starts, [*starts[1:], len(self.unit)], strict=True):
            yield int(self.unit[start]), slice(int(start), int(stop))


def read_engines(source: str | Path, name: str) -> Engines:
    """Read and check a train or test file.

    Parameters
    ----------
    source : path
        Folder or zip archive.
    name : str
        Such as ``train_FD001.txt``.

    Raises
    ------
    InputError
        No such file, too large, damaged, or a line that is not a C-MAPSS row; the message names
        the file, the line and what is wrong.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> row = " ".join(["0.5"] * 24)
    >>> _ = (folder / "train_FD001.txt").write_text(f"1 1 {row}\\n1 2 {row}\\n")
    >>> len(read_engines(folder, "train_FD001.txt"))
    2
    """
    label, data = open_member(source, name)
    table = _table(label, data, COLUMNS)
    if not len(table):
        raise InputError(f"{label}: has no rows: fetch the file again")
    unit, cycle = table[:, 0], table[:, 1]
    for column, values in (("unit", unit), ("cycle", cycle)):
        _refuse_first(
            label,
            (values != np.floor(values)) | (values < 1),
            lambda i, c=column, v=values: f"{c} {v[i]:g} is not a whole number >= 1",
        )
    same = np.concatenate(([False], np.diff(unit) == 0))
    expected_unit = np.concatenate(([1.0], unit[:-1] + 1))
    _refuse_first(
        label,
        ~same & (unit != expected_unit),
        lambda i: (
            f"unit {unit[i]:g} follows unit {unit[i - 1] if i else 0:g}: engines must be "
            "numbered 1, 2, 3, ..."
        ),
    )
    expected = np.where(same, np.concatenate(([0.0], cycle[:-1])) + 1, 1.0)
    _refuse_first(
        label,
        cycle != expected,
        lambda i: (
            f"cycle {cycle[i]:g} of unit {unit[i]:g} where {expected[i]:g} was due: cycles "
            "must count 1, 2, 3, ... in each engine"
        ),
    )
    return Engines(unit.astype(np.int64), cycle.astype(np.int64), table[:, 2:5], table[:, 5:])


def read_rul(source: str | Path, name: str, engines: int | None = None) -> NDArray[np.float64]:
    """Read and check a file of remaining useful lives.

    Parameters
    ----------
    source : path
        Folder or zip archive.
    name : str
        Such as ``RUL_FD001.txt``.
    engines : int, optional
        How many lines there must be.

    Returns
    -------
    array, shape (engines,)
        Cycles left after the last row of each test engine.

    Raises
    ------
    InputError
        As :func:`read_engines`; also for a wrong number of lines or a negative life.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "RUL_FD001.txt").write_text("112 \\n98\\n")
    >>> read_rul(folder, "RUL_FD001.txt", engines=2).tolist()
    [112.0, 98.0]
    """
    label, data = open_member(source, name)
    rul = _table(label, data, ("RUL",))[:, 0]
    _refuse_first(label, rul < 0, lambda i: f"RUL {rul[i]:g} is negative")
    if engines is not None and len(rul) != engines:
        raise InputError(
            f"{label}: has {len(rul)} lines for {engines} test engines: fetch both files again"
        )
    return rul


def open_member(source: str | Path, name: str) -> tuple[str, bytes]:
    """The bytes of one file, uncompressed, and a name for messages.

    Looks for ``name`` and ``name.xz`` in a folder, or for ``name`` in a zip archive (in any of
    its folders, or of the archives directly inside it).

    Parameters
    ----------
    source : path
        The folder or archive; of at most 256 MiB.
    name : str
        One of NASA's names, such as ``train_FD001.txt``.

    Returns
    -------
    label : str
        Where it was found, for messages.
    content : bytes
        At most 64 MiB.

    Raises
    ------
    InputError
        Absent, damaged, or larger than any C-MAPSS file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "RUL_FD001.txt").write_text("112\\n")
    >>> open_member(folder, "RUL_FD001.txt")[1]
    b'112\\n'
    """
    place = Path(source)
    try:
        if place.is_dir():
            return _from_folder(place, name)
        if place.is_file():
            if place.stat().st_size > _MAX_ARCHIVE_BYTES:
                raise InputError(f"{place}: larger than {_MAX_ARCHIVE_BYTES >> 20} MiB")
            for _, found in members(place, str(place), (name,)):
                return f"{place}:{name}", found
            raise Absent(f"{place}: the archive holds no {name}: give NASA's archive")
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror or error})") from None
    raise InputError(
        f"{place}: no such folder or zip archive: get the data with "
        f"`gabactl cmapss data fetch -o {place}`"
    )


def _from_folder(folder: Path, name: str) -> tuple[str, bytes]:
    plain, packed = folder / name, folder / f"{name}.xz"
    if plain.is_file():
        with plain.open("rb") as stream:
            return str(plain), capped(stream, str(plain))
    if packed.is_file():
        try:
            with packed.open("rb") as stream:
                return str(packed), _unxz(stream, str(packed))
        except (lzma.LZMAError, EOFError, MemoryError) as error:
            raise InputError(f"{packed}: damaged xz file ({error}): fetch it again") from None
    raise Absent(
        f"{folder}: has neither {name} nor {name}.xz: get the data with "
        f"`gabactl cmapss data fetch -o {folder}`"
    )


def members(
    file: Any,
    label: str,
    wanted: Collection[str],
    check: Callable[[zipfile.ZipInfo, str], None] | None = None,
    budget: Budget | None = None,
    nested: bool = True,
) -> Iterator[tuple[str, bytes]]:
    """Files of a zip archive, in any of its folders and in the archives directly inside it.

    Parameters
    ----------
    file : path or binary file
        The archive.
    label : str
        Its name, for messages.
    wanted : collection of str
        Names without a folder.
    check : callable, optional
        Called with every entry and the label before anything is read.
    budget : Budget, optional
        Bytes that may still come out.
    nested : bool
        Whether archives in it are opened too.

    Yields
    ------
    (str, bytes)
        A name and what the file holds.

    Raises
    ------
    InputError
        Damaged, or with more entries or bytes than C-MAPSS has.

    Examples
    --------
    >>> archive = io.BytesIO()
    >>> with zipfile.ZipFile(archive, "w") as made:
    ...     made.writestr("data/RUL_FD001.txt", "112")
    >>> list(members(archive, "a.zip", ["RUL_FD001.txt"]))
    [('RUL_FD001.txt', b'112')]
    """
    left = budget or Budget(_MAX_ARCHIVE_BYTES, label)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_MEMBERS:
                raise InputError(f"{label}: {len(entries)} entries, which no C-MAPSS archive has")
            for entry in entries if check is not None else ():
                check(entry, label)  # type: ignore[misc]
            # Archives last: a file beside them is found without unpacking any.
            for entry in sorted(entries, key=lambda e: e.filename.lower().endswith(".zip")):
                name = entry.filename.rpartition("/")[2]
                if name not in wanted and not (nested and name.lower().endswith(".zip")):
                    continue
                # What the entry declares decides nothing: only bytes that come out are counted.
                with archive.open(entry) as stream:
                    data = left.spend(capped(stream, f"{label}: {entry.filename[:60]!r}"))
                if name in wanted:
                    yield name, data
                else:
                    inner = f"{label}:{name}"
                    yield from members(io.BytesIO(data), inner, wanted, check, left, nested=False)
    except InputError:
        raise
    except ZIP_DAMAGE as error:
        raise InputError(f"{label}: damaged zip archive ({error}): fetch it again") from None


class Budget:
    """Bytes that may still be unpacked, over all entries and levels.

    Parameters
    ----------
    left : int
        How many.
    label : str
        Of what, for the message.
    """

    def __init__(self, left: int, label: str) -> None:
        self.left, self.label = left, label

    def spend(self, data: bytes) -> bytes:
        """What came out, counted.

        Parameters
        ----------
        data : bytes
            What came out.

        Raises
        ------
        InputError
            More than there may be.
        """
        self.left -= len(data)
        if self.left < 0:
            raise InputError(f"{self.label}: unpacks to more than C-MAPSS has: not unpacked")
        return data


def capped(stream: Any, label: str) -> bytes:
    """All that a stream holds, if a C-MAPSS file may be as large.

    Parameters
    ----------
    stream : binary file
        Read to its end, or to where it is too large.
    label : str
        Its name, for messages.

    Raises
    ------
    InputError
        It holds more.

    Examples
    --------
    >>> capped(io.BytesIO(b"112"), "RUL_FD001.txt")
    b'112'
    """
    data: bytes = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise InputError(
            f"{label}: larger than {MAX_FILE_BYTES >> 20} MiB, which no C-MAPSS file is"
        )
    return data


def _unxz(stream: Any, label: str) -> bytes:
    """An xz file, of one stream or several, in bounded memory."""
    parts: list[bytes] = []
    size, data = 0, stream.read(_CHUNK)
    while data:
        packed = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not packed.eof:
            if packed.needs_input and not data:
                raise EOFError("it stops before its end")
            parts.append(packed.decompress(data, _CHUNK))
            size += len(parts[-1])
            data = stream.read(_CHUNK) if packed.needs_input else b""
            if size > MAX_FILE_BYTES:
                raise InputError(
                    f"{label}: larger than {MAX_FILE_BYTES >> 20} MiB, which no C-MAPSS file is"
                )
        data = packed.unused_data + data
        while data and not (data := data.lstrip(b"\0")):  # padding between streams
            data = stream.read(_CHUNK)
        data = data or stream.read(_CHUNK)
    return b"".join(parts)


def _table(label: str, data: bytes, columns: Sequence[str]) -> NDArray[np.float64]:
    if not data.strip():
        return np.empty((0, len(columns)))
    try:
        table = np.loadtxt(io.BytesIO(data), dtype=np.float64, ndmin=2, comments=None)
    except (ValueError, UnicodeDecodeError):
        table = np.empty((0, 0))
    if table.shape[1] != len(columns) or not np.isfinite(table).all():
        # The fast reader says little about where: look line by line.
        _refuse_line(label, data, columns)
        return np.empty((0, len(columns)))
    return table


def _refuse_line(label: str, data: bytes, columns: Sequence[str]) -> None:
    for number, line in enumerate(data.splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != len(columns):
            raise InputError(
                f"{label}, line {number}: {len(cells)} columns instead of {len(columns)}: "
                "fetch the file again, or mend the line"
            )
        for column, cell in zip(columns, cells, strict=True):
            try:
                value = float(cell)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                text = cell[:24].decode("ascii", "replace")
                raise InputError(
                    f"{label}, line {number}: {column} is {text!r}, not a finite number: "
                    "fetch the file again, or mend the cell"
                )


def _refuse_first(label: str, bad: NDArray[np.bool_], describe: Any) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"{label}, line {row + 1}: {describe(row)}")


@dataclass(frozen=True)
class FileCheck:
    """What became of one file.

    Attributes
    ----------
    name : str
        As NASA calls it.
    status : {"ok", "missing", "differs", "unreadable"}
        "ok" has NASA's SHA-256.
    detail : str
        Why not; "" where it is.
    """

    name: str
    status: str
    detail: str = ""


@dataclass(frozen=True)
class Verification(Result):
    """Every C-MAPSS file against its SHA-256.

    Attributes
    ----------
    source : str
        The folder or archive.
    files : tuple of FileCheck
        In NASA's order.
    """

    source: str
    files: tuple[FileCheck, ...]
    title = "C-MAPSS files"

    @property
    def ok(self) -> bool:
        """All twelve are there and equal the originals."""
        return all(file.status == "ok" for file in self.files)

    def rows(self) -> list[tuple[str, ...]]:
        """One row per file."""
        return [(file.name, file.status, file.detail) for file in self.files]

    def facts(self) -> dict[str, Any]:
        """Keys ``source``, ``ok`` and ``files`` (a list of ``name``, ``status``, ``detail``)."""
        return {"source": self.source, "ok": self.ok, "files": list(self.files)}


def verify(source: str | Path, subsets: Sequence[str] = SUBSETS) -> Verification:
    """Compare the files of a folder or archive with the SHA-256 of NASA's originals.

    Parameters
    ----------
    source : path
        Folder or zip archive.
    subsets : sequence of str
        Which subsets must be there.

    Examples
    --------
    >>> import tempfile
    >>> verify(tempfile.mkdtemp(), ["FD001"]).files[0].status
    'missing'
    """
    place = Path(source)
    if not place.exists():
        open_member(place, "train_FD001.txt")
    checks = []
    for subset in subsets:
        for kind in ("train", "test", "RUL"):
            name = f"{kind}_{subset}.txt"
            try:
                data = open_member(place, name)[1]
            except Absent:
                checks.append(FileCheck(name, "missing", ""))
                continue
            except InputError as error:
                checks.append(FileCheck(name, "unreadable", str(error)))
                continue
            digest = hashlib.sha256(data).hexdigest()
            same = digest == CHECKSUMS[name]
            checks.append(
                FileCheck(name, "ok" if same else "differs", "" if same else f"SHA-256 {digest}")
            )
    return Verification(str(place), tuple(checks))
