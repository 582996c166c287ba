"""Training runs beside each other, each in a process of its own, until the time is up."""

from __future__ import annotations

import json
import math
import multiprocessing.connection
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gabactl import cmapss
from gabactl.base.errors import InputError
from gabactl.base.files import read_json, write_text
from gabactl.base.results import to_jsonable
from gabactl.nn.training.loop import train
from gabactl.nn.training.settings import TrainingSettings
from gabactl.traces import Trace, read_trace
from gabactl.validation.check import check
from gpu.plan import FORK, Bench

#: Seconds that runs get to finish their step and close their recording.
_CLOSING = 15.0


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes
    ----------
    name : str
        Of its trace and its figures.
    settings : TrainingSettings
        Everything that decides it.
    resumable : bool
        Keep checkpoints, and go on from one.
    """

    name: str
    settings: TrainingSettings
    resumable: bool = False


def run_jobs(bench: Bench, jobs: Sequence[Job], workers: int, *, slim: bool = False) -> None:
    """Run jobs in order, some at once; send the figures and the trace of each as it ends.

    Parameters
    ----------
    bench : Bench
        Its deadline ends the runs, which then keep what they recorded.
    jobs : sequence of Job
        Most important first.
    workers : int
        How many at once.
    slim : bool
        Keep norms, averages, weights and losses of the traces only.
    """
    waiting = deque(job for job in jobs if job.name not in bench.done)
    for job in jobs:
        if job.name in bench.done:
            bench.left_out(job.name, "an earlier lease finished it")
    running: dict[Any, Job] = {}
    closing = min(_CLOSING, 0.2 * bench.left())
    data: dict[tuple[str, int], cmapss.Cmapss] = {}
    stopped = False
    while running or (waiting and bench.left() > closing):
        while waiting and len(running) < workers and bench.left() > closing:
            job = waiting.popleft()
            key = job.settings.subset, job.settings.seed
            try:
                if key not in data:  # read once for all the processes
                    data[key] = cmapss.load(bench.data, key[0], seed=key[1])
            except InputError as error:
                bench.send(("item", job.name, {"status": "failed", "reason": str(error)}))
                continue
            process = FORK.Process(target=_train, args=(job, data[key], bench.scratch))
            process.start()
            running[process] = job
        sentinels = [process.sentinel for process in running]
        if sentinels:
            multiprocessing.connection.wait(sentinels, max(min(bench.left() - closing, 5.0), 0.1))
        for process in [p for p in running if p.exitcode is not None]:
            process.join()
            _collect(bench, running.pop(process), process.exitcode, slim)
        if not stopped and bench.left() <= closing:
            stopped = True
            for process in running:
                process.terminate()  # they finish their step, and close
    for job in waiting:
        bench.left_out(job.name, "no time was left")


def _train(job: Job, data: cmapss.Cmapss, folder: Path) -> None:
    """In the process of a run: what became of it, as JSON."""
    torch.set_num_threads(1)
    checkpoint = folder / f"{job.name}.ckpt" if job.resumable else None
    resume = checkpoint is not None and checkpoint.is_file()
    try:
        result = train(
            data,
            job.settings,
            record=folder / f"{job.name}.parquet",
            checkpoint=checkpoint,
            resume=resume,
            overwrite=not resume,
            command=f"benchmarks/gpu_kit.py, run {job.name}",
        )
        found = result.to_dict()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"[:400]}
    write_text(folder / f"{job.name}.json", json.dumps(to_jsonable(found)))


def _collect(bench: Bench, job: Job, code: int | None, slim: bool) -> None:
    outcome = bench.scratch / f"{job.name}.json"
    if not outcome.is_file():
        reason = f"its process ended with exit code {code}"
        return bench.send(("item", job.name, {"status": "failed", "reason": reason}))
    found = read_json(outcome)
    outcome.unlink()
    if "error" in found:
        return bench.send(("item", job.name, {"status": "failed", "reason": found["error"]}))
    rate = found["steps"] / max(found["seconds"], 1e-9)
    figures = {"status": "ok", **found, "steps_per_second": rate}
    words = f"{found['stopped']} after {found['steps']:,} steps, {rate:.0f}/s"
    try:
        trace = read_trace(found["record"])
        figures |= figures_of(trace)
        words += f"; ratio {figures['ratio_median']:.0f}"
        if job.settings.balancer == "gaba":
            words += f", saturated {figures['saturated']:.2f}"
        if figures["replay_error"] is not None:
            words += f", replay within {figures['replay_error']:.1g}"
        bench.send(("trace", job.name, _kept(trace, Path(found["record"]), slim)))
    except (InputError, OSError) as error:
        figures |= {"status": "failed", "reason": f"the recording: {error}"}
    if found["test"]:
        words += f"; test RMSE {found['test']['rmse']:.2f}"
    return bench.send(("item", job.name, {**figures, "words": words}))


def _kept(trace: Trace, file: Path, slim: bool) -> str:
    if slim:
        from gabactl.traces import write_parquet

        file = file.with_suffix(".slim.parquet")
        write_parquet(trace.replace(raw=None, wall_time=None), file)
    return str(file)


def figures_of(trace: Trace) -> dict[str, Any]:
    """What the ledger's claims ask of a run: ratio, saturation, and whether it replays."""
    replay = check(trace)
    errors = [replay.max_abs_error_ema, replay.max_abs_error_weights]
    known = [error for error in errors if error is not None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = trace.grad_norms[:, 0] / trace.grad_norms[:, 1]
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    per_epoch = int((trace.metadata.get("data") or {}).get("steps_per_epoch") or len(ratio))
    epochs = [np.median(ratio[k : k + per_epoch]) for k in range(0, len(ratio), per_epoch)]
    return {
        "replay_error": max(known) if known else None,
        "replay_ok": replay.ok,
        "saturated": replay.saturated_fraction,
        "ratio_start": float(np.median(ratio[:5])) if len(ratio) else math.nan,
        "ratio_median": float(np.median(ratio)) if len(ratio) else math.nan,
        "ratio_peak": float(max(epochs, default=math.nan)),
        "ratio_end": float(np.median(ratio[-max(len(ratio) // 4, 1) :])) if len(ratio) else None,
    }


def rate(bench: Bench, settings: TrainingSettings, workers: int, steps: int) -> dict[str, Any]:
    """Steps a second of so many processes together, from the moment when all are warm."""
    data = cmapss.load(bench.data, settings.subset, seed=settings.seed)
    warm = max(steps // 4, 1)
    barrier, times = FORK.Barrier(workers), FORK.SimpleQueue()
    processes = [
        FORK.Process(target=_timed, args=(data, settings, barrier, times, warm, steps))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    while any(p.is_alive() for p in processes) and bench.left() > 0:
        if any(p.exitcode for p in processes):
            break  # the others wait for it, in vain
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.join()
    spent = [times.get() for _ in processes if not times.empty()]
    if len(spent) < workers:
        raise RuntimeError(f"{workers - len(spent)} of {workers} processes did not end")
    together = workers * steps / max(spent)
    return {"steps_per_second": together, "words": f"{together:.0f} steps/s together"}


def _timed(data: Any, settings: Any, barrier: Any, times: Any, warm: int, steps: int) -> None:
    torch.set_num_threads(1)
    begin = 0.0

    def on_step(now: Any) -> None:
        nonlocal begin
        if now.step in (warm, warm + steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if now.step == warm:
                barrier.wait(60.0)
                begin = time.perf_counter()
            else:
                times.put(time.perf_counter() - begin)

    train(data, settings, on_step=on_step)
