"""The exceptions that mean: the input is wrong, or the machine gave out; not the program."""

from __future__ import annotations

from unicodedata import category

__all__ = ["InputError", "Stopped", "printable"]

_LONGEST = 1000


class InputError(ValueError):
    """Bad input: what was given, what is allowed, and what to do about it, in one line.

    A ``ValueError``, so callers need not know this class; the command line prints the message
    alone and exits with code 2.

    Parameters
    ----------
    message : str
        Often quotes the input, so what a terminal would obey (line ends, escape sequences,
        half characters) is written as ``\\x1b`` and the like, and the middle of a very long
        message is left out: beginning and end say what is wrong and what helps.

    Examples
    --------
    >>> raise InputError("beta = 1.5 is not in [0, 1): choose for example 0.99")
    Traceback (most recent call last):
        ...
    gabactl.errors.InputError: beta = 1.5 is not in [0, 1): choose for example 0.99
    >>> print(InputError("task \\x1b[2J is unknown"))
    task \\x1b[2J is unknown
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_short(printable(message)))


class Stopped(RuntimeError):
    """Work that something outside ended: dying workers, no memory, no space. It can be resumed.

    Parameters
    ----------
    message : str
        As for :class:`InputError`.

    Examples
    --------
    >>> raise Stopped("the sweep stopped with 3 of 8 chunks missing: run again with --resume")
    Traceback (most recent call last):
        ...
    gabactl.errors.Stopped: the sweep stopped with 3 of 8 chunks missing: run again with --resume
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_short(printable(message)))


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2 - 3
    return f"{text[:half]} ... {text[-half:]}"


def printable(text: str) -> str:
    """Text as one line that a terminal shows, and does not obey.

    Parameters
    ----------
    text : str
        Perhaps out of a file: line ends become spaces; escape sequences, control characters and
        half characters are written as ``\\x1b`` and the like.

    Examples
    --------
    >>> print(printable("rul\\x1b[2J"))
    rul\\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in " ".join(text.splitlines())
    )
