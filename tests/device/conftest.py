"""The scripts of benchmarks/ can be imported here, after everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
#: What machines with a GPU often lack.
ABSENT = ("control", "z3", "torchjd")


@pytest.fixture(scope="session")
def rehearse(
    tmp_path_factory: pytest.TempPathFactory, tiny_cmapss: Path
) -> Callable[..., tuple[subprocess.CompletedProcess[str], Path]]:
    """Run the kit in a process of its own: it forks, which a process with threads must not.

    ``planted`` is run after the kit is imported and before it begins. Nothing needs the packages of
    ``ABSENT``.
    """
    pytest.importorskip("torch")

    def run(*arguments: str, planted: str = "") -> tuple[subprocess.CompletedProcess[str], Path]:
        out = tmp_path_factory.mktemp("rehearsal") / "out"
        code = f"import sys\nsys.modules |= dict.fromkeys({ABSENT})\nimport gpu_kit\n"
        code += f"{planted}\nsys.exit(gpu_kit.main(sys.argv[1:]))\n"
        command = [sys.executable, "-c", code, "--rehearse", "-o", str(out)]
        command += ["--data", str(tiny_cmapss), "--minutes", "6", *arguments]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}",
        }
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return done, out

    return run
