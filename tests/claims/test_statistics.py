"""Bootstrap, paired differences, Friedman and Nemenyi against published and other people's values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_statistics import (
    bootstrap_mean,
    friedman,
    nemenyi,
    paired_difference,
    t_interval,
)

from gabactl.base.errors import InputError

# Demšar, JMLR 7 (2006), table 6: AUC of four variants of C4.5 on 14 data sets.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        # Printed as 0.975 twice, and ranked 2 and 3.
        [0.972, 0.981, 0.9751, 0.9750],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_the_example_of_demsar():
    found = friedman(-DEMSAR)  # AUC: higher is better
    # Demšar (2006), pages 12 to 13.
    assert found.average_ranks.round(3).tolist() == [3.143, 2.000, 2.893, 1.964]
    uncorrected = 12 * 14 / 20 * (np.square(found.average_ranks).sum() - 25)
    assert uncorrected == pytest.approx(9.28, abs=0.005)
    assert 13 * uncorrected / (14 * 3 - uncorrected) == pytest.approx(3.69, abs=0.005)
    assert found.permutation_p_value == pytest.approx(found.p_value, abs=0.01)
    assert nemenyi(-DEMSAR).critical_difference == pytest.approx(1.25, abs=0.005)
    assert nemenyi(-DEMSAR, level=0.90).critical_difference == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize(
    ("k", "q"),
    # Demšar (2006), table 5 (a), alpha = 0.05.
    [(3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102)],
)
def test_critical_values(k, q):
    table = np.random.default_rng(k).random((6, k))
    found = nemenyi(table).critical_difference / np.sqrt(k * (k + 1) / 36)
    assert found == pytest.approx(q, abs=1.1e-3)


def test_friedman_is_that_of_scipy_with_ties():
    from scipy.stats import friedmanchisquare

    theirs = friedmanchisquare(*DEMSAR.T)
    ours = friedman(DEMSAR)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-12)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-12)


def test_nemenyi_is_that_of_scikit_posthocs():
    theirs = pytest.importorskip("scikit_posthocs").posthoc_nemenyi_friedman(DEMSAR)
    np.testing.assert_allclose(nemenyi(DEMSAR).p_values, theirs.to_numpy(), atol=2e-3)


def test_a_method_that_always_wins_is_found():
    rng = np.random.default_rng(1)
    table = rng.normal(10, 1, (12, 4))
    table[:, 2] -= 8
    found = friedman(table, "abcd")
    assert found.permutation_p_value < 1e-3
    assert np.argmin(found.average_ranks) == 2
    assert all(first == "c" for first, _, _ in nemenyi(table, "abcd").different)


def test_friedman_keeps_its_level():
    rng = np.random.default_rng(2)
    p = [friedman(rng.random((4, 4)), draws=400, seed=i).permutation_p_value for i in range(300)]
    # 5 % of 300 and three standard deviations.
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_the_bootstrap_of_two_runs_says_that_it_is_too_short():
    found = bootstrap_mean([3.0, 1.0])
    assert (found.low, found.mean, found.high) == (1.0, 2.0, 3.0)
    assert "too short" in found.note
    alone = bootstrap_mean([3.0])
    assert np.isnan(alone.low)
    assert json.loads(alone.to_json())["low"] is None


def test_intervals_cover():
    rng = np.random.default_rng(3)
    data = rng.normal(5, 2, (300, 12))
    student = [t_interval(x) for x in data]
    boot = [bootstrap_mean(x, draws=600, seed=i) for i, x in enumerate(data)]
    assert 0.91 < np.mean([i.low <= 5 <= i.high for i in student]) < 0.985
    # Percentile intervals of 12 values are a little short.
    assert 0.85 < np.mean([i.low <= 5 <= i.high for i in boot]) < 0.98


def test_t_interval_is_that_of_scipy():
    from scipy.stats import sem, t

    x = [4.0, 5.5, 7.0, 3.0]
    low, high = t.interval(0.9, 3, np.mean(x), sem(x))
    found = t_interval(x, level=0.9)
    assert (found.low, found.high) == pytest.approx((low, high))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.integers(0, 5))
def test_paired_differences_turn_round(values, seed):
    other = np.random.default_rng(seed).normal(size=len(values))
    one, two = paired_difference(values, other), paired_difference(other, values)
    assert one.difference.mean == pytest.approx(-two.difference.mean)
    assert (one.wins, one.losses) == (two.losses, two.wins)
    assert one.p_value == pytest.approx(two.p_value)
    assert one.least_p <= one.p_value <= 1


def test_four_pairs_cannot_reach_five_percent_by_sign_flips():
    found = paired_difference([1.0, 2.0, 3.0, 4.0], [2.0, 3.1, 4.0, 5.2])
    assert found.p_value == found.least_p == 0.125
    assert found.decided
    assert not paired_difference([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0]).decided


def test_sign_flips_against_scipy():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(4)
    d = rng.normal(0.4, 1, 9)
    theirs = permutation_test(
        (d, np.zeros(9)), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples"
    )
    assert paired_difference(d, np.zeros(9)).p_value == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_mean([]),
        lambda: bootstrap_mean([1.0, np.nan]),
        lambda: bootstrap_mean([1.0, 2.0], level=95),
        lambda: paired_difference([1.0], [2.0]),
        lambda: paired_difference([1.0, 2.0], [2.0]),
        lambda: friedman([[1.0, 2.0]]),
        lambda: friedman([[1.0, 2.0, 3.0], [1.0, 2.0, np.inf]]),
        lambda: nemenyi([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]], ["a"]),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(InputError):
        call()
