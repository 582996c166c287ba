"""``GABALoss``: the controller as a drop-in PyTorch loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gabactl.errors import InputError
from gabactl.nn import _stages
from gabactl.nn.base import BalancedLoss, NormaliseTo
from gabactl.spec import FloorMode, GabaSpec, Guard, Law

__all__ = ["GABALoss"]


class GABALoss(BalancedLoss):
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

    Attributes
    ----------
    ema_weights : Tensor, shape (K,)
        Stored average; a buffer, float32 unless the module is made float64.
    step_count : Tensor, int64
        A buffer.

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

    ema_weights: Tensor
    spec: GabaSpec

    def __init__(
        self,
        beta: float = 0.99,
        warmup_steps: int = 100,
        min_weight: float = 0.05,
        n_tasks: int = 2,
        *,
        task_names: Sequence[str] | None = None,
        law: Law = "complement",
        floor_mode: FloorMode = "renormalise",
        guard: Guard = "hold",
        interval: int = 1,
        normalise_to: NormaliseTo = 1,
    ) -> None:
        spec = GabaSpec(n_tasks, beta, min_weight, warmup_steps, law, floor_mode, guard, interval)
        if normalise_to not in (1, "n_tasks") or isinstance(normalise_to, bool):
            raise InputError(f"normalise_to = {normalise_to!r} is unknown: choose 1 or 'n_tasks'")
        super().__init__(spec.n_tasks, task_names)
        self.spec = spec
        self.normalise_to: NormaliseTo = normalise_to
        self.register_buffer("ema_weights", torch.full((spec.n_tasks,), 1.0 / spec.n_tasks))

    @classmethod
    def from_spec(
        cls,
        spec: GabaSpec,
        task_names: Sequence[str] | None = None,
        normalise_to: NormaliseTo = 1,
    ) -> GABALoss:
        """A loss with these settings.

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
        self.spec = self.spec.replace(**changes)

    def forward_k(
        self, losses: Sequence[Tensor], shared_params: Iterable[Tensor] | None = None
    ) -> Tensor:
        """Take a reading if one is due, and return the weighted sum.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            In the order of ``task_names``.
        shared_params : iterable of Tensor, optional
            Parameters to measure the gradients on; None applies uniform weights and leaves the
            average alone.

        Returns
        -------
        Tensor, 0-dimensional
            Sum of w_i loss_i. The graph is retained, and ``.grad`` untouched: call ``backward()``.

        Raises
        ------
        InputError
            Wrong number of losses, a loss that is no scalar or needs no gradient, or no shared
            parameter that requires one. No state has moved then.
        """
        parameters = self._check(losses, shared_params)
        self.measured_this_step = False
        step = self._steps() + 1
        if self._frozen or parameters is None or not self.spec.measures_at(step):
            if not self._frozen or self.spec.guard == "none":
                self._advance(step)
            weights = self._uniform() if parameters is None else self._weights_of_state()
            return self._combine(losses, weights)
        norms = self._norms(losses, parameters)
        self._advance(step)
        return self._combine(losses, self._scale(self._take(norms)))

    @torch.no_grad()
    def _take(self, norms: Tensor) -> Tensor:
        """Let the average follow a reading; the weights, summing to 1."""
        spec = self.spec
        self._follow(norms.device)
        raw = _stages.raw_weights(norms, spec)
        ema = _stages.smooth(self.ema_weights, raw, spec)
        if spec.floor_mode == "clamp_state":
            ema = _stages.project(ema, spec.floor)
        if spec.guard == "hold":
            ok = _stages.usable(norms, spec)
            raw = torch.where(ok, raw, torch.nan)
            ema = torch.where(ok, ema, self.ema_weights)
        self.ema_weights.copy_(ema)
        self._last_grad_norms, self._last_raw_weights = norms, raw
        self.measured_this_step = True
        return _stages.saturate(ema, spec)

    def _weights_of_state(self) -> Tensor:
        if self._steps() <= self.spec.warmup:
            return self._uniform()
        return self._scale(_stages.saturate(self.ema_weights, self.spec))

    def _uniform(self) -> Tensor:
        k = self.spec.n_tasks
        return self._scale(torch.full_like(self.ema_weights, 1.0 / k))

    def _scale(self, weights: Tensor) -> Tensor:
        return weights if self.normalise_to == 1 else weights * self.spec.n_tasks

    def _follow(self, device: torch.device) -> None:
        """Move the buffers to where the gradients are, if the caller forgot to."""
        if self.ema_weights.device != device:
            self.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GABALoss:
        # In half precision the average would stall (1 - beta is below its resolution near 1):
        # half() and bfloat16() move the module but leave the average in float32. And double() of
        # an average that has not moved is 1/K again, not 1/K rounded to float32.
        before = self.ema_weights
        unmoved = torch.equal(before, torch.full_like(before, 1.0 / self.spec.n_tasks))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.ema_weights.dtype in (torch.float16, torch.bfloat16):
            self.ema_weights = before.to(self.ema_weights.device)
        elif unmoved and self.ema_weights.dtype != before.dtype:
            self.ema_weights.fill_(1.0 / self.spec.n_tasks)
        self._last_applied = None
        return self

    def get_weights(self) -> dict[str, float]:
        """The stored average (not the applied weights), under ``<task>_weight``.

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
