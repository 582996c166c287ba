"""Training under faults: every checkpoint is whole, and what is resumed ends bit for bit alike."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults.scenes import disk, ended, finish, started, unwritable, wait_for
from gabactl.base.errors import InputError
from gabactl.base.lock import FileLock
from gabactl.traces import read_trace

torch = pytest.importorskip("torch")

from torch_states import same_state  # noqa: E402

from gabactl import cmapss  # noqa: E402
from gabactl.law.spec import GabaSpec  # noqa: E402
from gabactl.nn.checkpoint import load_checkpoint  # noqa: E402
from gabactl.nn.training.loop import train  # noqa: E402
from gabactl.nn.training.settings import TrainingSettings  # noqa: E402

QUICK = TrainingSettings(
    epochs=2, batch_size=30, lr_warmup_epochs=1, spec=GabaSpec(warmup=4, beta=0.9), device="cpu"
)


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def data(tiny_cmapss: Path) -> Any:
    return cmapss.load(tiny_cmapss)


@pytest.fixture(scope="module")
def whole(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train(data, QUICK, record=folder / "run.parquet", checkpoint=folder / "run.ckpt")
    return folder


def assert_equal_runs(one: Path, other: Path) -> None:
    assert same_state(load_checkpoint(one / "run.ckpt"), load_checkpoint(other / "run.ckpt"))
    t, u = read_trace(one / "run.parquet"), read_trace(other / "run.parquet")
    assert not u.truncated
    for name in ("step", "grad_norms", "raw", "ema", "weights", "losses"):
        assert np.array_equal(getattr(t, name), getattr(u, name), equal_nan=True), name


def at_step(step: int, fault: Callable[[], object]) -> Callable[[Any], None]:
    def on_step(now: Any) -> None:
        if now.step == step:
            fault()

    return on_step


def pieces(folder: Path) -> dict[str, Path]:
    return {"record": folder / "run.parquet", "checkpoint": folder / "run.ckpt"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_is_the_same(
    data: Any, whole: Path, tmp_path: Path, number: int
) -> None:
    first = train(
        data, QUICK, **pieces(tmp_path), on_step=at_step(7, lambda: os.kill(os.getpid(), number))
    )
    assert first.interrupted
    assert load_checkpoint(tmp_path / "run.ckpt")["step"] == 7
    assert read_trace(tmp_path / "run.arrows").step[-1] == 7
    train(data, QUICK, **pieces(tmp_path), resume=True)
    assert_equal_runs(whole, tmp_path)


def test_a_full_disk_at_a_checkpoint(data: Any, whole: Path, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    with disk(place, "16m"):

        def fill() -> None:
            free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            (place / "ballast").write_bytes(bytes(max(0, free - 16384)))

        with pytest.raises(
            InputError, match=r"run\.ckpt: cannot be written \(No space left on device\)"
        ):
            train(data, QUICK, **pieces(place), checkpoint_every=5, on_step=at_step(7, fill))
        # The checkpoint before is whole, the trace holds all that was flushed, nothing else is left.
        assert load_checkpoint(place / "run.ckpt")["step"] == 5
        assert read_trace(place / "run.arrows").step[-1] == 10
        assert sorted(p.name for p in place.iterdir()) == ["ballast", "run.arrows", "run.ckpt"]
        (place / "ballast").unlink()
        train(data, QUICK, **pieces(place), resume=True)
        assert_equal_runs(whole, place)


def test_no_memory_in_a_step(data: Any, whole: Path, tmp_path: Path) -> None:
    def no_memory() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        train(data, QUICK, **pieces(tmp_path), checkpoint_every=5, on_step=at_step(7, no_memory))
    assert load_checkpoint(tmp_path / "run.ckpt")["step"] == 5
    assert read_trace(tmp_path / "run.arrows").step[-1] == 7
    train(data, QUICK, **pieces(tmp_path), resume=True)
    assert_equal_runs(whole, tmp_path)


def test_a_second_run_from_the_same_checkpoint_is_refused(
    data: Any, whole: Path, tmp_path: Path
) -> None:
    shutil.copy(whole / "run.ckpt", tmp_path)
    lock = FileLock(tmp_path / "run.ckpt")
    lock.acquire()
    try:
        with pytest.raises(
            InputError, match="this process is training with this checkpoint already"
        ):
            train(data, QUICK, checkpoint=tmp_path / "run.ckpt", resume=True)
    finally:
        lock.release()


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_run_does_not_depend_on_the_clock(
    data: Any, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    real = time.time

    def leap() -> None:
        monkeypatch.setattr(time, "time", lambda: real() + jump)

    train(data, QUICK, **pieces(tmp_path), on_step=at_step(7, leap))
    assert_equal_runs(whole, tmp_path)
    wall = read_trace(tmp_path / "run.parquet").wall_time
    assert wall is not None
    assert (np.diff(wall) >= 0).all()
    assert wall[-1] < 1e4


@pytest.mark.parametrize("what", ["data", "checkpoint"])
def test_vanished_files_are_named(tmp_path: Path, tiny_cmapss: Path, what: str) -> None:
    place = tmp_path / "gone" if what == "data" else tiny_cmapss
    record = tmp_path / "run.parquet"
    words = ["--resume"] if what == "checkpoint" else []
    if what == "checkpoint":  # of a recording that is finished
        record.write_bytes(b"recorded")
    done = ended("cmapss", "train", "--data", place, "-o", record, *words)
    assert done.code == 2
    assert ("no such folder" if what == "data" else "no such checkpoint") in done.line()
    assert list(tmp_path.iterdir()) == ([record] if words else [])


def test_a_place_that_cannot_be_written(tmp_path: Path, data: Any) -> None:
    with (
        unwritable(tmp_path / "locked") as place,
        pytest.raises(InputError, match="cannot be written"),
    ):
        train(data, QUICK, **pieces(place))


def command(data: Path, place: Path, *words: object) -> list[object]:
    """The command line of a run that takes a few seconds."""
    return [
        "cmapss", "train", "--data", data, "--epochs", 12, "--batch-size", 30, "--device", "cpu",
        "--threads", 1, "--checkpoint-every", 7, "--json", "-o", place / "run.parquet", *words,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tiny_cmapss: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert finish(started(*command(tiny_cmapss, folder)), 600).code == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_command_itself(
    undisturbed: Path, tmp_path: Path, tiny_cmapss: Path, number: int
) -> None:
    """Killed at a step that nobody chose, resumed, and equal to the run that was not."""
    process = started(*command(tiny_cmapss, tmp_path))
    wait_for(lambda: (tmp_path / "run.ckpt").exists(), 300)
    process.send_signal(number)
    done = finish(process)
    assert done.code == (-9 if number == signal.SIGKILL else 130), done.err
    assert "Traceback" not in done.err
    assert load_checkpoint(tmp_path / "run.ckpt")["step"] > 0
    assert finish(started(*command(tiny_cmapss, tmp_path, "--resume")), 600).code == 0
    assert_equal_runs(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--force",), ("--resume",)])
def test_two_commands_on_one_output(
    undisturbed: Path, tmp_path: Path, tiny_cmapss: Path, words: tuple[str, ...]
) -> None:
    """The second is refused in one line, whatever it was told; the first does not notice."""
    first = started(*command(tiny_cmapss, tmp_path))
    wait_for(lambda: (tmp_path / "run.ckpt").exists(), 300)
    os.kill(first.pid, signal.SIGSTOP)  # so that it is surely still at work
    try:
        second = finish(started(*command(tiny_cmapss, tmp_path, *words)))
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.code == 2
    said = "another process is" if words else "is there already"
    assert said in second.line()
    assert finish(first, 600).code == 0
    assert_equal_runs(undisturbed, tmp_path)
