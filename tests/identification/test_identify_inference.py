"""Randomisation, placebo, and the verdict on the loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gabactl import GabaSpec
from gabactl.identification import fit_output_error, judge_loop, loop_radius, simulate_excited
from gabactl.identification.output_error import lag_response
from gabactl.identification.randomisation import placebo, randomise


def test_the_statistic_is_linear_in_the_signs() -> None:
    """Re-drawing signs in the sums equals running the redrawn sequence through the filters."""
    from gabactl.identification.randomisation import _block_sums

    run = simulate_excited(-0.5, 0.8, 1, steps=1030, seed=2, spec=GabaSpec(warmup=30)).run(0)
    fit = fit_output_error(run, 50.0, 3)
    rows = np.flatnonzero(run.measured)
    values = run.log_ratio[rows]
    sums = _block_sums(run, fit, rows, values)
    flips = np.random.default_rng(0).choice([-1.0, 1.0], len(sums))
    redrawn = run.excitation * np.repeat(flips, 50)[: len(run.excitation)]
    z = fit.noise.whiten(lag_response(redrawn, fit.a, fit.delay)[rows])
    want = float(z @ fit.noise.whiten_without_trend(values))
    assert flips @ sums == pytest.approx(want, rel=1e-9)


def test_randomisation_covers_and_rejects() -> None:
    covered, rejected = [], []
    records = simulate_excited(-0.4, 0.8, steps=1500, runs=40, seed=1)
    for seed in range(40):
        run = records.run(seed)
        found = randomise(run, fit_output_error(run, 50.0, 5), sequences=499, seed=seed)
        covered.append(found.low <= -0.4 <= found.high)
        rejected.append(found.p_value <= 0.05)
    assert sum(covered) >= 32
    assert sum(rejected) >= 38


def test_randomisation_without_feedback_rejects_seldom() -> None:
    p = []
    records = simulate_excited(0.0, steps=1000, runs=60, seed=1)
    for seed in range(60):
        run = records.run(seed)
        p.append(randomise(run, fit_output_error(run, 50.0, 0), sequences=199).p_value)
    # The lag was chosen on the same data, which costs a little.
    assert np.mean(np.array(p) <= 0.05) <= 0.2


def test_the_placebo_passes_and_can_fail() -> None:
    run = simulate_excited(-1.0, 0.8, steps=4000, seed=4).run(0)
    sound = placebo(run, fit_output_error(run, 50.0, 5))
    assert sound.passed
    assert sound.p_value > 0.05
    # A record in which the imbalance answers before the weights move.
    ahead = 2 * 50 + 20
    early = np.concatenate([run.log_ratio[ahead:], run.log_ratio[:ahead]])
    wrong = dataclasses.replace(run, log_ratio=early)
    fit = dataclasses.replace(fit_output_error(wrong, 50.0, 5), a=0.8, delay=0)
    assert not placebo(wrong, fit).passed


@pytest.mark.parametrize(
    ("rho", "a", "delay", "stable"),
    [
        # Limits at beta = 0.99, a = 0: -199, -100, -28.9, -3.76 at extra delay 0, 1, 5, 50.
        (-198.9, 0.0, 0, True),
        (-199.1, 0.0, 0, False),
        (-99.9, 0.0, 1, True),
        (-100.1, 0.0, 1, False),
        (-28.8, 0.0, 5, True),
        (-29.0, 0.0, 5, False),
        (-3.75, 0.0, 50, True),
        (-3.77, 0.0, 50, False),
        (0.99, 0.9, 3, True),
        (1.01, 0.9, 3, False),
    ],
)
def test_loop_radius_at_known_limits(rho: float, a: float, delay: int, stable: bool) -> None:
    assert (loop_radius(GabaSpec(), rho, a, delay) < 1) is stable


def test_loop_radius_of_a_sampled_loop_matches_its_decay() -> None:
    spec = GabaSpec(beta=0.9, interval=7, warmup=0, floor=0.0)
    record = simulate_excited(
        -3.0, 0.6, 2, steps=420, spec=spec, noise_std=0.0, drift_std=0.0, amplitude=1e-6, block=500
    )
    # After the one push at the start the loop is left to itself, on the way to its balance.
    v = (record.actuation - record.excitation)[0][::7]
    decay = np.abs(np.diff(v))
    rate = (decay[50] / decay[20]) ** (1 / (30 * 7))
    assert rate == pytest.approx(loop_radius(spec, -3.0, 0.6, 2), abs=3e-3)


def test_a_wide_interval_is_not_settled() -> None:
    assert judge_loop(GabaSpec(), (0.9, 1.1), (0.5, 0.5), (0,)).verdict == "not settled"
    assert judge_loop(GabaSpec(), (1.1, 1.3), (0.5, 0.9), (0, 1)).verdict == "unstable"
    assert judge_loop(GabaSpec(), (-0.3, -0.1), (0.5, 0.9), (0, 1)).verdict == "stable"
