"""Coverage-guided bad input: atheris (libFuzzer for Python) with the mutations of the readers.

``python -m hostile.guided NAME FOLDER [libFuzzer options]`` is the process that it drives.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[1]


def available() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def run(name: str, inputs: int, seed: int = 0) -> dict[str, Any]:
    """Read so many inputs that coverage guided.

    Returns
    -------
    dict
        ``inputs``, ``seed``, ``edges``, ``cpu_seconds`` and ``findings``.
    """
    from hostile.readers import READERS
    from hostile.watch import SECONDS

    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        folder = Path(made)
        (folder / "corpus").mkdir()
        (folder / "room").mkdir()
        command = [
            sys.executable, "-m", "hostile.guided", name, made, str(folder / "corpus"),
            f"-runs={inputs}", f"-seed={seed + 1}", "-max_len=65536", "-len_control=0",
            f"-rss_limit_mb={4096 + (READERS[name].memory >> 20)}", "-print_final_stats=1",
            # By the wall clock, on a machine that may be busy.
            f"-timeout={round(4 * SECONDS)}", f"-artifact_prefix={made}/artifact-",
        ]  # fmt: skip
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
        }
        began = time.monotonic()
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, env=environment
        )
        log = done.stdout + done.stderr
        found = folder / "findings"
        findings = (
            [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
        )
        if done.returncode != 0:
            ended = (
                signal.Signals(-done.returncode).name
                if done.returncode < 0
                else f"code {done.returncode}"
            )
            findings.append({"input": None, "what": f"ended with {ended}: {log.strip()[-400:]}"})
        counted = re.findall(r"number_of_executed_units:\s*(\d+)", log) or re.findall(
            r"^#(\d+)", log, re.M
        )
        edges = re.findall(r"\bcov: (\d+)", log)
        return {
            "inputs": int(counted[-1]) if counted else 0,
            "seed": seed,
            "edges": int(edges[-1]) if edges else 0,
            "seconds": round(time.monotonic() - began, 1),
            "findings": findings[:20],
        }


def main() -> None:
    """Fuzz until libFuzzer ends the process; findings go into a file, and the search goes on."""
    import atheris  # type: ignore[import-untyped]

    from hostile.child import Guard, one
    from hostile.readers import READERS

    name, folder = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=list(READERS[name].modules)):
        for module in READERS[name].modules:
            importlib.import_module(module)
    reader = READERS[name](folder / "room")
    guard = Guard(folder / "room")
    for i, data in enumerate(reader.seeds):
        (folder / "corpus" / f"seed-{i}").write_bytes(data)
    seen: set[str] = set()

    def read(data: bytes) -> None:
        verdict, what = one(reader, guard, data)
        if verdict == "finding" and what[:60] not in seen and len(seen) < 20:
            seen.add(what[:60])
            kept = {"input": data[:20000].hex(), "what": what}
            with (folder / "findings").open("a") as file:
                file.write(json.dumps(kept) + "\n")

    def change(data: bytes, most: int, seed: int) -> bytes:
        from hostile import mutate

        rng = random.Random(seed)
        what = rng.random()
        if what < 0.4:
            out = reader.bad(rng)
        elif what < 0.6:
            out = mutate.words_of(rng, data, rng.choice(reader.seeds))
        elif what < 0.8:
            out = mutate.bytes_of(rng, data, rng.choice(reader.seeds))
        else:
            out = atheris.Mutate(data, most)
        return out[:most]

    atheris.Setup([sys.argv[0], *sys.argv[3:]], read, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
