"""Running a sweep: chunks on joblib's back ends, durable parts, restarts."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import numpy as np

from gabactl.base.errors import InputError, Stopped, packages_for
from gabactl.base.files import left_behind, whole_file, write_text
from gabactl.base.lock import FileLock
from gabactl.loops.batch import COLUMNS, run_batch
from gabactl.loops.sweeps.description import Sweep
from gabactl.loops.sweeps.result import (
    SweepResult,
    missing_parts,
    open_sweep,
    part_file,
    read_manifest,
)

__all__ = ["run_sweep"]

Engine = Literal["local", "dask", "ray"]

#: What each engine cannot do without.
_LIBRARIES = {"local": "joblib", "dask": "distributed", "ray": "ray"}

#: Attempts in a row without a finished chunk before a sweep gives up.
_PATIENCE = 3
#: What another attempt does not mend.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def run_sweep(
    sweep: Sweep,
    folder: str | Path,
    *,
    engine: Engine = "local",
    address: str | None = None,
    workers: int = 2,
    resume: bool = False,
    progress: bool = False,
    device: str | None = None,
) -> SweepResult:
    """Run a sweep, or what is left of it.

    Parameters
    ----------
    sweep : Sweep
        What to run.
    folder : path
        Where the results go; every worker must see it under this name.
    engine : {"local", "dask", "ray"}
        joblib's own worker processes, a Dask or a Ray cluster.
    address : str, optional
        Of a running cluster; default a cluster of ``workers`` processes on this machine.
    workers : int, at least 1
        Worker processes.
    resume : bool
        Go on where an earlier run stopped. Without it the folder must be new or empty.
    progress : bool
        Draw a progress bar on stderr.
    device : str, optional
        Where :func:`gabactl.loops.batch.run_batch` runs, such as ``cuda``; part of the manifest, because
        its results agree with the compiled ones to rounding alone.

    Returns
    -------
    SweepResult

    Raises
    ------
    InputError
        The folder holds something else, or an engine is not installed.
    Stopped
        The engine did not start; workers kept dying, so that three attempts in a row finished no
        chunk; or the disk is full.

    Notes
    -----
    A part is written under a temporary name, flushed to the disk and renamed, so that a part that
    exists is whole. Killed workers are replaced and their chunks computed again, with the same
    numbers.

    Examples
    --------
    >>> import tempfile, dataclasses
    >>> from gabactl.loops.sweeps import load_sweep
    >>> small = dataclasses.replace(load_sweep("sweep_stability"), chunk=4096)
    >>> run_sweep(small, tempfile.mkdtemp(), workers=1).table().num_rows == small.loops
    True
    """
    if engine not in _LIBRARIES:
        raise InputError(f"engine = {engine!r} is unknown: choose local, dask or ray")
    if workers < 1:
        raise InputError(f"workers = {workers} is below 1: choose 1 or more")
    if address is not None and engine == "local":
        raise InputError("an address belongs to the engines dask and ray: choose one of them")
    # Before the folder is made: a second attempt should not find it taken.
    with packages_for(f"the engine {engine}"):
        importlib.import_module(_LIBRARIES[engine])
    if device is not None:
        if address is None:
            with packages_for(f"device = {device!r}"):
                from gabactl.base.devices import choose_device
            device = str(choose_device(device))
        sweep = dataclasses.replace(sweep, options={**sweep.options, "device": device})
    place = Path(folder).absolute()
    with ExitStack() as stack:
        _prepare(sweep, place, resume, stack)
        try:
            run = stack.enter_context(_engine(engine, address, workers))
        except InputError:
            raise
        except Exception as error:  # Ray raises nothing narrower
            raise Stopped(
                f"{place}: the engine {engine} did not start ({_cause(error)}): mend the cause, or "
                "choose another engine, and run again with --resume"
            ) from error
        stack.enter_context(_progress(sweep, place, progress))
        failures = 0
        while todo := missing_parts(place, sweep.chunks):
            try:
                run(sweep, place, todo)
            except (InputError, KeyboardInterrupt, ModuleNotFoundError):
                raise
            except Exception as error:
                left = len(missing_parts(place, sweep.chunks))
                failures = 0 if left < len(todo) else failures + 1
                if isinstance(error, OSError) and error.errno in _FULL:
                    failures = _PATIENCE
                if failures >= _PATIENCE:
                    raise Stopped(
                        f"{place}: the sweep stopped with {left} of {sweep.chunks} chunks missing "
                        f"({_cause(error)}): mend the cause (workers that die often "
                        "lack memory: choose a smaller chunk) and run again with --resume"
                    ) from error
                time.sleep(0.2)
    return open_sweep(place)


def _cause(error: Exception) -> str:
    """What went wrong; joblib tells the death of its workers in a paragraph."""
    if type(error).__name__ == "TerminatedWorkerError":
        codes = re.search(r"\{.*?\}", str(error))
        return f"worker processes died{': ' + codes.group() if codes else ''}"
    return f"{type(error).__name__}: {error}"


def _compute(sweep: Sweep, folder: str, chunk: int) -> int:
    """One chunk, in a worker: compute, write, rename."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = Path(folder)
    final = part_file(place, chunk)
    if final.exists():
        return chunk
    first = chunk * sweep.chunk
    count = min(sweep.chunk, sweep.loops - first)
    varying = sweep.parameters(first, count)
    figures = run_batch(
        sweep.profile,
        {**sweep.fixed, **varying},
        seed=sweep.seed,
        first_loop=first,
        **sweep.common,
        **sweep.options,
    )
    table = pa.table({"loop": np.arange(first, first + count), **varying, **figures})
    pa.allocate_buffer(8 << 20)  # or MemoryError; in the middle of writing, Arrow would abort
    with whole_file(final) as sink:
        pq.write_table(table, sink, compression="zstd")
    return chunk


Runner = Callable[[Sweep, Path, Sequence[int]], None]


@contextmanager
def _engine(engine: Engine, address: str | None, workers: int) -> Iterator[Runner]:
    import joblib

    def run(backend: str, sweep: Sweep, place: Path, todo: Sequence[int]) -> None:
        with joblib.parallel_config(backend=backend, n_jobs=workers):
            joblib.Parallel()(joblib.delayed(_compute)(sweep, str(place), n) for n in todo)

    if engine == "local":
        # One worker needs no process of its own.
        backend = "loky" if workers > 1 else "sequential"
        # Empty is off: else a worker that dies prints its stack over our one line.
        os.environ.setdefault("PYTHONFAULTHANDLER", "")
        yield lambda sweep, place, todo: run(backend, sweep, place, todo)
        return
    if engine == "dask":
        from dask import distributed

        dask: Any = distributed

        with ExitStack() as stack:
            if address is None:
                cluster = stack.enter_context(
                    dask.LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        processes=True,
                        dashboard_address=None,
                        silence_logs=40,
                    )
                )
                stack.enter_context(dask.Client(cluster))
            else:
                stack.enter_context(dask.Client(address))
            yield lambda sweep, place, todo: run("dask", sweep, place, todo)
        return
    import ray
    from ray.util import joblib as ray_joblib

    register: Any = ray_joblib.register_ray
    register()
    started = not ray.is_initialized()
    if started:
        ray.init(
            address=address,
            num_cpus=workers if address is None else None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=40,
        )
    try:
        yield lambda sweep, place, todo: run("ray", sweep, place, todo)
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _progress(sweep: Sweep, place: Path, wanted: bool) -> Iterator[None]:
    """Counts finished parts, which works for every engine alike."""
    if not wanted:
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    done = Event()
    bar = Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        "chunks",
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    )
    task = bar.add_task("sweep", total=sweep.chunks)

    def watch() -> None:
        while not done.wait(0.3):
            bar.update(task, completed=sweep.chunks - len(missing_parts(place, sweep.chunks)))

    with bar:
        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            bar.update(task, completed=sweep.chunks - len(missing_parts(place, sweep.chunks)))


def _prepare(sweep: Sweep, place: Path, resume: bool, stack: ExitStack) -> None:
    """Make the folder, keep a second driver out of it, and hold it against the description."""
    manifest = {**sweep.describe(), "columns": list(COLUMNS)}
    found = read_manifest(place)
    if found is not None:
        if not resume:
            raise InputError(
                f"{place}: already holds a sweep: give --resume to go on with it, or another folder"
            )
        wanted = json.loads(json.dumps(manifest))
        if found != wanted:
            changed = next(
                k for k in {**wanted, **found} if found.get(k, found) != wanted.get(k, wanted)
            )
            raise InputError(
                f"{place}: holds another sweep ({changed} differs): give another folder, or the "
                "description it was begun with"
            )
    elif place.exists() and any(not p.name.startswith(".sweep") for p in place.iterdir()):
        raise InputError(f"{place}: is not empty and holds no sweep: give a new folder")
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / ".sweep", "running a sweep there")
        lock.acquire()
        stack.callback(lock.release)
        (place / "parts").mkdir(exist_ok=True)
        if found is None:
            write_text(place / "manifest.json", json.dumps(manifest, indent=1, allow_nan=False))
        for stray in (place / "parts").glob(".chunk-*.tmp"):
            if left_behind(stray):
                stray.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror}): choose another") from None
