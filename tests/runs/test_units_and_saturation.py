"""Advice on units, and whether the floor is saturated."""

import math

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.runs.saturation import saturation
from gabactl.runs.units import unit_advice
from gabactl.traces import Trace

NO_WARMUP = GabaSpec(warmup=0)


def constant(ratio, steps=2000):
    return Trace.from_arrays(np.tile([ratio, 1.0], (steps, 1)), tasks=("rul", "health"))


class TestUnits:
    def test_a_constant_factor_removes_a_constant_imbalance(self):
        advice = unit_advice(constant(600.0), NO_WARMUP)
        assert (advice.loud, advice.quiet, advice.dwarfed) == ("rul", "health", True)
        assert advice.factor == pytest.approx(1 / 600)
        assert advice.ratio_range_after == pytest.approx((1.0, 1.0))
        assert advice.saturated_fraction > 0.85
        assert advice.saturated_fraction_after == 0.0
        assert "Multiply the rul loss by 0.00167" in advice.advice

    def test_the_loud_task_may_be_the_second(self):
        advice = unit_advice(Trace.from_arrays(np.tile([1.0, 30.0], (500, 1))))
        assert (advice.loud, advice.median_ratio) == ("task_1", pytest.approx(30.0))

    def test_comparable_units_are_left_alone(self):
        assert "leave them" in unit_advice(constant(2.0)).advice

    def test_readings_that_say_nothing_are_left_out(self):
        norms = np.tile([600.0, 1.0], (200, 1))
        norms[::3] = math.nan
        norms[1::3, 1] = 0.0
        assert unit_advice(Trace.from_arrays(norms)).median_ratio == pytest.approx(600.0)
        with pytest.raises(InputError, match="nothing to compare"):
            unit_advice(Trace.from_arrays(np.full((5, 2), math.nan)))

    def test_json_keys(self):
        keys = unit_advice(constant(600.0)).to_dict()
        assert {"factor", "median_ratio", "dwarfed", "advice", "saturated_fraction_after"} <= set(
            keys
        )


class TestSaturation:
    def test_published_regime_is_saturated(self):
        # c + (1/2 - c) beta^n < m, and m (1 + R) = 25.05x remain.
        c = 1 / 501
        first = math.ceil(math.log((0.5 - c) / (0.05 - c)) / -math.log(0.99))
        found = saturation(constant(500.0), NO_WARMUP)
        assert found.pinned_fraction == pytest.approx(1 - (first - 1) / 2000)
        assert found.pinned_fraction_by_task["health"] == 0.0
        assert found.first_pinned_step == first == 233
        assert found.residual_ratio_median == pytest.approx(25.05, abs=0.05)
        assert found.floor_needed == pytest.approx(1 / 501)
        assert found.verdict.startswith("Yes")

    def test_within_authority_it_is_not(self):
        found = saturation(constant(10.0), NO_WARMUP)
        assert (found.pinned_fraction, found.first_pinned_step) == (0.0, None)
        assert found.verdict.startswith("No")
        assert found.residual_ratio_median == pytest.approx(1.0, abs=1e-3)

    def test_a_floor_with_authority_balances(self):
        found = saturation(constant(500.0), NO_WARMUP.replace(floor=1e-4))
        assert found.pinned_fraction == 0.0

    def test_clamp_state_is_pinned_although_never_below(self):
        found = saturation(constant(500.0), NO_WARMUP.replace(floor_mode="clamp_state"))
        assert found.saturated_fraction == 0.0
        assert found.pinned_fraction > 0.85

    def test_only_warm_up_is_refused_with_a_remedy(self):
        with pytest.raises(InputError, match="lower --warmup"):
            saturation(constant(500.0, steps=50))

    def test_the_trace_s_own_settings_are_the_default(self):
        trace = constant(500.0).replace(metadata={"spec": GabaSpec(floor=1e-4, warmup=0).to_dict()})
        assert saturation(trace).spec.floor == 1e-4
