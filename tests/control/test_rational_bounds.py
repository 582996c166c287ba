"""Values, slopes and bounds on arcs, against plain products, differences and dense arcs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gabactl.control import _rational
from gabactl.control._rational import Rational

EPS = float(np.finfo(float).eps)
PAIR = 0.8 * np.exp(1j * np.array([0.9, -0.9]))
#: Roots inside, on and outside the circle, at zero, on both sides of the real axis.
ROOTS = np.array([*PAIR, 0.5, -0.7, 0.0, 1.0, -1.0, np.exp(2.1j), np.exp(-2.1j), 1.6, -2.5])
ONE_OF_EACH = Rational(ROOTS, np.array([0.3, *(1.3 * np.exp(1j * np.array([1.7, -1.7])))]), -0.37)


def _one(root: complex) -> Rational:
    return Rational(np.array([root]), np.empty(0, complex), 1.0)


# -- values and slopes --------------------------------------------------------------------------

W = np.array([0.05, 0.4, 1.234, 2.0, 3.0])


def _plain(loop: Rational, z: np.ndarray) -> np.ndarray:
    top = np.prod(z[:, None] - loop.zeros, axis=-1)
    return loop.gain * top / np.prod(z[:, None] - loop.poles, axis=-1)


def test_values_are_those_of_the_plain_product():
    z = np.exp(1j * W)
    assert ONE_OF_EACH.at(W) == pytest.approx(_plain(ONE_OF_EACH, z), rel=1e-12)
    assert ONE_OF_EACH(z) == pytest.approx(_plain(ONE_OF_EACH, z), rel=1e-12)
    assert np.exp(ONE_OF_EACH._log_modulus(W)) == pytest.approx(np.abs(_plain(ONE_OF_EACH, z)))


def test_a_root_without_its_conjugate_has_the_modulus_of_its_value():
    loop = _one(0.3 + 0.4j) * 2.0
    assert np.exp(loop._log_modulus(W)) == pytest.approx(np.abs(loop.at(W)))


def test_products_of_hundreds_of_factors_do_not_overflow():
    loop = Rational(np.full(400, 1e3 + 0j), np.full(400, -1e3 + 0j), 1.0)
    assert abs(loop(1j)) == pytest.approx(1.0, rel=1e-9)


def test_slopes_against_differences():
    h = 1e-6
    ahead, behind = ONE_OF_EACH.at(W + h), ONE_OF_EACH.at(W - h)
    slope = ONE_OF_EACH._log_slope(W)
    assert slope.real == pytest.approx(np.log(np.abs(ahead / behind)) / (2 * h), rel=1e-6)
    assert slope.imag == pytest.approx(np.angle(ahead / behind) / (2 * h), rel=1e-6)
    assert complex(ONE_OF_EACH._log_slope(W[1])) == pytest.approx(slope[1])


def test_the_turn_of_each_arc_is_continuous():
    edges = np.array([0.0, 0.3, 1.1, 2.5, math.pi])
    roots = ROOTS[(np.abs(np.abs(ROOTS) - 1) > 1e-9)]  # off the circle the argument has no jump
    turn = _rational._turn(roots, edges[:-1], edges[1:])
    for lo, hi, found in zip(edges[:-1], edges[1:], turn, strict=True):
        w = np.linspace(lo, hi, 4001)
        each = np.unwrap(np.angle(np.exp(1j * w)[:, None] - roots), axis=0)
        assert found == pytest.approx((each[-1] - each[0]).sum(), abs=1e-9)


def test_complex_roots_just_outside_turn_without_a_jump():
    edges = np.linspace(0.0, math.pi, 6)
    for root in (1.3 * np.exp(1.7j), 1.3 * np.exp(-1.7j), -1.5 + 0.4j):
        w = np.linspace(edges[:-1], edges[1:], 2001)
        each = np.unwrap(np.angle(np.exp(1j * w) - root), axis=0)
        turn = _rational._turn(np.array([root]), edges[:-1], edges[1:])
        assert turn == pytest.approx(each[-1] - each[0], abs=1e-9)


def test_a_root_on_the_circle_turns_by_half_the_arc():
    lo, hi = np.array([0.2, 2.2]), np.array([1.0, 3.0])
    assert _rational._turn(np.exp([2.1j]), lo, hi) == pytest.approx([0.4, 0.4])


# -- bounds -------------------------------------------------------------------------------------

ARCS = np.linspace(0.0, math.pi, 14)
LO, HI = ARCS[:-1], ARCS[1:]


@pytest.mark.parametrize("wide", [False, True])
def test_distances_of_roots_from_arcs_are_those_of_a_dense_arc(wide):
    lo, hi = (np.array([0.0, 0.5, 1.5]), np.array([1.0, 3.0, math.pi])) if wide else (LO, HI)
    least, most = ONE_OF_EACH._arc(lo, hi)
    roots = np.concatenate([ONE_OF_EACH.zeros, ONE_OF_EACH.poles])
    for a, b, near, far in zip(lo, hi, least, most, strict=True):
        seen = np.abs(np.exp(1j * np.linspace(a, b, 2001))[:, None] - roots)
        assert near == pytest.approx(seen.min(axis=0), abs=2e-3)
        assert far == pytest.approx(seen.max(axis=0), abs=2e-3)
        assert (near <= seen.min(axis=0) + 1e-15).all()
        assert (far >= seen.max(axis=0) - 1e-15).all()


def test_chord_is_the_distance_without_cancellation():
    radius, offset = np.array([0.3, 1.0, 2.0, 1.0]), np.array([0.5, math.pi, 1.0, 1e-9])
    expected = np.abs(np.exp(1j * offset) - radius)
    expected[3] = 1e-9
    assert _rational._chord(radius, offset) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("angle", [-7.0, -2.0, 0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 6.2, 6.3, 6.9, 13.0])
def test_an_angle_is_in_an_arc_modulo_full_turns(angle):
    lo, hi = np.array([0.0, 0.5, 1.0, 0.5]), np.array([1.0, 2.0, 1.5, 3.0])
    turns = angle + 2 * math.pi * np.arange(-4, 5)[:, None]
    expected = ((turns >= lo) & (turns <= hi)).any(axis=0)
    assert _rational._contains(lo, hi, np.array(angle)).tolist() == expected.tolist()


def test_an_angle_a_rounding_below_zero_is_at_zero():
    # -1e-20 modulo a full turn is a full turn, to rounding.
    lo, hi = np.array([0.0, 0.5]), np.array([1.0, 2.0])
    assert _rational._contains(lo, hi, np.array(-1e-20)).tolist() == [True, False]


@pytest.mark.parametrize("root", [0.8, 0.3 + 0.4j, -0.95, 0.999j, 1.2, 2.0 + 1.0j, -1.01])
@pytest.mark.parametrize("width", [1e-9, 0.05])
def test_bounds_of_the_derivatives_hold_and_are_met(root, width):
    """|d^2 log(e^jw - r)/dw^2| = |r|/d^2; d arg/dw = 1/2 + (1 - |r|^2)/(2 d^2)."""
    for lo in (0.1, 0.9, math.pi / 2 - width / 2, 2.4):
        a, b = np.array([lo]), np.array([lo + width])
        w = np.linspace(lo, lo + width, 101)
        e = np.exp(1j * w)
        second = -root * e / (e - root) ** 2  # of log(e^jw - root), by hand
        least, _ = _one(root)._arc(a, b)
        curve = _one(root)._curvature(least)[0]
        turn, bend = (float(bound[0]) for bound in _one(root)._turn_bounds(least))
        speed = np.abs((e / (e - root)).real)
        assert curve >= np.abs(second).max() * (1 - 1e-12)
        assert turn >= speed.max() * (1 - 1e-12)
        assert bend >= np.abs(second.imag).max() * (1 - 1e-9)
        if width < 1e-6:
            distance = abs(e[0] - root)
            assert curve == pytest.approx(abs(root) / distance**2, rel=1e-6)
            off = abs(1 - abs(root) ** 2)
            first = min(1 / distance, 0.5 + off / (2 * distance**2))
            assert turn == pytest.approx(first, rel=1e-6)
            curl = min(abs(root) / distance**2, off * math.sqrt(abs(root)) / distance**3)
            assert bend == pytest.approx(curl, rel=1e-6)
            if abs(root) < 1:
                assert turn == pytest.approx(speed[0], rel=1e-6)


def test_bounds_of_several_roots_add_up():
    roots = np.array([0.5, -0.3, 1.4])
    least = np.abs(np.exp(0.7j) - roots)[None, :]
    together = Rational(roots[:2], roots[2:], 1.0)
    for name in ("_curvature", "_turn_bounds"):
        each = [
            np.asarray(getattr(_one(root), name)(least[:, i : i + 1]))
            for i, root in enumerate(roots)
        ]
        assert np.asarray(getattr(together, name)(least)) == pytest.approx(sum(each))


def test_a_root_on_the_circle_turns_by_one_half_and_never_bends():
    for root in (np.exp(0.7j), np.exp(0.7j) * (1 + EPS), np.exp(0.7j) * (1 - EPS)):
        loop = _one(root)
        turn, bend = loop._turn_bounds(np.array([[1e-6]]))
        assert (turn[0], bend[0]) == (0.5, 0.0)
    for near in (1.0 + 2 * EPS, 1.0 + 1e-14):
        assert _one(near)._turn_bounds(np.array([[1e-6]]))[1][0] > 0.0


def test_the_first_arcs_cover_the_half_circle():
    lo, hi = ONE_OF_EACH._first_arcs()
    assert (lo[0], hi[-1]) == (0.0, math.pi)
    assert (lo[1:] == hi[:-1]).all()
    assert lo.size >= 4 * ROOTS.size
