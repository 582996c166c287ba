"""PyTorch side: losses, sensors, recorder, models and training. Needs the extra ``torch``.

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gabactl.base.errors import packages_for

#: Where each name is loaded from.
_HOMES = {
    "losses.base": ("BalancedLoss",),
    "losses.fixed": ("FixedLoss",),
    "losses.gaba": ("GABALoss",),
    "losses.gradnorm": ("GradNormLoss",),
    "losses.peers": ("peer_loss",),
    "recording.monitor": ("BoardMonitor",),
    "recording.recorder": ("TraceRecorder",),
    "sensors.calibration": ("Calibration", "calibrate"),
    "sensors.event": ("EventSensor",),
    "sensors.full": ("FullSensor",),
    "sensors.last_layer": ("LastLayerSensor",),
    "sensors.norms": ("compute_task_grad_norm", "get_shared_params"),
    "sensors.representation": ("RepresentationSensor",),
    "sensors.subset": ("SubsetSensor",),
}
_LAZY = {name: f"gabactl.nn.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [*_LAZY]

if TYPE_CHECKING:
    from gabactl.nn.losses.base import BalancedLoss as BalancedLoss
    from gabactl.nn.losses.fixed import FixedLoss as FixedLoss
    from gabactl.nn.losses.gaba import GABALoss as GABALoss
    from gabactl.nn.losses.gradnorm import GradNormLoss as GradNormLoss
    from gabactl.nn.losses.peers import peer_loss as peer_loss
    from gabactl.nn.recording.monitor import BoardMonitor as BoardMonitor
    from gabactl.nn.recording.recorder import TraceRecorder as TraceRecorder
    from gabactl.nn.sensors.calibration import Calibration as Calibration
    from gabactl.nn.sensors.calibration import calibrate as calibrate
    from gabactl.nn.sensors.event import EventSensor as EventSensor
    from gabactl.nn.sensors.full import FullSensor as FullSensor
    from gabactl.nn.sensors.last_layer import LastLayerSensor as LastLayerSensor
    from gabactl.nn.sensors.norms import compute_task_grad_norm as compute_task_grad_norm
    from gabactl.nn.sensors.norms import get_shared_params as get_shared_params
    from gabactl.nn.sensors.representation import RepresentationSensor as RepresentationSensor
    from gabactl.nn.sensors.subset import SubsetSensor as SubsetSensor


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        with packages_for(f"gabactl.nn.{name}"):
            return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gabactl.nn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
