"""What a table of settings in a file holds: its tables and whole numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError


@contextmanager
def where(file: Path, key: str) -> Iterator[None]:
    """Put file and key before the message of an error, and turn odd types into one.

    Parameters
    ----------
    file : path
        The file.
    key : str
        The key.

    Raises
    ------
    InputError
        With file and key before the message, whatever it was.

    Examples
    --------
    >>> with where(Path("a.toml"), "run.noise"):
    ...     raise InputError("noise = -1 is below 0")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: a.toml: run.noise: noise = -1 is below 0
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{file}: {key}: {error}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{file}: {key}: a value is missing or of the wrong type ({error}): mend it"
        ) from None


def sub_table(file: Path, key: str, value: Any) -> dict[str, Any]:
    """A value that must be a table.

    Parameters
    ----------
    file : path
        The file, for the message.
    key : str
        Where it stands.
    value : any
        What stands there.

    Raises
    ------
    InputError
        No table.

    Examples
    --------
    >>> sub_table(Path("a.toml"), "run", {"noise": 0.1})
    {'noise': 0.1}
    """
    if not isinstance(value, dict):
        raise InputError(f"{file}: {key} is missing or not a table: add [{key}]")
    return value


def whole_number(file: Path, key: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A value that must be a whole number.

    Parameters
    ----------
    file : path
        The file, for the message.
    key : str
        Where it stands.
    value : any
        What stands there.
    least, most : int
        Bounds, themselves allowed.

    Raises
    ------
    InputError
        No whole number, or one beyond the bounds.

    Examples
    --------
    >>> whole_number(Path("a.toml"), "tasks", 3, 2, 64)
    3
    """
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not good or (most is not None and value > most):
        allowed = f">= {least}" if most is None else f"from {least:,} to {most:,}"
        raise InputError(f"{file}: {key} = {value!r} is not a whole number {allowed}")
    return int(value)
