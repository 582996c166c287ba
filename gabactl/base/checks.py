"""Numbers and choices that a caller gives: refused by name, with the remedy, where they are none."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

from gabactl.base.errors import InputError


def check_real(name: str, value: Any, remedy: str) -> float:
    """Refuse what is no finite number, saying what to give instead.

    Parameters
    ----------
    name : str
        For the message.
    value
        What was given.
    remedy : str
        What to give instead, as in "such as 0.5".

    Returns
    -------
    float

    Raises
    ------
    InputError
        No number, a bool, infinite or NaN.

    Examples
    --------
    >>> check_real("rho", float("nan"), "such as 0.5")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: rho = nan is not a finite number: such as 0.5
    """
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # nor can a whole number of thousands of digits be printed
            raise InputError(f"{name} is beyond all floats: {remedy}") from None
    if not math.isfinite(number):
        raise InputError(f"{name} = {value!r} is not a finite number: {remedy}")
    return number


def check_int(name: str, value: Any, least: int, remedy: str) -> int:
    """Refuse what is no whole number of at least ``least``.

    Parameters
    ----------
    name : str
        For the message.
    value
        What was given.
    least : int
        The smallest that is allowed.
    remedy : str
        What to give instead, as in "such as 1".

    Returns
    -------
    int

    Raises
    ------
    InputError
        No whole number, a bool, or below ``least``.

    Examples
    --------
    >>> check_int("delay", -1, 0, "such as 1")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: delay = -1 is not a whole number >= 0: such as 1
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and abs(value) >= 1 << 63:  # the loops count in 64 bits, and Python prints no more
        raise InputError(f"{name} is a whole number beyond 64 bits: {remedy}")
    if not whole or value < least:
        raise InputError(f"{name} = {value!r} is not a whole number >= {least}: {remedy}")
    return operator.index(value)


def check_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuse what is none of a few choices, naming them.

    Parameters
    ----------
    name : str
        For the message.
    value
        What was given.
    allowed : collection
        The choices.

    Raises
    ------
    InputError
        Another value.

    Examples
    --------
    >>> check_choice("of", "mean", ("signal", "batch"))
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: of = 'mean' is unknown: choose one of signal, batch
    """
    if value not in allowed:
        raise InputError(
            f"{name} = {value!r} is unknown: choose one of {', '.join(map(str, allowed))}"
        )
