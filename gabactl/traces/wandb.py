"""Histories exported from Weights & Biases: CSV, JSON, JSON lines and Parquet.

Flat columns such as ``grad_norm/RUL``, and the step in ``_step`` or where the training framework
put its own. As the exports come: ``run.history()`` and ``run.scan_history()`` of the public API,
written with pandas or json; a chart's "Export CSV"; the Parquet files of a history artifact.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.traces.csv import CsvTable
from gabactl.traces.foreign import ForeignSource, Series, columns_from_series, match_columns
from gabactl.traces.schema import MAX_CELLS, Columns

#: How the library's own log begins.
OWN_LOG = b":W&B"

#: Where the optimisation step may be, best first: ``_step`` counts calls of ``log``.
_STEPS = ("step", "trainer/global_step", "train/global_step", "global_step", "_step", "Step")
_TIMES = ("wall_time", "_runtime", "_timestamp", "Relative Time (Process)")
_MAX_LINES = 1 << 30
_MAX_JSON = 128 << 20
_ROWS = 1 << 14
#: Row numbers and values of one name.
_Cells = tuple[list[int], list[float]]


def is_export(names: Sequence[str], given: Mapping[str, str] | None = None) -> bool:
    """Whether these are the columns of a log, rather than of a trace as we document it.

    Parameters
    ----------
    names : sequence of str
        The columns.
    given : mapping of str to str, optional
        The user's own names of columns: with any, it is a log.

    Examples
    --------
    >>> is_export(["step", "grad_norm_a", "grad_norm_b"]), is_export(["_step", "grad_norm/a"])
    (False, True)
    """
    ours = any(name.startswith("grad_norm_") for name in names)
    logged = "step" not in names and any(name in names for name in _STEPS)
    return bool(given) or logged or (not ours and any("/" in n or " - " in n for n in names))


def own_log_refused(source: str, name: str) -> InputError:
    """What to say of the library's own log, ``run-<id>.wandb``, which only it reads.

    Parameters
    ----------
    source : str
        What was given, for the message.
    name : str
        Name of the log.

    Examples
    --------
    >>> "wandb.Api().run('ENTITY/PROJECT/ab12')" in str(own_log_refused("x", "run-ab12.wandb"))
    True
    """
    found = re.fullmatch(r"run-([A-Za-z0-9_-]{1,80})\.wandb", name)
    run = found[1] if found else "RUN_ID"
    return InputError(
        f"{source}: the binary log of Weights & Biases, which is not read here: export its history "
        "(an offline run after `wandb sync` of its folder) with "
        '`python -c "import json, wandb; [print(json.dumps(row)) for row in '
        f"wandb.Api().run('ENTITY/PROJECT/{run}').scan_history()]\" > run.jsonl` "
        "and give run.jsonl"
    )


def read_table(table: CsvTable, given: Mapping[str, str] | None = None) -> ForeignSource:
    """Read an exported CSV.

    Parameters
    ----------
    table : CsvTable
        The file.
    given : mapping of str to str, optional
        As for :func:`gabactl.traces.foreign.match_columns`.

    Raises
    ------
    InputError
        No gradient norms, or a cell that is no number: one line that names it.

    Examples
    --------
    >>> import io
    >>> text = b"_step,grad_norm/a,grad_norm/b\\n0,250,0.5\\n1,300,0.4\\n"
    >>> source = read_table(CsvTable(io.BytesIO(text), "run.csv"))
    >>> source.metadata["tasks"]
    ['a', 'b']
    """
    names = _own(table.names)
    twice = next((n for n in names if n and table.names.count(n) > 1), None)
    if twice is not None:
        raise InputError(f"{table.source}: column {twice!r} is there twice: drop one")
    matched = match_columns(names, table.source, given)
    wanted = {n: table.names.index(n) for n in names if n in _wanted(matched)}

    def pieces() -> Iterator[Columns]:
        total = 0
        while rows := table.rows(_ROWS):
            total += len(rows) * len(wanted)
            if total > MAX_CELLS:
                raise InputError(
                    f"{table.source}: more than {MAX_CELLS} numbers: export it in parts"
                )
            yield {name: table.column(rows, at, name) for name, at in wanted.items()}

    return _source("wandb csv", _gathered(wanted, pieces()), matched, table.source)


def read_json(
    file: BinaryIO, size: int, source: str, given: Mapping[str, str] | None = None
) -> ForeignSource:
    """Read exported JSON: one object a line, a list of objects, or an object of columns.

    Parameters
    ----------
    file : binary file
        Open for reading.
    size : int
        Bytes in it.
    source : str
        File name, for messages.
    given : mapping of str to str, optional
        As for :func:`gabactl.traces.foreign.match_columns`.

    Raises
    ------
    InputError
        No such JSON, too much of it, no gradient norms among its keys, or a value of theirs that
        is no number.

    Examples
    --------
    >>> import io
    >>> text = b'{"_step": 0, "grad_norm/a": 250, "grad_norm/b": 0.5}\\n'
    >>> read_json(io.BytesIO(text), len(text), "run.jsonl").metadata["tasks"]
    ['a', 'b']
    """
    file.seek(0)
    cells: dict[str, _Cells] = {}
    odd: dict[str, tuple[int, Any]] = {}
    total = 0
    for number, row in enumerate(_rows(file, size, source)):
        for name, value in row.items():
            if value is None:
                continue
            figure = _number(value)
            if figure is None:
                odd.setdefault(name, (number, value))
                continue
            at, values = cells.setdefault(name, ([], []))
            at.append(number)
            values.append(figure)
            total += 1
        if 8 * total > MAX_CELLS:
            raise InputError(f"{source}: {total} numbers and more: export fewer columns")
    matched = match_columns(_own(list(cells)), source, given)
    for name in _wanted(matched):
        if name in odd and name in cells and name not in _TIMES:
            at_row, value = odd[name]
            raise InputError(
                f"{source}: row {at_row + 1}, {name}: {str(value)[:40]!r} is no number: export "
                "numbers, and leave out what is missing"
            )
    return _source("wandb json", cells, matched, source)


def read_parquet(
    parquet: Any, source: str, given: Mapping[str, str] | None = None
) -> ForeignSource:
    """Read an exported Parquet file, whose declared sizes were checked.

    Parameters
    ----------
    parquet : pyarrow.parquet.ParquetFile
        Open for reading.
    source : str
        File name, for messages.
    given : mapping of str to str, optional
        As for :func:`gabactl.traces.foreign.match_columns`.

    Raises
    ------
    InputError
        No gradient norms, or a column of theirs that holds no numbers.

    Examples
    --------
    >>> import io
    >>> import pyarrow as pa
    >>> from pyarrow import parquet as pq
    >>> file = io.BytesIO()
    >>> table = pa.table({"_step": [0, 1], "grad_norm/a": [250.0, 300.0], "grad_norm/b": [0.5, 0.4]})
    >>> pq.write_table(table, file)
    >>> read_parquet(pq.ParquetFile(file), "run.parquet").metadata["tasks"]
    ['a', 'b']
    """
    import pyarrow as pa

    schema = parquet.schema_arrow
    matched = match_columns(_own(schema.names), source, given)
    wanted = [name for name in schema.names if name in _wanted(matched)]
    for name in wanted:
        kind = schema.field(name).type
        if schema.names.count(name) > 1 or not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind)
        ):
            raise InputError(
                f"{source}: column {name!r} is there twice or of type {str(kind)[:40]}: export "
                "numbers"
            )

    def pieces() -> Iterator[Columns]:
        for batch in parquet.iter_batches(1 << 16, columns=wanted, use_threads=False):
            batch.validate(full=True)
            columns = {name: batch.column(name) for name in wanted}
            yield {
                name: (
                    column.to_numpy(zero_copy_only=False).astype(np.float64),
                    np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool),
                )
                for name, column in columns.items()
            }

    return _source("wandb parquet", _gathered(wanted, pieces()), matched, source)


def _gathered(names: Iterable[str], pieces: Iterable[Columns]) -> dict[str, Any]:
    """Row numbers and values of what is there of each column."""
    parts: dict[str, Any] = {name: ([[]], [[]]) for name in names}
    count = 0
    for piece in pieces:
        for name, (values, valid) in piece.items():
            parts[name][0].append(count + np.flatnonzero(valid))
            parts[name][1].append(values[valid])
        count += max(len(valid) for _, valid in piece.values())
    return {
        name: (np.concatenate(at).astype(np.int64), np.concatenate(values))
        for name, (at, values) in parts.items()
    }


def _own(names: Sequence[str]) -> list[str]:
    """Names without the ranges that a chart's export adds."""
    return [name for name in names if not name.endswith(("__MIN", "__MAX"))]


def _wanted(matched: Mapping[str, str]) -> set[str]:
    return {*matched.values(), *_STEPS, *_TIMES}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if isinstance(value, int) and value > 0 else -math.inf


def _rows(file: BinaryIO, size: int, source: str) -> Iterable[dict[str, Any]]:
    """The rows of a JSON export, whichever of its shapes it has."""
    first = file.readline(_MAX_JSON)
    rest = file.readline(_MAX_JSON)
    file.seek(0)
    if rest.strip() and isinstance(_load(first, source, quiet=True), dict):
        if size > _MAX_LINES:
            raise InputError(f"{source}: {size} bytes: export it as Parquet")
        return (_object(line, source) for line in file if line.strip())
    if size > _MAX_JSON:
        raise InputError(
            f"{source}: {size} bytes of JSON in one piece: export one object a line, or Parquet"
        )
    whole = _load(file.read(), source)
    if isinstance(whole, list) and all(isinstance(row, dict) for row in whole):
        return whole
    if isinstance(whole, dict) and whole and all(isinstance(v, dict) for v in whole.values()):
        index = list(dict.fromkeys(key for column in whole.values() for key in column))
        return [{name: column.get(key) for name, column in whole.items()} for key in index]
    if isinstance(whole, dict) and whole and all(isinstance(v, list) for v in whole.values()):
        longest = max(len(column) for column in whole.values())
        return [{n: c[i] for n, c in whole.items() if i < len(c)} for i in range(longest)]
    if isinstance(whole, dict):
        return [whole]
    raise InputError(
        f"{source}: JSON, but no history: export one object a line, as from run.scan_history()"
    )


def _object(line: bytes, source: str) -> dict[str, Any]:
    value = _load(line, source)
    if not isinstance(value, dict):
        raise InputError(f"{source}: a line is no JSON object: export one object a line")
    return value


def _load(data: bytes, source: str, quiet: bool = False) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if quiet:
            return None
        said = " ".join(str(error).split())[:80]
        raise InputError(f"{source}: not valid JSON ({said}): export it again") from None


def _source(
    name: str, cells: Mapping[str, Any], matched: Mapping[str, str], source: str
) -> ForeignSource:
    """Rows with their steps, as quantities of their own."""
    norms = [name for column, name in matched.items() if column.startswith("grad_norm_")]
    if not any(len(cells[name][0]) for name in norms):
        raise InputError(f"{source}: its gradient norms hold no value: nothing was recorded")
    kept = {c: name for c, name in matched.items() if name in norms or len(cells[name][0])}
    rows = np.unique(np.concatenate([cells[n][0] for n in kept.values()])).astype(np.int64)
    at, steps = _steps(cells, rows, source)

    def series(name: str) -> Series:
        own = np.asarray(cells[name][0], dtype=np.int64)
        known = np.isin(own, rows)
        values = np.asarray(cells[name][1], dtype=np.float64)[known]
        return steps[np.searchsorted(at, own[known])], values

    wall = next((series(name) for name in _TIMES if name in cells), None)
    if wall is not None:
        with np.errstate(invalid="ignore"):  # a time of infinity is kept as no time
            wall = (wall[0], wall[1] - wall[1][:1].sum()) if len(wall[1]) else None
    columns = columns_from_series(
        {column: series(key) for column, key in kept.items()},
        source,
        wall,
        counted_from=int(steps.min()),
    )
    return ForeignSource(name, columns, kept, source)


def _steps(
    cells: Mapping[str, Any], rows: NDArray[np.int64], source: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers and their steps, from the first column of steps that all these rows have."""
    for name in _STEPS:
        if name not in cells:
            continue
        at = np.asarray(cells[name][0], dtype=np.int64)
        values = np.asarray(cells[name][1], dtype=np.float64)
        if not np.isin(rows, at).all():
            continue
        wrong = ~(np.isfinite(values) & (np.abs(values) < 1e15) & (values == np.round(values)))
        if wrong.any():
            raise InputError(
                f"{source}: column {name}: {values[wrong][0]} is no whole number: count the "
                "optimisation steps 1, 2, ..."
            )
        return at, values.astype(np.int64)
    if any(len(cells[name][0]) for name in _STEPS if name in cells):
        raise InputError(f"{source}: rows with gradient norms lack their step: export _step too")
    return rows, rows + 1
