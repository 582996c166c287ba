"""Sensors: how large a task's gradient on the shared parameters is, when to look, at what cost."""

from gabactl.nn.sensors.base import Sensor
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.event import EventSensor
from gabactl.nn.sensors.full import FullSensor
from gabactl.nn.sensors.last_layer import LastLayerSensor
from gabactl.nn.sensors.norms import (
    compute_task_grad_norm,
    get_shared_params,
    norm_of,
    task_gradients,
)
from gabactl.nn.sensors.representation import RepresentationSensor
from gabactl.nn.sensors.subset import SubsetSensor

__all__ = [
    "Context",
    "EventSensor",
    "FullSensor",
    "LastLayerSensor",
    "RepresentationSensor",
    "Sensor",
    "SubsetSensor",
    "compute_task_grad_norm",
    "get_shared_params",
    "norm_of",
    "task_gradients",
]
