"""The recorder under faults: nothing flushed is lost, nothing half written is read."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import signal
from pathlib import Path

import pytest
from traces.helpers_traces import TASKS, assert_rows_are_true, some_columns

from faults.scenes import Child, disk, unwritable, wait_for
from gabactl.base import lock
from gabactl.base.errors import InputError
from gabactl.traces import TraceWriter, read_trace
from gabactl.traces.stream import Framer


def record_for_ever(file: Path, told: Path) -> None:
    """Append batches of 5 rows; after each, say how many rows are safe."""
    with TraceWriter(file, TASKS, {"seed": 3}, sync=False) as writer, told.open("a") as say:
        for batch in range(100_000):
            writer.append(*some_columns(1 + 5 * batch, 5))
            say.write(f"{writer.rows}\n")
            say.flush()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signals_keep_every_flush(tmp_path: Path, number: int) -> None:
    file, told = tmp_path / "run.parquet", tmp_path / "told"
    told.touch()
    child = Child(lambda: record_for_ever(file, told))
    wait_for(lambda: told.stat().st_size > 200)
    child.signal(number)
    child.wait()
    safe = int(told.read_text().split("\n")[-2])
    stream = file.with_suffix(".arrows")
    trace = read_trace(stream)
    assert trace.truncated
    assert len(trace) >= safe
    assert_rows_are_true(trace, len(trace))
    with TraceWriter.resume(file, after_step=safe) as writer:
        assert writer.rows == safe
        writer.append(*some_columns(safe + 1, 7))
    assert_rows_are_true(read_trace(file), safe + 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.parquet", "told"]


def append_many(writer: TraceWriter) -> None:
    for batch in range(1000):
        writer.append(*some_columns(1 + 5 * batch, 5))


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "64k") as place:
        ballast = place / "ballast"
        ballast.write_bytes(bytes(30_000))
        writer = TraceWriter(place / "run.parquet", TASKS, sync=False)
        with pytest.raises(InputError, match=r"No space left.*free some space and resume"):
            append_many(writer)
        rows = writer.rows
        assert rows >= 5
        assert_rows_are_true(read_trace(writer.path), rows)
        # Without space for the Parquet file the stream stays.
        with pytest.raises(InputError, match=r"run\.parquet|run\.arrows"):
            writer.close()
        assert_rows_are_true(read_trace(place / "run.arrows"), rows)
        ballast.unlink()
        with TraceWriter.resume(place / "run.parquet") as writer:
            writer.append(*some_columns(rows + 1, 5))
        assert_rows_are_true(read_trace(place / "run.parquet"), rows + 5)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with unwritable(tmp_path / "locked") as place, pytest.raises(InputError) as caught:
        TraceWriter(place / "run.parquet", TASKS)
    assert "check that the folder exists and can be written" in str(caught.value)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_recording_that_vanishes_is_noticed_at_the_next_flush(tmp_path: Path, how: str) -> None:
    writer = TraceWriter(tmp_path / "run.parquet", TASKS, sync=False)
    writer.append(*some_columns(1, 5))
    kept = tmp_path / "kept"
    shutil.move(writer.path, kept)
    if how == "replaced":
        writer.path.write_bytes(b"something else")
    with pytest.raises(InputError, match="the recording is gone"):
        writer.append(*some_columns(6, 5))
    shutil.move(kept, writer.path)
    writer.append(*some_columns(6, 5))
    writer.close()
    assert_rows_are_true(read_trace(tmp_path / "run.parquet"), 10)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run.parquet", TASKS, sync=False)
    for begin in (
        lambda: TraceWriter(tmp_path / "run.parquet", TASKS, overwrite=True),
        lambda: TraceWriter.resume(tmp_path / "run.parquet"),
    ):
        said = Child(begin).wait()
        assert "another process is recording into it" in said.err.splitlines()[-1]
    writer.append(*some_columns(1, 5))
    writer.close()
    assert_rows_are_true(read_trace(tmp_path / "run.parquet"), 5)


def test_no_memory_for_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TraceWriter(tmp_path / "run.parquet", TASKS, sync=False)
    writer.append(*some_columns(1, 5))
    with monkeypatch.context() as patch:

        def no_memory(self: Framer, batch: object) -> bytes:
            raise MemoryError

        patch.setattr(Framer, "frame", no_memory)
        with pytest.raises(MemoryError):
            writer.append(*some_columns(6, 5))
    assert_rows_are_true(read_trace(writer.path), 5)
    writer.append(*some_columns(6, 5))
    writer.close()
    assert_rows_are_true(read_trace(tmp_path / "run.parquet"), 10)


def test_a_lock_that_was_left_behind_locks_nothing(tmp_path: Path) -> None:
    def die() -> None:
        TraceWriter(tmp_path / "run.parquet", TASKS, sync=False)
        os._exit(0)

    Child(die).wait()
    assert (tmp_path / "run.arrows.lock").exists()
    TraceWriter(tmp_path / "run.parquet", TASKS, overwrite=True).close()


def test_a_second_recorder_in_the_same_process_is_refused(tmp_path: Path) -> None:
    """As a notebook's cell that is run twice."""
    pytest.importorskip("torch")
    from gabactl.nn import GABALoss, TraceRecorder

    loss = GABALoss(n_tasks=2, warmup_steps=0)
    file = tmp_path / "run.parquet"
    first = TraceRecorder(file, loss)
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match="this process is recording into it already: end that"):
            TraceRecorder(file, loss, **options)
    first.close()
    TraceRecorder(file, loss, overwrite=True).close()
    assert not list(tmp_path.glob("*.lock"))


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot lock, as some network mounts."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_living_writer_is_noticed(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run.parquet", TASKS, sync=False)
    with pytest.raises(InputError, match="this process is recording into it already"):
        TraceWriter(tmp_path / "run.parquet", TASKS, overwrite=True)
    said = Child(lambda: TraceWriter.resume(tmp_path / "run.parquet")).wait()
    assert "another process is recording into it" in said.err.splitlines()[-1]
    writer.append(*some_columns(1, 5))
    writer.close()
    assert_rows_are_true(read_trace(tmp_path / "run.parquet"), 5)
    assert not list(tmp_path.glob("*.lock*"))


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_dead_writer_locks_nothing(tmp_path: Path) -> None:
    def die() -> None:
        TraceWriter(tmp_path / "run.parquet", TASKS, sync=False).append(*some_columns(1, 5))
        os._exit(0)

    Child(die).wait()
    assert (tmp_path / "run.arrows.lock").read_text().startswith(platform.node() + " ")
    with TraceWriter.resume(tmp_path / "run.parquet") as writer:
        assert writer.rows == 5
        writer.append(*some_columns(6, 5))
    assert_rows_are_true(read_trace(tmp_path / "run.parquet"), 10)
    assert [p.name for p in tmp_path.iterdir()] == ["run.parquet"]


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("written", ["elsewhere 1", "", "one two three", "\xff"])
def test_without_locks_a_writer_elsewhere_is_respected(tmp_path: Path, written: str) -> None:
    held = tmp_path / "run.arrows.lock"
    held.write_text(written)
    with pytest.raises(InputError, match=r"delete run\.arrows\.lock if it is gone"):
        TraceWriter(tmp_path / "run.parquet", TASKS)
    assert held.read_text() == written
    held.unlink()
    TraceWriter(tmp_path / "run.parquet", TASKS).close()
