"""Recommended settings, with the trade-off they rest on: noise, lag, authority and cost.

Examples
--------
>>> tune(Workload(50.0, 2400.0)).spec.interval
11
"""

from __future__ import annotations

from gabactl.synthesis.budget import LoopErrors, loop_errors
from gabactl.synthesis.recommendation import Alternative, Tuning, tune
from gabactl.synthesis.workload import Workload, workload_of

__all__ = ["Alternative", "LoopErrors", "Tuning", "Workload", "loop_errors", "tune", "workload_of"]
