"""``TraceRecorder``: every step of a training run into a trace, without slowing it down."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from gabactl.base.errors import Absent, InputError
from gabactl.nn.base import BalancedLoss
from gabactl.nn.pending import PendingRows, Row
from gabactl.nn.sensors import norm_of
from gabactl.traces.metadata import describe_environment
from gabactl.traces.writer import TraceWriter

__all__ = ["TraceRecorder"]

_BALANCERS = {"GABALoss": "gaba", "GradNormLoss": "gradnorm", "FixedLoss": "fixed"}


class TraceRecorder:
    """Records losses, gradient norms and the controller's stages, one row per training step.

    What is recorded stays on the device until the next flush; there is one transfer per
    ``every`` steps and no synchronisation in between. A killed run keeps everything up to the
    last flush, and a program that ends without :meth:`close` everything.

    Parameters
    ----------
    path : path
        ``run.parquet``, recorded as ``run.arrows`` beside it until a clean end; or ``run.arrows``
        to keep the stream.
    loss_fn : GABALoss, GradNormLoss, FixedLoss or another loss of ``gabactl.nn``
        What combines the losses. Its settings, task names and dtype decide the columns.
    metadata : mapping, optional
        Documented keys ``model``, ``data``, ``optimizer``, ``seed``, ``command``, and any others
        that are plain JSON. Spec, balancer, sensor, device, versions and start time are filled in.
    every : int, at least 1
        Steps between flushes.
    param_norms : mapping of str to Tensor, or pairs, or False
        Record each of these parameters' own gradient norm, per task, at the steps where norms
        are measured. Costs another backward pass per task; :meth:`log` must then come before
        ``backward()``.
    excitation : bool
        Record a column ``excitation``, given to :meth:`log` or read from the loss.
    resume : bool
        Continue the recording at ``path``. Rows after the loss's ``step_count`` are dropped
        first, so load the checkpoint before.
    overwrite : bool
        Replace an earlier recording instead of refusing.

    Raises
    ------
    InputError
        The recording exists, is held by another process, does not fit the loss, or the disk is
        full.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.nn import GABALoss
    >>> from gabactl.traces import read_trace
    >>> file = Path(tempfile.mkdtemp()) / "run.parquet"
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> loss_fn = GABALoss(warmup_steps=1)
    >>> with TraceRecorder(file, loss_fn) as recorder:
    ...     for _ in range(3):
    ...         losses = [250.0 * w[0], 0.5 * w[1]]
    ...         total = loss_fn(*losses, shared_params=[w])
    ...         recorder.log(losses)
    >>> read_trace(file).measured.tolist()
    [False, True, True]
    """

    def __init__(
        self,
        path: str | Path,
        loss_fn: BalancedLoss,
        metadata: Mapping[str, Any] | None = None,
        *,
        every: int = 100,
        param_norms: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | bool = False,
        excitation: bool = False,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"every = {every!r} is not a whole number >= 1: try 100")
        if param_norms is True:
            raise InputError("param_norms = True: pass the named parameters, as in a dict")
        self._loss_fn = loss_fn
        self._every = every
        self._parameters = dict(param_norms or {})  # type: ignore[arg-type]
        if self._parameters:
            getattr(loss_fn, "inner", loss_fn).keep_graph = True
        self._excited = excitation
        self._has_ema = _ema(loss_fn) is not None
        self._double = _buffer(loss_fn).dtype == torch.float64
        writer = None
        if resume:
            with contextlib.suppress(Absent):  # killed before anything was recorded: a start
                writer = TraceWriter.resume(path, after_step=loss_fn._steps())
        if writer is None and resume and loss_fn._steps():
            raise InputError(
                f"{path}: there is no recording to resume at step {loss_fn._steps()}: start "
                "without resume"
            )
        self._writer = (
            self._new_writer(path, metadata or {}, overwrite) if writer is None else writer
        )
        if writer is not None:
            self._refuse_other_run()
        self._started = time.monotonic() - self._writer.last_wall_time
        self._began_after = loss_fn._steps()
        tasks = loss_fn.task_names
        self._pending = PendingRows(
            self._writer,
            [f"{group}_{task}" for group in self._groups() for task in tasks],
            tasks,
            self._excited,
            len(self._parameters),
        )
        self._finalizer = self._pending.write_when_forgotten(self)

    def _new_writer(
        self, path: str | Path, metadata: Mapping[str, Any], overwrite: bool
    ) -> TraceWriter:
        loss_fn = self._loss_fn
        inner = getattr(loss_fn, "inner", loss_fn)
        header: dict[str, Any] = {
            **describe_environment(),
            "balancer": _balancer(inner),
            "device": str(_buffer(loss_fn).device),
        }
        if inner.spec is not None:
            header["spec"] = inner.spec.to_dict()
            header["normalise_to"] = getattr(inner, "normalise_to", 1)
        sensor = inner.describe_sensor()
        if sensor is not None:
            header["sensor"] = sensor
        kind = "float64" if self._double else "float32"
        groups = self._groups()
        return TraceWriter(
            path,
            loss_fn.task_names,
            {**header, **metadata},
            groups=groups,
            dtypes=dict.fromkeys([*groups, "param_norms"], kind),
            excitation=self._excited,
            param_names=list(self._parameters) or None,
            overwrite=overwrite,
        )

    def _groups(self) -> list[str]:
        stages = ["raw", "ema"] if self._has_ema else []
        return ["grad_norm", *stages, "weight", "loss"]

    def _refuse_other_run(self) -> None:
        """A resumed recording must be of the same loss: tasks, columns and settings."""
        before, columns = self._writer.metadata, self._writer.columns
        inner = getattr(self._loss_fn, "inner", self._loss_fn)
        spec, sensor = inner.spec, inner.describe_sensor()
        expected = {
            "tasks": (list(self._loss_fn.task_names), before["tasks"]),
            "settings": (None if spec is None else spec.to_dict(), before.get("spec")),
            # A recording of before sensors were named goes on as it is.
            "sensor": (sensor, before.get("sensor", sensor)),
            "columns": (
                [self._has_ema, self._excited, list(self._parameters)],
                [
                    f"ema_{before['tasks'][0]}" in columns,
                    "excitation" in columns,
                    before.get("param_names") or [],
                ],
            ),
        }
        for what, (now, then) in expected.items():
            if now != then:
                self._writer.close(finish=False)
                raise InputError(
                    f"{self._writer.path}: was recorded with other {what} ({then}, not {now}): "
                    "resume with the same loss and options, or record elsewhere"
                )

    @property
    def path(self) -> Path:
        """The stream that is being written."""
        return self._writer.path

    @property
    def last_step(self) -> int:
        """The last step in the file, 0 when there is none."""
        return self._writer.last_step

    def log(self, losses: Sequence[Tensor], excitation: float | None = None) -> None:
        """Record the step just taken; call it once after each forward of the loss.

        Parameters
        ----------
        losses : sequence of K scalar tensors
            As given to the loss.
        excitation : float, optional
            What was added to the logit of the first weight; default: the loss's own
            ``excitation_now``.

        Raises
        ------
        InputError
            The wrong number of losses, a step logged twice, or a full disk (what was recorded
            stays, and so do the rows in memory: a later flush writes them).
        """
        loss_fn = self._loss_fn
        step = loss_fn._steps()
        if step <= max(self._began_after, self._pending.last_step):
            if loss_fn.training and torch.is_grad_enabled():
                raise InputError(
                    f"step {step} is recorded already: call log once after each forward in training"
                )
            return  # an evaluation: no step was taken
        if len(losses) != len(loss_fn.task_names):
            raise InputError(
                f"got {len(losses)} losses for {len(loss_fn.task_names)} tasks: pass one per task"
            )
        measured = loss_fn.measured_this_step
        row = self._row(losses, measured)
        norms = self._param_norms(losses) if self._parameters and measured else None
        now = float(getattr(loss_fn, "excitation_now", 0.0) if excitation is None else excitation)
        # A step is recorded whole, or not at all.
        wall = time.monotonic() - self._started
        self._pending.add(Row(step, measured, wall, row, now, norms))
        if len(self._pending) >= self._every:
            self.flush()

    @torch.no_grad()
    def _row(self, losses: Sequence[Tensor], measured: bool) -> Tensor:
        """One vector on the device, groups in column order; NaN where nothing was measured."""
        loss_fn = self._loss_fn
        dtype = torch.float64 if self._double else torch.float32
        device = losses[0].device
        k = len(losses)
        nothing = torch.full((k,), torch.nan, dtype=dtype, device=device)
        parts: dict[str, Any] = {
            "grad_norm": loss_fn._last_grad_norms if measured else None,
            "raw": loss_fn._last_raw_weights if measured else None,
            "ema": _ema(loss_fn),
            "weight": loss_fn.applied_weights,
            "loss": torch.stack([x.detach().reshape(()).to(device, dtype) for x in losses]),
        }
        inner = getattr(loss_fn, "inner", loss_fn)
        if getattr(inner, "normalise_to", 1) == "n_tasks":
            parts["weight"] = parts["weight"] / k
        vectors = [
            nothing if parts[group] is None else parts[group].detach().to(device, dtype)
            for group in self._groups()
        ]
        return torch.cat(vectors)

    def _param_norms(self, losses: Sequence[Tensor]) -> Tensor:
        """Norm of each parameter's gradient, shape (K, P)."""
        parameters = list(self._parameters.values())
        rows = []
        for loss in losses:
            try:
                gradients = torch.autograd.grad(
                    loss, parameters, retain_graph=True, allow_unused=True
                )
            except RuntimeError as error:
                raise InputError(
                    f"per-parameter norms cannot be measured ({str(error)[:80]}): call log before "
                    "backward(), with the losses as the loss got them"
                ) from None
            device = parameters[0].device
            rows.append(torch.stack([norm_of([g], device).to(device) for g in gradients]))
        return torch.stack(rows).detach()

    def flush(self) -> None:
        """Write what is pending; the only moment that waits for the device.

        Raises
        ------
        InputError
            The disk is full, or the file is gone. The rows stay pending.
        """
        self._pending.write()

    def close(self, finish: bool = True) -> Path:
        """Flush, end the recording, and return the file that holds it.

        Parameters
        ----------
        finish : bool
            True: the Parquet file that was asked for. False: leave the stream open for a resume.
        """
        try:
            self.flush()
        except BaseException as error:
            if not isinstance(error, InputError):  # Ctrl-C in the middle of it: once more
                with contextlib.suppress(InputError):
                    self.flush()
            finish = False
            raise
        finally:
            self._finalizer.detach()
            done = self._writer.close(finish)
        return done

    def __enter__(self) -> TraceRecorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(finish=False)
        except InputError as second:
            error.add_note(f"and the recording: {second}")


def _balancer(loss_fn: BalancedLoss) -> str:
    """The documented name of one of our losses or its subclasses; else the class's own."""
    names = [kind.__name__ for kind in type(loss_fn).__mro__]
    return next((_BALANCERS[name] for name in names if name in _BALANCERS), names[0])


def _ema(loss_fn: BalancedLoss) -> Tensor | None:
    return getattr(loss_fn, "ema_weights", None)


def _buffer(loss_fn: BalancedLoss) -> Tensor:
    """The tensor whose dtype and device are those of the controller's state."""
    inner = getattr(loss_fn, "inner", loss_fn)
    for name in ("ema_weights", "task_weights"):
        tensor = getattr(inner, name, None)
        if tensor is not None:
            return tensor
    return torch.zeros(())
