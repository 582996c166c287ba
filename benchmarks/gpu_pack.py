"""Fill .gpu/ with what a machine that gets only the checkout's files lacks.

    python benchmarks/gpu_pack.py --limit 64

The data set, the revision (the files may travel without their history) and, where named, wheels:
``--wheels control==0.10.2`` for the machine that ``--python`` and ``--platform`` describe. Refused
where the files of the checkout and the pack together are more than the limit, in MiB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def size_of(files: list[Path]) -> int:
    """Bytes of those that are there."""
    return sum(file.stat().st_size for file in files if file.is_file())


def git(*words: str) -> str:
    """What git says."""
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def pack(target: Path, data: Path, wheels: list[str], python: str, platform: str) -> None:
    """Fill the folder afresh."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "cmapss").mkdir(parents=True)
    found = [f for kind in ("train_", "test_", "RUL_") for f in sorted(data.glob(f"{kind}FD00*"))]
    if not found:
        raise SystemExit(f"{data}: no C-MAPSS files: set GABACTL_CMAPSS to their folder")
    for file in found:
        shutil.copyfile(file, target / "cmapss" / file.name)
    revision = git("describe", "--always", "--dirty", "--abbrev=12")
    (target / "commit").write_text(revision, encoding="utf-8")
    if wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", python, "--platform", platform]
        subprocess.run([*command, "-d", str(target / "wheels"), *wheels], check=True)


def main(arguments: list[str] | None = None) -> int:
    """Pack, and hold the whole against the limit."""
    data = os.environ.get("GABACTL_CMAPSS") or str(ROOT / "../shared/data/cmapss")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, required=True, help="MiB that may travel")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / ".gpu")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with C-MAPSS")
    parser.add_argument("--wheels", nargs="*", default=[], metavar="NAME==VERSION")
    parser.add_argument("--python", default="3.12", help="of the other machine")
    parser.add_argument("--platform", default="manylinux2014_x86_64", help="of the other machine")
    given = parser.parse_args(arguments)
    pack(given.output, given.data, given.wheels, given.python, given.platform)
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    checkout = size_of([ROOT / name for name in listed if name])
    packed = size_of(list(given.output.rglob("*")))
    whole = (checkout + packed) / 2**20
    print(
        f"checkout {checkout / 2**20:.1f} MiB and {given.output.name} {packed / 2**20:.1f} MiB: "
        f"{whole:.1f} of {given.limit:g} MiB"
    )
    if whole > given.limit:
        print(f"more than the limit of {given.limit:g} MiB: pack fewer wheels", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
