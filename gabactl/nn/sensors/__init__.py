"""Sensors: how large a task's gradient on the shared parameters is, when to look, at what cost."""

from gabactl.nn.sensors.base import Context, Sensor
from gabactl.nn.sensors.full import FullSensor
from gabactl.nn.sensors.norms import (
    compute_task_grad_norm,
    get_shared_params,
    norm_of,
    task_gradients,
)

__all__ = [
    "Context",
    "FullSensor",
    "Sensor",
    "compute_task_grad_norm",
    "get_shared_params",
    "norm_of",
    "task_gradients",
]
