"""Everything that is to be measured on a GPU, in one command that fits into the time it is given.

    python benchmarks/gpu_kit.py --minutes 9 -o OUT

runs its parts in order, most important first, each until its share of the time is over, and keeps
every result at once: OUT/figures.json and OUT/traces.parquet are whole at any moment. A part or an
item that fails leaves the others whole. ``--rehearse`` runs all of it on the CPU in tiny sizes.
``benchmarks/gpu_import.py OUT`` puts the results into the repository. docs/gpu.md tells the rest.
"""

from __future__ import annotations

import time

BEGIN = time.monotonic()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import importlib.metadata  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import shlex  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "simulations")]

import torch  # noqa: E402
from gpu import batches, checks, recordings, steps  # noqa: E402
from gpu.plan import FORK, Bench, Part, Send, in_process, run_plan  # noqa: E402
from gpu.store import FIGURES, TRACES, Store, finished  # noqa: E402

PACKED = ROOT / ".gpu"
VERSIONS = ("torch", "numpy", "numba", "pyarrow", "scipy", "torchjd")
PARTS = (
    Part("checks", "what only a GPU can show of a step", 0.14, 30, checks.run),
    Part("steps", "time and memory of a step", 0.18, 30, steps.run),
    Part("recordings", "recorded runs of the published network", 0.42, 60, recordings.recordings),
    Part("batches", "closed loops in batches", 0.05, 25, batches.run),
    Part("graphs", "captured steps, several at once", 0.03, 15, recordings.graphs_run),
    Part("protocol", "the published protocol, as far as it goes", 0.18, 60, recordings.protocol),
)
#: A rehearsal begins every part, however little time is left of its share.
_REHEARSED_LEAST = 1.0


def where_data_lie() -> Path:
    """C-MAPSS: what is named, what was packed, or where it lies beside the checkout."""
    given = os.environ.get("GABACTL_CMAPSS")
    packed = PACKED / "cmapss"
    return Path(given) if given else packed if packed.is_dir() else ROOT / "../shared/data/cmapss"


def provenance(device: str) -> dict[str, Any]:
    """Where the figures come from."""
    versions = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    card: dict[str, Any] = {"device": f"CPU, {platform.machine()}", "driver": "none"}
    if device == "cuda":
        card = _in_a_child(_card)
        card["driver"] = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        **card,
        "versions": versions,
        "commit": _commit(),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
    }


def _card() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {}
    of = torch.cuda.get_device_properties(0)
    return {
        "device": of.name,
        "devices": torch.cuda.device_count(),
        "memory_mib": of.total_memory >> 20,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _in_a_child(call: Any) -> Any:
    """The parent keeps off the GPU: its forks could not use it."""
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        return pool.submit(call).result()


def _commit() -> str:
    """The revision; where only files travelled, the one that was packed with them."""
    revision = _said("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12")
    noted = PACKED / "commit"
    if revision == "unknown" and noted.is_file():
        return noted.read_text(encoding="utf-8").strip()
    return revision


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return " ".join(done.stdout.split()) or "unknown"


def show(part: str, message: tuple[str, str, Any]) -> None:
    """A line as it comes."""
    kind, label, content = message
    if kind == "item":
        said = content.get("words") or content.get("reason") or ""
        print(f"  {content['status']:8}  {label}: {said}".rstrip(": "), flush=True)
    elif kind == "part" and content["status"] == "begun":
        print(f"{part}: {content['does']} ({content['seconds_planned']:.0f} s)", flush=True)
    elif kind == "part" and content["status"] != "done":
        print(f"  {content['status']}: {content.get('reason', part)}", flush=True)


def table(figures: dict[str, Any]) -> tuple[str, int]:
    """The parts at a glance, and how many things failed."""
    lines = [f"{'part':12} {'outcome':10} {'planned':>8} {'took':>7}    ok  failed  left out"]
    bad = 0
    for name, part in figures["parts"].items():
        states = [item["status"] for item in part["items"].values()]
        counts = [states.count(state) for state in ("ok", "failed", "left out")]
        bad += counts[1] + (part["status"] not in ("done", "left out"))
        planned, took = part["seconds_planned"], part.get("seconds", 0.0)
        lines.append(
            f"{name:12} {part['status'][:10]:10} {planned:7.0f}s {took:6.1f}s "
            f"{counts[0]:5} {counts[1]:7} {counts[2]:9}"
        )
    return "\n".join(lines), bad


@contextlib.contextmanager
def _ending_as_ctrl_c() -> Iterator[None]:
    """What ends the kit ends its part and the runs of that, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: list[str] | None = None) -> int:
    """Run the plan. 0: nothing failed; 1: something did; 2: it could not begin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="for all of it, imports included"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for both files")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--data", type=Path, default=where_data_lie(), help="C-MAPSS")
    parser.add_argument("--only", nargs="+", choices=[p.name for p in PARTS], help="these parts")
    parser.add_argument("--after", nargs="+", type=Path, default=[], metavar="FIGURES",
                        help="figures.json of earlier leases: finished runs are not run again")  # fmt: skip
    parser.add_argument("--scratch", type=Path, help="keep checkpoints here, to go on from them")
    given = parser.parse_args(arguments)
    begin = BEGIN if arguments is None else time.monotonic()
    if not given.minutes > 0:
        parser.error(f"--minutes {given.minutes:g}: give a number above 0, such as 9")
    device = "cpu" if given.rehearse else "cuda"
    if not given.rehearse and not _in_a_child(_card):
        print("no CUDA device here: --rehearse tries the kit on the CPU", file=sys.stderr)
        return 2
    try:
        done = finished(given.after)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"--after: {error}: give figures.json of an earlier call")
    store = Store(given.output, {**provenance(device), "rehearsal": given.rehearse})
    parts = [part for part in PARTS if part.name in (given.only or part.name)]
    if given.only:  # the shares of those that are left, to 1
        whole = sum(part.share for part in parts)
        parts = [Part(**{**vars(part), "share": part.share / whole}) for part in parts]
    if given.rehearse:
        parts = [Part(**{**vars(part), "least": _REHEARSED_LEAST}) for part in parts]

    def keep(part: str, message: tuple[str, str, Any]) -> None:
        store.keep(part, message)
        show(part, message)

    with tempfile.TemporaryDirectory() as temporary:
        scratch = given.scratch or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        bench = partial(Bench, device, given.rehearse, given.data, scratch, done)

        def make(deadline: float, send: Send) -> Bench:
            return bench(deadline, send)

        stopped = False
        try:
            with _ending_as_ctrl_c():
                run_plan(parts, 60.0 * given.minutes, begin, keep, in_process(make))
        except KeyboardInterrupt:
            stopped = True
    text, bad = table(store.figures)
    print(f"\n{store.figures['provenance']['device']}, {time.monotonic() - begin:.0f} s in all")
    print(text)
    print(f"{given.output / FIGURES}, {given.output / TRACES}")
    return 130 if stopped else 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
