"""Staging faults: children that are killed, disks that are full, folders that cannot be written."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (minus the signal that killed it), and what it said."""

    code: int
    out: str
    err: str

    def line(self) -> str:
        """The one line it said on stderr; anything more, or a traceback, fails."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("gabactl: "), self.err
        assert "internal error" not in self.err
        return lines[0]


class Child:
    """A function run in a fork of this process, with its output in files."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        place = Path(self._folder.name)
        self._out, self._err = place / "out", place / "err"
        self._out.touch()
        self._err.touch()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                for number, file in ((1, self._out), (2, self._err)):
                    os.dup2(os.open(file, os.O_WRONLY), number)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                signal.signal(signal.SIGINT, signal.default_int_handler)
                done = work()
                code = done if isinstance(done, int) else 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 0
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 120.0) -> Ended:
        """How it ended; killed when it takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        ended = Ended(
            os.waitstatus_to_exitcode(status), self._out.read_text(), self._err.read_text()
        )
        self._folder.cleanup()
        return ended


def entry(*words: object) -> Callable[[], object]:
    """The command line as a process runs it, for :class:`Child`."""

    def run() -> object:
        from gabactl import cli

        sys.argv = ["gabactl", *map(str, words)]
        return cli._entry()

    return run


def ended(*words: object) -> Ended:
    """Run the command line to its end, in a fork."""
    return Child(entry(*words)).wait()


def started(*words: object, **options: object) -> subprocess.Popen[str]:
    """A process of its own with the command line, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gabactl", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,  # type: ignore[call-overload]
    )


def finish(process: subprocess.Popen[str], seconds: float = 120.0) -> Ended:
    """Wait for such a process."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, out, err)


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


@contextlib.contextmanager
def disk(folder: Path, size: str = "1m", read_only: bool = False) -> Iterator[Path]:
    """A small file system of its own, or one that cannot be written; skips without the right to."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting a file system takes root")
    try:
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def unwritable(folder: Path) -> Iterator[Path]:
    """A folder that cannot be written: by its rights, or for root by its file system."""
    if os.geteuid() == 0:
        with disk(folder, read_only=True):
            yield folder
        return
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    try:
        yield folder
    finally:
        folder.chmod(0o755)


def file_limit(size: int) -> None:
    """No file of this process may grow beyond so many bytes: a full disk, without the disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def address_space(pid: int) -> int:
    """Bytes that a process has mapped."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(x for x in status.splitlines() if x.startswith("VmSize")).split()[1]) << 10
