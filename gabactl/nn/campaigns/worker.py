"""One run of a campaign, in a process of its own: ``python -m gabactl.nn.campaigns.worker``.

It goes on from the checkpoint where there is one, and ends at SIGTERM, or when the driver that
started it is gone (its standard input closes), with a checkpoint written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gabactl.base.errors import InputError
from gabactl.base.lock import FileLock
from gabactl.nn.campaigns import files
from gabactl.nn.campaigns.plan import Campaign, PlannedRun

if TYPE_CHECKING:
    from gabactl.nn.training.result import Progress, TrainingResult


#: Exit code of a run that can go on.
INTERRUPTED = 3
#: What a record takes over from the result as it is.
_OUTCOME = (
    *("steps", "epochs", "best_epoch", "validation_rmse", "rmse_all_windows"),
    *("rmse_test_selected", "parameters", "device", "seconds"),
)
#: What a record calls the fields of a Score, in their order.
_SCORES = ("rmse_capped", "nasa_capped", "rmse_uncapped", "nasa_uncapped", "accuracy")
#: Seconds that the worker of a killed driver is given to finish its step and let go of the run.
_PATIENCE = 120.0


def train_one(
    campaign: Campaign, run: PlannedRun, folder: Path, data: Path, command: str | None = None
) -> dict[str, Any]:
    """Train a run, or the rest of it, and write its record.

    Parameters
    ----------
    campaign : Campaign
        For threads and checkpoints.
    run : PlannedRun
        What to train.
    folder : path
        Of the campaign.
    data : path
        C-MAPSS.
    command : str, optional
        For the record.

    Returns
    -------
    dict
        The record; its "status" is "failed" where the run refused to begin or broke off.

    Raises
    ------
    InputError
        Another process trains this run.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.nn.campaigns.plan import load_campaign
    >>> campaign = load_campaign("cmapss_campaign_reduced")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = train_one(campaign, campaign.runs[0], Path(folder), Path("no-data"))
    >>> record["status"], record["reason"]
    ('failed', 'no-data: ...')
    """
    import torch

    from gabactl import cmapss
    from gabactl.nn.training.loop import train

    place = files.run_folder(folder, run.name)
    place.mkdir(parents=True, exist_ok=True)
    # A worker that was left over, and is about to end, may have the run still.
    with FileLock(place / "run", "training it", patience=_PATIENCE):
        (place / files.RECORD).unlink(missing_ok=True)
        torch.set_num_threads(campaign.threads)
        resume = (place / files.CHECKPOINT).is_file()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        base = {**files.origin_of(run.settings, command), "started": started}
        try:
            s = run.settings
            examples = cmapss.load(
                data, s.subset, channels=s.channels, seed=s.seed, all_test_windows=True
            )
            result = train(
                examples,
                s,
                record=place / files.TRACE,
                checkpoint=place / files.CHECKPOINT,
                checkpoint_every=campaign.checkpoint_every,
                resume=resume,
                overwrite=not resume,
                command=command,
                on_step=_Reporter(),
            )
        except (InputError, RuntimeError, MemoryError) as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            reason = f"{kind}{error}"
            record = {**base, "status": "failed", "reason": " ".join(reason.split())[:500]}
        else:
            record = {**base, **_outcome(result, place)}
        files.write_record(place, record)
        return record


def _outcome(result: TrainingResult, place: Path) -> dict[str, Any]:
    from gabactl.traces import read_trace

    found: dict[str, Any] = {name: getattr(result, name) for name in _OUTCOME}
    found["status"] = result.stopped
    found["reason"] = "resume goes on" if result.interrupted else None
    if result.stopped == "diverged":
        found["reason"] = f"the validation error is not a number after epoch {result.epochs}"
    elif result.rul_output_off:
        found["reason"] = "the final ReLU of the RUL head is off"
    if result.test is not None:
        found |= zip(_SCORES, astuple(result.test), strict=True)
    recorded = files.trace_of(place)
    if recorded is not None and result.steps:
        # Over all pieces of a resumed run; the clock of the result is that of the last alone.
        trace = read_trace(recorded)
        if trace.wall_time is not None and len(trace.wall_time):
            found["seconds"] = float(trace.wall_time[-1])
        found["started"] = trace.metadata.get("started", None)
    return {key: value for key, value in found.items() if value is not None}


class _Reporter:
    """Tells the driver on standard output, and the log at every epoch."""

    def __init__(self) -> None:
        self._told = 0.0
        self._epoch = -1

    def __call__(self, now: Progress) -> None:
        if self._epoch < 0:
            self._epoch = now.epoch
        if now.epoch != self._epoch:
            self._epoch = now.epoch
            clock = datetime.now(UTC).isoformat(timespec="seconds")
            print(
                f"{clock} epoch {now.epoch}/{now.epochs} step {now.step} "
                f"validation RMSE {now.validation_rmse:.3f}",
                file=sys.stderr,
                flush=True,
            )
        if time.monotonic() - self._told > 0.5:
            self._told = time.monotonic()
            # Without a driver there is no reader, and SIGTERM is on its way.
            with contextlib.suppress(OSError):
                print(now.step, now.steps, now.epoch, now.epochs, now.validation_rmse, flush=True)


def _end_with_the_driver() -> None:
    """Stop as at SIGTERM when standard input closes, which it does however the driver ends."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """Train one run; exit code 0, or 3 for one that can go on, or 1 for a failed one.

    Parameters
    ----------
    arguments : list of str, optional
        Folder of the campaign, name of the run, data, and what the record says of the command;
        default: those of the process.
    """
    folder, name, data, *command = sys.argv[1:] if arguments is None else arguments
    _end_with_the_driver()
    campaign = files.open_plan(folder)
    record = train_one(campaign, campaign.run(name), Path(folder), Path(data), *command)
    if record["status"] == "failed":
        print(record["reason"], file=sys.stderr)
        return 1
    return INTERRUPTED if record["status"] == "interrupted" else 0


if __name__ == "__main__":
    code = main()
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)
