"""The widening of a range covers rounding, and no more than is needed."""

import numpy as np

from gabactl.fuzzing import fuzz_bounds, resolve
from gabactl.fuzzing.properties import Bounds, make_property
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec


def settled(k, reading, steps=4000):
    controller = Controller(GabaSpec(n_tasks=k, warmup=0))
    return max(controller.observe(reading).max() for _ in range(steps))


def test_four_ulp_are_not_enough_for_more_than_two_tasks():
    # Constant readings at which the rounding stays in the average (theorem ROUND-4ulp).
    for k, reading in ((3, (0, 2, 5)), (4, (0, 1, 1, 5))):
        prop = make_property("bounds", resolve("gaba", GabaSpec(n_tasks=k, warmup=0)), "tight")
        assert isinstance(prop, Bounds)
        top = settled(k, np.array(reading, dtype=float))
        plain = Bounds(prop.low, prop.high).limits(2.0**-52)[1]
        assert plain < top <= prop.limits(2.0**-52)[1]


def test_the_widening_stays_small():
    target = resolve("gaba", GabaSpec(n_tasks=8, warmup=0))
    prop = make_property("bounds", target, "tight")
    low, high = prop.limits(target.resolution)
    assert high - prop.high < 1e-12
    assert prop.low - low < 1e-12


def test_no_false_violation_for_more_tasks():
    for k in (3, 4, 8):
        assert fuzz_bounds(GabaSpec(n_tasks=k, floor=0.01), steps=100_000).violations == 0
