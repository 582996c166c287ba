"""Running a campaign: a process per run, some at once, and nothing lost when any of them dies."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError, MissingPackage
from gabactl.base.files import write_text
from gabactl.base.interrupts import stop_asked
from gabactl.base.lock import FileLock
from gabactl.base.results import Result
from gabactl.cmapss.files import read_rul
from gabactl.loops.scenarios import find_description
from gabactl.nn.campaigns import files
from gabactl.nn.campaigns.plan import Campaign, PlannedRun, load_campaign
from gabactl.nn.campaigns.table import collect_results, save_results

__all__ = ["run_campaign"]

_POLL = 0.2
#: Seconds that workers are given to finish their step and write a checkpoint.
_GRACE = 120.0


@dataclass(frozen=True)
class CampaignStatus(Result):
    """How far a campaign is.

    Attributes
    ----------
    name : str
        Of the campaign.
    runs : tuple of dict
        One per planned run, with the keys run, status, steps, epochs, planned_epochs, rmse_capped
        and reason; what is not known is None.
    stopped : bool
        The call that returned this was interrupted, or its time was up.
    """

    name: str
    runs: tuple[dict[str, Any], ...]
    stopped: bool = False

    @property
    def title(self) -> str:  # type: ignore[override]
        """Name and count."""
        done = sum(run["status"] in files.ENDED for run in self.runs)
        return f"Campaign {self.name}: {done} of {len(self.runs)} runs done"

    @property
    def failed(self) -> tuple[str, ...]:
        """The runs that failed; ``--resume`` tries them again."""
        return tuple(run["run"] for run in self.runs if run["status"] == "failed")

    def rows(self) -> list[tuple[str, ...]]:
        """One row per run."""
        rows: list[tuple[str, ...]] = [("run", "status", "epochs", "test RMSE", "reason")]
        for run in self.runs:
            rmse = run["rmse_capped"]
            epochs = f"{run['epochs'] or 0}/{run['planned_epochs']}"
            score = "-" if rmse is None else f"{rmse:.2f}"
            rows.append((run["run"], run["status"], epochs, score, run["reason"] or ""))
        return rows


def campaign_status(folder: str | Path, stopped: bool = False) -> CampaignStatus:
    """How far the campaign of a folder is.

    Parameters
    ----------
    folder : path
        As given to :func:`run_campaign`.
    stopped : bool
        Goes into the result.

    Raises
    ------
    InputError
        No campaign is there.

    Examples
    --------
    >>> campaign_status("nowhere")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: nowhere: no campaign there ...
    """
    campaign = files.open_plan(folder)
    told = ("run", "status", "steps", "epochs", "rmse_capped", "reason")
    pairs = zip(campaign.runs, collect_results(folder).records(), strict=True)
    runs = tuple(
        {name: row[name] for name in told} | {"planned_epochs": run.settings.epochs}
        for run, row in pairs
    )
    return CampaignStatus(campaign.name, runs, stopped)


@dataclass(frozen=True)
class Activity:
    """What a progress display is told.

    Attributes
    ----------
    done, total : int
        Runs.
    running : mapping of str to tuple of floats
        For each run at work: step, steps, epoch, epochs, validation RMSE.
    """

    done: int
    total: int
    running: Mapping[str, tuple[float, ...]]


def run_campaign(
    file: str | Path,
    folder: str | Path,
    data: str | Path,
    *,
    resume: bool = False,
    only: str | None = None,
    workers: int = 1,
    time_limit: float | None = None,
    command: str | None = None,
    on_activity: Callable[[Activity], None] | None = None,
) -> CampaignStatus:
    """Run a campaign, or what is left of it.

    Each run is a process of its own: one that is killed, or runs out of memory, ends alone. Ctrl-C
    and SIGTERM make every run save a checkpoint; so does the end of this process, however it ends.

    Parameters
    ----------
    file : path
        The plan, see :mod:`gabactl.nn.campaigns.plan`; copied into the folder.
    folder : path
        Where everything goes.
    data : path
        C-MAPSS, folder or zip archive.
    resume : bool
        Go on with what is there: runs that ended are kept, others go on from their checkpoints, and
        runs that the plan has gained are added. On a CPU each run ends exactly as if it had never
        been interrupted.
    only : str, optional
        Pattern for the names of the runs to work on, as in ``FD002-*``.
    workers : int, at least 1
        Runs at once.
    time_limit : float, optional
        Stop after so many seconds, with checkpoints.
    command : str, optional
        For the records.
    on_activity : callable, optional
        Told how things stand, five times a second.

    Raises
    ------
    InputError
        A bad plan or place, a folder in use, runs begun with other settings.

    Examples
    --------
    >>> status = run_campaign("cmapss_campaign_reduced", "out", "CMAPSSData.zip")  # doctest: +SKIP
    >>> run_campaign("cmapss_campaign_reduced", "out", "CMAPSSData.zip", workers=0)
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: workers = 0 is not a whole number >= 1: choose 1, or as many as there are cores
    """
    check_int("workers", workers, 1, "choose 1, or as many as there are cores")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time = {time_limit} is not positive: give seconds, as in 600")
    if importlib.util.find_spec("torch") is None:
        raise MissingPackage("torch", "a campaign")
    campaign = load_campaign(file)
    for subset in campaign.subsets:
        read_rul(data, f"RUL_{subset}.txt")
    place = Path(folder)
    _make(place, resume)
    with FileLock(place / ".campaign", "running a campaign there"):
        todo = _todo(campaign, place, only)
        plan = find_description(file, "campaign").read_text(encoding="utf-8")
        write_text(place / files.PLAN, plan)
        crew = _Crew(place, Path(data), campaign, todo, command)
        stopped = crew.work(workers, time_limit, on_activity)
        save_results(collect_results(place), place / files.TABLE)
        return campaign_status(place, stopped)


def _make(place: Path, resume: bool) -> None:
    """Make the folder, unless something else is there."""
    begun = (place / files.PLAN).exists()
    if begun and not resume:
        raise InputError(
            f"{place}: holds a campaign already: add --resume to go on with it, or choose another "
            "folder"
        )
    if place.exists() and not begun and any(p.name[0] != "." for p in place.iterdir()):
        raise InputError(f"{place}: is not empty and holds no campaign: choose another folder")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{place}: cannot be made ({error.strerror}): choose another place"
        ) from None


def _todo(campaign: Campaign, place: Path, only: str | None) -> list[PlannedRun]:
    """The runs that are left, in the order of the plan."""
    chosen = [r for r in campaign.runs if only is None or fnmatch.fnmatchcase(r.name, only)]
    if not chosen:
        raise InputError(
            f"only = {only!r} fits none of {len(campaign.runs)} runs: their names are like "
            f"{campaign.runs[0].name}"
        )
    records = ((r, files.read_record(files.run_folder(place, r.name))) for r in chosen)
    return [r for r, record in records if not files.ended(r, record, str(place))]


@dataclass
class _Crew:
    """The workers of one call."""

    place: Path
    data: Path
    campaign: Campaign
    waiting: list[PlannedRun]
    command: str | None

    def __post_init__(self) -> None:
        self.total, self.done = len(self.waiting), 0
        self.workers: dict[str, _Worker] = {}

    def work(
        self, at_once: int, time_limit: float | None, on_activity: Callable[[Activity], None] | None
    ) -> bool:
        """Run until all is done or it is time to stop; whether it was stopped."""
        deadline = None if time_limit is None else time.monotonic() + time_limit
        stopped = False
        with stop_asked() as asked:
            try:
                while self.workers or (self.waiting and not stopped):
                    late = deadline is not None and time.monotonic() > deadline
                    if not stopped and (late or asked()):
                        stopped = True
                        for worker in self.workers.values():
                            worker.stop()
                    while not stopped and self.waiting and len(self.workers) < at_once:
                        self._start(self.waiting.pop(0))
                    self._reap(stopped)
                    if on_activity is not None:
                        running = {n: w.told for n, w in self.workers.items()}
                        on_activity(Activity(self.done, self.total, running))
                    time.sleep(_POLL)
            finally:
                for worker in self.workers.values():
                    worker.process.kill()
        return stopped and self.done < self.total

    def _start(self, run: PlannedRun) -> None:
        command = [] if self.command is None else [self.command]
        words = [str(self.place), run.name, str(self.data), *command]
        self.workers[run.name] = _Worker(
            words, files.run_folder(self.place, run.name), self.campaign
        )

    def _reap(self, stopped: bool) -> None:
        for name, worker in list(self.workers.items()):
            code = worker.process.poll()
            if code is None:
                if worker.overdue():
                    worker.process.kill()
                continue
            del self.workers[name]
            worker.close()
            self.done += code == 0
            place = files.run_folder(self.place, name)
            if code not in (0, 3) and not stopped and files.read_record(place) is None:
                self._failed(self.campaign.run(name), place, code)
            save_results(collect_results(self.place), self.place / files.TABLE)

    def _failed(self, run: PlannedRun, place: Path, code: int) -> None:
        """Write the record that a worker could not write itself."""
        if code < 0:
            name = signal.Signals(-code).name
            reason = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        else:
            said = (place / files.LOG).read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line for line in reversed(said) if line.strip()), "")
            reason = f"exit code {code}, see {files.LOG}: {last[:200]}"
        origin = files.origin_of(run.settings, self.command)
        files.write_record(place, {**origin, "status": "failed", "reason": reason})


class _Worker:
    """A process that trains one run, and what it last said."""

    def __init__(self, words: Sequence[str], place: Path, campaign: Campaign) -> None:
        place.mkdir(parents=True, exist_ok=True)
        environ = dict(os.environ)
        environ["OMP_NUM_THREADS"] = str(campaign.threads)
        # In a process group of its own, so that Ctrl-C in the terminal reaches the driver alone
        # (not in a session of its own: schedulers that share time by session would treat it as
        # another job). Its standard input stays open as long as the driver lives.
        with open(place / files.LOG, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gabactl.nn.campaigns.worker", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                process_group=0 if os.name == "posix" else None,
            )
        self.told: tuple[float, ...] = ()
        self._stopped_at: float | None = None
        self._ears = threading.Thread(target=self._listen, daemon=True)
        self._ears.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.told = tuple(float(word) for word in line.split())
            except ValueError:
                continue

    def stop(self) -> None:
        self._stopped_at = time.monotonic()
        self.process.terminate()

    def overdue(self) -> bool:
        return self._stopped_at is not None and time.monotonic() - self._stopped_at > _GRACE

    def close(self) -> None:
        self._ears.join(timeout=5.0)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
