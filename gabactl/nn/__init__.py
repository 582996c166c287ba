"""PyTorch side: losses, sensors, recorder, models and training. Needs the extra ``torch``.

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gabactl.base.errors import packages_for

_LAZY = {
    "BalancedLoss": "gabactl.nn.losses.base",
    "BoardMonitor": "gabactl.nn.recording.monitor",
    "Calibration": "gabactl.nn.sensors.calibration",
    "EventSensor": "gabactl.nn.sensors",
    "FixedLoss": "gabactl.nn.losses.fixed",
    "FullSensor": "gabactl.nn.sensors",
    "GABALoss": "gabactl.nn.losses.gaba",
    "GradNormLoss": "gabactl.nn.losses.gradnorm",
    "LastLayerSensor": "gabactl.nn.sensors",
    "RepresentationSensor": "gabactl.nn.sensors",
    "SubsetSensor": "gabactl.nn.sensors",
    "TraceRecorder": "gabactl.nn.recording.recorder",
    "calibrate": "gabactl.nn.sensors.calibration",
    "compute_task_grad_norm": "gabactl.nn.sensors",
    "get_shared_params": "gabactl.nn.sensors",
    "peer_loss": "gabactl.nn.losses.peers",
}

__all__ = [
    "BalancedLoss",
    "BoardMonitor",
    "Calibration",
    "EventSensor",
    "FixedLoss",
    "FullSensor",
    "GABALoss",
    "GradNormLoss",
    "LastLayerSensor",
    "RepresentationSensor",
    "SubsetSensor",
    "TraceRecorder",
    "calibrate",
    "compute_task_grad_norm",
    "get_shared_params",
    "peer_loss",
]

if TYPE_CHECKING:
    from gabactl.nn.losses.base import BalancedLoss
    from gabactl.nn.losses.fixed import FixedLoss
    from gabactl.nn.losses.gaba import GABALoss
    from gabactl.nn.losses.gradnorm import GradNormLoss
    from gabactl.nn.losses.peers import peer_loss
    from gabactl.nn.recording.monitor import BoardMonitor
    from gabactl.nn.recording.recorder import TraceRecorder
    from gabactl.nn.sensors import (
        EventSensor,
        FullSensor,
        LastLayerSensor,
        RepresentationSensor,
        SubsetSensor,
        compute_task_grad_norm,
        get_shared_params,
    )
    from gabactl.nn.sensors.calibration import Calibration, calibrate


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        with packages_for(f"gabactl.nn.{name}"):
            return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gabactl.nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
