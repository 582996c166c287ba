"""The floor: true ranges, knee, residuals, dead time. Expected numbers from the derivations."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.law import authority
from gabactl.law.authority import weight_bounds, weight_range
from gabactl.law.controller import Controller
from gabactl.law.floors import project
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.law.stages import raw_weights, saturate, smooth

MODES = CHOICES["floor_mode"]
LAWS = CHOICES["law"]
FOUR_ULP = 4 * np.finfo(float).eps


def _extreme_norms(k: int, law: str) -> list[np.ndarray]:
    """Readings that push the weights to their limits: every pattern of loud, middling and quiet."""
    tiny = 1e-14
    values = (1.0, tiny) if law == "inverse" else (1.0, 0.0)
    return [np.array(p) for p in itertools.product(values, repeat=k) if any(p)]


@pytest.mark.parametrize("floor_mode", MODES)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("beta", [0.0, 0.6])
def test_range_is_kept_and_approached(floor_mode, law, k, share, beta):
    spec = GabaSpec(n_tasks=k, floor=share / k, law=law, floor_mode=floor_mode, beta=beta, warmup=0)
    bounds = weight_bounds(spec)
    low, high = math.inf, -math.inf
    for norms in _extreme_norms(k, law):
        controller = Controller(spec)
        for _ in range(50):
            weights = controller.observe(norms)
            low, high = min(low, weights.min()), max(high, weights.max())
    assert low >= bounds.lower * (1 - FOUR_ULP) - FOUR_ULP
    assert high <= bounds.upper * (1 + FOUR_ULP)
    assert low <= bounds.lower + 1e-9
    assert high >= bounds.upper - 1e-9


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(2, 8),
    share=st.floats(0.0, 0.999),
    law=st.sampled_from(LAWS),
    floor_mode=st.sampled_from(MODES),
    beta=st.sampled_from([0.0, 0.3, 0.99]),
    data=st.data(),
)
def test_range_holds_for_any_readings(k, share, law, floor_mode, beta, data):
    spec = GabaSpec(
        n_tasks=k, floor=share / k * (1 - 1e-9), law=law, floor_mode=floor_mode, beta=beta, warmup=0
    )
    bounds = weight_bounds(spec)
    norms = st.lists(st.floats(0.0, 1e12), min_size=k, max_size=k)
    controller = Controller(spec)
    for reading in data.draw(st.lists(norms, min_size=1, max_size=6)):
        weights = controller.observe(reading)
        assert weights.min() >= bounds.lower - FOUR_ULP
        assert weights.max() <= bounds.upper + FOUR_ULP


@pytest.mark.parametrize("floor_mode", MODES)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_attained_means_exactly_equal(floor_mode, k):
    floor = Fraction(1, 4 * k)
    lower, upper = weight_range(floor, k, "complement", floor_mode)
    assert isinstance(lower, Fraction)
    zero, one = Fraction(0), Fraction(1)
    loud = raw_weights(np.array([one] + [zero] * (k - 1), dtype=object))
    quiet = raw_weights(np.array([zero] + [one] * (k - 1), dtype=object))
    assert saturate(loud, floor, floor_mode).min() == lower
    assert (
        max(saturate(quiet, floor, floor_mode).max(), saturate(loud, floor, floor_mode).max())
        == upper
    )
    bounds = weight_bounds(GabaSpec(n_tasks=k, floor=float(floor), beta=0, floor_mode=floor_mode))
    assert bounds.lower_attained
    assert bounds.upper_attained


def test_published_setting_breaks_the_stated_bounds():
    # Theory: m/(1+m) and 1/(1+m) instead of m and 1 - m.
    bounds = weight_bounds(GabaSpec())
    assert bounds.lower == pytest.approx(1 / 21, abs=1e-15)
    assert bounds.upper == pytest.approx(20 / 21, abs=1e-15)
    assert not bounds.lower_holds
    assert not bounds.upper_holds
    assert not bounds.lower_attained


def test_three_tasks_break_only_the_lower_bound():
    bounds = weight_bounds(GabaSpec(n_tasks=3))
    assert bounds.upper == pytest.approx(0.5)
    assert not bounds.lower_holds
    assert bounds.upper_holds


def test_no_floor():
    bounds = weight_bounds(GabaSpec(floor=0.0, n_tasks=3))
    assert (bounds.lower, bounds.upper) == (0.0, 0.5)
    assert authority.saturation_ratio(GabaSpec(floor=0.0)) == math.inf
    report = json.loads(authority.authority(GabaSpec(floor=0.0)).to_json())
    assert report["saturation_ratio"] is None
    assert "no floor" in report["saturation_ratio_reason"]


def test_settled_weights_and_residuals():
    # Theory: settled weights 0.04853, 0.04771, 0.04764; residuals 2.55, 25.05, 120.05.
    ratios = np.array([50.0, 500.0, 2400.0])
    expected = 0.05 / (0.05 + ratios / (1 + ratios))
    assert authority.settled_weights(GabaSpec(), ratios)[:, 0] == pytest.approx(expected, rel=1e-12)
    assert authority.residual_ratio(GabaSpec(), ratios) == pytest.approx(0.05 * (1 + ratios))


def test_affine_never_equalises():
    # Theory: 1.08 at 2x, 1.52 at 10x.
    spec = GabaSpec(floor_mode="affine")
    assert authority.residual_ratio(spec, [2.0, 10.0]).round(2).tolist() == [1.08, 1.52]
    assert authority.authority(spec).fully_compensated_ratio == 1.0


@pytest.mark.parametrize("floor_mode", ["renormalise", "project", "clamp_state"])
def test_compensation_is_exact_up_to_the_knee(floor_mode):
    spec = GabaSpec(floor_mode=floor_mode)
    knee = authority.saturation_ratio(spec)
    inside, outside = authority.residual_ratio(spec, [knee * 0.999, knee * 1.01])
    assert inside == pytest.approx(1.0, abs=1e-12)
    assert outside > 1.005


@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("law", LAWS)
def test_knee_and_required_floor_agree(k, law):
    spec = GabaSpec(n_tasks=k, law=law, floor=0.02)
    knee = authority.saturation_ratio(spec)
    assert float(authority.required_floor(knee, k, law)) == pytest.approx(0.02, rel=1e-12)


def test_required_floor_of_the_published_peak():
    # Theory: 4.2e-4 at 2,400x.
    assert float(authority.required_floor(2400.0)) == pytest.approx(1 / 2401)
    assert float(authority.required_floor(1 / 2400.0)) == pytest.approx(1 / 2401)


def _simulated_dead_time(spec: GabaSpec, stored: float, raw: float) -> int:
    """Steps until a stored average, moved by the stage functions, is back at the floor."""
    ema = np.array([stored, 1 - stored])
    target = np.array([raw, 1 - raw])
    if spec.floor_mode == "clamp_state":
        ema = project(ema, spec.floor)
    readings = 0
    while ema[0] < spec.floor:
        ema = smooth(ema, target, spec.beta, spec.interval)
        readings += 1
    return readings * spec.interval


@pytest.mark.parametrize("floor_mode", ["renormalise", "project", "clamp_state"])
@pytest.mark.parametrize("interval", [1, 10])
@pytest.mark.parametrize("raw", [0.5, 0.1, 0.06])
def test_dead_time_is_what_the_stages_do(floor_mode, interval, raw):
    spec = GabaSpec(floor_mode=floor_mode, interval=interval)
    assert authority.dead_time(spec, 0.002, raw) == _simulated_dead_time(spec, 0.002, raw)


def test_dead_time_corners():
    assert authority.dead_time(GabaSpec(), 0.002, 0.05) == math.inf
    assert authority.dead_time(GabaSpec(), 0.2, 0.5) == 0.0
    assert authority.dead_time(GabaSpec(beta=0), 0.0, 0.5) == 0.0
    with pytest.raises(InputError, match="stored_ema"):
        authority.dead_time(GabaSpec(), -0.1, 0.5)


def test_closed_loop_authority():
    spec = GabaSpec()
    assert authority.closed_loop_authority(spec, -1.0) == pytest.approx(2 * math.log(19))
    assert authority.closed_loop_authority(GabaSpec(floor=0), 0.5) == math.inf
    with pytest.raises(InputError, match="not below 1"):
        authority.closed_loop_authority(spec, 1.0)


def test_bad_ratio_is_refused():
    with pytest.raises(InputError, match="positive and finite"):
        authority.settled_weights(GabaSpec(), [1.0, -2.0])


def test_plot_draws():
    ax = authority.authority(GabaSpec()).plot()
    assert ax.get_xlabel().startswith("imbalance")
