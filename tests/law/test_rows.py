"""The rows of floors and laws: complete, and true of what the floor and the law do."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest

from gabactl.law.floors import FLOORS, FloorMode
from gabactl.law.laws import LAWS, Law
from gabactl.law.spec import GabaSpec
from gabactl.law.stages import follow, raw_weights, saturate
from gabactl.loops.kernels import controller as kernel

AVERAGES = np.random.default_rng(0).dirichlet([0.4] * 4, size=300)


def test_every_name_has_a_row_and_every_row_its_compiled_code():
    assert tuple(FLOORS) == get_args(FloorMode)
    assert tuple(LAWS) == get_args(Law)
    for mode in FLOORS:
        code = kernel.codes(GabaSpec(floor_mode=mode)).floor_mode
        assert getattr(kernel, mode.upper()) == code
    for law in LAWS:
        assert getattr(kernel, law.upper()) == kernel.codes(GabaSpec(law=law)).law


@pytest.mark.parametrize("mode", FLOORS)
def test_slope_and_jacobian_are_those_of_the_weights(mode):
    row, h = FLOORS[mode], 1e-6
    for m, log_ratio in itertools.product((0.0, 0.05, 0.2), (0.3, 1.0, 2.0, 4.0)):
        if m and abs(log_ratio - np.log((1 - m) / m)) < 0.01:
            continue  # at the knee
        ends = [
            saturate(raw_weights([np.exp(y), 1.0]), m, mode) for y in (log_ratio - h, log_ratio + h)
        ]
        u = [np.log(w[0] / w[1]) for w in ends]
        loud = 1 / (1 + np.exp(log_ratio))
        assert row.slope(loud, m) == pytest.approx((u[0] - u[1]) / (2 * h), abs=1e-6)
    centre = np.eye(4) - 0.25
    for e in AVERAGES[AVERAGES.min(axis=1) > 1e-3][:40]:
        w = saturate(e, 0.1, mode)
        got = centre @ row.jacobian(e, w, 0.1)
        for move in (centre[0], centre[1] - centre[2]):
            ends = [np.log(saturate(e + s * h * move, 0.1, mode)) for s in (1, -1)]
            assert np.allclose(got @ move, centre @ (ends[0] - ends[1]) / (2 * h), atol=1e-4)


@pytest.mark.parametrize("mode", FLOORS)
def test_habits_are_as_stated(mode):
    row = FLOORS[mode]
    weights = saturate(AVERAGES, 0.1, mode)
    free = AVERAGES.min(axis=1) > 0.1
    assert row.has_knee == np.allclose(weights[free], AVERAGES[free])
    kept = follow(AVERAGES, AVERAGES, 0.5, 1, 0.1, mode)
    assert row.replaces_state == (not np.allclose(kept, AVERAGES))
    assert row.keeps_the_floor == bool((np.abs(weights.min(axis=1) - 0.1) < 1e-12).any())
    before = np.log(AVERAGES[:, :1] / AVERAGES)
    after = np.log(weights[:, :1] / weights)
    narrow = (np.abs(after) <= np.abs(before) + 1e-9) & (after * before >= -1e-9)
    assert row.narrows_ratios == bool(narrow.all())


@pytest.mark.parametrize("law", LAWS)
def test_what_follows_from_a_law(law):
    row, rng = LAWS[law], np.random.default_rng(1)
    for k in (2, 3, 5):
        g = rng.lognormal(0, 1, k)
        raw = raw_weights(g, law)
        assert np.allclose(row.raw_of_logs(np.log(g).tolist()), raw, atol=1e-14)
        assert raw.max() <= 1 / row.sharers(k)
        numeric = np.array(
            [(raw_weights(g * np.exp(1e-6 * e), law) - raw) / 1e-6 for e in np.eye(k)]
        ).T
        assert np.allclose(row.jacobian(g), numeric, atol=1e-5)
        at_knee = row.settled(np.array(row.knee(0.1, k)), k)
        assert at_knee[0] == pytest.approx(0.1)
