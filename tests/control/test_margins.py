"""Margins: exact values, and every one confirmed by applying its witness."""

from __future__ import annotations

import json
import math

import control
import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.control._rational import Rational
from gabactl.control.linear import open_loop
from gabactl.control.margins import confirm_witnesses, margins, stabilising_gains
from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio


def random_loop(seed: int) -> Rational:
    """Orders 1-6, delays 0-50, poles up to the unit circle, gains on both sides of stability."""
    rng = np.random.default_rng(seed)
    order = int(rng.integers(1, 7))
    poles: list[complex] = []
    while len(poles) < order:
        near = rng.choice(
            [rng.uniform(0, 0.95), rng.uniform(0.95, 0.9999), 1.0], p=[0.7, 0.25, 0.05]
        )
        if order - len(poles) >= 2 and rng.random() < 0.5:
            root = near * np.exp(1j * rng.uniform(0.02, math.pi - 0.02))
            poles += [root, np.conj(root)]
        else:
            poles.append(near * rng.choice([1.0, -1.0], p=[0.8, 0.2]))
    zeros = rng.uniform(-1.5, 1.5, size=rng.integers(0, order))
    delay = int(rng.choice([0, 1, 2, rng.integers(3, 51)]))
    loop = Rational.of(zeros, [*poles, *np.zeros(delay)], 1.0)
    stable = stabilising_gains(loop)
    inside = rng.random() < 0.8
    if inside and stable:
        lo, hi = stable[0]
        hi = hi if math.isfinite(hi) else 4 * lo + 4
        return loop * float(lo + (hi - lo) * rng.uniform(0.1, 0.9))
    return loop * float(rng.uniform(0.01, 1.0))


def check_random_loop(seed: int) -> str:
    loop = random_loop(seed)
    system = loop.to_control()
    result = margins(system, skew=float(np.random.default_rng(seed).choice([0.0, 1.0, -1.0, 0.4])))
    radius = np.abs(np.roots(np.real(loop.characteristic()))).max()
    assert result.stable == (radius < 1) or abs(radius - 1) < 1e-6
    if not result.stable:
        assert result.gain_margin_up is None
        assert result.reasons["margins"]
        for lo, hi in result.stabilising_gains:
            middle = lo * 1.001 + 1e-9 if math.isinf(hi) else (lo + hi) / 2
            assert loop.closed(middle).stable
        return "unstable"
    confirmed = confirm_witnesses(system, result)
    assert all(confirmed.values()), (seed, confirmed)
    assert set(confirmed) >= {"disk_margin"}
    return "stable"


@pytest.mark.parametrize("block", range(10))
def test_witnesses_of_random_loops(block):
    """A hundred loops: stable at 0.999 of each margin, not at 1.001."""
    kinds = [check_random_loop(seed) for seed in range(10 * block, 10 * block + 10)]
    assert len(kinds) == 10


@pytest.mark.slow
@pytest.mark.parametrize("block", range(6))
def test_witnesses_of_six_hundred_more(block):
    kinds = [check_random_loop(seed) for seed in range(1000 + 100 * block, 1100 + 100 * block)]
    assert kinds.count("stable") >= 40
    assert kinds.count("unstable") >= 5


def _filter_loop(k: float, beta: float = 0.99, delay: int = 0) -> control.TransferFunction:
    """k (1 - beta)/(z - beta) z^-delay."""
    return control.TransferFunction([k * (1 - beta)], [1, -beta, *([0.0] * delay)], 1)


class TestExactValues:
    def test_every_margin_of_a_first_order_loop(self):
        # 1 + L = 0 at z = -1: k = 199; Ms = |1 + L(-1)|^-1, Mt at DC = k/(1 + k).
        k = 50.0
        result = margins(_filter_loop(k))
        assert result.gain_margin_up == pytest.approx(199 / k, rel=1e-12)
        assert result.gain_margin_down == 0.0
        assert result.reasons["gain_margin_down"] == "stable for every smaller gain"
        assert result.ms == pytest.approx(1 / (1 - k / 199), rel=1e-9)
        assert result.mt == pytest.approx(
            1 / (1 - k / 199) - 1 if k > 99.5 else k / (1 + k), rel=1e-9
        )
        cos = (1 + 0.99**2 - (0.01 * k) ** 2) / (2 * 0.99)
        w = math.acos(cos)
        value = 0.01 * k / (np.exp(1j * w) - 0.99)
        assert result.phase_margin_deg == pytest.approx(
            math.degrees(abs(np.angle(-value))), rel=1e-9
        )

    @pytest.mark.parametrize(
        ("delay", "limit"), [(0, -199.0), (1, -100.0), (5, -28.9), (50, -3.76)]
    )
    def test_lower_limit_of_rho(self, delay, limit):
        # Derived: a = 0, extra delay 0, 1, 5, 50.
        loop = open_loop(GabaSpec(), LogRatio(-1.0, delay=delay))
        result = margins(loop)
        assert -result.gain_margin_up == pytest.approx(limit, rel=2e-3)
        assert all(confirm_witnesses(loop, result).values())

    @pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
    @pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
    def test_stable_range_of_rho(self, a, beta):
        # Derived: -(1+a)(1+beta)/((1-a)(1-beta)) < rho < 1 without extra delay.
        lower = -(1 + a) * (1 + beta) / ((1 - a) * (1 - beta))
        spec = GabaSpec(beta=beta)
        for rho, verdict in [
            (lower * 1.0001, "unstable"),
            (lower * 0.9999, "stable"),
            (0.9999, "stable"),
            (1.0, "neutral"),
            (1.0001, "unstable"),
        ]:
            assert open_loop(spec, LogRatio(rho, a)).closed.verdict == verdict

    def test_stabilising_gains_are_the_range_of_rho(self):
        loop = open_loop(GabaSpec(), LogRatio(1.3))
        result = margins(loop)
        assert result.closed.verdict == "unstable"
        assert result.stabilising_gains == ((0.0, pytest.approx(1 / 1.3)),)
        assert "0.76923" in str(result)

    def test_delay_margin_of_thousands_of_steps(self):
        loop = open_loop(GabaSpec(beta=0.9999), LogRatio(-1.05, a=0.0))
        result = margins(loop)
        n = int(result.delay_margin_steps)
        assert n > 3000
        # Independent: the crossing frequency and its phase.
        w = loop.rational.gain_crossings()[0]
        angle = (math.pi + np.angle(loop.rational.at(w))) % (2 * math.pi)
        assert n == pytest.approx(angle / w, abs=1.0)

    def test_delay_margin_where_more_delay_would_be_stable_again(self):
        # Stable at 0 and 1, not at 2, though later delays may be stable: 0..n must all be.
        for k in (-0.6, -0.9, 1.3):
            loop = Rational.of([], [0.5 * np.exp(1j), 0.5 * np.exp(-1j)], k)
            verdicts = [loop.delayed(n).closed().stable for n in range(60)]
            result = margins(loop.to_control())
            if not verdicts[0]:
                assert result.delay_margin_steps is None
            elif False in verdicts:
                assert result.delay_margin_steps == verdicts.index(False) - 1
            else:
                assert result.delay_margin_steps == math.inf

    @pytest.mark.parametrize("seed", range(8))
    def test_disk_margin_identities(self, seed):
        loop = random_loop(seed)
        if not loop.closed().stable:
            loop = loop * 1e-3
        system = loop.to_control()
        if not margins(system).stable:
            pytest.skip("an open loop that no small gain stabilises")
        plus, minus = margins(system, skew=1.0), margins(system, skew=-1.0)
        assert plus.disk_margin == pytest.approx(1 / plus.ms, rel=1e-6)
        assert minus.disk_margin == pytest.approx(1 / minus.mt, rel=1e-6)

    def test_disk_contains_what_it_says(self):
        loop = _filter_loop(50.0, delay=2)
        rational = Rational.from_lti(loop)
        for skew in (-1.0, -0.3, 0.0, 0.7, 1.0):
            result = margins(loop, skew=skew)
            assert rational.closed(result.disk_gain_down * 1.0001).stable
            if math.isfinite(result.disk_gain_up):
                assert rational.closed(result.disk_gain_up * 0.9999).stable
            for angle in np.linspace(-1, 1, 41) * math.radians(result.disk_phase_deg):
                assert rational.closed(np.exp(1j * angle * 0.9999)).stable
            # On the rim of the disk: both ends of the real axis.
            for factor in (result.disk_gain_down, result.disk_gain_up):
                if 0 < factor < math.inf:
                    delta = (factor - 1) / ((1 - skew) / 2 + (1 + skew) / 2 * factor)
                    assert abs(delta) == pytest.approx(result.disk_margin, rel=1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_peaks_against_a_dense_grid(self, seed):
        loop = random_loop(500 + seed) * 0.5
        result = margins(loop.to_control())
        if not result.stable:
            return
        w = np.linspace(1e-3, math.pi, 40_001)
        sensitivity = 1 / (1 + loop.at(w))
        assert result.ms >= np.abs(sensitivity).max() * (1 - 1e-9)
        assert result.mt >= np.abs(1 - sensitivity).max() * (1 - 1e-9)
        near = np.abs(sensitivity - sensitivity[np.abs(sensitivity).argmax()]) < 1
        assert near.any()


class TestSampledSensor:
    @pytest.mark.parametrize("interval", [2, 3, 10])
    @pytest.mark.parametrize("delay", [0, 1, 5])
    @pytest.mark.parametrize("a", [0.0, 0.8])
    def test_lifting_is_the_simulation(self, interval, delay, a):
        """The lifted poles decide: a step-by-step simulation decays inside the margin, grows outside."""
        spec = GabaSpec(beta=0.9, interval=interval)
        loop = open_loop(spec, LogRatio(-1.0, a, delay), sensor_delay=1)
        result = margins(loop)
        edge = -result.gain_margin_up
        assert _grows(spec, LogRatio(edge * 1.02, a, delay), 1)
        assert not _grows(spec, LogRatio(edge * 0.98, a, delay), 1)

    @pytest.mark.parametrize("interval", [1, 4])
    def test_delay_margin_counts_steps(self, interval):
        spec = GabaSpec(beta=0.9, interval=interval)
        plant = LogRatio(-4.0, 0.3)
        result = margins(open_loop(spec, plant))
        n = int(result.delay_margin_steps)
        assert not _grows(spec, LogRatio(-4.0, 0.3, n), 0)
        assert _grows(spec, LogRatio(-4.0, 0.3, n + 1), 0)

    def test_frequencies_are_per_step(self):
        result = margins(open_loop(GabaSpec(interval=10), LogRatio(-3.0)))
        assert result.witnesses["gain_margin_up"].frequency_rad_per_step == pytest.approx(
            math.pi / 10
        )


def _grows(spec: GabaSpec, plant: LogRatio, sensor_delay: int) -> bool:
    """Linear loop u = -F y, y = P u, step by step, from a kick."""
    total = plant.delay + 1
    steps = 4000
    y, u, lag, ema = np.zeros(steps), np.zeros(steps), 0.0, 0.0
    pole = spec.beta**spec.interval
    for t in range(steps):
        if t >= total:
            lag = plant.a * lag + (1 - plant.a) * u[t - total]
        y[t] = -plant.rho * lag + (1.0 if t < 3 * spec.interval else 0.0)
        if t % spec.interval == 0:
            seen = y[t - sensor_delay] if t >= sensor_delay else 0.0
            ema = pole * ema - (1 - pole) * seen
        u[t] = ema
        if abs(y[t]) > 1e12:
            return True
    early, late = np.abs(y[steps // 4 : steps // 2]).max(), np.abs(y[-steps // 4 :]).max()
    return bool(late > early)


def test_neutral_loop_has_no_margins():
    result = margins(open_loop(GabaSpec(), LogRatio(1.0)))
    assert result.closed.verdict == "neutral"
    assert "unit circle" in result.reasons["margins"]
    assert "neutral" in str(result)


def test_json_is_strict_with_reasons():
    report = json.loads(margins(_filter_loop(0.5)).to_json())
    assert report["delay_margin_steps"] is None
    assert (
        report["reasons"]["delay_margin_steps"]
        == "the loop gain does not exceed 1 at any frequency"
    )
    assert report["gain_margin_up_db"] == pytest.approx(20 * math.log10(398))
    assert report["witnesses"]["gain_margin_up"]["frequency_rad_per_step"] == pytest.approx(math.pi)
    assert {"stable", "poles", "phase_margin_deg", "disk_margin", "ms", "mt"} <= set(report)


def test_open_loop_has_infinite_margins():
    result = margins(open_loop(GabaSpec(), LogRatio(0.0)))
    assert result.disk_margin == math.inf
    assert (result.ms, result.mt) == (1.0, 0.0)
    assert "infinite" in str(result)


def test_refuses_what_is_no_loop():
    with pytest.raises(InputError, match="algebraic loop"):
        margins(control.TransferFunction([-1.0, 0.2], [1.0, 0.5], 1))
    with pytest.raises(InputError, match="discrete-time"):
        margins(control.TransferFunction([1.0], [1.0, 1.0]))
    with pytest.raises(InputError, match="skew"):
        margins(_filter_loop(1.0), skew=math.nan)


@pytest.mark.parametrize("rho", [-1.0, 1.0, -0.5])
@pytest.mark.parametrize("delay", [0, 3])
def test_a_pure_delay_has_the_same_gain_everywhere(rho, delay):
    """No smoothing and no lag: |L| = |rho| at every frequency, which no search may hang on."""
    result = margins(open_loop(GabaSpec(beta=0.0), LogRatio(rho, delay=delay)))
    assert result.closed.verdict == ("stable" if abs(rho) < 1 else "neutral")
    if result.stable:
        assert result.gain_margin_up == pytest.approx(2.0)
        assert result.phase_margin_deg == math.inf


def test_an_order_beyond_trust_is_refused():
    with pytest.raises(InputError, match="order 1001 is beyond 500"):
        margins(open_loop(GabaSpec(), LogRatio(-1.0, a=0.5, delay=1000)))


def test_a_constant_and_a_cancelled_loop():
    assert margins(control.TransferFunction([0.5], [1.0], 1)).gain_margin_up == math.inf
    with pytest.raises(InputError, match="cancel common poles"):
        margins(control.TransferFunction([0.5, -0.25], [1.0, -0.5], 1))
