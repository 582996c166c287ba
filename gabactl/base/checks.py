"""Numbers that a caller gives: refused by name, with the remedy, where they are none."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from gabactl.base.errors import InputError

__all__ = ["check_choice", "check_int", "check_real"]


def check_real(name: str, value: Any, remedy: str) -> None:
    """Refuse what is no finite number, saying what to give instead.

    Parameters
    ----------
    name : str
        For the message.
    value
        What was given.
    remedy : str
        What to give instead, as in "such as 0.5".

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
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} = {value!r} is not a finite number: {remedy}")


def check_int(name: str, value: Any, least: int, remedy: str) -> None:
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
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} = {value!r} is not a whole number >= {least}: {remedy}")


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
