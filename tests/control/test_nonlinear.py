"""The nonlinear loop: balance points against step-by-step simulation, oscillations, certificates."""

from __future__ import annotations

import json
import math
import sys
from fractions import Fraction

import control
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.control.certificates import (
    circle,
    exact_circle,
    lyapunov,
    positive_definite,
    sector_of_exact_loop,
    tsypkin,
)
from gabactl.control.describing import (
    limit_cycles,
    saturation_describing_function,
    saturation_limit_cycle,
)
from gabactl.control.linear import open_loop
from gabactl.control.nonlinear import (
    contraction_rate,
    equilibria,
    region_of_attraction,
    simulate_log_ratio,
    small_gain,
)
from gabactl.law.authority import closed_loop_authority
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.plants import LogRatio, QuadraticBowls

MODES = CHOICES["floor_mode"]


def _simulate(spec, plant, d, first, n_steps):
    """y at the end, by the reference controller and the plant protocol."""
    controller = Controller(spec.replace(warmup=0))
    controller.ema_weights = np.array([first, 1 - first])
    state, y = plant.start(), 0.0
    for _ in range(n_steps):
        norms = state.measure(d)
        y = math.log(norms[0] / norms[1])
        state.apply(controller.observe(norms))
    return y


class TestEquilibria:
    # Derivation of the balance points: y = d + rho [ln(1/m) - ln(1 + e^-y)] past the knee.
    @pytest.mark.parametrize(
        ("rho", "verdict", "ys"),
        [
            (0.5, "stable", [0.0]),
            (0.9, "stable", [0.0]),
            (1.0, "neutral", []),
            (1.1, "bistable", [-3.254, 0.0, 3.254]),
            (1.3, "bistable", None),
            (-3.0, "stable", [0.0]),
            (-20.0, "stable", [0.0]),
            (-198.0, "stable", [0.0]),
            (-200.0, "unstable", [0.0]),
        ],
    )
    def test_statements_are_what_the_simulation_does(self, rho, verdict, ys):
        found = equilibria(GabaSpec(), LogRatio(rho))
        assert found.verdict == verdict
        points = [p.log_ratio for p in found.points]
        if ys is not None:
            assert points == pytest.approx(ys, abs=5e-4)
        n_steps = 8_000
        start = 0.4999 if rho == -200.0 else 0.45
        ema, y = simulate_log_ratio(GabaSpec(), LogRatio(rho), 0.0, [start], n_steps)
        end = float(y[-1, 0])
        if verdict == "stable":
            assert end == pytest.approx(0.0, abs=1e-4)
        elif verdict == "neutral":
            # Stays where it starts.
            assert ema[-1, 0] == pytest.approx(start, abs=1e-9)
            assert found.continuum == pytest.approx((-math.log(19), math.log(19)))
        elif verdict == "bistable":
            # ema_1 < 1/2 is the balance point with task 1 the louder.
            assert end == pytest.approx(points[2], abs=1e-3)
            assert found.points[1].verdict == "unstable"
        else:
            (cycle,) = limit_cycles(GabaSpec(), LogRatio(rho)).limit_cycles
            swing = np.ptp(y[-100:, 0]) / 2
            assert swing > 0.01
            assert swing == pytest.approx(cycle.log_ratio_amplitude, rel=0.1)

    def test_the_reference_controller_agrees_at_rho_1_1(self):
        spec = GabaSpec(beta=0.9)
        y = _simulate(spec, LogRatio(1.1), 0.0, 0.4, 3000)
        assert y == pytest.approx(3.254, abs=5e-4)

    @settings(max_examples=30, deadline=None)
    @given(
        rho=st.floats(-10, 30),
        d=st.floats(-8, 8),
        floor=st.sampled_from([0.0, 0.01, 0.05, 0.3]),
        floor_mode=st.sampled_from(MODES),
    )
    def test_every_rest_is_found(self, rho, d, floor, floor_mode):
        """Against sign changes on a fine grid; and the loop stays at each one found."""
        from gabactl.control.nonlinear import settled_log_weights

        spec = GabaSpec(beta=0.5, floor=floor, floor_mode=floor_mode)
        if abs(rho - 1.0) < 1e-3:
            return
        found = equilibria(spec, LogRatio(rho), disturbance=d)
        for point in found.points:
            assert point.log_ratio - d + rho * point.log_weights == pytest.approx(0, abs=1e-7)
            if 1e-9 < point.ema < 1 - 1e-9 and floor_mode != "clamp_state" and floor > 0:
                ema, _ = simulate_log_ratio(spec, LogRatio(rho), d, [point.ema], 1)
                assert ema[0, 0] == pytest.approx(point.ema, abs=1e-7)
        if floor == 0.0:
            return
        y = np.linspace(-150.0, 150.0, 60_008)
        excess = y - d + rho * settled_log_weights(spec, y)
        changes = np.flatnonzero(np.diff(np.sign(excess)) != 0)
        assert len(found.points) >= len(changes)

    @pytest.mark.parametrize("floor_mode", MODES)
    @pytest.mark.parametrize("d", [0.5, 2.0, 6.0])
    @pytest.mark.parametrize("rho", [0.5, -2.0])
    def test_the_simulation_ends_at_the_balance_point(self, floor_mode, d, rho):
        spec = GabaSpec(beta=0.9, floor_mode=floor_mode)
        (point,) = equilibria(spec, LogRatio(rho, a=0.3), disturbance=d).points
        y = _simulate(spec, LogRatio(rho, a=0.3), d, 0.5, 600)
        assert y == pytest.approx(point.log_ratio, abs=1e-6)

    @pytest.mark.parametrize("rho", [0.5, -1.0])
    def test_authority_is_where_contributions_stop_being_equal(self, rho):
        limit = closed_loop_authority(GabaSpec(), rho)
        inside = equilibria(GabaSpec(), LogRatio(rho), disturbance=0.99 * limit).points[0]
        outside = equilibria(GabaSpec(), LogRatio(rho), disturbance=1.05 * limit).points[0]
        assert inside.contributions == pytest.approx(0.0, abs=1e-9)
        assert outside.contributions > 0.01

    def test_bowls_are_neutral_not_stable(self):
        found = equilibria(GabaSpec(), QuadraticBowls((500, 1), (0, 1)))
        assert found.verdict == "neutral"
        assert not json.loads(found.to_json())["stable"]
        assert "not stable" in str(found)
        noisy = equilibria(GabaSpec(), QuadraticBowls((500, 1), (0, 1), noise=(0.5, 2.0)))
        assert "noise_2/noise_1 = 4" in noisy.remark

    def test_refuses(self):
        with pytest.raises(InputError, match="two tasks"):
            equilibria(GabaSpec(n_tasks=3), LogRatio(0.5))
        with pytest.raises(InputError, match="pole at z = 1"):
            equilibria(GabaSpec(), control.TransferFunction([1.0], [1.0, -1.0], 1))


def test_region_of_attraction_is_split_at_the_unstable_point():
    region = region_of_attraction(GabaSpec(beta=0.9), LogRatio(1.3), n_starts=99)
    (lo, _, first), (middle, _, none), (_, hi, second) = region.intervals
    assert (lo, hi) == pytest.approx((0.01, 0.99))
    assert middle == pytest.approx(0.5)
    assert (first, none, second) == (2, 1, 0)
    assert "ema_1 from" in str(region)


def test_contraction():
    spec = GabaSpec(warmup=0)
    one, two = Controller(spec), Controller(spec)
    one.ema_weights, two.ema_weights = np.array([0.2, 0.8]), np.array([0.7, 0.3])
    rng = np.random.default_rng(0)
    for _ in range(50):
        g = rng.lognormal(size=2)
        before = np.abs(one.ema_weights - two.ema_weights).max()
        one.observe(g)
        two.observe(g)
        after = np.abs(one.ema_weights - two.ema_weights).max()
        assert after == pytest.approx(contraction_rate(spec) * before, rel=1e-9)


class TestSmallGain:
    @settings(max_examples=20, deadline=None)
    @given(
        k=st.integers(2, 6),
        law=st.sampled_from(CHOICES["law"]),
        floor_mode=st.sampled_from(["renormalise", "affine"]),
        rho=st.floats(-0.85, 0.85),
        a=st.floats(0.0, 0.8),
        delay=st.integers(0, 3),
        interval=st.integers(1, 3),
        seed=st.integers(0, 1000),
    )
    def test_two_starts_meet(self, k, law, floor_mode, rho, a, delay, interval, seed):
        spec = GabaSpec(
            n_tasks=k,
            beta=0.5,
            floor=0.05 / k,
            law=law,
            floor_mode=floor_mode,
            interval=interval,
            warmup=0,
        )
        plant = LogRatio(rho, a, delay, k)
        assert small_gain(spec, plant).stable
        rng = np.random.default_rng(seed)
        d = rng.normal(scale=2.0, size=k)
        ends = []
        for _ in range(2):
            controller, state = Controller(spec), plant.start()
            start = rng.dirichlet(np.ones(k))
            controller.ema_weights = 0.98 * start + 0.02 / k
            for _ in range(400):
                weights = controller.observe(state.measure(d))
                state.apply(weights)
            ends.append(np.log(weights))
        assert ends[0] == pytest.approx(ends[1], abs=1e-4)

    def test_hilbert_metric_does_not_expand(self):
        """The lemma behind the theorem, for both laws and both floors."""
        from gabactl.law.stages import raw_weights, saturate

        def h(one, two):
            ratio = np.log(one / two)
            return ratio.max(-1) - ratio.min(-1)

        rng = np.random.default_rng(1)
        for k in (2, 3, 6):
            one, two = rng.lognormal(sigma=2, size=(2, 500, k))
            for law in CHOICES["law"]:
                raws = raw_weights(one, law), raw_weights(two, law)
                assert (h(*raws) <= h(one, two) + 1e-9).all()
                for mode in ("renormalise", "affine"):
                    out = [saturate(r, 0.3 / k, mode) for r in raws]
                    assert (h(*out) <= h(*raws) + 1e-9).all()

    def test_says_what_it_does_not_cover(self):
        result = small_gain(GabaSpec(n_tasks=3, floor_mode="project"), LogRatio(0.1, n_tasks=3))
        assert not result.covered
        assert not result.stable
        assert small_gain(GabaSpec(), control.TransferFunction([0.3], [1, -0.5], 1)).plant_gain == (
            pytest.approx(0.6)
        )


class TestDescribingFunction:
    @pytest.mark.parametrize("amplitude", [0.3, 1.0, 2.0, 10.0])
    @pytest.mark.parametrize("bias", [0.0, 0.4, -0.9, 1.5, 3.0])
    def test_closed_form_is_the_integral(self, amplitude, bias):
        phases = 2 * np.pi * (np.arange(200_000) + 0.5) / 200_000
        output = np.clip(bias + amplitude * np.cos(phases), -1, 1)
        mean, gain = saturation_describing_function(amplitude, bias)
        assert mean == pytest.approx(output.mean(), abs=1e-6)
        assert gain == pytest.approx(2 * (output * np.cos(phases)).mean() / amplitude, abs=1e-6)

    def test_no_oscillation_of_a_stable_loop(self):
        assert saturation_limit_cycle(control.TransferFunction([0.5], [1, -0.5], 1)) is None

    @pytest.mark.parametrize(
        ("rho", "a", "delay", "d", "beta"),
        [
            (-40, 0, 5, 0.0, 0.99),
            (-40, 0, 5, 1.0, 0.99),
            (-32, 0, 5, 0.0, 0.99),
            (-120, 0, 1, 0.0, 0.99),
            (-250, 0, 0, 0.0, 0.99),
            (-250, 0, 0, 2.0, 0.99),
            pytest.param(-6, 0, 50, 0.0, 0.99, marks=pytest.mark.slow),
            pytest.param(-6, 0, 50, 3.0, 0.99, marks=pytest.mark.slow),
            (-5, 0.5, 5, 1.0, 0.9),
        ],
    )
    def test_predicted_oscillations_are_the_simulated_ones(self, rho, a, delay, d, beta):
        spec, plant = GabaSpec(beta=beta), LogRatio(rho, a, delay)
        (cycle,) = limit_cycles(spec, plant, disturbance=d).limit_cycles
        assert cycle.trusted
        n_steps = 12_000 if delay > 10 else 6_000
        ema, y = simulate_log_ratio(spec, plant, d, [0.45], n_steps)
        x, y = ema[-3000:, 0], y[-3000:, 0]
        assert np.ptp(x) / 2 == pytest.approx(cycle.ema_amplitude, rel=0.1)
        assert np.ptp(y) / 2 == pytest.approx(cycle.log_ratio_amplitude, rel=0.1)
        assert x.mean() == pytest.approx(cycle.ema_bias, rel=0.1)
        assert y.mean() == pytest.approx(cycle.log_ratio_bias, abs=0.1 * cycle.log_ratio_amplitude)
        # Padded, so that a slow oscillation is told to better than one period in the record.
        spectrum = np.abs(np.fft.rfft((x - x.mean()) * np.hanning(x.size), 2**17))
        w = 2 * np.pi * spectrum.argmax() / 2**17
        assert w == pytest.approx(cycle.frequency_rad_per_step, rel=0.02)

    def test_a_distorted_oscillation_is_not_trusted(self):
        (cycle,) = limit_cycles(GabaSpec(beta=0.9), LogRatio(-40.0, 0.9, 3)).limit_cycles
        assert not cycle.trusted
        assert "harmonics" in cycle.reason

    def test_none_where_the_loop_is_stable(self):
        assert limit_cycles(GabaSpec(), LogRatio(-10.0)).limit_cycles == ()
        assert "come to rest" in str(limit_cycles(GabaSpec(), LogRatio(-10.0)))

    def test_refuses_what_it_does_not_model(self):
        with pytest.raises(InputError, match="interval"):
            limit_cycles(GabaSpec(interval=2), LogRatio(-10.0))
        with pytest.raises(InputError, match="clamp"):
            limit_cycles(GabaSpec(floor_mode="clamp_state"), LogRatio(-10.0))


class TestCertificates:
    @pytest.mark.parametrize(("rho", "delay"), [(-50.0, 0), (0.5, 0), (-2.0, 50), (-20.0, 5)])
    def test_criteria_of_stable_loops(self, rho, delay):
        loop = open_loop(GabaSpec(), LogRatio(rho, delay=delay))
        assert tsypkin(loop).certified
        assert tsypkin(loop).margin >= circle(loop).margin - 1e-9

    @pytest.mark.parametrize("rho", [1.05, -200.0, -250.0])
    def test_no_certificate_for_an_unstable_loop(self, rho):
        loop = open_loop(GabaSpec(), LogRatio(rho))
        assert not circle(loop).certified
        assert not tsypkin(loop).certified
        assert not lyapunov(GabaSpec(), LogRatio(rho)).certified

    def test_circle_is_the_left_most_point(self):
        """Sector [0, 1]: the same as Re L > -1 everywhere, here against a dense grid."""
        for k in np.linspace(1.0, 30.0, 12):
            system = control.TransferFunction([0.1 * k], [1, -0.9, 0, 0], 1)
            w = np.linspace(1e-4, np.pi, 20_001)
            leftmost = np.real(system(np.exp(1j * w))).min()
            if abs(leftmost + 1) > 1e-3:
                assert circle(system).certified == (leftmost > -1)

    def test_a_certified_loop_comes_to_rest_under_any_slope(self):
        rng = np.random.default_rng(3)
        system = control.TransferFunction([0.6], [1, -0.6, 0.1, 0.0], 1)
        assert tsypkin(system).certified
        for _ in range(20):
            limit, slope = rng.uniform(0.01, 3), rng.uniform(0.1, 1.0)
            y = np.zeros(600)
            y[:3] = rng.normal(size=3) * 10
            for t in range(3, y.size):
                y[t] = (
                    0.6 * y[t - 1] - 0.1 * y[t - 2] - 0.6 * np.clip(slope * y[t - 3], -limit, limit)
                )
            assert np.abs(y[-50:]).max() < 1e-3

    def test_model_is_named(self):
        assert "linearised" in str(circle(open_loop(GabaSpec(), LogRatio(-3.0))))
        assert "exact loop" in str(exact_circle(GabaSpec(), LogRatio(0.5)))

    def test_exact_loop_has_slopes_above_one(self):
        # Derived: 1.60 at x = m for rho = 0.5.
        _, _, steepest = sector_of_exact_loop(GabaSpec(), 0.5)
        assert steepest == pytest.approx(1.60, abs=0.005)
        x = 0.05
        r = (x / (1 - x)) ** 0.5
        assert steepest == pytest.approx(0.5 * r / (1 + r) ** 2 / (x * (1 - x)), rel=1e-3)

    def test_exact_circle_covers_what_small_slopes_allow(self):
        assert exact_circle(GabaSpec(), LogRatio(-3.0, delay=1)).certified
        with pytest.raises(InputError, match="balance points"):
            exact_circle(GabaSpec(), LogRatio(1.3))
        with pytest.raises(InputError, match="a = 0"):
            exact_circle(GabaSpec(), LogRatio(0.5, a=0.5))

    @pytest.mark.parametrize(
        ("rho", "a", "delay"), [(-3.0, 0.0, 0), (0.5, 0.9, 0), (-0.3, 0.9, 2), (-60.0, 0.0, 0)]
    )
    def test_lyapunov_function_falls(self, rho, a, delay):
        """The certificate, used: s'Ps falls along simulated states, in exact arithmetic."""
        certificate = lyapunov(GabaSpec(), LogRatio(rho, a, delay))
        assert certificate.certified
        p = certificate.matrix
        beta, r, lag = Fraction("0.99"), Fraction(str(rho)), Fraction(str(a))
        limit = Fraction(3)

        def value(s):
            n = range(len(s))
            return sum(s[i] * p[i][j] * s[j] for i in n for j in n)

        s = [Fraction(5), Fraction(-2), *[Fraction(1)] * delay]
        for _ in range(12):
            v = beta * s[0] + (1 - beta) * r * s[1]
            phi = max(-limit, min(limit, v))
            arriving = phi if delay == 0 else s[-1]
            after = [v, lag * s[1] + (1 - lag) * arriving]
            if delay:
                after += [phi, *s[2:-1]]
            assert value(after) < value(s)
            s = [x.limit_denominator(10**12) for x in after]

    def test_exact_elimination(self):
        one, two = Fraction(1), Fraction(2)
        assert positive_definite([[two, one], [one, two]])
        assert not positive_definite([[one, two], [two, one]])
        assert not positive_definite([[Fraction(0)]])

    def test_a_wrong_matrix_is_refused(self, monkeypatch):
        """The verification decides, not the solver."""
        import gabactl.control.certificates as module

        monkeypatch.setattr(module, "_solve_lmi", lambda a, b, c: (np.eye(2), 1.0))
        assert not lyapunov(GabaSpec(), LogRatio(-60.0)).certified

    def test_missing_extra_is_one_line(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "cvxpy", None)
        with pytest.raises(InputError, match=r"pip install 'gabactl\[lmi\]'"):
            lyapunov(GabaSpec(), LogRatio(-3.0))
