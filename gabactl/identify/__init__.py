"""How gradient norms answer to loss weights, identified from recorded runs.

The loop cannot be judged without the plant, and the plant cannot be guessed: noise-free gradient
descent gives positive feedback, stochastic training measured so far weak negative feedback.

Examples
--------
>>> run = simulate_excited(rho=-1.0, a=0.8, steps=3000, seed=1).run(0)
>>> identify(run).sign
'negative'
"""

from __future__ import annotations

from gabactl.identify.arx import ArxOrders, select_arx
from gabactl.identify.identification import Identification, identify, identify_paired
from gabactl.identify.noise import NoiseModel, fit_noise
from gabactl.identify.output_error import OutputErrorFit, fit_output_error
from gabactl.identify.profile import Profile
from gabactl.identify.randomisation import Placebo, Randomisation
from gabactl.identify.signals import Signals
from gabactl.identify.synthetic import ExcitedRuns, simulate_excited
from gabactl.identify.verdict import LoopVerdict, judge_loop, loop_radius

__all__ = [
    "ArxOrders",
    "ExcitedRuns",
    "Identification",
    "LoopVerdict",
    "NoiseModel",
    "OutputErrorFit",
    "Placebo",
    "Profile",
    "Randomisation",
    "Signals",
    "fit_noise",
    "fit_output_error",
    "identify",
    "identify_paired",
    "judge_loop",
    "loop_radius",
    "select_arx",
    "simulate_excited",
]
