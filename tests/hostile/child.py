"""The process in which bad input is read: watched from outside, guarded inside.

``python -m hostile.child NAME SEED START STOP FOLDER`` reads inputs START to STOP - 1. In FOLDER
it keeps ``progress`` (the number of the present input, for the watcher), ``findings`` (a JSON
object a line) and, at the end, ``summary``; the reader may write in ``FOLDER/room`` alone.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hostile.readers import READERS, Reader, refusal
from hostile.readers.base import is_ours

_MEANING = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
            "os.forkpty", "socket.connect", "socket.bind", "ctypes.dlopen", "os.startfile", "pty.spawn")  # fmt: skip
_CHANGING = ("os.rename", "os.symlink", "os.link", "os.truncate",
             "os.chmod", "os.chown", "shutil.rmtree", "shutil.move", "shutil.copyfile")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """An audit hook: nothing is run, and nothing written outside one folder.

    ``broken`` holds what was tried, in order; the hook also refuses it.
    """

    def __init__(self, room: Path) -> None:
        self.room = str(room.resolve())
        self.broken: list[str] = []
        self.armed = False
        self._trusted = tuple(
            {sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2]), "<frozen"}
        )

    def arm(self) -> None:
        """From now on; there is no way back."""
        self.armed = True
        sys.addaudithook(self._event)

    def _event(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = given
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
                mode is None and flags & _WRITING
            )
            if writes and not self._inside(path):
                self._refuse(f"opened {path!r} for writing")
        elif event in ("os.remove", "os.rmdir", "os.mkdir"):
            path, folder = given[0], given[-1]  # a path in an open folder, or -1
            if folder != -1 and not os.path.isabs(path):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
            if not self._inside(path):
                self._refuse(f"{event} {path!r}")
        elif event in _CHANGING:
            if not all(self._inside(p) for p in given if isinstance(p, (str, bytes, os.PathLike))):
                self._refuse(f"{event} {given!r}")
        elif event in _MEANING:
            self._refuse(f"{event} {given!r}")
        elif event == "exec":
            name = getattr(given[0], "co_filename", "<unknown>")
            if not name.startswith(self._trusted) and not _generated():
                self._refuse(f"ran code from {name!r}")

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int) or path in ("/dev/null", b"/dev/null"):
            return True
        full = os.path.abspath(os.fsdecode(path))
        if "__pycache__" in full.split(os.sep) and full.startswith(self._trusted):
            return True  # compiled code of ours, kept by Python and by numba
        return full == self.room or full.startswith(self.room + os.sep)

    def _refuse(self, what: str) -> None:
        if self.armed:
            self.broken.append(what[:300])
            raise PermissionError(what[:300])


def _generated() -> bool:
    """Whether the standard library is building a class from text of its own."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.endswith(
            ("dataclasses.py", "collections/__init__.py", "enum.py", "typing.py")
        ):
            return True
        frame = frame.f_back
    return False


def one(reader: Reader, guard: Guard, data: bytes) -> tuple[str, str]:
    """Read one input: ("accepted" or "refused" or "finding", what)."""
    guard.broken.clear()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            line = refusal(reader, data)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = [f for f in traceback.extract_tb(error.__traceback__) if is_ours(f.filename)]
        place = f" at {Path(where[-1].filename).name}:{where[-1].lineno}" if where else ""
        return "finding", f"{type(error).__name__}{place}: {str(error)[:200]}"
    if guard.broken:
        return "finding", guard.broken[0]
    if said:
        return "finding", f"warns: {said[0].category.__name__}: {str(said[0].message)[:200]}"
    return ("accepted", "") if line is None else ("refused", line)


def address_space() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def inputs(reader: Reader, seed: int, number: int) -> bytes:
    """Input ``number`` of a reader."""
    return reader.bad(random.Random(f"{reader.name}:{seed}:{number}"))


def main(name: str, seed: int, start: int, stop: int, folder: Path) -> None:
    """Read inputs start to stop - 1."""
    room = folder / "room"
    room.mkdir(exist_ok=True)
    reader = READERS[name](room)
    guard = Guard(room)
    for data in reader.seeds:
        refusal(reader, data)
    for number in range(40):  # what is imported on the way to a refusal is imported now
        one(reader, guard, inputs(reader, seed, number))
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The guard lets nothing be opened for writing later, ours included.
    said, found = (folder / "summary").open("w"), (folder / "findings").open("a")
    with (folder / "progress").open("r+b") as file:
        progress = mmap.mmap(file.fileno(), 8)
    guard.arm()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + reader.memory, hard))
    counts: Counter[str] = Counter()
    slowest = (0.0, -1)
    began = time.process_time()
    for number in range(start, stop):
        progress[:] = struct.pack("<q", number)
        data = inputs(reader, seed, number)
        before = time.process_time()
        verdict, what = one(reader, guard, data)
        slowest = max(slowest, (time.process_time() - before, number))
        counts[verdict] += 1
        if verdict == "finding":
            found.write(json.dumps({"input": number, "what": what}) + "\n")
            found.flush()
    summary = {
        "accepted": counts["accepted"],
        "refused": counts["refused"],
        "findings": counts["finding"],
        "cpu_seconds": time.process_time() - began,
        "slowest_cpu_seconds": slowest[0],
        "slowest_input": slowest[1],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "idle_mib": idle / 1024,
    }
    said.write(json.dumps(summary))
    said.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
