"""Searches on the unit circle against dense grids, exact arithmetic and plain root finding."""

from __future__ import annotations

import math
from fractions import Fraction

import control
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl.control._rational import Rational, root_counter, stability_of


def _random(seed: int) -> Rational:
    rng = np.random.default_rng(seed)
    pairs = int(rng.integers(0, 3))
    roots = rng.uniform(0.3, 0.999, pairs) * np.exp(1j * rng.uniform(0.05, 3.0, pairs))
    poles = np.concatenate(
        [roots, np.conj(roots), rng.uniform(-0.99, 0.99, int(rng.integers(1, 3)))]
    )
    zeros = rng.uniform(-1.5, 1.5, int(rng.integers(0, poles.size)))
    loop = Rational.of(zeros, [*poles, *[0.0] * int(rng.integers(0, 30))], 1.0)
    return loop * float(rng.choice([-1, 1]) * rng.uniform(0.3, 3.0) / loop.peak()[0])


@pytest.mark.parametrize("seed", range(6))
def test_crossings_and_peak_against_a_dense_grid(seed):
    loop = _random(seed)
    w = np.linspace(0.0, math.pi, 20_001)
    values = loop.at(w)
    gain = np.flatnonzero(np.diff(np.sign(np.abs(values) - 1.0)))
    real = np.flatnonzero(np.diff(np.sign(values.imag[1:-1])))
    assert loop.gain_crossings().size >= gain.size
    assert loop.phase_crossings().size - 2 >= real.size
    for found, on_grid in ((loop.gain_crossings(), gain), (loop.phase_crossings(), real + 1)):
        for index in on_grid:
            assert np.abs(found - w[index]).min() < 2 * w[1]
    assert np.abs(loop.at(loop.gain_crossings())) == pytest.approx(1.0, abs=1e-9)
    crossing = loop.at(loop.phase_crossings())
    assert (np.abs(crossing.imag) <= 1e-9 * np.abs(crossing)).all()
    height, at = loop.peak()
    assert height >= np.abs(values).max() * (1 - 1e-9)
    assert abs(loop.at(at)) == pytest.approx(height, rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_argument_principle_against_roots(seed):
    loop = _random(100 + seed)
    delays = np.array([0, 1, 2, 5, 11])
    outside, _ = root_counter(loop)(delays)
    for n, count in zip(delays, outside, strict=True):
        poles = loop.delayed(int(n)).closed().poles
        assert count == (np.abs(poles) >= 1.0).sum()


def test_narrow_resonances_are_not_missed():
    """A pole 1e-7 from the circle: its two gain crossings are 1e-7 apart."""
    r = (1 - 1e-7) * np.exp(0.777j)
    loop = Rational.of([], [r, np.conj(r)], 3e-7)
    first, second = loop.gain_crossings()
    assert abs(first - 0.777) < 1e-6
    assert 1e-8 < second - first < 1e-5
    assert loop.peak()[1] == pytest.approx(0.777, abs=1e-9)


def _schur_cohn(coefficients: list[Fraction]) -> bool:
    """Whether all roots are strictly inside the circle, exactly (Jury's reduction)."""
    c = list(coefficients)
    while len(c) > 1:
        if abs(c[-1]) >= abs(c[0]):
            return False
        ratio = c[-1] / c[0]
        c = [x - ratio * y for x, y in zip(c, reversed(c), strict=True)][:-1]
    return True


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-64, 64), min_size=2, max_size=9).filter(lambda c: c[0] != 0))
def test_verdict_against_exact_arithmetic(coefficients):
    verdict = stability_of(np.array(coefficients, dtype=float)).verdict
    exact = _schur_cohn([Fraction(c) for c in coefficients])
    # Rounding may only turn a verdict into "neutral".
    assert verdict in (("stable", "neutral") if exact else ("unstable", "neutral"))
    if verdict == "neutral":
        radius = np.abs(np.roots(np.trim_zeros(np.array(coefficients, float), "b"))).max()
        assert radius == pytest.approx(1.0, abs=1e-4)


def test_neutral_is_on_the_circle():
    assert stability_of([1.0, 0.0, 1.0]).verdict == "neutral"
    assert stability_of(np.poly([1.0, 0.5, 0.3])).verdict == "neutral"
    assert stability_of([1.0, -(1 + 1e-9)]).verdict == "unstable"
    assert stability_of([1.0, -(1 - 1e-9)]).verdict == "stable"


@pytest.mark.parametrize("delay", [0, 3, 40])
def test_state_space_is_its_transfer_function(delay):
    transfer = control.TransferFunction([0.3, -0.1], [1, -1.2, 0.5, *[0.0] * delay], 1)
    z = np.exp(1j * np.linspace(0.1, 3.1, 7))
    for system in (transfer, control.ss(transfer)):
        assert Rational.from_lti(system)(z) == pytest.approx(transfer(z), rel=1e-8)


def test_values_at_poles_and_zeros():
    loop = Rational.of([-1.0], [1.0], 2.0)
    assert loop(-1.0) == 0.0
    assert not np.isfinite(loop(1.0))
    assert loop.peak() == (math.inf, 0.0)


def test_a_double_pole_on_the_circle():
    """arg R is nearly a multiple of pi all along the approach to z = 1, yet crosses none there."""
    loop = Rational.of([], [1.0, 1.0, 0.3, -0.4], 0.01)
    crossings = loop.phase_crossings()
    w = np.linspace(1e-4, math.pi - 1e-4, 40_001)
    on_grid = np.flatnonzero(np.diff(np.sign(loop.at(w).imag)))
    assert crossings.size - 2 == on_grid.size
