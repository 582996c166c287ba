"""The exact interval of reachable weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.fuzzing import reachable
from gabactl.law.authority import weight_bounds
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec

MODES = CHOICES["floor_mode"]
SETTINGS = [
    GabaSpec(k, beta, floor, 0, law, mode)
    for k, law, mode, (beta, floor) in itertools.product(
        (2, 3, 5), CHOICES["law"], MODES, ((0.9, 0.05), (0.5, 0.15), (0.0, 0.1))
    )
]


@pytest.mark.parametrize("spec", SETTINGS, ids=str)
def test_the_extremal_readings_attain_the_interval(spec):
    reach = reachable(spec, 12)
    low = high = None
    for reading, pick in ((reach.low_reading, min), (reach.high_reading, max)):
        controller = Controller(spec)
        weights = [float(controller.observe(reading)[0]) for _ in range(12)]
        low, high = (pick(weights), high) if pick is min else (low, pick(weights))
    if reach.low_is_exact:
        assert low == pytest.approx(float(reach.low), abs=1e-12)
    assert high == pytest.approx(float(reach.high), abs=1e-12)


@pytest.mark.parametrize("spec", SETTINGS[::3], ids=str)
def test_no_random_sequence_leaves_the_interval(spec):
    rng = np.random.default_rng(0)
    for n in (1, 4, 9):
        reach = reachable(spec, n)
        low, high = float(reach.low) - 1e-14, float(reach.high) + 1e-14
        for _ in range(25):
            controller = Controller(spec)
            # Many vertices of the simplex, where the extremes are.
            rows = 10.0 ** rng.choice([-20, 0, 0, 20], size=(n, spec.n_tasks))
            weights = np.array([controller.observe(row) for row in rows])
            assert weights.min() >= low
            assert weights.max() <= high


@pytest.mark.parametrize("spec", SETTINGS[:24], ids=str)
def test_after_many_readings_it_is_the_range_of_the_analysis(spec):
    reach, bounds = reachable(spec, 2000), weight_bounds(spec)
    assert float(reach.low) == pytest.approx(bounds.lower, abs=1e-12)
    assert float(reach.high) == pytest.approx(bounds.upper, abs=1e-12)


def test_published_setting():
    # 1/21 and 20/21: the floor 0.05 renormalised against a weight of 1.
    reach = reachable(GabaSpec(), 5000)
    assert float(reach.low) == pytest.approx(1 / 21, abs=1e-15)
    assert float(reach.high) == pytest.approx(20 / 21, abs=1e-15)
    assert '"readings": 5000' in reach.to_json()


def test_clamped_state_says_when_its_low_end_is_only_a_bound():
    spec = GabaSpec(n_tasks=3, floor_mode="clamp_state")
    assert not reachable(spec, 3).low_is_exact
    assert reachable(spec, 3000).low_is_exact


def test_a_negative_number_of_readings_is_refused():
    with pytest.raises(InputError, match="readings = -1"):
        reachable(GabaSpec(), -1)
