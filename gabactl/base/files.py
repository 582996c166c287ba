"""Writing a file whole or not at all, and reading small files of settings with care."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import stat
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from gabactl.base.errors import InputError
from gabactl.base.lock import lives

#: Largest whole number in a file of settings: what TOML promises, and every machine has.
_LARGEST = 2**63


def write_text(path: str | Path, text: str, remedy: str | None = None) -> Path:
    """Write UTF-8 text so that a reader sees the old file or the new one, never a part.

    Parameters
    ----------
    path : path
        Replaced if it exists; its folder must exist.
    text : str
        The contents.
    remedy : str, optional
        As of :func:`whole_file`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError, or InputError where there is a remedy
        It cannot be written; what was there is left as it was, and nothing beside it.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_text(folder / "a.txt", "text").read_text(encoding="utf-8")
    'text'
    """
    with whole_file(path, remedy) as stream:
        # A lone surrogate, as JSON may hold, has no UTF-8 form: it is written as "?".
        stream.write(text.encode("utf-8", "replace"))
    return Path(path)


@contextmanager
def whole_file(path: str | Path, remedy: str | None = None) -> Iterator[BinaryIO]:
    """A binary file under a temporary name that takes its own when all went well.

    The bytes reach the disk before the name does, so that even after a power cut the name stands
    for the old file or for the whole new one. The temporary name is random and follows no link;
    the rights are those of the file that is replaced, or what the umask leaves of 0666.

    Parameters
    ----------
    path : path
        Replaced if it exists; its folder must exist.
    remedy : str, optional
        What to do where it cannot be written: the refusal is then an `InputError` that ends in it.

    Yields
    ------
    binary file
        Open for writing.

    Raises
    ------
    OSError, or InputError where there is a remedy
        It cannot be written; what was there is left as it was, and nothing beside it.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole_file(folder / "a.bin") as stream:
    ...     _ = stream.write(b"bytes")
    >>> [file.name for file in folder.iterdir()]
    ['a.bin']
    """
    file = Path(path)
    mine = f"{secrets.token_hex(8)}.{_machine()}.{os.getpid()}"
    temporary = file.with_name(f".{file.name[:40]}.{mine}.tmp")
    try:
        with open(temporary, "xb") as stream:
            with contextlib.suppress(OSError):
                os.chmod(temporary, stat.S_IMODE(os.stat(file).st_mode))
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        if remedy is None:
            raise
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}): {remedy}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def left_behind(temporary: Path) -> bool:
    """Whether the process that wrote a file under its passing name is gone.

    Parameters
    ----------
    temporary : path
        As :func:`whole_file` names them. Of another machine's processes only the age of the file
        tells.

    Raises
    ------
    OSError
        The file is gone already.

    Examples
    --------
    >>> import tempfile
    >>> with whole_file(Path(tempfile.mkdtemp()) / "a.bin") as stream:
    ...     left_behind(Path(stream.name))
    False
    """
    *_, machine, process, _ = temporary.name.split(".")
    if machine == _machine() and process.isdigit():
        return not lives(int(process))
    return time.time() - temporary.stat().st_mtime > 60


def _machine() -> str:
    return platform.node().replace(".", "-")[:40] or "here"


def read_toml(path: str | Path, most_bytes: int = 1 << 20) -> dict[str, Any]:
    """A TOML file as a table, or one line that says what is wrong with it.

    Parameters
    ----------
    path : path
        The file.
    most_bytes : int
        A larger one is refused.

    Returns
    -------
    dict
        The tables and values.

    Raises
    ------
    InputError
        Absent, too large, not UTF-8, no TOML, or with a whole number outside 64 bits.

    Examples
    --------
    >>> read_toml("nowhere.toml")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: nowhere.toml: cannot be read (No such file or directory): check the path
    """
    table: dict[str, Any] = _parsed(path, most_bytes, tomllib.loads, "TOML", "mend the file")
    return table


def check_keys(
    path: str | Path, place: str, table: Mapping[str, Any], allowed: Sequence[str]
) -> None:
    """Refuse what no table of that place has.

    Parameters
    ----------
    path : path
        Where the table was read, for the message.
    place : str
        Of the table in it.
    table : mapping
        What was read.
    allowed : sequence of str
        Its keys.

    Raises
    ------
    InputError
        Another key.

    Examples
    --------
    >>> check_keys("run.toml", "[run]", {"seed": 1}, ("seeds", "noise"))
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: run.toml: unknown key 'seed' in [run]: choose from seeds, noise
    """
    for key in table:
        if key not in allowed:
            raise InputError(
                f"{path}: unknown key {key!r} in {place}: choose from {', '.join(allowed)}"
            )


def read_json(path: str | Path, most_bytes: int = 1 << 20) -> Any:
    """A JSON file as plain values, or one line that says what is wrong with it.

    Parameters
    ----------
    path : path
        The file.
    most_bytes : int
        A larger one is refused.

    Returns
    -------
    dict, list, str, float, int, bool or None
        Any JSON value.

    Raises
    ------
    InputError
        Absent, too large, not UTF-8, no JSON (NaN and Infinity are none), or with a whole number
        outside 64 bits.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> read_json(write_text(folder / "a.json", '{"a": [1, 2.5]}'))
    {'a': [1, 2.5]}
    """
    parse = partial(json.loads, parse_constant=_no_constant)
    return _parsed(path, most_bytes, parse, "JSON", "mend or delete the file")


def _parsed(
    path: str | Path, most_bytes: int, parse: Callable[[str], Any], kind: str, remedy: str
) -> Any:
    text = _text(path, most_bytes)
    try:
        values = parse(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid {kind} ({error}): {remedy}") from None
    _refuse_large(path, values)
    return values


def _text(path: str | Path, most_bytes: int) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}): check the path") from None
    if len(data) > most_bytes:
        raise InputError(f"{path}: larger than {_size(most_bytes)}: that is no file of this kind")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}): save it as UTF-8") from None


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refuse_large(path: str | Path, values: Any) -> None:
    """Whole numbers outside 64 bits: later arithmetic and messages would choke on them."""
    stack = [values]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, int) and not -_LARGEST <= item < _LARGEST:
            raise InputError(
                f"{path}: holds a whole number of {item.bit_length()} bits: give at most 64"
            )
