"""Sweeps: many loops over grids or Sobol samples of their settings, in durable chunks."""

from __future__ import annotations

from gabactl.loops.sweeps.description import Sweep, load_sweep
from gabactl.loops.sweeps.engine import Engine, run_sweep
from gabactl.loops.sweeps.result import SweepResult, open_sweep

__all__ = ["Engine", "Sweep", "SweepResult", "load_sweep", "open_sweep", "run_sweep"]
