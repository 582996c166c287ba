"""Recordings of runs that were cut short: resumed, finished, and watched while they grow."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from hostile.readers.base import check_line
from hostile.readers.traces import Stream


class Recovery(Stream):
    """A stream that is resumed, appended to and finished; half of it is watched first."""

    name = "recording-recovery"
    modules = (
        "gabactl.traces.writer",
        "gabactl.traces.rewrite",
        "gabactl.traces.stream",
        "gabactl.runs.watch",
    )

    def bad(self, rng: random.Random) -> bytes:
        """As for the stream, and cut where the process was killed."""
        data = super().bad(rng) if rng.random() < 0.7 else rng.choice(self.seeds)
        return data[: rng.randrange(1, len(data))] if data and rng.random() < 0.4 else data

    def read(self, data: bytes) -> Any:
        from gabactl.base.errors import InputError
        from gabactl.runs.watch import Watcher
        from gabactl.traces import TraceWriter, read_trace
        from gabactl.traces.rewrite import finish

        for file in self.folder.glob("run.*"):
            file.unlink()
        file = self.put("run.arrows", data[: len(data) // 2])
        watcher = Watcher(file)
        for whole in (False, True):
            if whole:
                with open(file, "ab") as sink:
                    sink.write(data[len(data) // 2 :])
            try:
                state = watcher.look()
                if state is not None:
                    str(state).encode()
            except InputError as error:
                check_line(error)
        if len(data) % 2:
            target, rows = finish(file)
            if len(read_trace(target)) != rows:
                raise AssertionError(f"{rows} rows were finished, others are read")
            return rows
        before = len(read_trace(file)) if _readable(file) else 0
        kept = TraceWriter.resume(file, sync=False)
        try:
            after, names = kept.rows, list(kept.columns)
            values: dict[str, Any] = dict.fromkeys(names, np.ones(1))
            values["step"] = np.array([kept.last_step + 1])
            kept.append(values)
        finally:
            kept.close(finish=False)
        if after < before:
            raise AssertionError(f"{after} rows are left of {before}")
        if len(read_trace(file)) != after + 1:
            raise AssertionError("the appended row is not read")
        return after


def _readable(file: Any) -> bool:
    from gabactl.base.errors import InputError
    from gabactl.traces import read_trace

    try:
        read_trace(file)
    except InputError:
        return False
    return True
