"""What several balancers would have done on a recorded run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gabactl.balancers import Balancer, Gaba
from gabactl.loops.compare import CompareResult, compared
from gabactl.loops.profiles import from_trace
from gabactl.loops.result import SimulationResult
from gabactl.loops.simulate import recorded
from gabactl.runs.run import Run
from gabactl.traces import Trace
from gabactl.traces.library import MOST_STEPS

__all__ = ["compare_on_run"]


def compare_on_run(
    balancers: Mapping[str, Any] | Sequence[str], run: Run | Trace | str | Path
) -> CompareResult:
    """Drive balancers with the gradient norms and losses of a recorded run.

    The norms are taken as they were: they do not answer to the weights of the balancers here, so
    this shows what each method would have read and done, not how the training would have gone.
    Steps that the record leaves out are gone through as well. GABA goes on from the average that
    the run began with, the others begin with the record. Of a run that spans more than
    :data:`gabactl.traces.MOST_STEPS` steps, its end is taken.

    Parameters
    ----------
    balancers
        As in :func:`gabactl.loops.compare.compare`.
    run : Run, Trace or path
        The run; without losses every task counts as progressing alike.

    Raises
    ------
    InputError
        No balancers, or no reading has a finite norm for every task.

    Examples
    --------
    >>> trace = Trace.from_arrays([[250.0, 0.5]] * 45, step=range(1, 900, 20))
    >>> result = compare_on_run(["gaba", "fixed"], trace)
    >>> [round(float(one.contribution_ratios[-1]), 2) for one in result.results.values()]
    [25.05, 500.0]
    """
    run = Run.of(run)
    steps = run.trace.step
    if len(steps) and steps[-1] - steps[0] >= MOST_STEPS:
        run = run.last(int((steps > steps[-1] - MOST_STEPS).sum()))
    profile = from_trace(run.trace, f"norms of {run.source}")
    first = int(run.trace.step[0])

    def one(rule: Balancer) -> list[SimulationResult]:
        stages = None
        if type(rule) is Gaba:
            replay = Run.of(run, rule.spec).every_step.replay
            stages = replay.raw, replay.ema, replay.weights
        return [recorded(rule, profile, first_step=first, stages=stages)]

    whole = int(np.isfinite(run.trace.grad_norms).all(axis=1).sum())
    return compared(balancers, profile.n_tasks, one, (0,), profile.title, profile.steps - whole)
