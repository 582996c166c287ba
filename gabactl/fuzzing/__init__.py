"""The fuzzer: looks for inputs that break what a weighting rule guarantees, and shrinks them.

For our controllers and for anyone's: see :func:`fuzz` (or ``gabactl fuzz``), :func:`guarantees`
for a test suite of one's own, and :mod:`gabactl.fuzzing.strategies` for Hypothesis strategies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gabactl.fuzzing.battery import guarantees
from gabactl.fuzzing.cases import Case, Segment
from gabactl.fuzzing.engine import check_case, fuzz, fuzz_bounds
from gabactl.fuzzing.properties import PROPERTIES
from gabactl.fuzzing.reach import Reach, reachable
from gabactl.fuzzing.result import FuzzReport, FuzzResult
from gabactl.fuzzing.target import Target
from gabactl.fuzzing.targets import as_target, resolve, step_function

if TYPE_CHECKING:
    from gabactl.fuzzing.machine import loss_life

__all__ = [
    "PROPERTIES",
    "Case",
    "FuzzReport",
    "FuzzResult",
    "Reach",
    "Segment",
    "Target",
    "as_target",
    "check_case",
    "fuzz",
    "fuzz_bounds",
    "guarantees",
    "loss_life",
    "reachable",
    "resolve",
    "step_function",
]


def __getattr__(name: str) -> Any:
    if name == "loss_life":  # needs torch
        from gabactl.fuzzing.machine import loss_life

        return loss_life
    raise AttributeError(f"module 'gabactl.fuzzing' has no attribute {name!r}")
