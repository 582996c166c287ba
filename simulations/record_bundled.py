"""Record the training runs that come with the package as traces, and make them small.

Each is the trace of one ``gabactl cmapss train`` command, which stands in its metadata: C-MAPSS, the
small network, one CPU thread. Equal weights and GABA on FD001 and FD002 show the loop in
operation; the excited runs (constant weights with a pseudo-random perturbation, each with its
inverted twin) are there to identify the plant.

    python simulations/record_bundled.py --data DIR -o gabactl/traces/bundled [NAME ...]

takes about two minutes per 2,000 steps, and skips what is there already. On another machine or
torch version the numbers differ, as training does.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from gabactl.traces import Trace, read_trace, write_parquet

_COMMON = "--model small --batch-size 256 --seed {seed} --device cpu --threads 1"
_FD001 = f"--subset FD001 {_COMMON} --epochs 40"  # 61 steps per epoch
_FD002 = f"--subset FD002 {_COMMON} --epochs 15"  # 160 steps per epoch
_EQUAL = "--balancer fixed --weights 0.5,0.5"
_GABA = "--balancer gaba --guard none"
_EXCITED = (
    f"--subset FD001 {_COMMON} --epochs 50 --steps 3000 --lr-warmup-epochs 0 --balancer fixed "
    "--excite prbs:amplitude=0.5,period=50,seed={seed}"
)
# At a rate of 1e-3, SGD turns the network's final ReLU off for good: no RUL gradient is left.
_PLANTS = {
    "adamw-w005": "--weights 0.05,0.95 --optimizer adamw --lr 1e-3",
    "adamw-w050": "--weights 0.5,0.5 --optimizer adamw --lr 1e-3",
    "sgd-w005": "--weights 0.05,0.95 --optimizer sgd --momentum 0.9 --lr 1e-4",
}


#: More seeds narrow the intervals of the identification, at 24 kB per run.
_SEEDS = (0,)


def runs() -> dict[str, str]:
    """Name of each bundled trace, and the options of its run."""
    found = {
        "fd001-equal": f"{_FD001} {_EQUAL}".format(seed=0),
        "fd001-gaba": f"{_FD001} {_GABA}".format(seed=0),
        "fd002-equal": f"{_FD002} {_EQUAL}".format(seed=0),
        "fd002-gaba": f"{_FD002} {_GABA}".format(seed=0),
    }
    for seed in _SEEDS:
        for plant, options in _PLANTS.items():
            name = f"fd001-excited-{plant}-seed{seed}"
            found[name] = f"{_EXCITED} {options}".format(seed=seed)
            twin = found[name].replace(f",seed={seed}", f",seed={seed},inverted")
            found[f"{name}-inverted"] = twin
    return found


def small(trace: Trace, excited: bool) -> Trace:
    """A trace with what its readers need, and no more."""
    if excited:
        # Identification takes norms, weights and the excitation.
        return trace.replace(losses=None, wall_time=None)
    # To 1/1024 s, the last bits of which are zero and compress away.
    return trace.replace(wall_time=np.round(trace.wall_time * 1024.0) / 1024.0)


def main() -> None:
    """Record what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--data", required=True, type=Path, help="folder with C-MAPSS")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for the traces")
    parser.add_argument("--force", action="store_true", help="record again what is there")
    arguments = parser.parse_args()
    known = runs()
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"unknown trace {unknown[0]!r}: choose from {', '.join(known)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or known:
        target = arguments.output / f"{name}.parquet"
        if target.exists() and not arguments.force:
            print(f"{name}: there already")
            continue
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / f"{name}.parquet"
            command = [
                *(sys.executable, "-m", "gabactl", "cmapss", "train"),
                *("--data", str(arguments.data.resolve())),
                *shlex.split(known[name]),
                *("--record", str(record)),
            ]
            print(f"{name}: {shlex.join(command[2:])}", flush=True)
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            excited = "--excite" in known[name]
            write_parquet(small(read_trace(record), excited), target)
        print(f"{name}: {target.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
