"""CSV traces, made by others: forgiving about the dress, exact about the numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.traces.metadata import MAX_TASKS, SCHEMA_VERSION, check_metadata
from gabactl.traces.schema import GROUPS, MAX_CELLS, Columns, Precision

_ROWS = 1 << 14
_MAX_LINE = 1 << 20
_MAX_STEP = 1 << 62
_MISSING = {"", "na", "n/a", "null", "none"}


class CsvTable:
    """The cells of a CSV file, whatever its columns mean.

    A byte-order mark, CRLF, blank lines, ``;`` or tab as the separator are taken as they come; an
    empty cell, NA, null or None is a missing value.

    Parameters
    ----------
    file : binary file
        Open for reading.
    source : str
        File name, for messages.

    Attributes
    ----------
    names : list of str
        The header.

    Raises
    ------
    InputError
        One line that names the line of the file.

    Examples
    --------
    >>> import io
    >>> table = CsvTable(io.BytesIO(b"a;b\\n1;\\n"), "run.csv")
    >>> table.names, table.rows(10)
    (['a', 'b'], [(2, ['1', ''])])
    """

    def __init__(self, file: BinaryIO, source: str) -> None:
        self.source = source
        self._file = file
        self._lines_read = 0
        file.seek(0)
        start = file.read(4)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{source}: the text is UTF-16: save it as UTF-8")
        file.seek(3 if start.startswith(b"\xef\xbb\xbf") else 0)
        lines = self._lines()
        header = next((line for line in lines if line.strip()), None)
        if header is None:
            raise InputError(f"{source}: the file holds no header line: nothing was recorded")
        separator = next((mark for mark in ",;\t" if mark in header), ",")
        self._reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            names = next(csv.reader([header], delimiter=separator, strict=True))
        except csv.Error as error:
            raise InputError(f"{source}: line 1 is no CSV header ({error}): mend it") from None
        self.names = [name.strip() for name in names]

    def rows(self, count: int) -> list[tuple[int, list[str]]]:
        """The next rows.

        Parameters
        ----------
        count : int, at least 1
            At most so many; fewer at the end of the file.

        Returns
        -------
        list of (int, list of str)
            Line in the file, from 1, and one cell per column; empty lines are left out.

        Raises
        ------
        InputError
            A row of another length than the header, or no CSV.
        """
        rows: list[tuple[int, list[str]]] = []
        width = len(self.names)
        try:
            for cells in self._reader:
                if not cells or (len(cells) == 1 and not cells[0].strip()):
                    continue
                if len(cells) != width:
                    raise InputError(
                        f"{self.source}: line {self._lines_read} has {len(cells)} cells, the "
                        f"header {width}: mend the line"
                    )
                rows.append((self._lines_read, cells))
                if len(rows) == count:
                    break
        except csv.Error as error:
            raise InputError(
                f"{self.source}: line {self._lines_read} is no CSV ({error}): mend the line"
            ) from None
        return rows

    def number(self, cell: str, line: int, column: str) -> float | None:
        """A cell as a number.

        Parameters
        ----------
        cell : str
            As it is in the file.
        line : int
            Its line, for the message.
        column : str
            Its column, for the message.

        Returns
        -------
        float or None
            None where the value is missing: an empty cell, or one of the words for that.

        Raises
        ------
        InputError
            No number.
        """
        text = cell.strip()
        try:
            if "_" not in text:
                return float(text)
        except ValueError:
            if text.lower() in _MISSING:
                return None
        hint = " with a decimal point" if "," in text else " such as 0.5"
        raise InputError(
            f"{self.source}: line {line}, column {column}: {text[:40]!r} is no number: write a "
            f"number{hint}, or leave the cell empty"
        )

    def column(
        self, rows: list[tuple[int, list[str]]], at: int, name: str
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """A column's numbers, NaN where they are missing, and which are there.

        Parameters
        ----------
        rows : list of (int, list of str)
            From :meth:`rows`.
        at : int
            Which column.
        name : str
            Its name, for the message.
        """
        values = [self.number(cells[at], line, name) for line, cells in rows]
        valid = np.array([value is not None for value in values], dtype=bool)
        return np.array(values, dtype=np.float64), valid

    def step(self, value: float | None, line: int) -> int:
        """A cell's number as a step.

        Parameters
        ----------
        value : float or None
            From :meth:`number`.
        line : int
            Its line, for the message.

        Raises
        ------
        InputError
            Missing, or no whole number.
        """
        if value is None:
            raise InputError(f"{self.source}: line {line} has no step: give every row its step")
        if not math.isfinite(value) or value != int(value) or abs(value) > _MAX_STEP:
            raise InputError(
                f"{self.source}: line {line}, column step: {value!r} is no whole number: count "
                "the optimisation steps 1, 2, ..."
            )
        return int(value)

    def _lines(self) -> Iterator[str]:
        while data := self._file.readline(_MAX_LINE):
            self._lines_read += 1
            if len(data) == _MAX_LINE and not data.endswith(b"\n"):
                raise InputError(
                    f"{self.source}: line {self._lines_read} is longer than 1 MiB: no CSV trace"
                )
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{self.source}: line {self._lines_read} is not UTF-8 (byte "
                    f"{error.start + 1}): save the file as UTF-8"
                ) from None
            # Old Mac line ends arrive as one line.
            yield from text.replace("\r\n", "\n").replace("\r", "\n").splitlines(keepends=True)


class CsvSource:
    """A CSV file: a header line, then one row per step.

    Columns ``grad_norm_<task>`` for two or more tasks; optionally ``step`` (default 1, 2, ...),
    ``wall_time``, ``excitation``, and ``loss_``, ``raw_``, ``ema_``, ``weight_`` of every task.
    Other columns are ignored.

    Parameters
    ----------
    table : CsvTable
        The file.

    Raises
    ------
    InputError
        One line that names the row (line of the file) and the column.

    Examples
    --------
    >>> import io
    >>> data = b"grad_norm_a,grad_norm_b\\n1,two\\n"
    >>> list(CsvSource(CsvTable(io.BytesIO(data), "run.csv")).chunks())
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: run.csv: line 2, column grad_norm_b: 'two' is no number: write a number such as 0.5, or leave the cell empty
    """

    format = "csv"
    precision: Precision = "unknown"
    truncated = False

    def __init__(self, table: CsvTable) -> None:
        self.source = table.source
        self._table = table
        self._names = table.names
        tasks = self._find_tasks()
        self.metadata: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "tasks": tasks}
        check_metadata(self.metadata, self.source)
        self._wanted = self._find_columns(tasks)

    def _find_tasks(self) -> list[str]:
        tasks = [n.removeprefix("grad_norm_") for n in self._names if n.startswith("grad_norm_")]
        if not tasks:
            shown = ", ".join(self._names[:6])[:120]
            raise InputError(
                f"{self.source}: no column grad_norm_<task> (found: {shown!r}): name the columns "
                "of the gradient norms grad_norm_rul, grad_norm_health, ..."
            )
        if len(tasks) < 2 or len(tasks) > MAX_TASKS:
            raise InputError(
                f"{self.source}: {len(tasks)} column(s) grad_norm_<task>: a trace has 2 to "
                f"{MAX_TASKS} tasks"
            )
        return tasks

    def _find_columns(self, tasks: list[str]) -> dict[str, int]:
        known = {"step", "wall_time", "excitation"}
        known |= {f"{prefix}_{task}" for prefix in GROUPS for task in tasks}
        wanted: dict[str, int] = {}
        for i, name in enumerate(self._names):
            if name in wanted:
                raise InputError(f"{self.source}: column {name!r} is there twice: drop one")
            if name in known:
                wanted[name] = i
        return wanted

    def chunks(self) -> Iterator[tuple[Columns, dict[str, NDArray[np.float64]]]]:
        """See :class:`gabactl.traces.reader.Source`.

        Raises
        ------
        InputError
            More numbers than are taken from a CSV file, or a line that cannot be read.
        """
        first, total = 1, 0
        while True:
            rows = self._table.rows(_ROWS)
            total += len(rows) * max(1, len(self._wanted))
            if total > MAX_CELLS:
                raise InputError(
                    f"{self.source}: more than {MAX_CELLS} numbers: convert it to Parquet in parts"
                )
            if rows or first == 1:
                yield self._columns(rows, first), {}
            first += len(rows)
            if len(rows) < _ROWS:
                return

    def _columns(self, rows: list[tuple[int, list[str]]], first: int) -> Columns:
        columns: Columns = {
            name: self._table.column(rows, i, name) for name, i in self._wanted.items()
        }
        steps = list(range(first, first + len(rows)))
        if "step" in columns:
            values, valid = (part.tolist() for part in columns["step"])
            steps = [
                self._table.step(value if there else None, line)
                for value, there, (line, _) in zip(values, valid, rows, strict=True)
            ]
        columns["step"] = (np.array(steps, dtype=np.int64), np.ones(len(rows), dtype=bool))
        return columns

    def close(self) -> None:
        """See :class:`gabactl.traces.reader.Source`."""
