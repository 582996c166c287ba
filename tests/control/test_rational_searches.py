"""The searches one by one: crossings, peaks and counts, against roots of polynomials."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.control import _rational
from gabactl.control._rational import Rational, root_counter

EPS = float(np.finfo(float).eps)


def _one(root: complex) -> Rational:
    return Rational(np.array([root]), np.empty(0, complex), 1.0)


# -- searches -----------------------------------------------------------------------------------


def _on_circle(coefficients: np.ndarray) -> np.ndarray:
    """Angles in (0, pi) of the roots of a polynomial that are on the circle."""
    roots = np.roots(coefficients)
    angles = np.angle(roots[np.abs(np.abs(roots) - 1) < 1e-6])
    return np.sort(angles[(angles > 1e-5) & (angles < math.pi - 1e-5)])


def _loop(seed: int) -> Rational:
    rng = np.random.default_rng(seed)
    pairs = int(rng.integers(0, 3))
    inner = rng.uniform(0.2, 0.98, pairs) * np.exp(1j * rng.uniform(0.1, 3.0, pairs))
    poles = [*inner, *np.conj(inner), *rng.uniform(-0.98, 0.98, 2)]
    outer = rng.uniform(0.4, 1.6, 1) * np.exp(1j * rng.uniform(0.1, 3.0, 1))
    zeros = [*outer, *np.conj(outer)] if pairs else [*rng.uniform(-1.7, 1.7, 1)]
    return Rational.of(zeros, [*poles, *[0.0] * (seed % 4)], float(rng.normal()))


@pytest.mark.parametrize("seed", range(25))
def test_crossings_are_roots_of_polynomials(seed):
    """N N* = D D* where |R| = 1, N D* = N* D where R is real; * reverses the coefficients."""
    loop = _loop(seed)
    n, d = loop.numerator, loop.denominator
    gain = _on_circle(np.polysub(np.polymul(n, n[::-1]), np.polymul(d, d[::-1])))
    real = _on_circle(np.polysub(np.polymul(n, d[::-1]), np.polymul(n[::-1], d)))
    assert loop.gain_crossings() == pytest.approx(gain, abs=1e-7)
    assert loop.phase_crossings() == pytest.approx([0.0, *real, math.pi], abs=1e-7)


@pytest.mark.parametrize("seed", range(25))
def test_the_peak_is_where_a_polynomial_says(seed):
    """The slope of |R|^2 is zero at roots of a polynomial, and at 0 and pi."""
    loop = _loop(seed)
    n, d = loop.numerator, loop.denominator
    top, bottom = np.polymul(n, n[::-1]), np.polymul(d, d[::-1])
    slope = np.polysub(np.polymul(np.polyder(top), bottom), np.polymul(top, np.polyder(bottom)))
    candidates = np.array([0.0, *_on_circle(slope), math.pi])
    values = np.abs(loop.at(candidates))
    height, at = loop.peak()
    assert height == pytest.approx(values.max(), rel=1e-9)
    assert abs(loop.at(at)) == pytest.approx(height, rel=1e-9)
    assert np.abs(np.sort(candidates[values > height * (1 - 1e-8)]) - at).min() < 1e-3


@pytest.mark.parametrize("order", [8, 20])
def test_a_pole_of_high_order_turns_more_than_once_in_an_arc(order):
    """(z - 0.9)^-n is real where e^jw is seen from 0.9 at a multiple of pi/n."""
    seen = np.arange(order + 1) * math.pi / order
    away = -0.9 * np.cos(seen) + np.sqrt(1 - (0.9 * np.sin(seen)) ** 2)
    expected = np.angle(0.9 + away * np.exp(1j * seen))
    loop = Rational.of([], [0.9] * order, 1.0)
    assert loop.phase_crossings() == pytest.approx(expected, abs=1e-9)


def test_a_root_without_its_conjugate_is_real_where_it_is_passed_at_its_height():
    # Im(e^jw - r) = sin w - Im r
    inner = _one(0.3 + 0.4j).phase_crossings()[1:-1]
    assert inner == pytest.approx([math.asin(0.4), math.pi - math.asin(0.4)])


def test_a_crossing_at_either_end():
    # |R| only touches 1 there: within rounding it is 1 on a short arc, of which some points appear.
    first = Rational.of([], [0.5], 0.5).gain_crossings()
    assert first[0] == 0.0
    assert first[-1] < 1e-5
    last = Rational.of([], [-0.5], -0.5).gain_crossings()
    assert last[-1] == math.pi
    assert last[0] > math.pi - 1e-5


@pytest.mark.parametrize("side", [1, -1])
def test_a_gain_within_1e_11_of_one_touches_it(side):
    pair = 0.9 * np.exp(1j * np.array([1.2, -1.2]))
    loop = Rational.of([], pair, 1.0) if side < 0 else Rational.of(pair, [0.0, 0.0], 1.0)
    w = np.linspace(1.0, 1.4, 400_001)
    values = np.abs(loop.at(w))
    at = w[values.argmax() if side < 0 else values.argmin()]
    w = np.linspace(at - 2e-6, at + 2e-6, 4001)
    values = np.abs(loop.at(w))
    extreme = values.max() if side < 0 else values.min()
    touching = (loop * ((1 + side * 5e-12) / extreme)).gain_crossings()
    assert touching.size
    assert np.abs(touching - at).max() < 1e-4
    assert (loop * ((1 + side * 1.5e-11) / extreme)).gain_crossings().size == 0


def test_what_is_close_to_either_end_is_the_end(monkeypatch):
    loop = Rational.of([], [0.5, 0.3, 0.0], 0.7)
    monkeypatch.setattr(Rational, "_search", lambda *_: [5e-13, 1.0, math.pi - 5e-13])
    assert loop.phase_crossings().tolist() == [0.0, 1.0, math.pi]
    kept = [1.5e-12, math.pi - 1.5e-12]
    monkeypatch.setattr(Rational, "_search", lambda *_: kept)
    assert loop.phase_crossings().tolist() == [0.0, *kept, math.pi]
    monkeypatch.setattr(Rational, "_search", lambda *_: [])
    for excess, found in [(5e-15, [0.0]), (1.5e-14, [])]:
        assert Rational.of([], [0.5], 0.5 * (1 + excess)).gain_crossings().tolist() == found


def test_as_many_arcs_as_allowed_are_allowed(monkeypatch):
    sizes = []
    arc = Rational._arc
    monkeypatch.setattr(
        Rational, "_arc", lambda self, lo, hi: (sizes.append(lo.size), arc(self, lo, hi))[1]
    )
    loop = Rational.of([], [0.95 * np.exp(1j), 0.95 * np.exp(-1j), 0.3], 0.05)
    found = loop.gain_crossings()
    monkeypatch.setattr(_rational, "_MOST_ARCS", max(sizes))
    assert loop.gain_crossings().tolist() == found.tolist()
    monkeypatch.setattr(_rational, "_MOST_ARCS", max(sizes) - 1)
    with pytest.raises(InputError, match="crossings cannot be told apart"):
        loop.gain_crossings()
    # Nearly 1 everywhere is neither 1 everywhere nor a crossing.
    with pytest.raises(InputError, match="crossings cannot be told apart"):
        Rational.of([], [0.0], 1 + 1.5e-13).gain_crossings()


def test_no_crossing_without_a_loop_or_where_the_gain_is_one_everywhere():
    assert Rational.of([], [0.5], 0.0).gain_crossings().size == 0
    assert Rational.of([], [0.0, 0.0], -1.0).gain_crossings().size == 0
    assert Rational.of([2.0], [0.5], 0.5).gain_crossings().size == 0  # all-pass
    assert Rational.of([], [0.0], 1.0 + 1e-9).gain_crossings().size == 0
    assert Rational.of([], [0.5], 0.0).phase_crossings().tolist() == [0.0, math.pi]
    assert Rational.of([], [0.0, 0.0], 0.0).phase_crossings().tolist() == [0.0, math.pi]
    assert Rational.of([], [], -2.0).phase_crossings().tolist() == [0.0, math.pi]


def test_real_everywhere_cannot_be_told_apart(monkeypatch):
    monkeypatch.setattr(_rational, "_MOST_ARCS", 2_000)
    # z + 1/z = 2 cos w is real on the whole circle.
    with pytest.raises(InputError) as told:
        Rational.of([1j, -1j], [0.0], 1.0).phase_crossings()
    assert str(told.value).startswith("the loop gain stays at 1, or the loop real, over a whole")
    assert str(told.value).endswith("cancel common poles and zeros")


def test_the_peak_of_a_pole_on_the_circle_is_at_the_pole():
    pair = np.exp(1j * np.array([-1.2, 1.2]))
    assert Rational.of([], [*pair, 0.5], 0.1).peak() == (math.inf, pytest.approx(1.2))
    near = Rational.of([], pair * (1 - 1e-14), 1e-14).peak()
    assert math.isfinite(near[0])
    assert near[1] == pytest.approx(1.2, abs=1e-12)
    assert Rational.of([], [0.5], 0.0).peak() == (0.0, 0.0)
    assert Rational.of([], [], -3.0).peak()[0] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("search", "most"), [("gain_crossings", 2500), ("phase_crossings", 2500), ("peak", 2500)]
)
def test_a_search_looks_at_few_arcs(search, most, monkeypatch):
    """Of a loop with 20 roots near the circle: the bounds must do their work, or it takes 10^5."""
    looked = 0
    arc = Rational._arc

    def counted(self, lo, hi):
        nonlocal looked
        looked += lo.size
        return arc(self, lo, hi)

    monkeypatch.setattr(Rational, "_arc", counted)
    angles = np.linspace(0.2, 2.9, 9)
    near = 0.999 * np.exp(1j * angles)
    loop = Rational.of([], [*near, *np.conj(near), 0.3, 0.5], 0.05)
    getattr(loop, search)()
    assert 0 < looked < most


# -- counting poles -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_closed_loop_poles_are_counted_for_every_delay(seed):
    rng = np.random.default_rng(seed)
    poles = rng.uniform(-1.5, 1.5, 3)
    zeros = rng.uniform(-2.0, 2.0, int(rng.integers(0, 3)))
    loop = Rational.of(zeros, poles, float(rng.normal() * 2))
    delays = np.arange(12)
    outside, gap = root_counter(loop)(delays)
    edges = np.array([0.0, *loop.gain_crossings(), math.pi])
    for n, count, least in zip(delays, outside, gap, strict=True):
        closed = np.roots(loop.delayed(int(n)).characteristic())
        assert count == (np.abs(closed) > 1).sum()
        distance = np.abs(1 + loop.at(edges) * np.exp(-1j * n * edges)).min()
        assert least == pytest.approx(distance, abs=1e-9)


def test_counting_without_a_loop_counts_its_own_poles():
    outside, gap = root_counter(Rational.of([], [0.5, 2.0, 0.0], 0.0))(np.array([0, 5]))
    assert outside.tolist() == [1, 1]
    assert gap.tolist() == [1.0, 1.0]


def test_counting_with_a_pole_on_the_circle():
    # 0.1/(z - 1): closed at z = 0.9; with n more steps z^n (z - 1) + 0.1, stable up to n = 15.
    outside, gap = root_counter(Rational.of([], [1.0], 0.1))(np.arange(20))
    assert (gap > 1e-3).all()
    stable = [
        (np.abs(np.roots([1.0, -1.0, *[0.0] * (n - 1), 0.1] if n else [1.0, -0.9])) < 1).all()
        for n in range(20)
    ]
    assert (outside == 0).tolist() == stable


def test_values_closer_than_1e_12_are_one():
    assert _rational._distinct([0.3, 0.1, 0.1 + 1e-13, 0.1 + 3e-12]).tolist() == [
        0.1,
        0.1 + 3e-12,
        0.3,
    ]
    assert _rational._distinct([]).size == 0


def test_points_are_as_small_as_promised(monkeypatch):
    """Where a gain touches 1 arcs are halved until half of one is below 1e-13, and no further."""
    least = []
    arc = Rational._arc
    monkeypatch.setattr(
        Rational, "_arc", lambda self, lo, hi: (least.append((hi - lo).min()), arc(self, lo, hi))[1]
    )
    Rational.of([], [0.5], 0.5).gain_crossings()
    assert 5e-14 <= min(least) / 2 < 1e-13


def test_crossings_next_to_the_ends_are_seen_from_past_the_end():
    # Im(e^jw - r) = sin w - Im r, a root without its conjugate.
    inner = _one(0.3 + 5e-11j).phase_crossings()[1:-1]
    assert inner == pytest.approx([5e-11, math.pi - 5e-11], rel=0, abs=1e-14)


def test_a_stretch_of_zeros_on_a_border_is_a_crossing():
    loop = Rational.of([], [0.0], 1.0)
    border = float(loop._first_arcs()[0][5])

    def flat(w):
        return np.where(np.abs(w - border) < 1e-6, 0.0, np.sign(w - border))

    found = loop._search(lambda lo, *_: np.zeros(lo.size, bool), flat, np.imag, math.pi / 2)
    assert found
    assert found == pytest.approx([border] * len(found), abs=1e-6)


def test_crossings_are_exact_to_the_last_places():
    # |e^jw - p| = g at cos w = (1 + p^2 - g^2)/(2 p)
    for g in np.linspace(0.6, 1.4, 41):
        (found,) = Rational.of([], [0.5], float(g)).gain_crossings()
        assert abs(found - math.acos(1.25 - g * g)) < 1e-14


def test_what_is_at_the_upper_end_to_1e_12_is_the_end(monkeypatch):
    monkeypatch.setattr(Rational, "_search", lambda *_: [math.pi - 1e-12])
    assert Rational.of([], [0.5, 0.3, 0.0], 0.7).phase_crossings().tolist() == [0.0, math.pi]


def test_a_pole_four_roundings_from_the_circle_is_off_it():
    assert Rational.of([], [1 + 3 * EPS], 1.0).peak() == (math.inf, 0.0)
    assert Rational.of([], [1 + 4 * EPS], 1.0).peak() == (pytest.approx(2.0**50), 0.0)


def test_the_first_of_equal_peaks_is_told():
    assert Rational.of([], [], -3.0).peak() == (pytest.approx(3.0), 0.0)


def test_values_exactly_1e_12_apart_are_one():
    assert _rational._distinct([0.0, 1e-12]).tolist() == [0.0]
