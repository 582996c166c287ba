"""What the main job costs: CPU of ``gabactl --version``, wall time of ``gabactl report``.

Run it in an installed environment: ``python benchmarks/main_job.py``. The report is measured as a
user meets it: the first call (cold caches of compiled code) and the second. ``--install`` also
times ``make demo`` in a fresh clone, environment and download included.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cpu_seconds(arguments: list[str]) -> float:
    """User and system seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall_seconds(arguments: list[str], cwd: Path) -> float:
    """Wall seconds of a command."""
    start = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, cwd=cwd)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="also time `make demo` in a clone")
    options = parser.parse_args()
    gabactl = [sys.executable, "-m", "gabactl"]
    version = min(cpu_seconds([*gabactl, "--version"]) for _ in range(5))
    print(f"gabactl --version        {version:6.3f} s of CPU   (bound 0.3)")
    with tempfile.TemporaryDirectory() as folder:
        for call in ("first", "second"):
            seconds = wall_seconds([*gabactl, "report"], Path(folder))
            print(f"gabactl report, {call:6}   {seconds:6.2f} s           (bound 20)")
        if options.install:
            clone = Path(folder) / "clone"
            subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
            print(
                f"make demo, fresh clone   {wall_seconds(['make', 'demo'], clone):6.1f} s           (bound 180)"
            )


if __name__ == "__main__":
    main()
