"""Linear models. Filter facts against the published and derived numbers, and against scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import signal

from gabactl.controller import smooth
from gabactl.linear import filter_facts
from gabactl.spec import GabaSpec


class TestFilterFacts:
    def test_default(self):
        # Derived: -1/ln 0.99, ln 9 of it, (1-b)/(1+b); published: "100 steps", "30+ dB".
        facts = filter_facts(GabaSpec())
        assert facts.time_constant_steps == pytest.approx(99.499, abs=5e-4)
        assert facts.rise_time_steps == pytest.approx(218.6, abs=0.05)
        assert facts.settling_updates == 390
        assert facts.cutoff_rad_per_step == pytest.approx(0.010050, abs=5e-7)
        assert facts.group_delay_dc_steps == pytest.approx(99.0)
        assert facts.noise_power_gain == pytest.approx(0.0050251, abs=5e-8)
        assert facts.noise_power_gain_db == pytest.approx(-22.99, abs=5e-3)
        assert facts.nyquist_amplitude_db == pytest.approx(-45.98, abs=5e-3)

    @pytest.mark.parametrize(("interval", "lag"), [(1, 99.00), (10, 99.08), (50, 101.08)])
    def test_ramp_lag_of_a_sampled_sensor(self, interval, lag):
        facts = filter_facts(GabaSpec(interval=interval))
        assert facts.group_delay_dc_steps == pytest.approx(lag, abs=5e-3)
        assert facts.time_constant_steps == pytest.approx(99.499, abs=5e-4)
        # Simulated: hold between readings of a ramp, averaged over the interval.
        ema, lags = 0.0, []
        for step in range(200 * interval + 3000):
            if step % interval == 0:
                ema = float(smooth(ema, float(step), 0.99, interval))
            lags.append(step - ema)
        assert np.mean(lags[-10 * interval :]) == pytest.approx(lag, abs=5e-3)

    def test_noise_of_a_sampled_sensor(self):
        assert filter_facts(GabaSpec(interval=10)).noise_power_gain == pytest.approx(
            0.0502, abs=5e-5
        )

    @pytest.mark.parametrize("beta", [0.2, 0.5, 0.9, 0.999])
    def test_against_scipy(self, beta):
        facts = filter_facts(GabaSpec(beta=beta))
        b, a = [1 - beta], [1, -beta]
        _, at = signal.freqz(b, a, [facts.cutoff_rad_per_step, math.pi])
        assert abs(at[0]) ** 2 == pytest.approx(0.5, rel=1e-9)
        assert abs(at[1]) == pytest.approx(facts.nyquist_amplitude, rel=1e-12)
        pulse = signal.lfilter(b, a, np.eye(1, 40_000)[0])
        assert np.sum(pulse**2) == pytest.approx(facts.noise_power_gain, rel=1e-9)
        step = np.cumsum(pulse)
        outside = np.flatnonzero(np.abs(step - 1) > 0.02)
        assert facts.settling_updates == (outside[-1] + 2 if outside.size else 1)

    def test_no_cutoff_has_a_reason(self):
        edge = 3 - 2 * math.sqrt(2)
        assert filter_facts(GabaSpec(beta=edge * 1.001)).cutoff_rad_per_step is not None
        report = json.loads(filter_facts(GabaSpec(beta=edge * 0.999)).to_json())
        assert report["cutoff_rad_per_step"] is None
        assert "3 dB" in report["cutoff_reason"]

    def test_no_smoothing(self):
        facts = filter_facts(GabaSpec(beta=0.0))
        assert facts.time_constant_steps == 0.0
        assert facts.noise_power_gain == 1.0
        assert facts.group_delay_dc_steps == 0.0
        assert facts.settling_updates == 1

    def test_very_slow_filter_keeps_its_digits(self):
        beta = 1 - 1e-9
        facts = filter_facts(GabaSpec(beta=beta))
        assert facts.cutoff_rad_per_step == pytest.approx(-math.log(beta), rel=1e-6)

    def test_prints(self):
        assert "99.499 steps" in str(filter_facts(GabaSpec()))


def test_to_control_has_feed_through_and_its_timebase():
    system = GabaSpec(beta=0.9, interval=5).to_control()
    assert system.dt == 5
    assert system.poles() == pytest.approx([0.9**5])
    assert system(1e12).real == pytest.approx(1 - 0.9**5)  # feed-through
    assert GabaSpec(beta=0.0).to_control().dcgain() == pytest.approx(1.0)
