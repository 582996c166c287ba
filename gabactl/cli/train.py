"""``gabactl train cmapss``: a real training run under a balancer, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gabactl.cli._complete import words
from gabactl.cli._options import ForceFlag, ResumeFlag, SeedOption
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._progress import bars, epoch_words, quality_words
from gabactl.cli._spec import SpecOptions, spec_options

if TYPE_CHECKING:
    from gabactl.nn.training.result import Progress


class _Dataset(StrEnum):
    cmapss = "cmapss"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    @spec_options
    def train(
        dataset: Annotated[_Dataset, typer.Argument(help="What to train on.")],
        spec: SpecOptions,
        data: Annotated[
            Path,
            typer.Option(
                metavar="PATH",
                help="Folder or zip archive with the data (see `gabactl data fetch`).",
                envvar="GABACTL_CMAPSS",
            ),
        ],
        subset: Annotated[
            str,
            typer.Option(
                metavar="NAME",
                help="FD001, FD002, FD003 or FD004.",
                autocompletion=words("FD001", "FD002", "FD003", "FD004"),
            ),
        ] = "FD001",
        channels: Annotated[
            int, typer.Option(metavar="N", help="14: sensors; 17: operating settings too.")
        ] = 14,
        model: Annotated[
            str,
            typer.Option(
                metavar="NAME",
                help="small, or paper (3.5 million parameters).",
                autocompletion=words("small", "paper"),
            ),
        ] = "small",
        balancer: Annotated[
            str,
            typer.Option(
                metavar="NAME",
                help="gaba, gradnorm, fixed, uncertainty, dwa, pcgrad or cagrad.",
                autocompletion=words(
                    "gaba", "gradnorm", "fixed", "uncertainty", "dwa", "pcgrad", "cagrad"
                ),
            ),
        ] = "gaba",
        weights: Annotated[
            str,
            typer.Option(metavar="RUL,HEALTH", help="Of fixed: the weights, as in 0.0476,0.9524."),
        ] = "0.5,0.5",
        measure_every: Annotated[
            int,
            typer.Option(
                metavar="STEPS",
                help="Of fixed, uncertainty, dwa: steps between readings for the record; 0: none.",
            ),
        ] = 1,
        normalise_to: Annotated[
            str, typer.Option(metavar="SUM", help="Of gaba: what the weights sum to, 1 or n_tasks.")
        ] = "1",
        gradnorm: Annotated[
            str,
            typer.Option(
                metavar="NAME",
                help="Of gradnorm: chen2018 or textbook.",
                autocompletion=words("chen2018", "textbook"),
            ),
        ] = "chen2018",
        alpha: Annotated[
            float, typer.Option(metavar="X", help="Of gradnorm: restoring force, 0 or more.")
        ] = 1.5,
        gradnorm_lr: Annotated[
            float, typer.Option(metavar="X", help="Of gradnorm: step size, above 0.")
        ] = 0.025,
        cagrad_c: Annotated[
            float,
            typer.Option(metavar="X", help="Of cagrad: how far to leave the average, in [0, 1)."),
        ] = 0.4,
        sample_weights: Annotated[
            str,
            typer.Option(
                metavar="NAME",
                help="none or amnl; amnl with gaba is GRACE.",
                autocompletion=words("none", "amnl"),
            ),
        ] = "none",
        epochs: Annotated[
            int, typer.Option(metavar="N", help="At most so many epochs, 1 or more.")
        ] = 30,
        steps: Annotated[
            int | None,
            typer.Option(
                metavar="STEPS",
                help="At most so many steps, 1 or more.",
                show_default="those of --epochs",
            ),
        ] = None,
        patience: Annotated[
            int | None,
            typer.Option(
                metavar="N",
                help="Stop after so many epochs without improvement, 1 or more.",
                show_default="never",
            ),
        ] = None,
        batch_size: Annotated[
            int, typer.Option(metavar="N", help="Windows per step, 1 or more.")
        ] = 256,
        optimizer: Annotated[
            str,
            typer.Option(
                metavar="NAME", help="adamw or sgd.", autocompletion=words("adamw", "sgd")
            ),
        ] = "adamw",
        lr: Annotated[float, typer.Option(metavar="X", help="Learning rate, above 0.")] = 1e-3,
        weight_decay: Annotated[
            float, typer.Option(metavar="X", help="Weight decay, 0 or more.")
        ] = 1e-4,
        momentum: Annotated[
            float, typer.Option(metavar="X", help="Of sgd: momentum, in [0, 1).")
        ] = 0.9,
        lr_warmup_epochs: Annotated[
            int,
            typer.Option(
                metavar="N", help="Epochs over which the learning rate rises from a tenth."
            ),
        ] = 10,
        clip: Annotated[
            float | None,
            typer.Option(
                metavar="X",
                help="Largest norm of the combined gradient, above 0.",
                show_default="none",
            ),
        ] = None,
        dropout: Annotated[
            float | None,
            typer.Option(
                metavar="X",
                help="Share of activations dropped, in [0, 1).",
                show_default="as published",
            ),
        ] = None,
        target_scale: Annotated[
            float,
            typer.Option(
                metavar="X", help="RUL targets are divided by this, above 0; 1 leaves cycles."
            ),
        ] = 1.0,
        precision: Annotated[
            str,
            typer.Option(
                metavar="NAME",
                help="float32, tf32 or bf16.",
                autocompletion=words("float32", "tf32", "bf16"),
            ),
        ] = "float32",
        excite: Annotated[
            str | None,
            typer.Option(
                metavar="SIGNAL",
                help="Perturb the weights: prbs:amplitude=0.5,period=50,seed=1[,inverted].",
            ),
        ] = None,
        device: Annotated[
            str,
            typer.Option(
                metavar="NAME",
                help="auto, cpu, cuda or mps.",
                autocompletion=words("auto", "cpu", "cuda", "mps"),
            ),
        ] = "auto",
        threads: Annotated[
            int | None,
            typer.Option(min=1, metavar="N", help="CPU threads.", show_default="torch's choice"),
        ] = None,
        checkpoint: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                help="Checkpoint to write, and to go on from.",
                show_default="beside the trace, ending in .ckpt",
            ),
        ] = None,
        checkpoint_every: Annotated[
            int, typer.Option(metavar="STEPS", help="Steps between checkpoints, 1 or more.")
        ] = 500,
        seed: SeedOption = 0,
        resume: ResumeFlag = False,
        force: ForceFlag = False,
        record: Annotated[
            Path | None,
            typer.Option(
                "-o", "--record", metavar="FILE", help="Trace to write: .parquet, or .arrows."
            ),
        ] = None,
        as_json: JsonFlag = False,
    ) -> None:
        """Train on real data, and record every step.

        Recorded is what the balancer saw and did.

        Ctrl-C finishes the step, saves the checkpoint and exits with code 130; the same command
        with --resume goes on, and on a CPU ends exactly as if it had not been interrupted.
        """
        from gabactl.nn.excitation import Excitation
        from gabactl.nn.training.settings import TrainingSettings

        settings = TrainingSettings(
            subset=subset,
            channels=channels,
            model=model,
            dropout=dropout,
            balancer=balancer,
            spec=spec.resolve(),
            normalise_to=1 if normalise_to == "1" else normalise_to,
            weights=_numbers(weights),
            measure_every=measure_every,
            gradnorm_variant=gradnorm,
            gradnorm_alpha=alpha,
            gradnorm_lr=gradnorm_lr,
            cagrad_c=cagrad_c,
            sample_weights=sample_weights,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            lr_warmup_epochs=lr_warmup_epochs,
            clip=clip,
            patience=patience,
            target_scale=target_scale,
            precision=precision,
            excite=None if excite is None else Excitation.parse(excite),
            seed=seed,
            device=device,
        )
        if checkpoint is None and record is not None:
            checkpoint = record.with_suffix(".ckpt")
        _check_places(record, checkpoint, resume, force)

        import torch

        from gabactl import cmapss
        from gabactl.nn.training.loop import train as run

        if threads is not None:
            torch.set_num_threads(threads)
        examples = cmapss.load(data, subset, channels=channels, seed=seed, all_test_windows=True)
        with _progress(quiet=as_json) as on_step:
            result = run(
                examples,
                settings,
                record=record,
                checkpoint=checkpoint,
                checkpoint_every=checkpoint_every,
                resume=resume,
                overwrite=force,
                command=_command(),
                on_step=on_step,
            )
        show(result, as_json)
        if result.interrupted:
            raise typer.Exit(130)


def _numbers(text: str) -> tuple[float, ...]:
    from gabactl.base.errors import InputError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"weights = {text!r}: give two numbers, as in 0.5,0.5") from None


def _check_places(record: Path | None, checkpoint: Path | None, resume: bool, force: bool) -> None:
    """Find out before the data are read, not after an hour of training."""
    from gabactl.base.errors import InputError

    if record is not None and record.suffix.lower() not in (".parquet", ".arrows"):
        raise InputError(f"{record}: a trace is written as .parquet: choose that ending")
    for place in (record, checkpoint):
        if place is not None and not place.absolute().parent.is_dir():
            raise InputError(f"{place}: there is no folder {place.parent}: make it first")
    if resume:
        if checkpoint is None:
            raise InputError("--resume needs --checkpoint FILE, or --record FILE to find it beside")
        if not checkpoint.is_file():
            raise InputError(
                f"{checkpoint}: no such checkpoint: leave --resume away to start afresh"
            )
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
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[quality]}"),
    )
    with bars(*columns) as progress:
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
