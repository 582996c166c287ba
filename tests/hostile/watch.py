"""Running the reading process, and ending it when it hangs."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["SECONDS", "add", "run"]

#: Processor seconds that one input may take. By the wall clock it gets ten times as long, because
#: the machine may be busy with other things.
SECONDS = 5.0
_TESTS = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")


def run(
    name: str, seed: int, start: int, stop: int, module: str = "hostile.child"
) -> dict[str, Any]:
    """Read inputs start to stop - 1 of a reader in processes of their own.

    Returns
    -------
    dict
        Counts, ``found`` (a list of findings), times and peak memory. A process that hangs, or
        that dies, is a finding of the input at which it did, and the next goes on behind it.
    """
    total: dict[str, Any] = {
        "accepted": 0, "refused": 0, "found": [], "cpu_seconds": 0.0, "slowest_cpu_seconds": 0.0,
        "slowest_input": -1, "peak_mib": 0.0, "idle_mib": 0.0,
    }  # fmt: skip
    while start < stop:
        with _room() as folder:
            (folder / "progress").write_bytes(struct.pack("<q", -1))
            (folder / "findings").touch()
            end = _watch(name, seed, start, stop, folder, module)
            found = [json.loads(line) for line in (folder / "findings").read_text().splitlines()]
            total["found"] += found
            strays = [p.name for p in (folder / "cwd").iterdir()]
            if strays:
                total["found"].append(
                    {"input": None, "what": f"wrote {strays} into its working folder"}
                )
            if not end:
                summary = json.loads((folder / "summary").read_text())
                add(total, summary)
                return total
            (at,) = struct.unpack("<q", (folder / "progress").read_bytes())
            if at < start:
                raise RuntimeError(f"{name}: {end}")
            total["found"].append({"input": at, "what": end})
            total["refused"] += at - start - len(found)  # told apart only at a good end
            start = at + 1
    return total


def add(total: dict[str, Any], part: dict[str, Any]) -> None:
    """Take the counts, times and peaks of a part into the total."""
    for key in ("accepted", "refused", "cpu_seconds"):
        total[key] += part[key]
    if part["slowest_cpu_seconds"] > total["slowest_cpu_seconds"]:
        for key in ("slowest_cpu_seconds", "slowest_input"):
            total[key] = part[key]
    for key in ("peak_mib", "idle_mib"):
        total[key] = max(total[key], part[key])


@contextmanager
def _room() -> Iterator[Path]:
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="hostile-", dir=memory if usable else None) as name:
        (Path(name) / "cwd").mkdir()
        (Path(name) / "room").mkdir()
        yield Path(name)


def _watch(name: str, seed: int, start: int, stop: int, folder: Path, module: str) -> str:
    """Empty for a good end, else how it ended."""
    command = [sys.executable, "-m", module, name, str(seed), str(start), str(stop), str(folder)]
    paths = [
        str(_TESTS),
        str(_TESTS.parent),
        str(_TESTS.parent / "simulations"),
        os.environ.get("PYTHONPATH", ""),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "",
        "TMPDIR": str(folder / "room"),
    }
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            command, cwd=folder / "cwd", env=environment, stdout=log, stderr=log
        )
        try:
            last, since, spent = -2, time.monotonic(), 0.0
            while process.poll() is None:
                time.sleep(0.05)
                (at,) = struct.unpack("<q", (folder / "progress").read_bytes())
                if at != last:
                    last, since, spent = at, time.monotonic(), _cpu(process.pid)
                elif at >= 0:
                    used, waited = _cpu(process.pid) - spent, time.monotonic() - since
                    if used > SECONDS or waited > 10 * SECONDS:
                        return f"hangs: over {SECONDS:g} s of processor time ({waited:.0f} s by the clock)"
            if process.returncode == 0:
                return ""
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            return f"the process ended with {_ended(process.returncode)}: {''.join(said)[:200]}"
        finally:
            process.kill()
            process.wait()


def _ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"code {code}"


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
