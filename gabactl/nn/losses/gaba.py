"""``GABALoss``: the controller as a drop-in PyTorch loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from gabactl.base.errors import InputError
from gabactl.law.floors import FLOORS, FloorMode
from gabactl.law.laws import Guard, Law
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, raw_weights, saturate, usable
from gabactl.nn.distributed import Reduce
from gabactl.nn.losses.measured import NormaliseTo
from gabactl.nn.losses.reusing import ReusingLoss
from gabactl.nn.sensors.base import Sensor

__all__ = ["GABALoss"]


class GABALoss(ReusingLoss):
    """Weighs K losses by the GABA controller, from their gradient norms on shared parameters.

    Constructor, methods, buffers and snapshots are those of the published class, and its
    checkpoints load. ``guard="none"`` reproduces it to the last bit in training; the default
    guard holds the average where a reading is unusable.

    Parameters
    ----------
    beta, warmup_steps, min_weight, n_tasks
        The published names of ``GabaSpec``'s beta, warmup, floor and n_tasks.
    task_names : sequence of K str, optional
        Default: rul and health for two tasks, else task_0, task_1, ...
    law, floor_mode, guard, interval
        As in :class:`gabactl.GabaSpec`.
    normalise_to : 1 or "n_tasks"
        What the applied weights sum to. With 1 (published) the combined loss is a mean, and the
        effective learning rate K times smaller than that of a plain sum of the losses.
    sensor : Sensor, optional
        How gradients are measured: see :mod:`gabactl.nn.sensors`. Default: the published one.
    reduce : {"norm_of_mean", "mean_of_norms", "local"}, optional
        What the ranks of a data-parallel run agree on: see :mod:`gabactl.nn.distributed`. Has to
        be chosen where ``torch.distributed`` runs with more than one rank.
    process_group : torch.distributed.ProcessGroup, optional
        The ranks that train together; default: all.
    sharded : torch.nn.Module, optional
        The whole model, where ``fully_shard`` has sharded its parameters: it has to be measured
        through its own backward passes. Needs ``reduce="norm_of_mean"``.

    Attributes
    ----------
    ema_weights : Tensor, shape (K,)
        Stored average; a buffer, float32 unless the module is made float64.
    step_count : Tensor, int64, 0-dimensional
        A buffer.

    Raises
    ------
    InputError
        A setting out of range, or one that the sensor cannot serve.

    Notes
    -----
    In evaluation (``eval()`` or ``torch.no_grad()``) nothing is measured and no state moves; the
    last weights are applied, or uniform ones without ``shared_params``. The published class
    advances ``step_count`` on every call, evaluation included, so validation shortens the
    warm-up; ``guard="none"`` keeps that quirk, the default does not.

    Source: "Gradient-Aware Multi-Task Learning for Predictive Maintenance", section 17.4.

    Examples
    --------
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> loss_fn = GABALoss(warmup_steps=0)
    >>> total = loss_fn(250.0 * w[0], 0.5 * w[1], shared_params=[w])
    >>> total.backward()
    >>> loss_fn.applied_weights
    tensor([0.4950, 0.5050])
    >>> round(loss_fn.get_gradient_stats()["grad_ratio_rul_over_health"], 6)
    500.0
    """

    record_name = "gaba"
    ema_weights: Tensor
    held_raw: Tensor

    def __init__(
        self,
        beta: float = 0.99,
        warmup_steps: int = 100,
        min_weight: float = 0.05,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        law: Law = GabaSpec.law,
        floor_mode: FloorMode = GabaSpec.floor_mode,
        guard: Guard = GabaSpec.guard,
        interval: int = 1,
        normalise_to: NormaliseTo = 1,
        sensor: Sensor | None = None,
        reduce: Reduce | None = None,
        process_group: Any = None,
        sharded: nn.Module | None = None,
    ) -> None:
        spec = GabaSpec(n_tasks, beta, min_weight, warmup_steps, law, floor_mode, guard, interval)
        super().__init__(spec, task_names, normalise_to, sensor, reduce, process_group, sharded)
        self.register_buffer("ema_weights", torch.full((spec.n_tasks,), 1.0 / spec.n_tasks))
        if self.sensor.coasts:
            self.register_buffer("held_raw", self.ema_weights.clone())

    @classmethod
    def from_spec(
        cls,
        spec: GabaSpec,
        task_names: Sequence[str] | None = None,
        normalise_to: NormaliseTo = 1,
        **more: Any,
    ) -> GABALoss:
        """A loss with the settings of a spec.

        Parameters
        ----------
        spec : GabaSpec
            The settings; its ``n_tasks`` is the number of losses.
        task_names : sequence of K str, optional
            As of the constructor.
        normalise_to : {1, "n_tasks"}
            What the weights sum to.
        **more
            For the constructor: ``sensor``, ``reduce``, ``process_group``, ``sharded``.

        Examples
        --------
        >>> GABALoss.from_spec(GabaSpec(floor=0.01)).min_weight
        0.01
        """
        settings = spec.to_dict()
        return cls(
            warmup_steps=settings.pop("warmup"),
            min_weight=settings.pop("floor"),
            task_names=task_names,
            normalise_to=normalise_to,
            **settings,
            **more,
        )

    beta = property(
        lambda self: self.spec.beta, lambda self, value: self._set(beta=value), doc="Pole."
    )
    warmup_steps = property(
        lambda self: self.spec.warmup, lambda self, value: self._set(warmup=value), doc="Warm-up."
    )
    min_weight = property(
        lambda self: self.spec.floor, lambda self, value: self._set(floor=value), doc="Floor."
    )
    n_tasks = property(lambda self: self.spec.n_tasks, doc="Number of tasks K.")

    def _set(self, **changes: Any) -> None:
        self._set_spec(self.spec.replace(**changes))

    # -- the rule ----------------------------------------------------------------------------

    @torch.no_grad()
    def _coast(self) -> None:
        """Let the average go on following the last raw weights."""
        # As the stage `smooth`, in place: this runs at nearly every step of the event sensor.
        pole = self.spec.beta
        self.ema_weights.mul_(pole).add_(self.held_raw, alpha=1.0 - pole)
        if FLOORS[self.spec.floor_mode].replaces_state:
            self.ema_weights.copy_(self._weights())

    @torch.no_grad()
    def _take(self, norms: Tensor) -> Tensor:
        """Let the average follow a reading; the weights, summing to 1."""
        spec = self.spec
        self._refuse_a_pole_of_one()
        raw = raw_weights(norms, spec.law, spec.guard)
        ema = follow(self.ema_weights, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode)
        if spec.guard == "hold":
            ema = torch.where(usable(norms, spec.law), ema, self.ema_weights)
        self.ema_weights.copy_(ema)
        if self.sensor.coasts:
            self.held_raw.copy_(torch.where(torch.isfinite(raw).all(), raw, self.held_raw))
        self._last_raw_weights = raw
        return self._saturated(ema)

    def _saturated(self, ema: Tensor) -> Tensor:
        return cast(Tensor, saturate(ema, self.spec.floor, self.spec.floor_mode))

    def _refuse_a_pole_of_one(self) -> None:
        """In float32 a pole within 2^-25 of 1 is 1: the average would only ever grow."""
        spec = self.spec
        if 1.0 - spec.beta**spec.interval <= 2.0**-25 and self.ema_weights.dtype == torch.float32:
            raise InputError(
                f"beta = {spec.beta} is 1 in float32, in which this loss keeps its average: call "
                "double() on the loss, or choose at most 0.9999999"
            )

    def _weights(self) -> Tensor:
        return self._saturated(self.ema_weights)

    def _state(self) -> Tensor:
        return self.ema_weights

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # double() of an average that has not moved is 1/K again, not 1/K rounded to float32. (One
        # on the meta device has no values; to_empty() gives it room for those of a state_dict.)
        k = self.spec.n_tasks
        unmoved = {
            name: value
            for name, value in self._buffers.items()
            if name in ("ema_weights", "held_raw") and value is not None and not value.is_meta
            if torch.equal(value, torch.full_like(value, 1.0 / k))
        }
        super()._apply(fn, recurse)
        for name, before in unmoved.items():
            after = getattr(self, name)
            if after.dtype != before.dtype:
                after.fill_(1.0 / k)
        return self

    # -- the published snapshots -------------------------------------------------------------

    def get_weights(self) -> dict[str, float]:
        """The stored average (not the applied weights), under ``<task>_weight``.

        Returns
        -------
        dict of str to float
            From 0 to 1 each; reading them waits for the device.

        Examples
        --------
        >>> GABALoss().get_weights()
        {'rul_weight': 0.5, 'health_weight': 0.5}
        """
        values = self.ema_weights.tolist()
        return {
            f"{name}_weight": value for name, value in zip(self.task_names, values, strict=True)
        }

    def get_gradient_stats(self) -> dict[str, float]:
        """The last reading: norms, raw weights and, for two tasks, the ratio of the norms.

        Returns
        -------
        dict of str to float
            ``grad_norm_<task>``, ``raw_weight_<task>`` and ``grad_ratio_<first>_over_<second>``; empty before
            the first reading. Reading them waits for the device.

        Examples
        --------
        >>> GABALoss().get_gradient_stats()
        {}
        """
        if self._last_grad_norms is None or self._last_raw_weights is None:
            return {}
        norms, raws = self._last_grad_norms.tolist(), self._last_raw_weights.tolist()
        stats = {f"grad_norm_{n}": g for n, g in zip(self.task_names, norms, strict=True)}
        if self.spec.n_tasks == 2:
            first, second = self.task_names
            stats[f"grad_ratio_{first}_over_{second}"] = norms[0] / (norms[1] + 1e-12)
        return stats | {f"raw_weight_{n}": r for n, r in zip(self.task_names, raws, strict=True)}

    def extra_repr(self) -> str:
        """The settings, for ``print(loss)``."""
        return f"{self.spec}, tasks={list(self.task_names)}"
