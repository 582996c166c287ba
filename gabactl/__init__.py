"""gabactl: loss balancing as feedback control.

GABA weighs the losses of a multi-task training from per-task gradient norms. This package treats
it as what it is, a feedback controller: it analyses the loop, proves what the weights guarantee,
fuzzes the guarantees, compares it with its peers and checks every model on recorded training.

The names here are what docs/reference.md lists, by question; :mod:`gabactl.nn` has those of PyTorch.
Each is loaded on first use.

Examples
--------
>>> import gabactl
>>> controller = gabactl.Controller(gabactl.GabaSpec(warmup=0))
>>> total, weights = controller.step(losses=[5000.0, 1.1], grad_norms=[250.0, 0.5])
>>> weights.round(6).tolist()
[0.49502, 0.50498]
>>> gabactl.margins(gabactl.GabaSpec(), gabactl.LogRatio(rho=-20.0, delay=3))
Margins: stable, gain margin up 2.2447 (7.02 dB), phase margin 52.52 deg, delay margin 4 steps
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gabactl.base.version import __version__

#: Where each name is loaded from.
_HOMES = {
    "gabactl.base.errors": ("InputError",),
    "gabactl.law.spec": ("GabaSpec",),
    "gabactl.law.controller": ("Controller",),
    "gabactl.law.authority": (
        "authority",
        "required_floor",
        "saturation_ratio",
        "settled_weights",
        "weight_bounds",
    ),
    "gabactl.law.filter": ("filter_facts",),
    "gabactl.traces": ("Trace", "TraceWriter", "load_bundled", "read_trace"),
    "gabactl.traces.info": ("trace_info",),
    "gabactl.balancers": ("balancer_names", "make_balancer"),
    "gabactl.plants": ("CallablePlant", "LogRatio", "LtiPlant", "QuadraticBowls", "parse_plant"),
    "gabactl.control.linear": ("open_loop", "vector_loop"),
    "gabactl.control.analysis": ("analyze",),
    "gabactl.control.margins": ("confirm_witnesses", "margins", "stabilising_gains"),
    "gabactl.control.frequency": ("frequency_response", "root_locus"),
    "gabactl.control.responses": ("linear_response", "ramp_response", "step_response"),
    "gabactl.control.noise": ("noise_gain", "noise_report"),
    "gabactl.control.sampling": ("sampling_trade",),
    "gabactl.control.nonlinear": ("equilibria", "region_of_attraction", "small_gain"),
    "gabactl.control.describing": ("limit_cycles",),
    "gabactl.loops.profiles": ("Profile", "published_disturbance"),
    "gabactl.loops.simulate": ("simulate",),
    "gabactl.loops.compare": ("compare",),
    "gabactl.loops.batch": ("run_batch",),
    "gabactl.loops.scenarios": ("bundled_scenarios", "load_scenario"),
    "gabactl.loops.sweeps": ("load_sweep", "open_sweep", "run_sweep"),
    "gabactl.runs.run": ("Run",),
    "gabactl.runs.comparison": ("compare_on_run",),
    "gabactl.runs.saturation": ("saturation",),
    "gabactl.runs.units": ("unit_advice",),
    "gabactl.runs.watch": ("Watcher",),
    "gabactl.validation.check": ("check",),
    "gabactl.validation.prediction": ("predict",),
    "gabactl.identification": ("identify", "identify_paired", "judge_loop"),
    "gabactl.synthesis": ("Workload", "tune", "workload_of"),
    "gabactl.fuzzing": ("check_case", "fuzz", "fuzz_bounds", "guarantees", "reachable"),
    "gabactl.proving.engine": ("prove",),
    "gabactl.proving.library": ("theorems",),
    "gabactl.proving.theorem": ("theorem",),
    "gabactl.claims": ("ledger", "settle_claims"),
    "gabactl.reports": ("report", "write_html"),
    "gabactl.app": ("dashboard",),
}
_LAZY = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_LAZY]

if TYPE_CHECKING:
    from gabactl.app import dashboard as dashboard
    from gabactl.balancers import balancer_names as balancer_names
    from gabactl.balancers import make_balancer as make_balancer
    from gabactl.base.errors import InputError as InputError
    from gabactl.claims import ledger as ledger
    from gabactl.claims import settle_claims as settle_claims
    from gabactl.control.analysis import analyze as analyze
    from gabactl.control.describing import limit_cycles as limit_cycles
    from gabactl.control.frequency import frequency_response as frequency_response
    from gabactl.control.frequency import root_locus as root_locus
    from gabactl.control.linear import open_loop as open_loop
    from gabactl.control.linear import vector_loop as vector_loop
    from gabactl.control.margins import confirm_witnesses as confirm_witnesses
    from gabactl.control.margins import margins as margins
    from gabactl.control.margins import stabilising_gains as stabilising_gains
    from gabactl.control.noise import noise_gain as noise_gain
    from gabactl.control.noise import noise_report as noise_report
    from gabactl.control.nonlinear import equilibria as equilibria
    from gabactl.control.nonlinear import region_of_attraction as region_of_attraction
    from gabactl.control.nonlinear import small_gain as small_gain
    from gabactl.control.responses import linear_response as linear_response
    from gabactl.control.responses import ramp_response as ramp_response
    from gabactl.control.responses import step_response as step_response
    from gabactl.control.sampling import sampling_trade as sampling_trade
    from gabactl.fuzzing import check_case as check_case
    from gabactl.fuzzing import fuzz as fuzz
    from gabactl.fuzzing import fuzz_bounds as fuzz_bounds
    from gabactl.fuzzing import guarantees as guarantees
    from gabactl.fuzzing import reachable as reachable
    from gabactl.identification import identify as identify
    from gabactl.identification import identify_paired as identify_paired
    from gabactl.identification import judge_loop as judge_loop
    from gabactl.law.authority import authority as authority
    from gabactl.law.authority import required_floor as required_floor
    from gabactl.law.authority import saturation_ratio as saturation_ratio
    from gabactl.law.authority import settled_weights as settled_weights
    from gabactl.law.authority import weight_bounds as weight_bounds
    from gabactl.law.controller import Controller as Controller
    from gabactl.law.filter import filter_facts as filter_facts
    from gabactl.law.spec import GabaSpec as GabaSpec
    from gabactl.loops.batch import run_batch as run_batch
    from gabactl.loops.compare import compare as compare
    from gabactl.loops.profiles import Profile as Profile
    from gabactl.loops.profiles import published_disturbance as published_disturbance
    from gabactl.loops.scenarios import bundled_scenarios as bundled_scenarios
    from gabactl.loops.scenarios import load_scenario as load_scenario
    from gabactl.loops.simulate import simulate as simulate
    from gabactl.loops.sweeps import load_sweep as load_sweep
    from gabactl.loops.sweeps import open_sweep as open_sweep
    from gabactl.loops.sweeps import run_sweep as run_sweep
    from gabactl.plants import CallablePlant as CallablePlant
    from gabactl.plants import LogRatio as LogRatio
    from gabactl.plants import LtiPlant as LtiPlant
    from gabactl.plants import QuadraticBowls as QuadraticBowls
    from gabactl.plants import parse_plant as parse_plant
    from gabactl.proving.engine import prove as prove
    from gabactl.proving.library import theorems as theorems
    from gabactl.proving.theorem import theorem as theorem
    from gabactl.reports import report as report
    from gabactl.reports import write_html as write_html
    from gabactl.runs.comparison import compare_on_run as compare_on_run
    from gabactl.runs.run import Run as Run
    from gabactl.runs.saturation import saturation as saturation
    from gabactl.runs.units import unit_advice as unit_advice
    from gabactl.runs.watch import Watcher as Watcher
    from gabactl.synthesis import Workload as Workload
    from gabactl.synthesis import tune as tune
    from gabactl.synthesis import workload_of as workload_of
    from gabactl.traces import Trace as Trace
    from gabactl.traces import TraceWriter as TraceWriter
    from gabactl.traces import load_bundled as load_bundled
    from gabactl.traces import read_trace as read_trace
    from gabactl.traces.info import trace_info as trace_info
    from gabactl.validation.check import check as check
    from gabactl.validation.prediction import predict as predict


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gabactl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
