"""``gabactl cmapss train``: a real training run under a balancer, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gabactl.base.errors import InputError
from gabactl.cli._fields import Row, takes
from gabactl.cli._options import options
from gabactl.cli._output import show
from gabactl.cli._progress import bars, epoch_words, quality_words
from gabactl.cli._spec import SpecOptions, spec_options
from gabactl.nn.excitation import Excitation
from gabactl.nn.training.settings import TrainingSettings

if TYPE_CHECKING:
    from gabactl.nn.training.result import Progress


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"weights = {text!r}: give two numbers, as in 0.5,0.5") from None


ROWS: dict[str, Row | None] = {
    "spec": None,  # the settings of GABA, after these
    "seed": None,  # as every command has it
    "subset": Row("NAME", "Which data: {}."),
    "channels": Row("N", "14: sensors; 17: operating settings too."),
    "model": Row("NAME", "{}; paper has 3.5 million parameters."),
    "dropout": Row("X", "Share of activations dropped, in [0, 1).", default="as published"),
    "balancer": Row("NAME", "What weighs the losses: {}."),
    "normalise_to": Row(
        "SUM",
        "Of gaba: what the weights sum to, 1 or n_tasks.",
        parse=lambda text: 1 if text == "1" else text,
    ),
    "weights": Row(
        "RUL,HEALTH",
        "Of fixed: the weights, as in 0.0476,0.9524.",
        default="0.5,0.5",
        parse=_numbers,
    ),
    "measure_every": Row(
        "STEPS", "Of fixed, uncertainty, dwa: steps between readings for the record; 0: none."
    ),
    "gradnorm_variant": Row("NAME", "Of gradnorm: {}."),
    "gradnorm_alpha": Row("X", "Of gradnorm: restoring force, 0 or more."),
    "gradnorm_lr": Row("X", "Of gradnorm: step size, above 0."),
    "cagrad_c": Row("X", "Of cagrad: how far to leave the average, in [0, 1)."),
    "sample_weights": Row("NAME", "{}; amnl with gaba is GRACE."),
    "epochs": Row("N", "At most so many epochs, 1 or more."),
    "steps": Row("STEPS", "At most so many steps, 1 or more.", default="those of --epochs"),
    "batch_size": Row("N", "Windows per step, 2 or more."),
    "optimizer": Row("NAME", "{}."),
    "lr": Row("X", "Learning rate, above 0."),
    "weight_decay": Row("X", "Weight decay, 0 or more."),
    "momentum": Row("X", "Of sgd: momentum, in [0, 1)."),
    "lr_warmup_epochs": Row("N", "Epochs over which the learning rate rises from a tenth."),
    "clip": Row("X", "Largest norm of the combined gradient, above 0.", default="none"),
    "average": Row("X", "Decay of the averaged weights, in [0, 1); 0 takes the last ones."),
    "patience": Row(
        "N", "Stop after so many epochs without improvement, 1 or more.", default="never"
    ),
    "target_scale": Row("X", "RUL targets are divided by this, above 0; 1 leaves cycles."),
    "precision": Row("NAME", "Of the network: {}."),
    "excite": Row(
        "SIGNAL",
        "Perturb the weights: prbs:amplitude=0.5,period=50,seed=1[,inverted].",
        parse=Excitation.parse,
    ),
    "device": Row("NAME", "{}.", offer=("auto", "cpu", "cuda", "mps")),
}


@spec_options
@takes("settings", TrainingSettings, ROWS)
@options(
    threads=Row("N", "CPU threads.", "torch's choice", least=1),
    checkpoint=Row(
        "FILE", "Checkpoint to write, and to go on from.", "beside the trace, ending in .ckpt"
    ),
    checkpoint_every=Row("STEPS", "Steps between checkpoints, 1 or more."),
    record=Row("FILE", "Trace to write: .parquet, or .arrows.", option="-o --record"),
)
def train(
    data: Path,
    settings: dict[str, Any],
    threads: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    record: Path | None = None,
    as_json: bool = False,
    *,
    spec: SpecOptions,
) -> int:
    """Train on real data, and record every step.

    Recorded is what the balancer saw and did. Ctrl-C finishes the step, saves the checkpoint and
    exits with code 130; the same command with --resume goes on, and on a CPU ends exactly as if it
    had not been interrupted.
    """
    wanted = TrainingSettings(**settings, seed=seed, spec=spec.resolve())
    if checkpoint is None and record is not None:
        checkpoint = record.with_suffix(".ckpt")
    _check_places(record, checkpoint, resume, force)

    import torch

    from gabactl import cmapss
    from gabactl.nn.training.loop import train as run

    if threads is not None:
        torch.set_num_threads(threads)
    examples = cmapss.load(
        data, wanted.subset, channels=wanted.channels, seed=seed, all_test_windows=True
    )
    with _progress(quiet=as_json) as on_step:
        result = run(
            examples,
            wanted,
            record=record,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            resume=resume,
            overwrite=force,
            command=_command(),
            on_step=on_step,
        )
    show(result, as_json)
    return 130 if result.interrupted else 0


def _check_places(record: Path | None, checkpoint: Path | None, resume: bool, force: bool) -> None:
    """Find out before the data are read, not after an hour of training."""
    if record is not None and record.suffix.lower() not in (".parquet", ".arrows"):
        raise InputError(f"{record}: a trace is written as .parquet: choose that ending")
    for place in (record, checkpoint):
        if place is not None and not place.absolute().parent.is_dir():
            raise InputError(f"{place}: there is no folder {place.parent}: make it first")
    if resume:
        if checkpoint is None:
            raise InputError("--resume needs --checkpoint FILE, or --record FILE to find it beside")
        return
    for place in (record, record and record.with_suffix(".arrows"), checkpoint):
        if place is not None and place.exists() and not force:
            raise InputError(
                f"{place}: is there already: add --resume to go on with it, --force to replace it, "
                "or choose another name"
            )


def _command() -> str:
    """The command as the user gave it, for the trace: paths shortened to their last part."""
    import shlex
    import sys

    words = [Path(word).name if "/" in word or "\\" in word else word for word in sys.argv[1:]]
    return shlex.join(["gabactl", *words])


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    if quiet:
        yield None
        return
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn

    texts = "epoch {task.fields[epoch]}", "{task.fields[quality]}"
    with bars(*texts, counts=[MofNCompleteColumn, TimeRemainingColumn]) as progress:
        bar = progress.add_task("", total=None, epoch="1", quality="")

        def on_step(now: Any) -> None:
            progress.update(
                bar,
                completed=now.step,
                total=now.steps,
                epoch=epoch_words(now.epoch, now.epochs),
                quality=quality_words(now.validation_rmse),
            )

        yield on_step
