"""How far a cheap sensor can be trusted on your own model: measured against the exact norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.stages import raw_weights
from gabactl.nn.sensors.base import Sensor, exact_norms
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.norms import Tensors, get_shared_params
from gabactl.nn.sensors.proxy import ProxySensor

__all__ = ["Calibration", "calibrate"]

Array = NDArray[Any]

#: A raw weight that is off by more than this on average is not the controller's any more.
_ALLOWED_WEIGHT_ERROR = 0.02


@dataclass(frozen=True)
class Calibration(Result):
    """A cheap sensor against the exact norms, over some batches of one model.

    Attributes
    ----------
    sensor : str
        Class of the sensor.
    batches : int
        Batches on which both gave a usable reading.
    held : int
        Batches on which the cheap reading was unusable.
    bias : array, shape (K - 1,)
        Mean error of log g_1/g_j, j = 2 ... K.
    correlation : array, shape (K - 1,)
        Correlation of the cheap and the exact log g_1/g_j; NaN where one does not vary.
    weight_error : float
        Largest mean error of a raw weight, uncorrected.
    corrected_weight_error : float
        The same after the mean bias is taken out, as recalibration does.
    verdict : {"use", "recalibrate", "refuse"}
        ``use``: weight error at most 0.02 as it is; ``recalibrate``: only with the bias taken
        out; ``refuse``: not even then.
    """

    sensor: str
    batches: int
    held: int
    bias: Array
    correlation: Array
    weight_error: float
    corrected_weight_error: float
    verdict: str
    title = "A cheap sensor against the exact one"

    def rows(self) -> list[tuple[str, ...]]:
        """The comparison as a table."""
        numbers = " ".join
        advice = {
            "use": "use it as it is",
            "recalibrate": "use it with recalibrate_every",
            "refuse": "do not use it on this model",
        }
        return [
            ("sensor", self.sensor),
            ("batches", f"{self.batches} ({self.held} more without a usable reading)"),
            ("bias of the log-ratio", numbers(f"{x:+.3f}" for x in self.bias)),
            ("correlation", numbers(f"{x:.3f}" for x in self.correlation)),
            ("error of a raw weight", f"{self.weight_error:.4f}"),
            ("  without the bias", f"{self.corrected_weight_error:.4f}"),
            ("verdict", advice[self.verdict]),
        ]

    def facts(self) -> dict[str, Any]:
        """Keys as the attributes; a correlation that does not exist is null."""
        return self._fields()


def calibrate(
    model: nn.Module,
    loader: Iterable[Any],
    losses_of: Callable[[nn.Module, Any], Tensors],
    sensor: Sensor,
    shared_params: Iterable[Tensor] | None = None,
    max_batches: int = 50,
) -> Calibration:
    """Measure bias and correlation of a sensor against exact norms, on a model as it is now.

    Nothing is trained: the model stays in its mode, ``.grad`` and the sensor's state untouched
    (batch norm in training mode does count the batches).

    Parameters
    ----------
    model : torch.nn.Module
        Preferably somewhere in its training, not freshly initialised.
    loader : iterable
        Batches.
    losses_of : callable
        ``losses_of(model, batch) -> K scalar losses``, with their graph.
    sensor : Sensor
        The cheap one. Its correction is switched off while it is measured.
    shared_params : iterable of Tensor, optional
        Default: :func:`gabactl.nn.get_shared_params` of the model.
    max_batches : int, at least 2
        Batches to use at most.

    Raises
    ------
    InputError
        Fewer than two batches with usable readings.

    Examples
    --------
    >>> import torch
    >>> from gabactl.nn import LastLayerSensor
    >>> _ = torch.manual_seed(0)
    >>> model = nn.ModuleDict({"backbone": nn.Linear(4, 4), "rul_head": nn.Linear(4, 1),
    ...                        "health_head": nn.Linear(4, 1)})
    >>> def losses_of(model, x):
    ...     z = model["backbone"](x)
    ...     return [model[n](z).pow(2).mean() for n in ("rul_head", "health_head")]
    >>> sensor = LastLayerSensor(model["backbone"].parameters())
    >>> batches = [torch.randn(8, 4) for _ in range(5)]
    >>> calibrate(model, batches, losses_of, sensor).verdict  # this backbone is one layer
    'use'
    """
    check_int("max_batches", max_batches, 2, "use for example 50")
    shared = get_shared_params(model) if shared_params is None else list(shared_params)
    context = Context()
    cheap_rows, exact_rows = [], []
    for i, batch in enumerate(loader):
        if i == max_batches:
            break
        losses = losses_of(model, batch)
        cheap = (
            sensor.cheap_norms(losses, shared, context)
            if isinstance(sensor, ProxySensor)
            else sensor.read(losses, shared, context)
        )
        cheap_rows.append(cheap.double().cpu().numpy())
        exact_rows.append(exact_norms(losses, shared, context).double().cpu().numpy())
    cheap_norms, exact = np.array(cheap_rows), np.array(exact_rows)
    both = np.hstack([cheap_norms, exact])
    good = np.array([np.isfinite(r).all() and (r > 0).all() for r in both], dtype=bool)
    if good.sum() < 2:
        raise InputError(
            f"only {int(good.sum())} of {len(cheap_rows)} batches gave usable readings: use more "
            "batches, or another sensor"
        )
    return _compare(type(sensor).__name__, cheap_norms[good], exact[good], int((~good).sum()))


def _compare(name: str, cheap: Array, exact: Array, held: int) -> Calibration:
    logs = [np.log(x[:, :1]) - np.log(x[:, 1:]) for x in (cheap, exact)]
    error = logs[0] - logs[1]
    correlation = np.array(
        [
            np.corrcoef(a, b)[0, 1] if a.std() > 0 and b.std() > 0 else math.nan
            for a, b in zip(logs[0].T, logs[1].T, strict=True)
        ]
    )
    corrected = cheap.copy()
    corrected[:, 1:] *= np.exp(error.mean(axis=0))
    # The average follows the mean raw weight, so errors that cancel over the batches do no harm.
    target = raw_weights(exact).mean(axis=0)
    wrong = float(np.abs(raw_weights(cheap).mean(axis=0) - target).max())
    left = float(np.abs(raw_weights(corrected).mean(axis=0) - target).max())
    helped = "recalibrate" if left <= _ALLOWED_WEIGHT_ERROR else "refuse"
    verdict = "use" if wrong <= _ALLOWED_WEIGHT_ERROR else helped
    return Calibration(
        name, len(cheap), held, error.mean(axis=0), correlation, wrong, left, verdict
    )
