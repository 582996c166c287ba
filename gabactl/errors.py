"""The one exception that means "the input is wrong, not the program"."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input: what was given, what is allowed, and what to do about it, in one line.

    A ``ValueError``, so callers need not know this class; the command line prints the message
    alone and exits with code 2.

    Examples
    --------
    >>> raise InputError("beta = 1.5 is not in [0, 1): choose for example 0.99")
    Traceback (most recent call last):
        ...
    gabactl.errors.InputError: beta = 1.5 is not in [0, 1): choose for example 0.99
    """
