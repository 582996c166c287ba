"""Cheap stand-ins for the exact norms, and their correction by an exact reading now and then."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.nn.sensors.base import Sensor, exact_norms
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.norms import Tensors


class ProxySensor(Sensor):
    """Base of sensors that measure something cheaper than the whole gradient.

    With ``recalibrate_every`` every so many steps an exact reading is taken as well, and the
    difference of the logarithms corrects the cheap readings until the next one.

    Parameters
    ----------
    n_tasks : int
        Number of tasks K.
    recalibrate_every : int, at least 1, or None
        Steps between exact readings; None never takes one. A multiple of the interval.

    Attributes
    ----------
    log_bias : Tensor, shape (K,)
        Log of the exact norm over the cheap one, at the last exact reading; a buffer.

    Raises
    ------
    InputError
        ``recalibrate_every`` is not a whole number >= 1.
    """

    log_bias: Tensor

    def __init__(self, n_tasks: int = 2, recalibrate_every: int | None = 10) -> None:
        super().__init__()
        if recalibrate_every is not None:
            check_int("recalibrate_every", recalibrate_every, 1, "try 10, or None for never")
        self.recalibrate_every = recalibrate_every
        self.register_buffer("log_bias", torch.zeros(n_tasks))
        self._calibrate_now = False

    def check(self, spec: GabaSpec) -> None:
        """Refuse another number of tasks, and recalibration between readings.

        Raises
        ------
        InputError
            Another number of tasks, or ``recalibrate_every`` that is no multiple of the interval.
        """
        if len(self.log_bias) != spec.n_tasks:
            raise InputError(
                f"the sensor is for {len(self.log_bias)} tasks, the loss for {spec.n_tasks}: "
                f"pass n_tasks={spec.n_tasks} to the sensor"
            )
        every = self.recalibrate_every
        if every is not None and every % spec.interval:
            raise InputError(
                f"recalibrate_every = {every} is no multiple of interval = {spec.interval}: "
                f"choose {every - every % spec.interval + spec.interval}"
            )

    def reads_every_step(self, spec: GabaSpec) -> bool:
        """Without an interval, and without exact readings in between."""
        return spec.interval == 1 and self.recalibrate_every in (None, 1)

    def due(self, step: int, spec: GabaSpec, losses: Tensors, alone: bool = True) -> bool:
        """As the spec says; also decides whether this reading is exact too."""
        every = self.recalibrate_every
        self._calibrate_now = every is not None and (step - spec.warmup - 1) % every == 0
        return spec.measures_at(step)

    def cheap_norms(self, losses: Tensors, parameters: Tensors, context: Context) -> Tensor:
        """What stands in for the gradient norms, before the correction.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            Of this step, with their graph.
        parameters : sequence of Tensor
            Shared parameters.
        context : Context
            Scaling and reduction.

        Returns
        -------
        Tensor, shape (K,)
        """
        raise NotImplementedError

    def read(self, losses: Tensors, parameters: Tensors, context: Context) -> Tensor:
        """Corrected cheap norms, shape (K,); exact ones where an exact reading was due."""
        cheap = self.cheap_norms(losses, parameters, context)
        if self._calibrate_now:
            exact = exact_norms(losses, parameters, context)
            bias = exact.log() - cheap.log()
            if self.log_bias.device != bias.device:
                self.log_bias = self.log_bias.to(bias.device)
            self.log_bias.copy_(torch.where(torch.isfinite(bias).all(), bias, self.log_bias))
            return exact
        return cheap * self.log_bias.exp().to(cheap.device)

    def describe(self) -> dict[str, Any]:
        """Name, and steps between exact readings (None: never)."""
        return {**super().describe(), "recalibrate_every": self.recalibrate_every}

    def extra_repr(self) -> str:
        """The settings."""
        return f"recalibrate_every={self.recalibrate_every}"
