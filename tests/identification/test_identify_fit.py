"""The estimator: known plants recovered from closed-loop data, and covered by the intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gabactl import GabaSpec
from gabactl.base.errors import InputError
from gabactl.identification import ExcitedRun, ProfileLikelihood, fit_output_error, simulate_excited
from gabactl.identification.output_error import lag_response

MAX_LAG, MAX_DELAY = 50.0, 5
STUDY = Path(__file__).parents[2] / "simulations" / "results" / "identification_coverage.json"


@pytest.mark.parametrize(
    ("rho", "a", "delay"),
    [(-5.0, 0.9, 0), (-1.0, 0.8, 2), (-0.4, 0.0, 0), (0.5, 0.9, 1), (0.9, 0.5, 0), (0.95, 0.9, 0)],
)
def test_known_plants_are_recovered(rho: float, a: float, delay: int) -> None:
    run = simulate_excited(rho, a, delay, steps=8000, seed=11).run(0)
    fit = fit_output_error(run, MAX_LAG, MAX_DELAY)
    profile = ProfileLikelihood(fit, seed=0, level=0.999, draws=1999)
    low, high = profile.rho_interval()
    assert low < rho < high
    assert high - low < 0.2
    a_low, a_high = profile.a_interval()
    assert a_low <= a <= a_high
    assert delay in profile.delays()


@pytest.mark.parametrize(
    "spec",
    [
        GabaSpec(warmup=100),
        GabaSpec(warmup=0, interval=5),
        GabaSpec(warmup=0, floor=0.3),
        GabaSpec(warmup=0, beta=0.0, floor=0.01),
        GabaSpec(warmup=0, floor_mode="affine"),
    ],
    ids=["warm-up", "every 5 steps", "mostly at the floor", "no smoothing", "affine"],
)
def test_whatever_the_controller_in_the_loop(spec: GabaSpec) -> None:
    run = simulate_excited(-1.0, 0.8, steps=6000, seed=3, spec=spec, log_imbalance=0.5).run(0)
    fit = fit_output_error(run, MAX_LAG, MAX_DELAY)
    low, high = ProfileLikelihood(fit, seed=0, level=0.999, draws=1999).rho_interval()
    assert low < -1.0 < high
    assert high - low < 0.5


def test_least_squares_on_the_weights_would_invent_feedback() -> None:
    """Why there are instruments: in closed loop the weights follow the drift."""
    records = simulate_excited(0.0, steps=4000, runs=20, seed=0, drift_std=0.03)
    naive, covered = [], []
    for i in range(20):
        run = records.run(i)
        x = lag_response(run.actuation, 0.9)
        design = np.stack([x, np.ones_like(x)], axis=1)
        naive.append(np.linalg.lstsq(design, run.log_ratio, rcond=None)[0][0])
        low, high = ProfileLikelihood(fit_output_error(run, MAX_LAG, 0), seed=i).rho_interval()
        covered.append(low <= 0.0 <= high)
    assert np.median(naive) > 0.4
    assert sum(covered) >= 17


def test_the_width_is_that_of_the_information() -> None:
    """With lag and delay well known, the interval is 2 * 1.96 standard errors wide."""
    run = simulate_excited(-5.0, 0.9, steps=4000, seed=1, drift_std=0.0).run(0)
    fit = fit_output_error(run, MAX_LAG, 0)
    step = 1e-4
    x = lag_response(run.actuation, fit.a)
    slope = fit.rho * (lag_response(run.actuation, fit.a + step) - x) / step
    gradient = fit.noise.whiten(np.stack([x, slope]))
    error = fit.noise.innovation_std * np.sqrt(np.linalg.inv(gradient @ gradient.T)[0, 0])
    low, high = ProfileLikelihood(fit, draws=3999, seed=0).rho_interval()
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def _covered(rho: float, a: float, delay: int, *, runs: int, steps: int, seed: int) -> np.ndarray:
    records = simulate_excited(rho, a, delay, steps=steps, runs=runs, seed=seed)
    found = []
    for i in range(runs):
        profile = ProfileLikelihood(
            fit_output_error(records.run(i), MAX_LAG, MAX_DELAY), draws=199, seed=i
        )
        low, high = profile.rho_interval()
        found.append((low <= rho <= high, profile.p_value_without_feedback() <= 0.05))
    return np.array(found)


def test_coverage_of_a_weak_negative_plant() -> None:
    covered = _covered(-0.3, 0.9, 0, runs=200, steps=1000, seed=1)[:, 0]
    # 190 expected; 3.3 standard deviations of a binomial count are 10.
    assert 180 <= covered.sum() <= 199


def test_coverage_and_size_without_feedback() -> None:
    covered, rejected = _covered(0.0, 0.9, 0, runs=200, steps=1000, seed=2).T
    assert 180 <= covered.sum() <= 199
    assert rejected.sum() <= 20


@pytest.mark.slow
@pytest.mark.parametrize(("rho", "a", "delay"), [(-5.0, 0.9, 0), (0.95, 0.9, 0)])
def test_coverage_at_the_ends(rho: float, a: float, delay: int) -> None:
    covered = _covered(rho, a, delay, runs=500, steps=4000, seed=3)[:, 0]
    # 475 expected, 3.3 standard deviations are 16.
    assert 459 <= covered.sum() <= 491


def test_the_recorded_study_covers_as_it_says() -> None:
    """The committed table of 2,000 runs of 4,000 steps per plant, rho from -5 to 0.95."""
    table = {row["rho"]: row for row in json.loads(STUDY.read_text())["plants"]}
    assert {-5.0, -1.0, -0.3, -0.1, 0.0, 0.5, 0.95} <= set(table)
    for rho, row in table.items():
        assert row["runs"] == 2000
        if rho <= 0.95:
            assert 0.935 <= row["coverage"] <= 0.965, rho


def test_noise_that_grows_does_not_move_the_estimate() -> None:
    run = simulate_excited(-0.5, 0.8, steps=6000, seed=7).run(0)
    swell = np.linspace(0.0, 1.0, 6000) * np.random.default_rng(0).standard_normal(6000)
    loud = ExcitedRun(run.log_ratio + swell, run.actuation, run.excitation)
    low, high = ProfileLikelihood(fit_output_error(loud, MAX_LAG, MAX_DELAY), seed=0).rho_interval()
    assert low < -0.5 < high


def test_a_level_needs_enough_draws() -> None:
    fit = fit_output_error(simulate_excited(-1.0, steps=1000, seed=1).run(0), MAX_LAG, 0)
    with pytest.raises(InputError, match="at least 1000"):
        ProfileLikelihood(fit, draws=399, level=0.999)
    wide, narrow = (ProfileLikelihood(fit, draws=1999, level=x).rho_interval() for x in (0.99, 0.8))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
