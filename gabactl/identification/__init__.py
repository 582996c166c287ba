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

from gabactl.identification.arx import ArxOrders, select_arx
from gabactl.identification.estimate import Identification, identify, identify_paired
from gabactl.identification.likelihood import ProfileLikelihood
from gabactl.identification.noise import NoiseModel, fit_noise
from gabactl.identification.output_error import OutputErrorFit, fit_output_error
from gabactl.identification.randomisation import Placebo, Randomisation
from gabactl.identification.signals import ExcitedRun
from gabactl.identification.synthetic import ExcitedRuns, simulate_excited
from gabactl.identification.verdict import LoopVerdict, judge_loop, loop_radius

__all__ = [
    "ArxOrders",
    "ExcitedRun",
    "ExcitedRuns",
    "Identification",
    "LoopVerdict",
    "NoiseModel",
    "OutputErrorFit",
    "Placebo",
    "ProfileLikelihood",
    "Randomisation",
    "fit_noise",
    "fit_output_error",
    "identify",
    "identify_paired",
    "judge_loop",
    "loop_radius",
    "select_arx",
    "simulate_excited",
]
