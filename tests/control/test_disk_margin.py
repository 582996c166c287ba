"""The disk margin: what a disk holds, asked factor by factor, and peaks against a grid."""

from __future__ import annotations

import math

import control
import numpy as np
import pytest

from gabactl.control import margins as margins_module
from gabactl.control._rational import Rational
from gabactl.control.margins import margins


@pytest.mark.parametrize("skew", [-3.0, -1.5, -1.0, -0.4, 0.0, 0.7, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("alpha", [0.3, 0.9, 1.1, 1.9, 2.5, 6.0])
def test_what_the_disk_holds_by_asking_every_factor(skew, alpha):
    """A factor f is in the disk where its delta is smaller than alpha."""
    down, up, phase = margins_module.disk_contents(alpha, skew)
    gains = np.linspace(1e-4, 60.0, 400_001)
    with np.errstate(divide="ignore"):
        held = np.abs((gains - 1) / ((1 - skew) / 2 + (1 + skew) / 2 * gains)) < alpha
    one = int(np.abs(gains - 1).argmin())
    below, above = np.flatnonzero(~held[:one]), np.flatnonzero(~held[one:])
    step = gains[1] - gains[0]
    assert down == pytest.approx(gains[below[-1]] if below.size else 0.0, abs=2 * step)
    assert min(up, 60.0) == pytest.approx(
        gains[one + above[0]] if above.size else 60.0, abs=2 * step
    )
    angles = np.radians(np.linspace(0, 180, 18_001))
    turned = np.exp(1j * angles)
    with np.errstate(divide="ignore"):
        out = np.abs((turned - 1) / ((1 - skew) / 2 + (1 + skew) / 2 * turned)) >= alpha
    assert phase == pytest.approx(np.degrees(angles[out.argmax()]) if out.any() else 180, abs=0.02)


def test_the_disk_whose_rim_passes_through_infinity():
    # skew 1, alpha 1: f = 1/(1 - d), |d| < 1, is the half plane right of 1/2.
    down, up, phase = margins_module.disk_contents(1.0, 1.0)
    assert (down, up, phase) == (0.5, math.inf, pytest.approx(60.0))
    # skew -3, alpha 1: f = (1 + 2 d)/(1 + d) is the half plane left of 3/2.
    assert margins_module.disk_contents(1.0, -3.0)[:2] == (0.0, 1.5)
    assert margins_module.disk_contents(math.inf, 0.3) == (0.0, math.inf, math.inf)


@pytest.mark.parametrize("skew", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_factor_and_delta_are_inverse(skew):
    for delta in (0.3, -0.2 + 0.4j, 1.5j):
        factor = margins_module.disk_factor(delta, skew)
        assert factor == pytest.approx((2 + (1 - skew) * delta) / (2 - (1 + skew) * delta))
        assert margins_module.disk_delta(factor, skew) == pytest.approx(delta)
    assert margins_module.disk_factor(1.0, 1.0) == complex(math.inf)


def test_the_open_loop():
    result = margins(control.TransferFunction([0.0], [1, -0.5], 1))
    assert (result.ms, result.mt, result.disk_margin) == (1.0, 0.0, math.inf)
    assert (result.disk_gain_down, result.disk_gain_up) == (0.0, math.inf)
    assert "disk_margin" not in result.witnesses
    assert result.witnesses["ms"].frequency_rad_per_step == 0.0
    assert result.reasons == {
        "gain_margin_up": "stable for every larger gain",
        "gain_margin_down": "stable for every smaller gain",
        "phase_margin_deg": "the loop gain is below 1 at every frequency",
        "delay_margin_steps": "the loop gain does not exceed 1 at any frequency",
        "disk_margin": "the loop is open: nothing can destabilise it",
        "disk_gain_up": "the disk holds every larger gain",
    }
    open_ = margins_module.disk_margin(Rational.of([], [0.5], 0.0), result.closed, 0.0)
    assert open_ == (math.inf, complex(math.inf), 0.0)


def test_peaks_against_a_grid():
    """With zeros, complex poles, and S + c whose leading coefficient vanishes."""
    w = np.linspace(0, math.pi, 20_001)
    for loop in (
        Rational.of([0.5], [0.6 + 0.3j, 0.6 - 0.3j, -0.2], 0.4),
        Rational.of([-0.4], [0.3], 1.0),  # skew 0: (D - N)/2, of degree 0
    ):
        for skew in (-1.0, 0.0, 0.5, 1.0):
            result = margins(loop.to_control(), skew=skew)
            s = 1 / (1 + loop.at(w))
            assert result.ms == pytest.approx(np.abs(s).max(), rel=1e-6)
            assert result.mt == pytest.approx(np.abs(1 - s).max(), rel=1e-6)
            assert 1 / result.disk_margin == pytest.approx(
                np.abs(s + (skew - 1) / 2).max(), rel=1e-6
            )


def test_a_combination_that_vanishes_has_no_peak():
    # L = 1: S - 1/2 = 0, and no disk that is balanced holds the factor -1.
    result = margins(control.TransferFunction([1.0], [1.0], 1))
    assert (result.disk_margin, result.disk_gain_up) == (math.inf, math.inf)
    told = "the loop is constant: no factor in a disk of this skew can destabilise it"
    assert result.reasons["disk_margin"] == told
    assert margins(control.TransferFunction([1.0], [1.0], 1), skew=1.0).disk_margin == 2.0
    closed = Rational.of([], [], 1.0).closed()
    nothing = margins_module._over_closed(Rational.of([], [], 1.0), closed, 0.5, -0.5)
    assert nothing.peak() == (0.0, 0.0)
