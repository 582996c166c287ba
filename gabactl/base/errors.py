"""The exceptions that mean: the input is wrong, or the machine gave out; not the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unicodedata import category

__all__ = ["InputError"]

_LONGEST = 1000

#: Packages that the base install does not bring, and the extra that does.
_EXTRAS = {
    "torch": "torch",
    **dict.fromkeys(("torchjd", "qpsolvers", "quadprog"), "peers"),
    **dict.fromkeys(("panel", "bokeh"), "app"),
    **dict.fromkeys(("dask", "distributed", "ray"), "cluster"),
    **dict.fromkeys(("cvxpy", "clarabel"), "lmi"),
    "atheris": "fuzz",
    "tensorboard": "logs",
    **dict.fromkeys(("lightning", "transformers", "accelerate", "wandb"), "integrations"),
}

#: Packages whose module has another name.
_DISTRIBUTIONS = {"z3": "z3-solver"}


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
    gabactl.base.errors.InputError: beta = 1.5 is not in [0, 1): choose for example 0.99
    >>> print(InputError("task \\x1b[2J is unknown"))
    task \\x1b[2J is unknown
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_short(printable(message)))


class Absent(InputError):
    """What was asked for is not there: a file of a data set, say.

    Parameters
    ----------
    message : str
        As for :class:`InputError`.

    Examples
    --------
    >>> issubclass(Absent, InputError)
    True
    """


class Occupied(InputError):
    """Somebody else is at work in that place.

    Parameters
    ----------
    message : str
        As for :class:`InputError`.

    Examples
    --------
    >>> issubclass(Occupied, InputError)
    True
    """


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
    gabactl.base.errors.Stopped: the sweep stopped with 3 of 8 chunks missing: run again with --resume
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_short(printable(message)))


class MissingPackage(InputError, ModuleNotFoundError):
    """A package is needed that is not installed, and how to install it.

    Both an ``ImportError``, as a missing package is to Python, and an :class:`InputError`.

    Parameters
    ----------
    package : str
        Its name, or that of a module inside it.
    purpose : str
        What needs it.

    Examples
    --------
    >>> raise MissingPackage("torch", "gabactl.nn.GABALoss")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.MissingPackage: gabactl.nn.GABALoss needs the package 'torch', which is not installed: pip install 'gabactl[torch]'
    """

    def __init__(self, package: str, purpose: str = "this") -> None:
        name = package.partition(".")[0]
        extra = _EXTRAS.get(name)
        wanted = f"'gabactl[{extra}]'" if extra else _DISTRIBUTIONS.get(name, name)
        super().__init__(
            f"{purpose} needs the package {name!r}, which is not installed: pip install {wanted}"
        )
        self.name = name
        self._given = package, purpose

    def __reduce__(self) -> tuple[Any, ...]:
        """As made: worker processes send it back."""
        return type(self), self._given


@contextmanager
def packages_for(purpose: str) -> Iterator[None]:
    """Around imports of packages that may not be there.

    Parameters
    ----------
    purpose : str
        What needs them.

    Raises
    ------
    MissingPackage
        In the place of Python's own error.

    Examples
    --------
    >>> with packages_for("this page"):
    ...     import no_such_package
    Traceback (most recent call last):
        ...
    gabactl.base.errors.MissingPackage: this page needs the package 'no_such_package', which is not installed: pip install no_such_package
    """
    try:
        yield
    except MissingPackage:
        raise
    except ModuleNotFoundError as error:
        name = error.name or ""
        if not name or name.partition(".")[0] == "gabactl":
            raise  # a fault of ours
        raise MissingPackage(name, purpose) from None


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
