"""Training on C-MAPSS under a balancer, recorded step by step and resumable to the last bit.

The data live on the device; the order of the batches depends on (seed, epoch) alone; nothing in
the loop waits for the device but the recorder, once per flush.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError, packages_for
from gabactl.cmapss.metrics import nasa_score, rmse
from gabactl.cmapss.windows import MAX_RUL, Cmapss, Windows

with packages_for(__name__):
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

from gabactl.base.devices import choose_device, use_precision
from gabactl.base.interrupts import stop_asked
from gabactl.base.lock import FileLock
from gabactl.nn.checkpoint import (
    check_optimizer,
    check_plain,
    check_schedule,
    has_strange,
    load_checkpoint,
    save_checkpoint,
)
from gabactl.nn.losses.amnl import amnl_loss
from gabactl.nn.recording.recorder import TraceRecorder
from gabactl.nn.sensors.norms import get_shared_params
from gabactl.nn.training.build import build_loss, build_optimizer
from gabactl.nn.training.models import build_model
from gabactl.nn.training.result import Progress, Score, TrainingResult
from gabactl.nn.training.settings import TrainingSettings

__all__ = ["train"]

_EVALUATION_BATCH = 4096
#: What a checkpoint raises whose parts do not fit.
_DAMAGED = (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError)
#: Plateau of the learning rate: halve after 30 epochs without improvement, down to 5e-6.
_PLATEAU = {"mode": "min", "factor": 0.5, "patience": 30, "min_lr": 5e-6}


def train(
    data: Cmapss,
    settings: TrainingSettings,
    *,
    record: str | Path | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    resume: bool = False,
    overwrite: bool = False,
    command: str | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train, record, and test.

    The test uses the averaged weights of the epoch with the best validation RMSE. Ctrl-C (and
    SIGTERM) finishes the step, saves the checkpoint and returns with ``interrupted``. The test
    engines are looked at after every epoch too, for ``rmse_test_selected``; nothing else depends
    on that.

    Parameters
    ----------
    data : Cmapss
        From :func:`gabactl.cmapss.load`, with the subset, channels and seed of the settings. With
        every test window, the test is on the last one of each engine all the same, and the error
        over all is reported beside it.
    settings : TrainingSettings
        Everything else.
    record : path, optional
        Trace to write, ``.parquet``.
    checkpoint : path, optional
        File for checkpoints; without one, an interrupted run cannot be resumed.
    checkpoint_every : int, at least 1
        Steps between checkpoints.
    resume : bool
        Go on from ``checkpoint``. On a CPU the result equals that of an uninterrupted run bit for
        bit; rows of the trace after the checkpoint are replaced. Where the run was killed before
        its first checkpoint, it starts anew.
    overwrite : bool
        Replace an earlier trace instead of refusing.
    command : str, optional
        The command line, for the trace's metadata.
    on_step : callable, optional
        Told of every step.

    Raises
    ------
    InputError
        Files that are in the way or cannot be resumed, a batch larger than the data.

    Examples
    --------
    A single step on noise (:func:`gabactl.cmapss.load` reads the real data):

    >>> import numpy as np
    >>> from gabactl.cmapss import Normaliser, health_class
    >>> inputs = np.random.default_rng(0).normal(size=(4, 30, 14)).astype(np.float32)
    >>> rul = np.array([120.0, 80.0, 60.0, 5.0], dtype=np.float32)
    >>> windows = Windows(inputs, rul, health_class(rul), rul, np.arange(4), np.arange(4))
    >>> plain = Normaliser((0,), np.zeros((1, 14)), np.ones((1, 14)), np.zeros(3), np.ones(3))
    >>> data = Cmapss("FD001", 14, windows, windows, windows, plain, seed=0)
    >>> result = train(data, TrainingSettings(steps=1, batch_size=4, device="cpu"))
    >>> result.steps, result.parameters, result.stopped
    (1, 76709, 'finished')
    """
    check_int("checkpoint_every", checkpoint_every, 1, "choose 500")
    asked = (settings.subset, settings.channels, settings.seed)
    if (data.subset, data.channels, data.seed) != asked:
        raise InputError(
            f"the data are {data.subset} with {data.channels} channels and split seed {data.seed}, "
            f"the settings say {settings.subset}, {settings.channels}, {settings.seed}"
        )
    if len(data.train) < settings.batch_size:
        raise InputError(
            f"batch_size = {settings.batch_size} is more than the {len(data.train)} training "
            "windows: choose a smaller one"
        )
    if resume and checkpoint is None:
        raise InputError("there is nothing to resume from: name the checkpoint")
    with ExitStack() as stack:
        if checkpoint is not None:  # without one there is nothing that a second run could spoil
            stack.enter_context(FileLock(checkpoint, "training with this checkpoint"))
        run = _Run(data, settings, checkpoint)
        if resume and checkpoint is not None and _was_begun(checkpoint, record):
            run.restore(load_checkpoint(checkpoint, run.device), str(checkpoint))
        kept = None
        if record is not None:
            recorder = _recorder(run, record, resume, overwrite, command)
            run.recorder = stack.enter_context(recorder)
        begin = time.perf_counter()
        with use_precision(settings.precision, run.device):
            with stop_asked() as interrupted:
                stopped = run.loop(checkpoint_every, interrupted, on_step)
            run.save()
            if run.recorder is not None:
                kept = run.recorder.close(finish=stopped != "interrupted")
            test, everywhere = None, math.nan
            if stopped != "interrupted":
                test = run.test(run.last_windows)
                if len(run.last_windows) < len(data.test):
                    everywhere = run.test(data.test).rmse
    return TrainingResult(
        settings=settings,
        steps=run.step,
        epochs=run.epoch,
        parameters=sum(p.numel() for p in run.model.parameters()),
        device=str(run.device),
        seconds=time.perf_counter() - begin,
        best_epoch=run.best_epoch,
        validation_rmse=run.best_rmse,
        test=test,
        rmse_all_windows=everywhere,
        rmse_test_selected=run.best_test_rmse,
        stopped=stopped,
        rul_output_off=run.rul_output_off(),
        record=kept,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )


def _was_begun(checkpoint: str | Path, record: str | Path | None) -> bool:
    """Whether there must be a checkpoint: it is there, or the recording beside it is finished."""
    finished = record is not None and Path(record).suffix == ".parquet" and Path(record).exists()
    return finished or Path(checkpoint).exists()


def _recorder(
    run: _Run, record: str | Path, resume: bool, overwrite: bool, command: str | None
) -> TraceRecorder:
    recorder = TraceRecorder(
        record,
        run.loss_fn,
        _metadata(run, command),
        excitation=run.settings.excite is not None,
        resume=resume,
        overwrite=overwrite,
    )
    if recorder.last_step < run.step:
        recorder.close(finish=False)
        raise InputError(
            f"{record}: ends at step {recorder.last_step}, the checkpoint is of step {run.step}: "
            "the trace is not of this run; record elsewhere without --resume"
        )
    return recorder


class _WeightAverage:
    """Exponential moving average of the weights (and of the floating buffers), in eval mode.

    Not torch's ``AveragedModel``: that copies the first weights, which here are a random start,
    and would average counters too.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.decay = decay
        states = self.model.state_dict(), model.state_dict()
        pairs = list(zip(*(state.values() for state in states), strict=True))
        self._floats = [(a, m) for a, m in pairs if a.is_floating_point()]
        self._others = [(a, m) for a, m in pairs if not a.is_floating_point()]

    def update(self, step: int) -> None:
        """Take in the weights after ``step`` (counted from 1)."""
        decay = min(self.decay, step / (9.0 + step))
        averages, current = zip(*self._floats, strict=True)
        with torch.no_grad():
            torch._foreach_lerp_(averages, current, 1.0 - decay)
            for average, value in self._others:
                average.copy_(value)


class _Run:
    """Everything that changes during a run; ``state`` and ``restore`` hold all of it."""

    def __init__(
        self, data: Cmapss, settings: TrainingSettings, checkpoint: str | Path | None = None
    ) -> None:
        self.settings = settings
        self.checkpoint = checkpoint
        self.recorder: TraceRecorder | None = None
        self.device = choose_device(settings.device)
        torch.manual_seed(settings.seed)
        self.model = build_model(
            settings.model, settings.channels, settings.dropout, settings.subset
        )
        self.model.to(self.device)
        self.loss_fn = build_loss(settings, self.device)
        self.shared = get_shared_params(self.model)
        self.average = _WeightAverage(self.model, settings.average)
        self.optimizer = build_optimizer(self.model, self.loss_fn, settings)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, **_PLATEAU)  # type: ignore[arg-type]
        target = data.train.rul / np.float32(settings.target_scale)
        inputs, health = data.train.inputs, data.train.health
        self.inputs, self.rul, self.health = (
            torch.from_numpy(values).to(self.device) for values in (inputs, target, health)
        )
        self.validation = data.validation
        self.last_windows = _last_of_each(data.test)
        self.steps_per_epoch = len(data.train) // settings.batch_size
        self.total_steps = settings.epochs * self.steps_per_epoch
        if settings.steps is not None:
            self.total_steps = min(self.total_steps, settings.steps)
        self.step = 0
        self.last_rmse = self.best_rmse = self.best_test_rmse = math.nan
        self.best_epoch = 0
        self.best: dict[str, Tensor] | None = None
        self._set_lr()

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.step // self.steps_per_epoch

    # -- the loop ----------------------------------------------------------------------------

    def loop(
        self,
        checkpoint_every: int,
        interrupted: Callable[[], bool],
        on_step: Callable[[Progress], None] | None,
    ) -> str:
        """Steps until the end; the reason it ended."""
        order = self._order()
        while True:
            reason = self._ended()
            if reason or interrupted():
                return reason or "interrupted"
            place = self.step % self.steps_per_epoch
            if place == 0:
                order = self._order()
            size = self.settings.batch_size
            self._step(order[place * size : (place + 1) * size])
            if self.step % self.steps_per_epoch == 0:
                self._finish_epoch()
            if self.step % checkpoint_every == 0:
                self.save()
            if on_step is not None:
                epochs = (self.epoch, self.settings.epochs)
                on_step(Progress(self.step, self.total_steps, *epochs, self.last_rmse))

    def _step(self, batch: Tensor) -> None:
        predicted, logits = self._forward(self.inputs[batch])
        losses = [
            self._rul_loss(predicted, self.rul[batch]),
            functional.cross_entropy(logits, self.health[batch]),
        ]
        total = self.loss_fn.forward_k(losses, shared_params=self.shared)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.step += 1
        self.average.update(self.step)
        if self.recorder is not None:
            self.recorder.log(losses)

    def _forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.settings.precision != "bf16":
            found: tuple[Tensor, Tensor] = self.model(inputs)
            return found
        with torch.autocast(self.device.type, torch.bfloat16):
            predicted, logits = self.model(inputs)
        return predicted.float(), logits.float()

    def _rul_loss(self, predicted: Tensor, rul: Tensor) -> Tensor:
        if self.settings.sample_weights == "amnl":
            return amnl_loss(predicted, rul, MAX_RUL / self.settings.target_scale)
        return functional.mse_loss(predicted, rul)

    def _order(self) -> Tensor:
        """The order of this epoch's windows, a function of seed and epoch."""
        n = len(self.rul)
        shuffled = np.random.default_rng([self.settings.seed, self.epoch]).permutation(n)
        return torch.from_numpy(shuffled).to(self.device)

    def _ended(self) -> str:
        if self.step >= self.total_steps:
            return "finished"
        patience = self.settings.patience
        if self.step % self.steps_per_epoch or not self.step:
            return ""
        if math.isnan(self.last_rmse):
            return "diverged"
        if patience is not None and self.epoch - self.best_epoch >= patience:
            return "stopped early"
        return ""

    def _finish_epoch(self) -> None:
        self.last_rmse = self._score(self.validation).rmse
        if not self.last_rmse >= self.best_rmse and not math.isnan(self.last_rmse):
            self.best_rmse, self.best_epoch = self.last_rmse, self.epoch
            self.best = copy.deepcopy(self.average.model.state_dict())
        test_rmse = self._score(self.last_windows).rmse
        if not test_rmse >= self.best_test_rmse and not math.isnan(test_rmse):
            self.best_test_rmse = test_rmse
        if self.settings.balancer == "dwa":
            balancer: Any = self.loss_fn.balancer
            balancer.scalarizer.step()
        if self.epoch > self.settings.lr_warmup_epochs and not math.isnan(self.last_rmse):
            self.plateau.step(self.last_rmse)
        self._set_lr()

    def _set_lr(self) -> None:
        """Linear warm-up by epoch; after it the plateau scheduler rules."""
        warmup = self.settings.lr_warmup_epochs
        if self.epoch <= warmup:
            factor = 1.0 if warmup == 0 else 0.1 + 0.9 * self.epoch / warmup
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.lr * factor

    def rul_output_off(self) -> bool:
        """Whether the final ReLU was off for the whole last batch, which ends learning the RUL.

        It can happen to the published network where a step is too large.
        """
        last: Any = self.model.rul_head[-2]
        gradient = last.bias.grad
        return gradient is not None and not bool(gradient.any())

    # -- evaluation --------------------------------------------------------------------------

    def test(self, windows: Windows) -> Score:
        """Score of the best averaged weights (the present ones before the first full epoch)."""
        if self.best is not None:
            self.average.model.load_state_dict(self.best)
        return self._score(windows)

    def _score(self, windows: Windows) -> Score:
        predicted, classes = [], []
        with torch.no_grad():
            for part in torch.split(torch.from_numpy(windows.inputs), _EVALUATION_BATCH):
                rul, logits = self.average.model(part.to(self.device))
                predicted.append(rul.cpu().double().numpy())
                classes.append(logits.argmax(dim=1).cpu().numpy())
        cycles = np.concatenate(predicted) * self.settings.target_scale
        right = np.concatenate(classes) == windows.health
        return Score(
            rmse(cycles, windows.rul),
            nasa_score(cycles, windows.rul),
            rmse(cycles, windows.true_rul),
            nasa_score(cycles, windows.true_rul),
            float(right.mean()),
        )

    # -- checkpoints -------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint, if there is to be one, that the trace is never behind."""
        if self.checkpoint is None:
            return
        if self.recorder is not None:
            self.recorder.flush()
        save_checkpoint(self.checkpoint, self.state())

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on, as tensors and plain values."""
        cuda = self.device.type == "cuda"
        return {
            "settings": _plain(self.settings.to_dict()),
            "windows": len(self.rul),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_rmse": self.best_rmse,
            "last_rmse": self.last_rmse,
            "best_test_rmse": self.best_test_rmse,
            "optimizer": self.optimizer.state_dict(),
            "plateau": _plain(self.plateau.state_dict()),
            "balancer": self.loss_fn.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, saved: Mapping[str, Any], source: str) -> None:
        """Back to a checkpoint."""
        try:
            before = saved["settings"]
            if not isinstance(before, Mapping):
                raise TypeError("settings")
            self.settings.refuse_other(before, source)
            if saved["windows"] != len(self.rul):
                raise InputError(
                    f"{source}: was trained on {saved['windows']} windows, the data have "
                    f"{len(self.rul)}: give the same data"
                )
            if has_strange(saved):
                raise TypeError("tensors of a strange kind")
            counts = (saved["step"], saved["best_epoch"])
            check_plain(counts, (0, 0))
            if min(counts) < 0 or any(isinstance(count, float) for count in counts):
                raise ValueError("steps")
            # It was written on the way through the epochs that it names.
            check_plain(before["epochs"], 0)
            if not self.steps_per_epoch * before["epochs"] >= counts[0] < 1 << 53:
                raise ValueError("more steps than there were")
            if counts[1] * self.steps_per_epoch > counts[0]:
                raise ValueError("the best epoch is still to come")
            self.step, self.best_epoch = counts
            self.best = saved["best"]
            if self.best is not None:  # what is not asked for until the end must fit now
                self.average.model.load_state_dict(self.best)
            self.model.load_state_dict(saved["model"])
            self.average.model.load_state_dict(saved["average"])
            self.best_rmse, self.last_rmse = float(saved["best_rmse"]), float(saved["last_rmse"])
            self.best_test_rmse = float(saved.get("best_test_rmse", math.nan))
            optimizer = check_optimizer(saved["optimizer"], self.optimizer)
            self.optimizer.load_state_dict(optimizer)
            check_schedule(saved["plateau"], self.plateau)
            self.plateau.load_state_dict(dict(saved["plateau"]))
            self.loss_fn.load_state_dict(saved["balancer"])
            torch.set_rng_state(saved["rng"].cpu())
            if self.device.type == "cuda" and saved["rng_cuda"] is not None:
                torch.cuda.set_rng_state(saved["rng_cuda"].cpu(), self.device)
        except InputError:
            raise
        except _DAMAGED as error:
            raise InputError(
                f"{source}: damaged checkpoint ({type(error).__name__}): delete it and start afresh"
            ) from None


def _last_of_each(windows: Windows) -> Windows:
    """The last window of each engine, which is what the published test protocol scores."""
    last = np.append(windows.unit[1:] != windows.unit[:-1], True)
    return Windows(**{f.name: getattr(windows, f.name)[last] for f in fields(Windows)})


def _plain(value: Any) -> Any:
    """Only what ``torch.load(weights_only=True)`` reads back: no NumPy scalars, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _metadata(run: _Run, command: str | None) -> dict[str, Any]:
    """What the trace says of the run, beyond what the recorder knows by itself."""
    settings = run.settings.to_dict()
    settings.pop("spec")  # the recorder writes it, where there is one
    s = run.settings
    optimizer = {"name": s.optimizer, "lr": s.lr, "weight_decay": s.weight_decay}
    if s.optimizer == "sgd":
        optimizer["momentum"] = s.momentum
    found: dict[str, Any] = {
        "balancer": s.balancer,
        "model": {
            "name": s.model,
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "shared_parameters": sum(p.numel() for p in run.shared),
        },
        "data": {
            "name": "NASA C-MAPSS",
            "subset": s.subset,
            "channels": s.channels,
            "training_windows": len(run.rul),
            "steps_per_epoch": run.steps_per_epoch,
        },
        "optimizer": optimizer,
        "seed": s.seed,
        "training": settings,
    }
    if s.excite is not None:
        found["excitation"] = str(s.excite)
    if command is not None:
        found["command"] = command
    return found
