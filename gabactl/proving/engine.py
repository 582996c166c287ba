"""Run theorems side by side, each in a process that is killed when its time is up."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.base.tables import cut_short
from gabactl.proving.library import select
from gabactl.proving.theorem import Outcome, Theorem

__all__ = ["ProofResult", "ProofTable", "main", "prove"]


@dataclass(frozen=True)
class ProofResult(Result):
    """The verdict on one theorem (or on one of its mutants).

    Attributes
    ----------
    theorem : Theorem
        What was decided.
    outcome : Outcome
        What was found.
    seconds : float
        Wall time of the check.
    mutant : str or None
        The planted error, if any.
    """

    theorem: Theorem
    outcome: Outcome
    seconds: float
    mutant: str | None = None

    @property
    def title(self) -> str:  # type: ignore[override]
        """Id and verdict."""
        return f"{self.theorem.id}: {self.outcome.verdict}"

    @property
    def ok(self) -> bool:
        """As expected: for a mutant, a decided verdict that differs from the theorem's."""
        if self.mutant is None:
            return self.outcome.verdict == self.theorem.expect
        return self.outcome.verdict not in ("unknown", self.theorem.expect)

    def rows(self) -> Sequence[Sequence[str]]:
        """Everything there is to say, one fact a row."""
        found = self.outcome
        rows = [("statement", self.theorem.statement)]
        rows += [("given", text) for text in self.theorem.given]
        rows += [("method", self.theorem.method), ("expected", self.theorem.expect)]
        if self.mutant is not None:
            rows.append(("mutant", self.mutant))
        rows += [("step", text) for text in found.derivation]
        if found.core:
            rows.append(("core", ", ".join(found.core)))
        for label, values in (
            ("counterexample", found.counterexample),
            ("certificate", found.certificate),
        ):
            rows += [(label, f"{name} = {value}") for name, value in (values or {}).items()]
        rows += [("replay", text) for text in found.replays]
        if found.reason:
            rows.append(("reason", found.reason))
        return rows

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.theorem.to_dict(),
            "mutant": self.mutant,
            "as_expected": self.ok,
            "seconds": round(self.seconds, 3),
            **self.outcome.to_dict(),
        }


@dataclass(frozen=True)
class ProofTable(Result):
    """Verdicts on several theorems.

    Attributes
    ----------
    results : tuple of ProofResult
        In the order of the files.
    seconds : float
        Wall time of the whole run.
    workers : int
        Processes used.
    """

    results: tuple[ProofResult, ...]
    seconds: float
    workers: int

    @property
    def title(self) -> str:  # type: ignore[override]
        """How many of each verdict."""
        count = {
            verdict: sum(r.outcome.verdict == verdict for r in self.results)
            for verdict in ("proved", "refuted", "unknown")
        }
        return (
            f"{count['proved']} proved, {count['refuted']} refuted, {count['unknown']} unknown; "
            f"{len(self.surprises)} not as expected ({self.seconds:.1f} s, {self.workers} processes)"
        )

    @property
    def surprises(self) -> tuple[ProofResult, ...]:
        """Results that are not as expected."""
        return tuple(r for r in self.results if not r.ok)

    def outcome(self, id: str) -> Outcome:
        """What was found on one theorem.

        Parameters
        ----------
        id : str
            The theorem's name.

        Returns
        -------
        Outcome
            ``unknown`` when it was not run.
        """
        for result in self.results:
            if result.theorem.id == id and result.mutant is None:
                return result.outcome
        return Outcome("unknown", reason="not run")

    def verdict(self, id: str) -> str:
        """The verdict on one theorem.

        Parameters
        ----------
        id : str
            The theorem's name.

        Returns
        -------
        {"proved", "refuted", "unknown"}
        """
        return self.outcome(id).verdict

    def rows(self) -> Sequence[Sequence[str]]:
        """One line a theorem."""
        rows = [("id", "verdict", "method", "time", "statement", "witness")]
        for result in self.results:
            name = result.theorem.id
            statement = result.theorem.statement
            if result.mutant is not None:
                statement = f"mutant: {result.mutant}"
            verdict = result.outcome.verdict + ("" if result.ok else " (not as expected)")
            rows.append(
                (
                    name,
                    verdict,
                    result.theorem.method,
                    f"{result.seconds:.2f} s",
                    cut_short(statement, 72),
                    cut_short(result.outcome.witness, 60),
                )
            )
        return rows

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "as_expected": not self.surprises,
            "seconds": round(self.seconds, 3),
            "workers": self.workers,
            "theorems": [r.to_dict() for r in self.results],
        }


def prove(
    ids: Iterable[str] = (),
    files: Iterable[Path] | None = None,
    *,
    mutants: bool = False,
    workers: int | None = None,
    time_limit: float | None = None,
    progress: Callable[[int, int, ProofResult], None] | None = None,
) -> ProofTable:
    """Decide theorems in parallel processes.

    Parameters
    ----------
    ids : iterable of str
        Which; a family name or the beginning of ids up to a hyphen (``C13`` for ``C13-upper``)
        selects all of them. None: all.
    files : iterable of Path, optional
        Theorem files. Default: the package's own.
    mutants : bool
        Run the mutants too.
    workers : int, optional
        Processes. Default: the number of cores, at most 8.
    time_limit : float, optional
        Seconds for each theorem, in place of its own budget. Past it the verdict is ``unknown``.
    progress : callable, optional
        Called with (done, all, result) after each.

    Returns
    -------
    ProofTable

    Raises
    ------
    InputError
        An unknown id, a file without theorems, or a time limit or number of workers that is not
        positive.

    Examples
    --------
    >>> prove(["C05"], workers=1).verdict("C05")
    'proved'
    """
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time = {time_limit!r} is not positive: give seconds, such as 20")
    if workers is not None and workers < 1:
        raise InputError(f"workers = {workers!r} is below 1: give a number of processes")
    wanted = select(ids, files).found
    tasks = [
        _Task(n, path, item, mutant)
        for n, (path, item, mutant) in enumerate(
            (path, item, mutant)
            for path, item in wanted
            for mutant in (None, *(item.mutants if mutants else ()))
        )
    ]
    started = time.perf_counter()
    count = min(workers or min(os.cpu_count() or 1, 8), max(len(tasks), 1))
    waiting: queue.SimpleQueue[_Task] = queue.SimpleQueue()
    # The longest first, so that no process ends alone.
    for task in sorted(tasks, key=lambda t: -t.theorem.budget):
        waiting.put(task)
    done: queue.SimpleQueue[tuple[int, ProofResult]] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_work, args=(waiting, done, time_limit), daemon=True)
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    results: dict[int, ProofResult] = {}
    while len(results) < len(tasks):
        number, result = done.get()
        results[number] = result
        if progress is not None:
            progress(len(results), len(tasks), result)
    return ProofTable(tuple(results[t.number] for t in tasks), time.perf_counter() - started, count)


def main(file: str | Path) -> int:
    """Decide the theorems of one file and print the table; for ``if __name__ == "__main__"``.

    Parameters
    ----------
    file : path
        A Python file with theorems; it is run.

    Returns
    -------
    int
        1 when a verdict is not as expected, else 0.

    Raises
    ------
    InputError
        There is no such file, or no theorem in it.

    Examples
    --------
    >>> main("no-such-file.py")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: no-such-file.py: no such file: name a Python file with theorems
    """
    table = prove(files=[Path(file)])
    print(table)
    return 1 if table.surprises else 0


@dataclass(frozen=True)
class _Task:
    number: int
    path: Path
    theorem: Theorem
    mutant: str | None


class _Worker:
    """A proving process, started on first use and killed when its time is up."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask(self, task: _Task, seconds: float) -> Outcome:
        request = {"path": str(task.path), "id": task.theorem.id, "mutant": task.mutant}
        try:
            process = self._running()
            assert process.stdin is not None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.stop()
            return Outcome("unknown", reason=f"no answer within {seconds:g} s")
        except OSError as error:
            self.stop()
            return Outcome("unknown", reason=f"the proving process ended ({error})")
        if not answer:
            self.stop()
            return Outcome("unknown", reason="the proving process ended")
        try:
            return Outcome.from_dict(json.loads(answer))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            # What wrote past our stream into the answers may do so again.
            self.stop()
            return Outcome("unknown", reason=f"the proving process answered no verdict ({error})")

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._answers = queue.SimpleQueue()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gabactl.proving._worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            threading.Thread(
                target=_forward, args=(self._process, self._answers), daemon=True
            ).start()
        return self._process

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _forward(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")


def _work(
    waiting: queue.SimpleQueue[_Task],
    done: queue.SimpleQueue[tuple[int, ProofResult]],
    timeout: float | None,
) -> None:
    worker = _Worker()
    try:
        while True:
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                return
            started = time.perf_counter()
            outcome = worker.ask(task, timeout if timeout is not None else task.theorem.budget)
            seconds = time.perf_counter() - started
            done.put((task.number, ProofResult(task.theorem, outcome, seconds, task.mutant)))
    finally:
        worker.stop()
