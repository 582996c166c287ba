"""Disturbances: what they say is what they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.loops import profiles
from gabactl.loops.profiles import Profile
from gabactl.traces import Trace


def test_published_disturbance_has_the_published_ratios():
    profile = profiles.published_disturbance(holds=(3, 4, 5))
    ratios = profile.norms[:, 0] / profile.norms[:, 1]
    np.testing.assert_allclose(ratios, [50] * 3 + [2400] * 4 + [500] * 5)
    assert profile.segments == ((0, 3), (3, 7), (7, 12))
    # At 500x these are the norms of the published example, (250, 0.5).
    np.testing.assert_allclose(profile.norms[-1], [250.0, 0.5])


@given(
    ratios=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5),
    hold=st.integers(1, 5),
    tasks=st.integers(2, 6),
)
def test_levels_hold_the_ratio_of_the_first_task(ratios, hold, tasks):
    profile = profiles.levels(ratios, [hold] * len(ratios), n_tasks=tasks)
    assert profile.steps == hold * len(ratios)
    for ratio, (start, stop) in zip(ratios, profile.segments, strict=True):
        np.testing.assert_allclose(
            profile.norms[start:stop, 0] / profile.norms[start:stop, 1], ratio
        )


def test_ramp_has_a_constant_slope():
    y = profiles.ramp(1.0, 100.0, 50, before=10, after=10).log_norms
    slope = np.diff(y[:, 0] - y[:, 1])
    np.testing.assert_allclose(slope[9:59], np.log(100) / 50)
    np.testing.assert_allclose(slope[:9], 0.0, atol=1e-12)
    np.testing.assert_allclose(slope[60:], 0.0, atol=1e-12)


def test_then_shifts_events_and_keeps_dropouts():
    first = profiles.constant(2.0, 10).with_dropout(3, 2)
    both = first.then(profiles.constant(5.0, 10).with_dropout(1, 1, "zero", task=1))
    assert both.events == (0, 10)
    assert np.isnan(both.norms[3:5]).all()
    assert both.norms[11, 1] == 0
    assert both.norms[11, 0] > 0


def test_noise_has_the_asked_spread_and_correlation():
    profile = profiles.undisturbed(200_000).with_noise(0.3, seed=3, correlation=0.8)
    x = profile.log_norms[:, 0]
    # Standard error of the standard deviation: 0.3 sqrt((1+r^2)/(1-r^2)/2n) = 0.001.
    assert abs(x.std() - 0.3) < 0.005
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1] - 0.8) < 0.01


def test_losses_follow_the_exponential():
    losses = profiles.constant(2.0, 101).with_losses([20.0, 2.0], [10.0, 1.0], [50.0, 100.0]).losses
    np.testing.assert_allclose(losses[0], [20, 2])
    np.testing.assert_allclose(losses[50], [10 + 10 / np.e, 1 + np.exp(-0.5)])


def test_recorded_norms_are_filled_forward():
    nan = np.nan
    norms = [[nan, nan], [2, 1], [nan, 1], [8, 1], [np.inf, 1], [5e-324, 1], [0, 1]]
    profile = profiles.from_trace(Trace.from_arrays(norms, measured=[False, *[True] * 6]))
    want = [[2, 1], [2, 1], [2, 1], [8, 1], [8, 1], [8, 1], [0, 1]]
    np.testing.assert_allclose(profile.norms, want)


def test_recorded_norms_stand_for_the_steps_left_out_before_them():
    losses = np.array([[3.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    trace = Trace.from_arrays([[2, 1], [8, 1], [4, 1]], step=[11, 14, 15], losses=losses)
    profile = profiles.from_trace(trace)
    np.testing.assert_allclose(profile.norms[:, 0], [2, 8, 8, 8, 4])
    np.testing.assert_array_equal(profile.losses[:, 0], [3, 2, 2, 2, 1])
    # Losses below 0 are no measure of progress.
    assert (profiles.from_trace(trace.replace(losses=-losses)).losses == 1).all()
    with pytest.raises(InputError, match=r"run\.csv: steps 1 to 1000000000000 are too many"):
        profiles.from_trace(trace.replace(step=np.array([1, 2, 10**12]), source="run.csv"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Profile(np.array([[0.0, np.nan]])),
        lambda: Profile(np.array([[0.0, np.inf]])),
        lambda: Profile(np.zeros((3, 1))),
        lambda: Profile(np.zeros((3, 2)), losses=np.zeros((3, 2))),
        lambda: Profile(np.zeros((3, 2)), events=(0, 3)),
        lambda: profiles.levels([1.0, float("nan")], [1, 1]),
        lambda: profiles.levels([1.0], [1, 1]),
        lambda: profiles.levels([1.0], [0]),
        lambda: profiles.levels([[1.0, 2.0]], [3], n_tasks=3),
        lambda: profiles.levels([-1.0], [1]),
        lambda: profiles.constant(1.0, 5).with_spike(10.0, at=5),
        lambda: profiles.constant(1.0, 5).with_spike(0.0, at=1),
        lambda: profiles.constant(1.0, 5).with_dropout(0, 1, "broken"),
        lambda: profiles.constant(1.0, 5).with_noise(-0.1, 0),
        lambda: profiles.constant(1.0, 5).with_losses([1.0, 0.0], 1.0, 1.0),
        lambda: profiles.constant(1.0, 5).then(profiles.constant(1.0, 5, n_tasks=3)),
        lambda: profiles.from_trace(Trace.from_arrays([[np.inf, 1.0]])),
        lambda: profiles.ramp(0.0, 1.0, 5),
    ],
)
def test_bad_profiles_are_refused_in_one_line(make):
    with pytest.raises(InputError) as caught:
        make()
    assert "\n" not in str(caught.value)
