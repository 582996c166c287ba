"""The one way functions are compiled here: strict floating point, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

#: Division by 0 gives infinity; nothing is reassociated or fused that does not say so.
OPTIONS = {"error_model": "numpy", "nogil": True}


def compiled(function: F) -> F:
    """Compile for the machine at hand, without reassociation: one result for any blocking.

    Examples
    --------
    >>> compiled(lambda x: x + 1)(2)
    3
    """
    return _compile(function)


def inlined(function: F) -> F:
    """:func:`compiled`, and never called: a loop that calls anything is not vectorised.

    Examples
    --------
    >>> inlined(lambda x: x + 1)(2)
    3
    """
    return _compile(function, forceinline=True)


def _compile(function: F, **more: bool) -> F:
    try:
        return njit(cache=True, **OPTIONS, **more)(function)
    except RuntimeError:  # no folder to cache in: a read-only installation and home
        return njit(**OPTIONS, **more)(function)
