"""PyTorch side: losses, sensors, recorder, models and training. Needs the extra ``torch``.

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LAZY = {
    "BalancedLoss": "gabactl.nn.base",
    "FixedLoss": "gabactl.nn.fixed",
    "GABALoss": "gabactl.nn.gaba",
    "GradNormLoss": "gabactl.nn.gradnorm",
    "TraceRecorder": "gabactl.nn.recorder",
    "compute_task_grad_norm": "gabactl.nn.sensors",
    "get_shared_params": "gabactl.nn.sensors",
}

__all__ = [
    "BalancedLoss",
    "FixedLoss",
    "GABALoss",
    "GradNormLoss",
    "TraceRecorder",
    "compute_task_grad_norm",
    "get_shared_params",
]

if TYPE_CHECKING:
    from gabactl.nn.base import BalancedLoss
    from gabactl.nn.fixed import FixedLoss
    from gabactl.nn.gaba import GABALoss
    from gabactl.nn.gradnorm import GradNormLoss
    from gabactl.nn.recorder import TraceRecorder
    from gabactl.nn.sensors import compute_task_grad_norm, get_shared_params


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gabactl.nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
