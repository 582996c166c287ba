"""The fuzzer: looks for inputs that break what a weighting rule guarantees, and shrinks them.

For our controllers and for anyone's: see :func:`fuzz` (or ``gabactl fuzz``), :func:`guarantees`
for a test suite of one's own, and :mod:`gabactl.fuzz.strategies` for Hypothesis strategies.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LAZY = {
    "Case": "gabactl.fuzz.cases",
    "FuzzReport": "gabactl.fuzz.result",
    "FuzzResult": "gabactl.fuzz.result",
    "PROPERTIES": "gabactl.fuzz.properties",
    "Reach": "gabactl.fuzz.reach",
    "Segment": "gabactl.fuzz.cases",
    "Target": "gabactl.fuzz.targets",
    "as_target": "gabactl.fuzz.targets",
    "check_case": "gabactl.fuzz.engine",
    "fuzz": "gabactl.fuzz.engine",
    "fuzz_bounds": "gabactl.fuzz.engine",
    "guarantees": "gabactl.fuzz.battery",
    "loss_life": "gabactl.fuzz.machine",
    "reachable": "gabactl.fuzz.reach",
    "resolve": "gabactl.fuzz.targets",
    "step_function": "gabactl.fuzz.targets",
}

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

if TYPE_CHECKING:
    from gabactl.fuzz.battery import guarantees
    from gabactl.fuzz.cases import Case, Segment
    from gabactl.fuzz.engine import check_case, fuzz, fuzz_bounds
    from gabactl.fuzz.machine import loss_life
    from gabactl.fuzz.properties import PROPERTIES
    from gabactl.fuzz.reach import Reach, reachable
    from gabactl.fuzz.result import FuzzReport, FuzzResult
    from gabactl.fuzz.targets import Target, as_target, resolve, step_function


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gabactl.fuzz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
