"""What the law asks of an array, for NumPy, exact fractions (dtype object) and PyTorch alike.

PyTorch is never imported here: who passes a tensor has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])


def space(x: Any) -> Any:
    """The module whose functions take ``x``: ``torch`` for a tensor, else ``numpy``."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(x, torch.Tensor) else np


def as_array(values: Any) -> Any:
    """A tensor and an array of objects as they are, anything else in float64."""
    if space(values) is not np:
        return values
    array = np.asarray(values)
    return array if array.dtype == object else array.astype(np.float64, copy=False)


def is_exact(x: Any) -> bool:
    """Whether ``x`` holds fractions."""
    return bool(x.dtype == object)


def number(value: Fraction, like: Any) -> Any:
    """A constant: as it is beside fractions, else rounded to float64."""
    return value if is_exact(like) else float(value)


def total(x: Any) -> Any:
    """Sum over the tasks, shape (..., 1)."""
    return x.sum(-1, keepdims=True)


def least(x: Any) -> Any:
    """Smallest over the tasks, shape (..., 1)."""
    return space(x).amin(x, -1, keepdims=True)


def largest(x: Any) -> Any:
    """Largest over the tasks, shape (..., 1)."""
    return space(x).amax(x, -1, keepdims=True)


def over_total(x: Any) -> Any:
    """``x`` divided by its sum over the tasks."""
    return x / total(x)


def at_least(x: Any, low: Any) -> Any:
    """The larger of ``x`` and ``low``; NaN stays NaN."""
    if space(x) is np:
        return np.maximum(x, low)
    return x.clamp_min(low)


def descending(x: Any) -> Any:
    """Sorted over the tasks, the largest first."""
    if space(x) is np:
        return -np.sort(-x, axis=-1)
    return x.sort(-1, descending=True).values


def counting(like: Any) -> Any:
    """1, 2, ..., K, in the numbers of ``like``."""
    k = like.shape[-1]
    if space(like) is not np:
        return space(like).arange(1, k + 1, device=like.device, dtype=like.dtype)
    if is_exact(like):
        return np.array([Fraction(i) for i in range(1, k + 1)], dtype=object)
    return np.arange(1, k + 1)


def on_arrays(stage: F) -> F:
    """Let a stage take whatever makes an array, without NumPy's warnings.

    What overflows, or is divided by nothing, the stages deal with. (A tensor goes straight
    through, so that a graph of them can be compiled and captured.)
    """

    @wraps(stage)
    def called(x: Any, *args: Any, **kwargs: Any) -> Any:
        if space(x) is not np:
            return stage(x, *args, **kwargs)
        with np.errstate(all="ignore"):
            return stage(as_array(x), *args, **kwargs)

    return cast(F, called)
