"""Sweeps under faults: a part is whole or not there, and what is resumed equals what was not stopped."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from faults.scenes import (
    Child,
    address_space,
    disk,
    ended,
    file_limit,
    finish,
    started,
    unwritable,
    wait_for,
)
from gabactl.base.errors import InputError, Stopped
from gabactl.loops.sweeps import engine, load_sweep, open_sweep, run_sweep

GRID = """
[disturbance]
kind = "levels"
ratios = [4]
holds = [60]
[axes]
beta = [0.5, 0.9, 0.95]
rho = { from = -1, to = 1, points = 16 }
[fixed]
noise = 0.1
warmup = 0
[run]
repeats = 2
chunk = 8
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    file = tmp_path / "grid.toml"
    file.write_text(GRID)
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The table of the sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "grid.toml").write_text(GRID)
    return run_sweep(load_sweep(folder / "grid.toml"), folder / "out", workers=1).table()


def parts(place: Path) -> list[str]:
    return sorted(p.name for p in (place / "parts").glob("chunk-*.parquet"))


def stop_after(chunks: int, monkeypatch: pytest.MonkeyPatch, fault: object) -> None:
    """The fault comes in the middle of the chunk after so many."""
    real, count = engine.run_batch, iter(range(10_000))

    def run_batch(*words: object, **options: object) -> object:
        done = real(*words, **options)  # type: ignore[arg-type]
        if next(count) == chunks:
            fault()  # type: ignore[operator]
        return done

    monkeypatch.setattr(engine, "run_batch", run_batch)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "gabactl: interrupted\n"),
        (signal.SIGTERM, 143, "gabactl: terminated\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_a_stopped_sweep_goes_on_to_the_same_numbers(
    grid: Path, whole: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    number: int, code: int, said: str,
) -> None:  # fmt: skip
    place = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(4, patch, lambda: os.kill(os.getpid(), number))
        done = ended("sweep", grid, "-o", place, "--workers", 1)
    assert (done.code, done.err) == (code, said)
    assert len(parts(place)) == 4
    with pytest.raises(
        InputError, match="8 of 12 chunks are missing: run gabactl sweep with --resume"
    ):
        open_sweep(place)
    result = run_sweep(load_sweep(grid), place, workers=1, resume=True)
    assert result.table().equals(whole)


def test_a_sweep_on_a_full_disk(grid: Path, whole: object, tmp_path: Path) -> None:
    place = tmp_path / "out"

    def run() -> int:
        from faults.scenes import entry

        real, count = engine.run_batch, iter(range(100))

        def run_batch(*words: object, **options: object) -> object:
            if next(count) == 4:
                file_limit(500)
            return real(*words, **options)  # type: ignore[arg-type]

        engine.run_batch = run_batch  # type: ignore[assignment]
        return entry("sweep", grid, "-o", place, "--workers", 1)()  # type: ignore[return-value]

    done = Child(run).wait()
    assert done.code == 2
    assert "the sweep stopped with 8 of 12 chunks missing (OSError: " in done.line()
    assert "run again with --resume" in done.line()
    assert len(list((place / "parts").iterdir())) == 4
    assert run_sweep(load_sweep(grid), place, workers=1, resume=True).table().equals(whole)


def test_a_sweep_on_a_disk_that_is_really_full(grid: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "48k") as mounted:
        done = ended("sweep", grid, "-o", mounted / "out", "--workers", 1)
        assert done.code == 2
        assert "No space left on device" in done.line()


def test_a_sweep_into_a_folder_that_cannot_be_written(grid: Path, tmp_path: Path) -> None:
    with unwritable(tmp_path / "locked") as place:
        done = ended("sweep", grid, "-o", place / "out", "--workers", 1)
    assert done.code == 2
    assert "cannot be written" in done.line()


@pytest.mark.parametrize("what", ["grid", "parts"])
def test_a_sweep_whose_files_vanish(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    place = tmp_path / "out"
    if what == "grid":
        grid.unlink()
    else:
        stop_after(4, monkeypatch, lambda: shutil.rmtree(place / "parts"))
    done = ended("sweep", grid, "-o", place, "--workers", 1)
    assert done.code == 2
    said = "grid.toml: cannot be read" if what == "grid" else "the folder of its parts is gone"
    assert said in done.line()


def test_a_second_sweep_into_the_same_folder_is_refused(
    grid: Path, whole: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    seen: list[str] = []

    def second() -> None:
        seen.append(ended("sweep", grid, "-o", place, "--workers", 1, "--resume").line())

    stop_after(2, monkeypatch, second)
    result = run_sweep(load_sweep(grid), place, workers=1)
    assert "another process is running a sweep there" in seen[0]
    assert result.table().equals(whole)


@pytest.mark.parametrize("jump", [-1e8, 1e8])
def test_a_sweep_does_not_depend_on_the_clock(
    grid: Path, whole: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    place, real = tmp_path / "out", time.time
    with monkeypatch.context() as patch:
        stop_after(4, patch, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_sweep(load_sweep(grid), place, workers=1)
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert run_sweep(load_sweep(grid), place, workers=1, resume=True).table().equals(whole)


def test_a_sweep_without_memory_stops_with_a_word(
    grid: Path, whole: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run_batch", no_memory)
        with pytest.raises(
            Stopped, match=r"12 of 12 chunks missing \(MemoryError.*smaller chunk.*--resume"
        ):
            run_sweep(load_sweep(grid), place, workers=1)
        assert (
            "chunks missing" in ended("sweep", grid, "-o", place, "--workers", 1, "--resume").line()
        )
    assert run_sweep(load_sweep(grid), place, workers=1, resume=True).table().equals(whole)


def children(pid: int) -> list[int]:
    """Descendants of a process."""
    direct = [
        int(p.name)
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and parent_of(int(p.name)) == pid
    ]
    return direct + [n for child in direct for n in children(child)]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.slow
def test_workers_that_run_out_of_memory(grid: Path, tmp_path: Path) -> None:
    """Really: workers and those that replace them get hardly more than the idle driver has."""
    grid.write_text(GRID.replace("holds = [60]", "holds = [5000]").replace("16", "64"))
    place = tmp_path / "out"
    process = started("sweep", grid, "-o", place, "--workers", 2)
    wait_for(lambda: (place / "parts").is_dir() and parts(place))
    limit = address_space(process.pid) + (32 << 20)
    for pid in (process.pid, *children(process.pid)):
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    done = finish(process)
    assert done.code == 2
    assert "chunks missing (" in done.line()
    assert "choose a smaller chunk) and run again with --resume" in done.line()
    kept = parts(place)
    assert 0 < len(kept) < 48
    result = run_sweep(load_sweep(grid), place, workers=1, resume=True)
    assert result.table().equals(run_sweep(load_sweep(grid), tmp_path / "whole", workers=1).table())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_reach_worker_processes_too(
    grid: Path, whole: object, tmp_path: Path, number: int, code: int, word: str
) -> None:
    """Ctrl-C goes to the whole group of processes, workers included."""
    grid.write_text(GRID.replace("points = 16", "points = 300"))
    place = tmp_path / "out"
    process = started("sweep", grid, "-o", place, "--workers", 2)
    wait_for(lambda: (place / "parts").is_dir() and len(parts(place)) > 3)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    done = finish(process)
    assert (done.code, done.line()) == (code, f"gabactl: {word}")
    assert finish(started("sweep", grid, "-o", place, "--workers", 2, "--resume"), 600).code == 0
    again = run_sweep(load_sweep(grid), tmp_path / "again", workers=1)
    assert open_sweep(place).table().equals(again.table())
