"""What answers to the weights: the plants a loop can be closed around.

A plant is a frozen description. ``plant.start(seed)`` gives a running copy with two methods, called
in turn at every step: ``measure(log_disturbance)`` returns the gradient norms, and
``apply(weights)`` tells the plant what the controller did with them. The weights of step t change
the norms of step t + 1 at the earliest.
"""

from gabactl.plants.base import Plant, PlantState, split_disturbance
from gabactl.plants.bowls import QuadraticBowls
from gabactl.plants.callable import CallablePlant
from gabactl.plants.log_ratio import LogRatio
from gabactl.plants.lti import LtiPlant
from gabactl.plants.text import describe_plant, parse_plant

__all__ = [
    "CallablePlant",
    "LogRatio",
    "LtiPlant",
    "Plant",
    "PlantState",
    "QuadraticBowls",
    "describe_plant",
    "parse_plant",
    "split_disturbance",
]
