"""What all our losses share: the call signature, task names, checks and the weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.nn.sensors.norms import Tensors, compute_task_grad_norm

__all__ = ["BalancedLoss"]


def default_task_names(n_tasks: int) -> tuple[str, ...]:
    """``("rul", "health")`` for two tasks, as published; ``task_0``, ``task_1``, ... otherwise.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Returns
    -------
    tuple of str
        One per task.

    Examples
    --------
    >>> default_task_names(3)
    ('task_0', 'task_1', 'task_2')
    """
    return ("rul", "health") if n_tasks == 2 else tuple(f"task_{i}" for i in range(n_tasks))


def _capturing(tensor: Tensor) -> bool:
    """Whether what is done now is recorded into a CUDA graph, to be replayed without us."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


class BalancedLoss(nn.Module):
    """Base of the losses that combine K task losses into one.

    A subclass implements :meth:`forward_k`. What the recorder reads is the same for all:
    ``task_names``, ``step_count``, ``applied_weights``, ``measured_this_step`` and the snapshots
    ``_last_grad_norms`` and ``_last_raw_weights``.

    Parameters
    ----------
    n_tasks : int, at least 2
        Number of tasks K.
    task_names : sequence of K str, optional
        Default: :func:`default_task_names`.

    Attributes
    ----------
    step_count : Tensor, int64, 0-dimensional
        Steps taken; in the ``state_dict``.
    measured_this_step : bool
        Whether the last call took gradient norms.
    keep_graph : bool
        Keep the losses' graphs where they would be freed with the last pass through them, because
        something else wants them. False, to save memory.

    Raises
    ------
    InputError
        Not one name per task, all different.
    """

    step_count: Tensor
    spec: GabaSpec | None = None
    #: Steps between exact readings of all norms; 0: there are none.
    measure_every = 0
    #: What a recording calls it; default: its class.
    record_name = ""
    #: What else :meth:`forward_k` takes.
    _options: tuple[str, ...] = ()

    def __init__(self, n_tasks: int, task_names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.task_names = default_task_names(n_tasks) if task_names is None else tuple(task_names)
        if len(self.task_names) != n_tasks or len(set(self.task_names)) != n_tasks:
            raise InputError(
                f"task_names = {list(self.task_names)} for n_tasks = {n_tasks}: "
                "give one name per task, all different"
            )
        self.register_buffer("step_count", torch.zeros((), dtype=torch.int64))
        self._last_grad_norms: Tensor | None = None
        self._last_raw_weights: Tensor | None = None
        self._last_applied: Tensor | None = None
        self._steps_seen: tuple[Tensor, int, int] | None = None
        self._replayed = False
        if not self.step_count.is_meta:
            self._steps()
        self.measured_this_step = False
        self.keep_graph = False

    def forward(
        self,
        rul_loss: Tensor,
        health_loss: Tensor,
        shared_params: Iterable[Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The published call for two tasks.

        Parameters
        ----------
        rul_loss, health_loss : Tensor, 0-dimensional
            The losses of task 1 and task 2.
        shared_params : iterable of Tensor, optional
            Parameters to measure the gradients on; None measures nothing.
        **kwargs
            ``grad_scaler`` and ``samples`` go to :meth:`forward_k` where it takes them; the rest is
            ignored.

        Returns
        -------
        Tensor, 0-dimensional
            As of :meth:`forward_k`.
        """
        options = {name: kwargs[name] for name in self._options if name in kwargs}
        return self.forward_k([rul_loss, health_loss], shared_params, **options)

    def forward_k(self, losses: Tensors, shared_params: Iterable[Tensor] | None = None) -> Tensor:
        """The weighted sum of K losses.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            In the order of ``task_names``.
        shared_params : iterable of Tensor, optional
            Parameters to measure the gradients on; None measures nothing.

        Returns
        -------
        Tensor, 0-dimensional
            Call ``backward()`` on it.
        """
        raise NotImplementedError

    def _state(self) -> Tensor:
        """What the weights come from, with its dtype and device: the first buffer of floats."""
        floats = (b for b in self.buffers(recurse=False) if b.is_floating_point())
        return next(floats, torch.zeros(()))

    @property
    def balancer(self) -> BalancedLoss:
        """The loss that chooses the weights: this one, or the one that it wraps."""
        return self

    def describe_sensor(self) -> dict[str, Any] | None:
        """Which sensor made the gradient norms, for records; None where none are measured."""
        if not self.measure_every:
            return None
        return {"name": "full", "coasts": False, "interval": self.measure_every}

    @property
    def applied_weights(self) -> Tensor:
        """Weights of the last call, shape (K,), detached."""
        return self._weights_of_state() if self._last_applied is None else self._last_applied

    def _weights_of_state(self) -> Tensor:
        """The weights that the saved state alone implies: uniform ones, unless it says more."""
        k = len(self.task_names)
        return torch.full((k,), 1.0 / k)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._last_applied = None
        if not self.step_count.is_meta:
            self._steps()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # A moved counter is a new tensor: what the host knows of it moves along, so that no step
        # has to ask the device.
        known = None if self.step_count.is_meta else self._steps()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if known is not None:
            self._steps_seen = (self.step_count, self.step_count._version, known)
            self._replayed = False
        return self

    @property
    def _frozen(self) -> bool:
        """Evaluation: in eval mode or without gradients nothing is measured and no state moves."""
        return not self.training or not torch.is_grad_enabled()

    def _steps(self) -> int:
        """``step_count`` on the host: read from the device only when somebody else has written it.

        A captured CUDA graph is such a somebody: how often it was replayed only the device knows.
        """
        seen = self._steps_seen
        count = self.step_count
        if self._replayed and not _capturing(count):
            return int(count.item())
        if seen is None or seen[0] is not count or seen[1] != count._version:
            self._steps_seen = seen = (count, count._version, int(count.item()))
        return seen[2]

    def _refuse_capture(self, step: int, alike: bool) -> None:
        """Refuse to record a step into a CUDA graph, if a replay of it would be another step."""
        if self._frozen or not _capturing(self.step_count):
            return
        if not alike:
            raise InputError(
                f"step {step} cannot be captured in a CUDA graph, because other steps do other "
                "things: capture after the warm-up, with a sensor that reads at every step (full, "
                "interval = 1; proxies with recalibrate_every = None)"
            )
        self._replayed = True

    def _advance(self, step: int) -> None:
        self.step_count.add_(1)
        self._steps_seen = (self.step_count, self.step_count._version, step)

    def _check(
        self, losses: Tensors, shared_params: Iterable[Tensor] | None
    ) -> list[Tensor] | None:
        """Refuse bad input before any state moves; the shared parameters as a list, or None."""
        k = len(self.task_names)
        if len(losses) != k:
            raise InputError(f"got {len(losses)} losses for n_tasks = {k}: pass one loss per task")
        for name, loss in zip(self.task_names, losses, strict=True):
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                shaped = isinstance(loss, Tensor)
                what = f"shape {tuple(loss.shape)}" if shaped else type(loss).__name__
                raise InputError(
                    f"loss {name!r} is a {what}, not a scalar tensor: reduce it, for example by mean()"
                )
        if shared_params is None:
            return None
        if isinstance(shared_params, Tensor):
            raise InputError("shared_params is one tensor: pass a list, [parameter]")
        parameters = list(shared_params)
        if not parameters:
            raise InputError(
                "shared_params is empty: pass the shared parameters, or None for uniform weights"
            )
        if self._frozen:
            return parameters
        for name, loss in zip(self.task_names, losses, strict=True):
            if not loss.requires_grad:
                raise InputError(
                    f"loss {name!r} needs no gradient: compute it from the model, without detach()"
                )
        parameters = [p for p in parameters if p.requires_grad]
        if not parameters:
            raise InputError("none of the shared_params requires a gradient: unfreeze the backbone")
        return parameters

    def _norms(self, losses: Tensors, parameters: list[Tensor]) -> Tensor:
        """Gradient norms, shape (K,), with the graph retained for the caller's backward."""
        return torch.stack([compute_task_grad_norm(loss, parameters) for loss in losses])

    def _combine(self, losses: Tensors, weights: Tensor) -> Tensor:
        """Sum of w_i loss_i, accumulated from 0.0 in task order; remembers the weights."""
        self._last_applied = weights
        total: Any = 0.0
        for weight, loss in zip(weights, losses, strict=True):
            total = total + weight.to(loss.device) * loss.reshape(())
        return total


class ObservedLoss(BalancedLoss):
    """Base of the losses whose weights need no gradient norms: they can be taken for the record.

    Parameters
    ----------
    n_tasks, task_names
        As of :class:`BalancedLoss`.
    measure_every : int, at least 0
        Steps between readings, the first step being one; 0 never reads.

    Raises
    ------
    InputError
        A negative ``measure_every``, or not one name per task.
    """

    def __init__(
        self, n_tasks: int, task_names: Sequence[str] | None = None, measure_every: int = 0
    ) -> None:
        check_int("measure_every", measure_every, 0, "0 measures never, 1 always")
        super().__init__(n_tasks, task_names)
        self.measure_every = measure_every

    def _observe(self, losses: Tensors, shared_params: Iterable[Tensor] | None) -> int:
        """Check the input and take the norms where that is due; the step, or 0 in evaluation."""
        parameters = self._check(losses, shared_params if self.measure_every else None)
        self.measured_this_step = False
        if self._frozen:
            return 0
        step = self._steps() + 1
        self._refuse_capture(step, self.measure_every in (0, 1))
        if parameters is not None and (step - 1) % self.measure_every == 0:
            self._last_grad_norms = self._norms(losses, parameters)
            self.measured_this_step = True
        return step
