"""Linear models. Filter facts against the published and derived numbers, and against scipy."""

from __future__ import annotations

import json
import math

import control
import numpy as np
import pytest
from scipy import signal

from gabactl.base.errors import InputError
from gabactl.control import responses
from gabactl.control.frequency import frequency_response, root_locus
from gabactl.control.linear import (
    controller_jacobian,
    floor_slope,
    open_loop,
    vector_loop,
)
from gabactl.control.responses import step_response
from gabactl.law.controller import Controller
from gabactl.law.filter import filter_facts, filter_system
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.law.stages import raw_weights, saturate, smooth
from gabactl.plants import CallablePlant, LogRatio, LtiPlant, QuadraticBowls


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
    system = filter_system(GabaSpec(beta=0.9, interval=5))
    assert system.dt == 5
    assert system.poles() == pytest.approx([0.9**5])
    assert system(1e12).real == pytest.approx(1 - 0.9**5)  # feed-through
    assert filter_system(GabaSpec(beta=0.0)).dcgain() == pytest.approx(1.0)


class TestFloorSlope:
    @pytest.mark.parametrize("floor_mode", CHOICES["floor_mode"])
    @pytest.mark.parametrize("y", [0.0, 1.0, -2.5, 2.9, 3.5, -5.0])
    def test_is_the_derivative_of_the_settled_answer(self, floor_mode, y):
        from gabactl.control.nonlinear import settled_log_weights

        spec = GabaSpec(floor_mode=floor_mode)
        up, down = settled_log_weights(spec, [y + 1e-5, y - 1e-5])
        assert floor_slope(spec, y) == pytest.approx(-(up - down) / 2e-5, abs=1e-8)

    def test_at_the_floor_feedback_vanishes(self):
        # Derived: du/dy = -1/(1 + R).
        loop = open_loop(GabaSpec(), LogRatio(-3.0), ratio=500.0)
        assert loop.slope == pytest.approx(1 / 501)


class TestLoop:
    def test_is_the_product_of_filter_and_plant(self):
        loop = open_loop(GabaSpec(beta=0.9), LogRatio(-2.0, 0.5, 3))
        product = filter_system(GabaSpec(beta=0.9)) * LogRatio(-2.0, 0.5, 3).to_control()
        z = np.exp(1j * np.linspace(0.01, 3.1, 9))
        assert loop.rational(z) == pytest.approx(product(z), rel=1e-10)
        assert loop.to_control()(z) == pytest.approx(product(z), rel=1e-10)

    @pytest.mark.parametrize("ratio", [1.0, 3.0, 100.0])
    def test_share_coordinates_see_the_same_loop(self, ratio):
        gains = open_loop(GabaSpec(), LogRatio(0.5), ratio).share_gains(ratio)
        blocks = gains["sensor"] * gains["comparator"] * gains["proportional"] * gains["weights"]
        assert blocks == pytest.approx(gains["product"])
        assert gains["product"] == pytest.approx(-open_loop(GabaSpec(), LogRatio(0.5), ratio).slope)

    def test_closed_loop_maps(self):
        loop = open_loop(GabaSpec(), LogRatio(-2.0, 0.5))
        maps = loop.closed_loop()
        z = np.exp(0.3j)
        value = loop.rational(z)
        assert maps["sensitivity"](z) == pytest.approx(1 / (1 + value))
        assert maps["complementary"](z) == pytest.approx(value / (1 + value))
        f = filter_system(GabaSpec())(z)
        assert maps["weights"](z) == pytest.approx(-f / (1 + value))
        # q = y + u, and zero at DC.
        assert maps["contributions"](z) == pytest.approx(
            maps["sensitivity"](z) + maps["weights"](z)
        )
        assert abs(maps["contributions"](1.0)) < 1e-9

    def test_accepts_python_control(self):
        by_name = open_loop(GabaSpec(), LogRatio(-2.0, 0.5, 2)).closed
        transfer = LogRatio(-2.0, 0.5, 2).to_control()
        for plant in (transfer, control.ss(transfer), LtiPlant(transfer)):
            closed = open_loop(GabaSpec(), plant).closed
            assert np.sort(np.abs(closed.poles)) == pytest.approx(
                np.sort(np.abs(by_name.poles)), abs=1e-6
            )

    @pytest.mark.parametrize(
        ("plant", "message"),
        [
            (CallablePlant(lambda seed: lambda w: [1.0, 1.0]), "no transfer function"),
            (QuadraticBowls((1, 2), (0, 1)), "no transfer function"),
            (control.TransferFunction([1.0], [1.0], 1), "feed-through"),
            (control.TransferFunction([1.0], [1.0, 1.0]), "discrete"),
            (control.TransferFunction([1.0], [1.0, 0.5], 5), "dt = 5"),
            ("P(z)", "type str"),
        ],
    )
    def test_refuses(self, plant, message):
        with pytest.raises(InputError, match=message):
            open_loop(GabaSpec(), plant)


class TestVectorLoop:
    @pytest.mark.parametrize("k", [2, 3, 7])
    def test_slopes_at_balance(self, k):
        # Derived: 1 with the inverse law, 1/(K-1) with the complement law.
        plant = LogRatio(-1.0, n_tasks=k)
        inverse = vector_loop(GabaSpec(n_tasks=k, law="inverse", floor=0.01), plant)
        complement = vector_loop(GabaSpec(n_tasks=k, floor=0.01), plant)
        assert inverse.slopes == pytest.approx(np.ones(k - 1))
        assert complement.slopes == pytest.approx(np.full(k - 1, 1 / (k - 1)))

    @pytest.mark.parametrize("floor_mode", CHOICES["floor_mode"])
    @pytest.mark.parametrize("law", CHOICES["law"])
    @pytest.mark.parametrize("norms", [[1.0, 2.0, 7.0], [1.0, 1.0, 60.0], [0.01, 1.0, 1.3]])
    def test_jacobian_is_the_derivative(self, floor_mode, law, norms):
        spec = GabaSpec(n_tasks=3, floor_mode=floor_mode, law=law)

        def answer(log_norms):
            w = saturate(raw_weights(np.exp(log_norms), law), spec.floor, floor_mode)
            return np.log(w) - np.log(w).mean()

        at, step = np.log(norms), 1e-6
        numeric = np.stack(
            [(answer(at + step * e) - answer(at - step * e)) / (2 * step) for e in np.eye(3)],
            axis=1,
        )
        assert controller_jacobian(spec, norms) == pytest.approx(numeric, abs=1e-6)

    @pytest.mark.parametrize("law", CHOICES["law"])
    @pytest.mark.parametrize("rho", [0.9, 1.9, 2.1])
    def test_verdict_is_what_the_simulation_does(self, law, rho):
        spec = GabaSpec(n_tasks=3, beta=0.5, law=law, warmup=0, floor=0.0)
        plant = LogRatio(rho, n_tasks=3)
        verdict = vector_loop(spec, plant).verdict
        controller, state = Controller(spec), plant.start()
        sizes = []
        for t in range(120):
            w = controller.observe(state.measure([1e-4, -2e-4, 1e-4] if t < 3 else [0.0] * 3))
            state.apply(w)
            sizes.append(np.abs(w - 1 / 3).max())
        assert (sizes[-1] < sizes[20]) == (verdict == "stable")

    def test_two_tasks_are_the_scalar_loop(self):
        plant = LogRatio(-20.0, 0.3, 2)
        scalar = open_loop(GabaSpec(), plant).closed.poles
        assert vector_loop(GabaSpec(), plant).poles == pytest.approx(scalar)


class TestResponses:
    @pytest.mark.parametrize("rho", [5.0, -3.0, -30.0])
    @pytest.mark.parametrize("interval", [1, 7])
    def test_the_horizon_fits(self, rho, interval):
        loop = open_loop(GabaSpec(beta=0.95, interval=interval), LogRatio(rho / 10, 0.5))
        response = step_response(loop)
        settled = -1.0 / (1.0 + float(np.real(loop.rational(1.0))))
        assert response.log_weights[-2 * interval :] == pytest.approx(settled, rel=1e-3)
        assert response.settling_steps < response.steps / 1.5

    def test_steady_state_in_both_coordinates(self):
        info = step_response(open_loop(GabaSpec(), LogRatio(-1.0)), size=2.0)
        # y = d/(1 - rho): the share is never brought to 1/2, the contributions are equal.
        assert info.share_error == pytest.approx(0.5 - 1 / (1 + math.exp(-1.0)))
        assert info.contribution_ratio == pytest.approx(1.0)
        saturated = step_response(open_loop(GabaSpec(), LogRatio(0.0), ratio=500.0))
        assert saturated.contribution_log_ratio == pytest.approx(1 - 1 / 501)

    def test_filtered_and_stepped_runs_agree(self):
        loop = open_loop(GabaSpec(beta=0.9), LogRatio(-2.0, 0.5, 3), sensor_delay=2)
        d = np.random.default_rng(0).normal(size=200)
        y, u = responses._simulate(loop, d)
        y2, u2 = responses._simulate_steps(loop, d)
        assert y == pytest.approx(y2, abs=1e-9)
        assert u == pytest.approx(u2, abs=1e-9)

    def test_an_unstable_loop_has_no_step_info(self):
        info = step_response(open_loop(GabaSpec(), LogRatio(1.3)))
        assert info.settling_steps is None
        assert "unstable" in info.reason

    def test_plots(self):
        loop = open_loop(GabaSpec(), LogRatio(-3.0, 0.5, 2))
        assert step_response(loop).plot().get_xlabel() == "steps"
        response = frequency_response(loop)
        assert response.plot().get_ylabel() == "Im L"
        assert response.plot_nichols().get_ylabel() == "|L| in dB"
        assert len(response.plot_bode()) == 2


class TestNyquist:
    @pytest.mark.parametrize("seed", range(12))
    def test_encirclements_counted_on_the_curve(self, seed):
        """The winding number of the drawn curve itself, with both ends of the circle on it."""
        rng = np.random.default_rng(seed)
        poles = rng.uniform(-1.2, 1.2, size=3)
        delay = int(rng.integers(0, 4))
        system = control.TransferFunction(
            [float(rng.uniform(-2, 2))], np.concatenate([np.poly(poles), np.zeros(delay)]), 1
        )
        response = frequency_response(system)
        curve = np.concatenate([response.response, np.conj(response.response[::-1])])
        turns = np.diff(np.unwrap(np.angle(1 + curve))).sum() / (2 * np.pi)
        assert response.encirclements == pytest.approx(turns, abs=1e-3)

    def test_a_pole_at_one(self):
        # z = 1 on the curve: L = 0.5/(z - 1) is stable in closed loop, and -1 is not encircled.
        response = frequency_response(control.TransferFunction([0.5], [1.0, -1.0], 1))
        assert response.verdict == "stable"
        assert response.encirclements == 0
        assert np.isfinite(response.response).all()

    def test_beyond_minus_one_at_the_nyquist_frequency(self):
        # L(-1) = -200/199 < -1: one turn that a grid ending before pi does not see.
        response = frequency_response(control.TransferFunction([2.0], [1.0, -0.99], 1))
        assert response.to_dict()["value_at_z_minus_1"] == pytest.approx(-200 / 199)
        assert response.encirclements == -1
        assert response.frequencies_rad_per_step[-1] == math.pi

    def test_own_frequencies_change_nothing_but_the_curve(self):
        response = frequency_response(
            control.TransferFunction([2.0], [1.0, -0.99], 1), frequencies=[0.1, 0.2]
        )
        assert response.encirclements == -1
        assert response.response.size == 2


class TestRootLocus:
    def test_stable_range_of_rho(self):
        ((lo, hi),) = root_locus(GabaSpec(), LogRatio(0.0)).stable_ranges
        assert (lo, hi) == (pytest.approx(-199.0), pytest.approx(1.0))

    def test_of_the_interval(self):
        locus = root_locus(
            GabaSpec(), LogRatio(-30.0), parameter="interval", values=[1, 2, 5, 10, 50]
        )
        assert [
            open_loop(GabaSpec(interval=n), LogRatio(-30.0)).closed.stable
            for n in (1, 2, 5, 10, 50)
        ] == [any(lo <= n <= hi for lo, hi in locus.stable_ranges) for n in (1, 2, 5, 10, 50)]

    def test_plot_and_errors(self):
        assert root_locus(GabaSpec(), LogRatio(0.0)).plot().get_xlabel() == "Re z"
        with pytest.raises(InputError, match="choose from beta"):
            root_locus(GabaSpec(), LogRatio(0.0), parameter="gamma")
