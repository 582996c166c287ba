"""Every step of simulated loops on disk: Arrow in pieces (memory does not grow), or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gabactl.base.errors import InputError
from gabactl.base.files import whole_file
from gabactl.law.spec import GabaSpec
from gabactl.loops.compiled import CompiledLoop
from gabactl.loops.profiles import Profile
from gabactl.loops.result import SimulationResult
from gabactl.plants import LogRatio

__all__ = ["write_trajectory"]

#: Signals of a result, and how their columns begin.
_COLUMNS = {
    "grad_norms": "grad_norm",
    "readings": "reading",
    "raw": "raw",
    "ema": "ema",
    "weights": "weight",
}


def write_trajectory(result: SimulationResult, path: str | Path) -> Path:
    """Every step of one simulated loop, as ``.arrow`` or ``.csv``.

    Parameters
    ----------
    result : SimulationResult
        The run.
    path : path
        Where; replaced at the end, so that no half file is left.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.loops.profiles import constant
    >>> from gabactl.loops.simulate import simulate
    >>> file = Path(tempfile.mkdtemp()) / "run.csv"
    >>> write_trajectory(simulate(GabaSpec(), constant(4.0, 2)), file).read_text().splitlines()[0]
    '"step","grad_norm_0","grad_norm_1","reading_0","reading_1","raw_0",...
    """
    import pyarrow as pa

    columns: dict[str, Any] = {"step": np.arange(1, result.steps + 1)}
    for name, column_name in _COLUMNS.items():
        signal = getattr(result, name)
        if signal is not None:
            for i, column in enumerate(signal.T):
                columns[f"{column_name}_{i}"] = column
    table = pa.table(columns)
    return _write(Path(path), table.schema, iter([table]))


def write_batch(
    profile: Profile,
    parameters: Mapping[str, ArrayLike],
    path: str | Path,
    *,
    spec: GabaSpec | None = None,
    delay: int = 0,
    seed: int = 0,
    first_loop: int = 0,
    rows_per_piece: int = 65536,
) -> Path:
    """Every step of many loops, in pieces of bounded size, as an Arrow file.

    Parameters
    ----------
    profile, parameters, delay, seed, first_loop
        As in :func:`gabactl.loops.batch.run_batch`, which gives the figures of the same loops.
    path : path
        An ``.arrow`` file.
    spec : GabaSpec, optional
        Law, floor mode and guard, and what ``parameters`` does not say.
    rows_per_piece : int
        Steps held in memory at a time.

    Raises
    ------
    InputError
        Another ending than .arrow, or pieces of fewer than one row.

    Examples
    --------
    >>> import tempfile, pyarrow as pa
    >>> from gabactl.loops.profiles import constant
    >>> file = Path(tempfile.mkdtemp()) / "loops.arrow"
    >>> _ = write_batch(constant(4.0, 100), {"beta": [0.9, 0.99]}, file, rows_per_piece=64)
    >>> with pa.OSFile(str(file)) as source:
    ...     table = pa.ipc.open_file(source).read_all()
    >>> table.num_rows, table.column_names[:2]
    (200, ['loop', 'step'])
    """
    import pyarrow as pa

    from gabactl.loops.batch import complete_parameters
    from gabactl.loops.kernels.random import check_seed

    base = (spec or GabaSpec()).replace(n_tasks=profile.n_tasks)
    defaults = {name: getattr(base, name) for name in ("beta", "floor", "warmup", "interval")}
    table, loops = complete_parameters({**defaults, **parameters}, profile.n_tasks)
    check_seed(seed)
    if rows_per_piece < 1:
        raise InputError(f"rows_per_piece = {rows_per_piece} is below 1: such as 65536")
    names = [f"{name}_{i}" for name in _COLUMNS.values() for i in range(profile.n_tasks)]
    schema = pa.schema(
        [("loop", pa.int64()), ("step", pa.int64()), *((name, pa.float64()) for name in names)]
    )

    def pieces() -> Iterator[Any]:
        for n in range(loops):
            row = {name: float(column[n]) for name, column in table.items()}
            counts = {name: int(row[name]) for name in ("warmup", "interval")}
            setting = base.replace(beta=row["beta"], floor=row["floor"], **counts)
            plant = LogRatio(row["rho"], row["a"], delay, profile.n_tasks)
            loop = CompiledLoop(setting, plant, row["noise"], seed, first_loop + n)
            for start in range(0, profile.steps, rows_per_piece):
                part = slice(start, min(start + rows_per_piece, profile.steps))
                logs = profile.log_norms[part] * row["amplitude"]
                signals = loop.advance(logs, profile.lost[part])  # type: ignore[index]
                steps = np.arange(part.start + 1, part.stop + 1)
                yield pa.table(
                    [
                        np.full(len(steps), first_loop + n),
                        steps,
                        *(column for signal in signals for column in signal.T),
                    ],
                    schema=schema,
                )

    file = Path(path)
    if file.suffix != ".arrow":
        raise InputError(f"{file}: loops are written as .arrow: choose this ending")
    return _write(file, schema, pieces())


def _write(file: Path, schema: Any, pieces: Iterator[Any]) -> Path:
    import pyarrow as pa
    from pyarrow import csv

    if file.suffix not in (".arrow", ".csv"):
        raise InputError(
            f"{file}: steps are written as .arrow or .csv: choose one of these endings"
        )
    with whole_file(file, "choose another place") as sink:
        opened = (
            pa.ipc.new_file(sink, schema)
            if file.suffix == ".arrow"
            else csv.CSVWriter(sink, schema)
        )
        with opened as writer:
            for piece in pieces:
                writer.write_table(piece)
    return file
