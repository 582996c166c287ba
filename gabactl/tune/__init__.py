"""Recommended settings, with the trade-off they rest on: noise, lag, authority and cost.

Examples
--------
>>> tune(Workload(50.0, 2400.0)).spec.interval
11
"""

from __future__ import annotations

from gabactl.tune.budget import LoopErrors, loop_errors
from gabactl.tune.recommendation import Alternative, Tuning, tune
from gabactl.tune.workload import Workload, workload_of

__all__ = ["Alternative", "LoopErrors", "Tuning", "Workload", "loop_errors", "tune", "workload_of"]
