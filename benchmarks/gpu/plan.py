"""Parts, most important first, fitted into the time that is given; each in a process of its own.

A part that raises, dies or hangs leaves the others whole: an error on a GPU can make a process
unusable for good, so no two parts share one. The parent never touches the GPU.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: Children are forks: they find everything imported, and only CUDA is left to start.
FORK = multiprocessing.get_context("fork")
#: Share of the time kept back for the end, and share a part may overrun before it is killed.
KEPT_BACK, GRACE = 0.06, 0.03

Clock = Callable[[], float]
#: Told of every result: ("item", label, figures) or ("trace", name, file).
Send = Callable[[tuple[str, str, Any]], None]


@dataclass(frozen=True)
class Part:
    """One part of the plan.

    Attributes
    ----------
    name, does : str
        For the table.
    share : float
        Of all the time; what earlier parts leave is added.
    least : float
        Seconds without which it is not begun, and which it gets before any later part.
    run : callable
        Takes a :class:`Bench`.
    """

    name: str
    does: str
    share: float
    least: float
    run: Callable[[Bench], None]


@dataclass(frozen=True)
class Bench:
    """What a part works with.

    Attributes
    ----------
    device : str
        ``cuda``, or ``cpu`` in a rehearsal.
    rehearse : bool
        Tiny sizes: to see that everything runs.
    data, scratch : path
        C-MAPSS, and a folder for files on the way.
    done : frozenset of str
        Runs that an earlier lease finished.
    deadline : float
        On ``clock``.
    send : callable
        Takes a result.
    """

    device: str
    rehearse: bool
    data: Path
    scratch: Path
    done: frozenset[str]
    deadline: float
    send: Send
    clock: Clock = time.monotonic

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - self.clock()

    def item(
        self, label: str, call: Callable[[], Any], *, least: float = 0.0, cuda: bool = False
    ) -> Any:
        """One measurement: whatever becomes of it is sent, and nothing is raised.

        Parameters
        ----------
        label : str
            Its name in the table.
        call : callable
            Returns its figures, a dict with ``words`` for the table, or None.
        least : float
            Seconds without which it is left out.
        cuda : bool
            Whether it means nothing without CUDA.
        """
        if cuda and self.device != "cuda":
            return self.left_out(label, "needs CUDA")
        if self.left() < max(least, 0.0):
            return self.left_out(label, "no time was left")
        began = self.clock()
        try:
            figures = call() or {}
        except Exception as error:
            self.send(("item", label, {"status": "failed", "reason": _where(error)}))
            return None
        seconds = round(self.clock() - began, 3)
        self.send(("item", label, {"status": "ok", "seconds": seconds, **figures}))
        return figures

    def left_out(self, label: str, why: str) -> None:
        """Say that something was not measured."""
        self.send(("item", label, {"status": "left out", "reason": why}))


def _where(error: Exception) -> str:
    """One line: what, and the line of this repository it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400] + place


def deadlines(
    parts: Sequence[Part], index: int, now: float, begin: float, seconds: float
) -> tuple[float, float]:
    """When a part should end, and when all of them must.

    Parameters
    ----------
    parts : sequence of Part
        The plan, whose shares add up to 1.
    index : int
        Which part is due.
    now, begin : float
        Time on one clock.
    seconds : float
        Given to all.

    Examples
    --------
    >>> two = [Part("a", "", 0.5, 10.0, print), Part("b", "", 0.5, 10.0, print)]
    >>> deadlines(two, 0, 0.0, 0.0, 100.0)
    (47.0, 94.0)
    """
    end = begin + seconds * (1.0 - KEPT_BACK)
    shares = math.fsum(part.share for part in parts[: index + 1])
    wanted = begin + shares * (end - begin)
    return min(max(wanted, now + parts[index].least), end), end


Runner = Callable[[Part, float, float, Send], str]


def run_plan(
    parts: Sequence[Part],
    seconds: float,
    begin: float,
    keep: Callable[..., None],
    runner: Runner,
    clock: Clock = time.monotonic,
) -> None:
    """Run the parts in order, each until its deadline.

    Parameters
    ----------
    parts : sequence of Part
        Most important first.
    seconds : float
        For all of them, from ``begin`` on.
    begin : float
        On the clock.
    keep : callable
        ``keep(part_name, message)`` for every result, and once for the part's own outcome:
        ("part", name, figures).
    runner : callable
        Runs one part: ``runner(part, deadline, grace, send)`` returns "done" or what went wrong.
    clock : callable
        Seconds.
    """
    for index, part in enumerate(parts):
        now = clock()
        deadline, end = deadlines(parts, index, now, begin, seconds)
        figures: dict[str, Any] = {"does": part.does, "seconds_planned": round(deadline - now, 1)}
        if end - now < part.least:
            why = f"{max(end - now, 0):.0f} s were left, it takes {part.least:.0f}"
            keep(part.name, ("part", part.name, {**figures, "status": "left out", "reason": why}))
            continue

        def send(message: tuple[str, str, Any], name: str = part.name) -> None:
            keep(name, message)

        keep(part.name, ("part", part.name, {**figures, "status": "begun"}))
        try:
            outcome = runner(part, deadline, GRACE * seconds, send)
        except KeyboardInterrupt:
            figures |= {"status": "interrupted", "seconds": round(clock() - now, 1)}
            keep(part.name, ("part", part.name, figures))
            raise
        figures |= {"status": outcome, "seconds": round(clock() - now, 1)}
        keep(part.name, ("part", part.name, figures))


def in_process(make: Callable[[float, Send], Bench]) -> Runner:
    """A runner that forks: the part's results come through a pipe, and a hanging one is killed.

    Parameters
    ----------
    make : callable
        ``make(deadline, send)`` is what the part gets.
    """

    def runner(part: Part, deadline: float, grace: float, send: Send) -> str:
        ours, theirs = FORK.Pipe(duplex=False)
        child = FORK.Process(target=_part, args=(part, make, deadline, theirs))
        child.start()
        theirs.close()
        try:
            while ours.poll(max(deadline + grace - time.monotonic(), 0.0)):
                send(ours.recv())
            outcome = "cut off"  # out of time, not out of results
        except EOFError:
            child.join(grace)
            outcome = "done" if child.exitcode == 0 else f"died with exit code {child.exitcode}"
        finally:
            # Its workers with it: the child leads a group of its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.kill()
            child.join()
            ours.close()
        return outcome

    return runner


def _part(
    part: Part, make: Callable[[float, Send], Bench], deadline: float, pipe: Connection
) -> None:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        part.run(make(deadline, pipe.send))
    except Exception as error:
        pipe.send(("item", "the part itself", {"status": "failed", "reason": _where(error)}))
        raise SystemExit(1) from None
    finally:
        pipe.close()
