"""Rows of a recording that are still in memory, and their way to the file."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gabactl.base.errors import InputError
from gabactl.traces.writer import TraceWriter

__all__ = ["PendingRows", "Row"]


@dataclass(frozen=True)
class Row:
    """One step.

    Attributes
    ----------
    step : int
        From 1.
    measured : bool
        Whether a reading was taken.
    wall_time : float
        Seconds since the start.
    values : Tensor, shape (groups * K,)
        On the device still; groups in column order.
    excitation : float
        Used where the recording has the column.
    param_norms : Tensor, shape (K, P), or None
        None where nothing was measured.
    """

    step: int
    measured: bool
    wall_time: float
    values: Tensor
    excitation: float = 0.0
    param_norms: Tensor | None = None


class PendingRows:
    """Collects rows, and writes them together: one transfer from the device per flush.

    Parameters
    ----------
    writer : TraceWriter
        Where they go.
    names : sequence of str
        Columns of ``Row.values``.
    tasks : sequence of K str
        Task names.
    excited : bool
        Whether there is a column for the excitation.
    parameters : int
        Number P of parameters whose own norms are recorded.
    """

    def __init__(
        self,
        writer: TraceWriter,
        names: Sequence[str],
        tasks: Sequence[str],
        excited: bool,
        parameters: int,
    ) -> None:
        self._writer = writer
        self._names = tuple(names)
        self._tasks = tuple(tasks)
        self._excited = excited
        self._parameters = parameters
        self._rows: list[Row] = []
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last_step(self) -> int:
        """The last step that is here or in the file."""
        return self._rows[-1].step if self._rows else self._writer.last_step

    def add(self, row: Row) -> None:
        """Keep a row for the next :meth:`write`.

        Parameters
        ----------
        row : Row
            One step; its tensors stay on their device until then.
        """
        self._rows.append(row)

    def write(self) -> None:
        """Append what is there to the file; the rows stay here where that fails."""
        # An interrupt may have come between the writing of rows and their removal from here.
        rows = [row for row in self._rows if row.step > self._writer.last_step]
        if not rows:
            self._rows = []
            return
        values = torch.stack([row.values for row in rows]).cpu().numpy()
        measured = np.array([row.measured for row in rows])
        columns: dict[str, Any] = {
            "step": np.array([row.step for row in rows], dtype=np.int64),
            "wall_time": np.array([row.wall_time for row in rows]),
        }
        valid: dict[str, Any] = {}
        for i, name in enumerate(self._names):
            columns[name] = values[:, i]
            # NaN says "not finite", null says "not measured": only the mask can tell.
            if name.startswith(("grad_norm_", "raw_")):
                valid[name] = measured
        if self._excited:
            columns["excitation"] = np.array([row.excitation for row in rows])
        if self._parameters:
            blank = torch.full((len(self._tasks), self._parameters), torch.nan)
            norms = [blank if r.param_norms is None else r.param_norms.cpu() for r in rows]
            table = torch.stack([row.double() for row in norms]).numpy()
            for i, task in enumerate(self._tasks):
                columns[f"param_norms_{task}"] = table[:, i]
                valid[f"param_norms_{task}"] = measured
        self._writer.append(columns, valid)
        self._rows = []

    def write_when_forgotten(self, owner: object) -> weakref.finalize[Any, Any]:
        """Write and leave the stream open when ``owner`` goes away, or the interpreter ends.

        Parameters
        ----------
        owner : object
            Who closes the recording, if all goes well; its ``finalize`` is then to be detached.
        """
        return weakref.finalize(owner, self._last_words)

    def _last_words(self) -> None:
        if os.getpid() != self._process:
            return  # a fork: the rows are the parent's to write
        try:
            self.write()
        except InputError as error:
            print(f"{len(self._rows)} steps were not recorded: {error}", file=sys.stderr)
        finally:
            self._writer.close(finish=False)
