"""One writer a file, whatever it is called and whoever was forked from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gabactl import InputError
from gabactl.traces import TraceWriter, finish, read_trace

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="links and forks are POSIX's")

TASKS = ["a", "b"]


def row(step: int) -> dict[str, list[float]]:
    return {"step": [step], "grad_norm_a": [1.0], "grad_norm_b": [2.0]}


def in_a_fork(action: Callable[[], None]) -> str:
    """What the action raised in a fork, or an empty text."""
    out, sink = os.pipe()
    child = os.fork()
    if not child:
        said = ""
        try:
            action()
        except BaseException as error:
            said = str(error)
        os.write(sink, said.encode())
        os._exit(0)
    os.close(sink)
    os.waitpid(child, 0)
    with os.fdopen(out, "rb") as told:
        return told.read().decode()


@pytest.fixture
def writer(tmp_path: Path) -> TraceWriter:
    writer = TraceWriter(tmp_path / "run.arrows", TASKS, groups=["grad_norm"])
    writer.append(row(1))
    return writer


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("action", ["resume", "finish", "overwrite"])
def test_another_name_of_the_file_is_locked_too(
    writer: TraceWriter, tmp_path: Path, link: str, action: str
) -> None:
    other = tmp_path / "other.arrows"
    getattr(other, link)(tmp_path / "run.arrows")
    actions: dict[str, Callable[[], object]] = {
        "resume": lambda: TraceWriter.resume(other),
        "finish": lambda: finish(other),
        "overwrite": lambda: TraceWriter(other, TASKS, groups=["grad_norm"], overwrite=True),
    }
    with pytest.raises(InputError, match=r"(another|this) process is|is a link"):
        actions[action]()
    writer.append(row(2))
    writer.close(finish=False)
    assert read_trace(tmp_path / "run.arrows").step.tolist() == [1, 2]
    if action != "overwrite" or link == "hardlink_to":
        actions[action]()  # nobody holds it any more


def test_nothing_is_recorded_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "run.arrows").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        TraceWriter(tmp_path / "run.arrows", TASKS, groups=["grad_norm"])
    assert not (tmp_path / "elsewhere").exists()


def test_a_fork_cannot_append_nor_end_the_recording(writer: TraceWriter, tmp_path: Path) -> None:
    assert "fork of the process that records" in in_a_fork(lambda: writer.append(row(2)))
    assert in_a_fork(lambda: writer.close() and None) == ""
    assert (tmp_path / "run.arrows.lock").exists()
    assert "another process" in in_a_fork(
        lambda: TraceWriter.resume(tmp_path / "run.arrows") and None
    )
    writer.append(row(2))
    writer.close(finish=False)
    trace = read_trace(tmp_path / "run.arrows")
    assert trace.step.tolist() == [1, 2]


def test_a_fork_that_outlives_the_holder_does_not_block_a_restart(tmp_path: Path) -> None:
    """As the workers of a data loader do, when a parent is killed."""
    script = """
import os, sys, time
from gabactl.traces import TraceWriter
writer = TraceWriter(sys.argv[1], ["a", "b"], groups=["grad_norm"])
writer.append({"step": [1], "grad_norm_a": [1.0], "grad_norm_b": [2.0]})
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print("go", flush=True)
time.sleep(60)
"""
    file = tmp_path / "run.arrows"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(file)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"go\n"
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 10
        while True:
            try:
                writer = TraceWriter.resume(file)
                break
            except InputError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        writer.append(row(2))
        writer.close(finish=False)
    finally:
        os.killpg(parent.pid, 9)
    assert read_trace(file).step.tolist() == [1, 2]
