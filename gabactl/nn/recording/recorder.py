"""``TraceRecorder``: every step of a training run into a trace, without slowing it down."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gabactl.base.checks import check_int
from gabactl.base.errors import Absent, InputError
from gabactl.nn.losses.base import BalancedLoss
from gabactl.nn.sensors.norms import Tensors, norm_of
from gabactl.traces.metadata import describe_environment
from gabactl.traces.writer import TraceWriter

__all__ = ["TraceRecorder"]

#: NaN says "not finite", null says "not measured": these are null between readings.
_MEASURED = ("grad_norm_", "raw_", "param_norms_")


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
        check_int("every", every, 1, "try 100")
        if param_norms is True:
            raise InputError("param_norms = True: pass the named parameters, as in a dict")
        self._loss_fn = loss_fn
        self._every = every
        self._parameters = dict(param_norms or {})  # type: ignore[arg-type]
        if self._parameters:
            loss_fn.balancer.keep_graph = True
        self._excited = excitation
        stages = [] if _ema(loss_fn) is None else ["raw", "ema"]
        self._groups = ["grad_norm", *stages, "weight", "loss"]
        double = loss_fn.balancer._state().dtype == torch.float64
        self._dtype = torch.float64 if double else torch.float32
        self._began_after = loss_fn._steps()
        writer = self._resumed(path) if resume else None
        if writer is None:
            writer = self._new_writer(path, metadata or {}, overwrite)
        self._writer = writer
        self._started = time.monotonic() - writer.last_wall_time
        tasks = loss_fn.task_names
        places: dict[str, int | slice] = {}
        for i, group in enumerate(self._groups):
            places |= {f"{group}_{task}": i * len(tasks) + j for j, task in enumerate(tasks)}
        start, size = len(places), len(self._parameters)
        for j, task in enumerate(tasks if size else ()):
            places[f"param_norms_{task}"] = slice(start + j * size, start + (j + 1) * size)
        self._pending = _Pending(self._writer, places, excitation)
        # Written when the recorder goes away, or the interpreter ends; the stream stays open.
        self._finalizer = weakref.finalize(self, self._pending.last_words)

    def _resumed(self, path: str | Path) -> TraceWriter | None:
        """The recording as far as the loss is; None where it was killed before it recorded."""
        try:
            writer = TraceWriter.resume(path, after_step=self._began_after)
        except Absent:
            if not self._began_after:
                return None
            raise InputError(
                f"{path}: there is no recording to resume at step {self._began_after}: start "
                "without resume"
            ) from None
        self._refuse_other_run(writer)
        return writer

    def _new_writer(
        self, path: str | Path, metadata: Mapping[str, Any], overwrite: bool
    ) -> TraceWriter:
        loss_fn, inner = self._loss_fn, self._loss_fn.balancer
        spec = inner.spec
        header: dict[str, Any] = {
            **describe_environment(),
            "balancer": inner.record_name or type(inner).__name__,
            "device": str(inner._state().device),
            "spec": spec and spec.to_dict(),
            "normalise_to": spec and getattr(inner, "normalise_to", 1),
            "sensor": inner.describe_sensor(),
        }
        kind = str(self._dtype).removeprefix("torch.")
        return TraceWriter(
            path,
            loss_fn.task_names,
            {key: v for key, v in header.items() if v is not None} | dict(metadata),
            groups=self._groups,
            dtypes=dict.fromkeys([*self._groups, "param_norms"], kind),
            excitation=self._excited,
            param_names=list(self._parameters) or None,
            overwrite=overwrite,
        )

    def _refuse_other_run(self, writer: TraceWriter) -> None:
        """A resumed recording must be of the same loss: tasks, columns and settings."""
        before, columns = writer.metadata, writer.columns
        inner = self._loss_fn.balancer
        spec, sensor = inner.spec, inner.describe_sensor()
        ema, names = f"ema_{before['tasks'][0]}" in columns, before.get("param_names") or []
        expected = {
            "tasks": (list(self._loss_fn.task_names), before["tasks"]),
            "settings": (None if spec is None else spec.to_dict(), before.get("spec")),
            # A recording of before sensors were named goes on as it is.
            "sensor": (sensor, before.get("sensor", sensor)),
            "columns": (
                ["ema" in self._groups, self._excited, list(self._parameters)],
                [ema, "excitation" in columns, names],
            ),
        }
        for what, (now, then) in expected.items():
            if now != then:
                writer.close(finish=False)
                raise InputError(
                    f"{writer.path}: was recorded with other {what} ({then}, not {now}): "
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

    def log(self, losses: Tensors, excitation: float | None = None) -> None:
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
        now = float(getattr(loss_fn, "excitation_now", 0.0) if excitation is None else excitation)
        # A step is recorded whole, or not at all.
        wall = time.monotonic() - self._started
        self._pending.rows.append(_Row(step, measured, wall, now, row))
        if len(self._pending.rows) >= self._every:
            self.flush()

    @torch.no_grad()
    def _row(self, losses: Tensors, measured: bool) -> Tensor:
        """One vector on the device, in the order of the columns; NaN where nothing was measured."""
        loss_fn, k, device = self._loss_fn, len(losses), losses[0].device
        parts: dict[str, Any] = {
            "grad_norm": loss_fn._last_grad_norms if measured else None,
            "raw": loss_fn._last_raw_weights if measured else None,
            "ema": _ema(loss_fn),
            "weight": loss_fn.applied_weights,
            "loss": torch.stack([x.detach().reshape(()).to(device, self._dtype) for x in losses]),
        }
        if getattr(loss_fn.balancer, "normalise_to", 1) == "n_tasks":
            parts["weight"] = parts["weight"] / k
        vectors = [(parts[group], k) for group in self._groups]
        if self._parameters:
            own = self._param_norms(losses) if measured else None
            vectors.append((own, k * len(self._parameters)))
        nothing = torch.full((), torch.nan, dtype=self._dtype, device=device)
        return torch.cat(
            [
                nothing.expand(size) if part is None else part.to(device, self._dtype)
                for part, size in vectors
            ]
        )

    def _param_norms(self, losses: Tensors) -> Tensor:
        """Norm of each parameter's gradient, shape (K * P,)."""
        parameters = list(self._parameters.values())
        device, norms = parameters[0].device, []
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
            norms += [norm_of([g], device).to(device) for g in gradients]
        return torch.stack(norms)

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
            done = self._writer.close(finish)
            self._finalizer.detach()
        return done

    def __enter__(self) -> TraceRecorder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(finish=False)
        except InputError as second:
            error.add_note(f"and the recording: {second}")


class _Row(NamedTuple):
    """One step; ``values`` are on the device still, in the order of the columns."""

    step: int
    measured: bool
    wall_time: float
    excitation: float
    values: Tensor


class _Pending:
    """Rows that are still in memory, written together: one transfer from the device per write."""

    def __init__(
        self, writer: TraceWriter, places: Mapping[str, int | slice], excited: bool
    ) -> None:
        self._writer = writer
        self._places = places
        self._excited = excited
        self.rows: list[_Row] = []
        self._process = os.getpid()

    @property
    def last_step(self) -> int:
        """The last step that is here or in the file."""
        return self.rows[-1].step if self.rows else self._writer.last_step

    def write(self) -> None:
        """Append what is there to the file; the rows stay here where that fails."""
        # An interrupt may have come between the writing of rows and their removal from here.
        rows = [row for row in self.rows if row.step > self._writer.last_step]
        if not rows:
            self.rows = []
            return
        steps, measured, times, excitations, vectors = zip(*rows, strict=True)
        values = torch.stack(vectors).cpu().numpy()
        columns: dict[str, Any] = {
            "step": np.array(steps, dtype=np.int64),
            "wall_time": np.array(times),
            **{name: values[:, place] for name, place in self._places.items()},
        }
        if self._excited:
            columns["excitation"] = np.array(excitations)
        there = np.array(measured)
        self._writer.append(
            columns, {name: there for name in self._places if name.startswith(_MEASURED)}
        )
        self.rows = []

    def last_words(self) -> None:
        """Write, and leave the stream open."""
        if os.getpid() != self._process:
            return  # a fork: the rows are the parent's to write
        try:
            self.write()
        except InputError as error:
            print(f"{len(self.rows)} steps were not recorded: {error}", file=sys.stderr)
        finally:
            self._writer.close(finish=False)


def _ema(loss_fn: BalancedLoss) -> Tensor | None:
    return getattr(loss_fn, "ema_weights", None)
