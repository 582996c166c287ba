"""Write a long recording in pieces, and say how much memory a reader of it took.

    python tests/extremes/long_trace.py write TRACE.parquet STEPS
    python tests/extremes/long_trace.py stream TRACE.parquet
    python tests/extremes/long_trace.py command check TRACE.parquet --replay-only

The last line is ``rows ROWS peak MIB MiB``, with the peak resident size of the process.
"""

import json
import resource
import sys
from pathlib import Path

PIECE = 65_536


def write(path: Path, steps: int, seed: int = 0) -> None:
    """A run as ``Controller`` would make it: norms, raw, ema and weights of two tasks."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from scipy.signal import lfilter

    from gabactl.law.spec import GabaSpec
    from gabactl.law.stages import raw_weights, saturate

    spec = GabaSpec(warmup=0)
    rng = np.random.default_rng(seed)
    groups = ("grad_norm", "raw", "ema", "weight")
    names = [f"{group}_{task}" for group in groups for task in "ab"]
    header = {"schema_version": 1, "tasks": ["a", "b"], "spec": spec.to_dict(), "complete": True}
    schema = pa.schema(
        [pa.field("step", pa.int64(), nullable=False)] + [(name, pa.float64()) for name in names],
        metadata={b"gabactl": json.dumps(header).encode()},
    )
    ema = np.array([0.5, 0.5])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for start in range(0, steps, PIECE):
            n = min(PIECE, steps - start)
            norms = rng.lognormal([3.0, 0.0], 0.5, size=(n, 2))
            raw = raw_weights(norms)
            pole = spec.beta
            ema_rows = lfilter([1 - pole], [1, -pole], raw, axis=0, zi=(pole * ema)[None])[0]
            ema = ema_rows[-1]
            blocks = (norms, raw, ema_rows, saturate(ema_rows, spec.floor))
            columns = [block[:, i] for block in blocks for i in range(2)]
            step = np.arange(start + 1, start + n + 1)
            writer.write_table(pa.table([step, *columns], schema=schema))


def stream(path: Path) -> int:
    """Rows seen by the streaming reader."""
    from gabactl.traces import iter_trace

    return sum(len(piece) for piece in iter_trace(path))


def _peak_mib() -> float:
    """Peak resident size of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # that of getrusage counts what the process that started this one held
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run one of the three."""
    rows = 0
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]))
        rows = int(sys.argv[3])
    elif sys.argv[1] == "stream":
        rows = stream(Path(sys.argv[2]))
    else:
        from gabactl.cli import main as command

        print("exit code", command(sys.argv[2:]))
    print(f"rows {rows} peak {_peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
