"""The one way functions are compiled here: strict floating point, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile for the machine at hand, without reassociation: one result for any blocking.

    Examples
    --------
    >>> compiled(lambda x: x + 1)(2)
    3
    """
    options = {"error_model": "numpy", "nogil": True}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in: a read-only installation and home
        return njit(**options)(function)
