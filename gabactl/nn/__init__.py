"""PyTorch side: losses, sensors, recorder, models and training. Needs the extra ``torch``.

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gabactl.base.errors import packages_for

#: Where a name is loaded from, on first use; the others are sensors.
_LAZY = {
    "BalancedLoss": "losses.base",
    "BoardMonitor": "recording.monitor",
    "Calibration": "sensors.calibration",
    "FixedLoss": "losses.fixed",
    "GABALoss": "losses.gaba",
    "GradNormLoss": "losses.gradnorm",
    "TraceRecorder": "recording.recorder",
    "calibrate": "sensors.calibration",
    "peer_loss": "losses.peers",
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
    if name in __all__:
        with packages_for(f"gabactl.nn.{name}"):
            home = importlib.import_module(f"gabactl.nn.{_LAZY.get(name, 'sensors')}")
            return getattr(home, name)
    raise AttributeError(f"module 'gabactl.nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
