"""The parts of the searches one by one: bounds against dense arcs, values against closed forms."""

from __future__ import annotations

import math

import control
import numpy as np
import pytest
from scipy import signal

from gabactl import _rational
from gabactl._rational import Rational, Stability, root_counter, roots_of, stability_of
from gabactl.errors import InputError

EPS = float(np.finfo(float).eps)
PAIR = 0.8 * np.exp(1j * np.array([0.9, -0.9]))
#: Roots inside, on and outside the circle, at zero, on both sides of the real axis.
ROOTS = np.array([*PAIR, 0.5, -0.7, 0.0, 1.0, -1.0, np.exp(2.1j), np.exp(-2.1j), 1.6, -2.5])
ONE_OF_EACH = Rational(ROOTS, np.array([0.3, *(1.3 * np.exp(1j * np.array([1.7, -1.7])))]), -0.37)


# -- verdicts -----------------------------------------------------------------------------------


def test_the_radius_is_that_of_the_first_pole_and_zero_without_poles():
    assert stability_of([1.0, -0.25, 0.0, 0.0]).radius == 0.25
    assert stability_of([3.0]).radius == 0.0
    assert stability_of([3.0]).verdict == "stable"
    found = stability_of(np.poly([0.2, -0.9, 0.5])).poles
    assert np.abs(found) == pytest.approx([0.9, 0.5, 0.2])


def test_poles_of_one_modulus_keep_their_order():
    coefficients = np.array([1.0, *[0.0] * 39, 0.5])
    plain = roots_of(coefficients)
    order = sorted(range(40), key=lambda i: -np.abs(plain)[i])
    assert stability_of(coefficients).poles.tolist() == plain[order].tolist()


def test_stable_means_the_verdict_stable():
    poles = np.array([0.5 + 0j])
    assert Stability("stable", poles).stable
    assert not Stability("neutral", poles).stable


def test_roots_at_zero_are_exact_and_leading_zeros_are_no_roots():
    assert roots_of([0.0, 0.0, 2.0, -1.0, 0.0]).tolist() == [0.5, 0.0]
    assert roots_of([4.0, 0.0, 0.0]).tolist() == [0.0, 0.0]
    assert roots_of(7.0).size == 0
    assert roots_of([1.0, -0.5]).dtype == np.complex128
    for find in (roots_of, stability_of):
        with pytest.raises(
            InputError, match=r"^a polynomial that is zero everywhere has no roots:"
        ):
            find([0.0, 0.0])


def test_the_greatest_order_is_500():
    assert stability_of([1.0, 0.5, *[0.0] * 499]).verdict == "stable"
    with pytest.raises(
        InputError, match=r"^a closed loop of order 501 is beyond 500, where"
    ) as told:
        stability_of([1.0, 0.5, *[0.0] * 500])
    assert str(told.value).endswith("an interval (lifting divides the delay by it)")


@pytest.mark.parametrize("side", [1, -1])
def test_rounding_of_the_coefficients_decides_what_is_on_the_circle(side):
    # z - p: a change of both coefficients by 32 eps of their size moves p by 32 eps (1 + |p|).
    for steps, verdict in [(62, "neutral"), (65, "unstable" if side > 0 else "stable")]:
        assert stability_of([1.0, -(1 + side * steps * EPS)]).verdict == verdict
        assert stability_of([7.0, -7.0 * (1 + side * steps * EPS)]).verdict == verdict


def test_at_a_multiple_root_at_most_1e_7_counts_as_rounding():
    # The roots of (z - p)^2 come out apart by some 1e-8, and rounding could move them further.
    assert stability_of(np.poly([1 - 5e-8] * 2)).verdict == "neutral"
    assert stability_of(np.poly([1 - 1.5e-7] * 2)).verdict == "stable"
    assert stability_of(np.poly([1 + 1.5e-7] * 2)).verdict == "unstable"


# -- construction -------------------------------------------------------------------------------


def test_common_roots_at_zero_are_cancelled_and_no_others():
    loop = Rational.of([0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.5, 0.2], 2.0)
    assert loop.zeros.tolist() == [0.5]
    assert sorted(loop.poles.tolist(), key=abs) == [0.0, 0.2, 0.5]
    other = Rational.of([0.0, 0.0], [0.0, 0.3], 1.0)
    assert (other.zeros.tolist(), other.poles.tolist()) == ([0.0], [0.3])


def test_from_coefficients():
    loop = Rational.from_coefficients([0.0, 3.0, -1.5], [0.0, 0.0, 2.0, -0.5, 0.0])
    assert (loop.zeros.tolist(), loop.poles.tolist()) == ([0.5], [0.25, 0.0])
    assert loop.gain == 1.5
    nothing = Rational.from_coefficients([0.0, 0.0], [1.0, -0.5])
    assert (nothing.gain, nothing.zeros.size, nothing.poles.tolist()) == (0.0, 0, [0.5])


@pytest.mark.parametrize("number", [3, 0.25])
def test_a_number_is_a_loop_without_dynamics(number):
    loop = Rational.from_lti(number)
    assert (loop.gain, loop.zeros.size, loop.poles.size) == (number, 0, 0)
    assert loop(1j) == number


def test_as_many_zeros_as_poles_are_a_loop():
    loop = Rational.from_lti(control.TransferFunction([1.0, -0.2], [1.0, -0.5], 1))
    assert (loop.zeros.tolist(), loop.poles.tolist(), loop.gain) == ([0.2], [0.5], 1.0)


class _HalfASystem:
    """Has dimensions, and neither polynomials nor matrices."""

    ninputs = noutputs = dt = 1


def _two_outputs():
    return control.ss(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((2, 1)), np.zeros((2, 1)), 1)


def _two_inputs():
    return control.ss(np.zeros((1, 1)), np.zeros((1, 2)), np.zeros((1, 1)), np.zeros((1, 2)), 1)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("L", "system of type str: give a control.TransferFunction or control.StateSpace"),
        (
            _HalfASystem(),
            "system of type _HalfASystem: give a control.TransferFunction or control.StateSpace",
        ),
        (
            signal.dlti([1.0], [1.0, -0.5]),
            "system of type TransferFunctionDiscrete: give a control.TransferFunction or "
            "control.StateSpace",
        ),
        (_two_outputs(), "system with 1 inputs and 2 outputs: give a loop with one of each"),
        (_two_inputs(), "system with 2 inputs and 1 outputs: give a loop with one of each"),
        (
            control.TransferFunction([1.0], [1.0, 1.0], 0),
            "system with dt = 0: give a discrete-time system, such as dt=1",
        ),
        (
            control.TransferFunction([1.0], [1.0, 1.0], None),
            "system with dt = None: give a discrete-time system, such as dt=1",
        ),
        (
            control.TransferFunction([1.0, 0.0, 0.0], [1.0, 1.0], 1),
            "system with more zeros than poles: it would answer before it is asked",
        ),
    ],
)
def test_what_is_no_loop_is_refused(system, message):
    with pytest.raises(InputError) as told:
        Rational.from_lti(system)
    assert str(told.value) == message


def test_leading_zeros_are_no_degree():
    proper = control.TransferFunction([1.0], [1.0, -0.5], 1)
    proper.num[0][0] = np.array([0.0, 0.0, 0.0, 1.0])
    assert Rational.from_lti(proper).poles.tolist() == [0.5]
    improper = control.TransferFunction([1.0, 0.0, 0.0], [1.0, -0.5], 1)
    improper.den[0][0] = np.array([0.0, 0.0, 1.0, -0.5])
    with pytest.raises(InputError, match="more zeros than poles"):
        Rational.from_lti(improper)


@pytest.mark.parametrize("seed", range(6))
def test_states_against_their_resolvent(seed):
    """C (zI - A)^-1 B + D, solved at points off the circle."""
    rng = np.random.default_rng(seed)
    order = seed
    a = rng.normal(size=(order, order)) * 0.4
    b, c = rng.normal(size=(order, 1)), rng.normal(size=(1, order))
    d = np.array([[0.0 if seed % 2 else 0.7]])
    loop = Rational.from_lti(control.ss(a, b, c, d, 1))
    for z in (1.5, -2.0, 1.2j, 3.0 + 1.0j):
        expected = c @ np.linalg.solve(z * np.eye(order) - a, b) + d
        assert loop(z) == pytest.approx(complex(expected[0, 0]), rel=1e-9)


def test_a_chain_of_delays_in_states_is_exact():
    a = np.diag([1.0, 1.0], -1)
    loop = Rational.from_lti(control.ss(a, [[0.3], [0], [0]], [[0, 0, 1.0]], [[0]], 1))
    assert (loop.zeros.size, loop.poles.tolist(), loop.gain) == (0, [0.0] * 3, 0.3)


def test_dust_in_the_coefficients_of_states_is_no_coefficient():
    # A nilpotent matrix in turned coordinates: its characteristic polynomial is z^3 and some dust.
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    a = q @ np.diag([1.0, 1.0], -1) @ q.T
    loop = Rational.from_lti(control.ss(a, q @ [[0.3], [0], [0]], [[0, 0, 1.0]] @ q.T, [[0]], 1))
    assert loop.poles.tolist() == [0.0] * 3
    assert loop.zeros.size == 0
    # Small is not dust.
    small = control.ss([[0.5, 0.0], [0.0, 1e-13]], [[1.0], [1.0]], [[1.0, 1.0]], [[0]], 1)
    assert sorted(np.abs(Rational.from_lti(small).poles)) == pytest.approx([1e-13, 0.5], rel=1e-3)


def test_products_and_delays():
    one, two = Rational.of([0.5], [0.2, 0.0], 2.0), Rational.of([], [-0.4], 3.0)
    z = np.array([1.1, 1j, -0.7])
    assert (one * two)(z) == pytest.approx(one(z) * two(z))
    assert (one * two).gain == 6.0
    assert (one * 2.5)(z) == pytest.approx(2.5 * one(z))
    assert one.delayed(3)(z) == pytest.approx(one(z) / z**3)
    assert Rational.of([0.0, 0.0], [0.3], 1.0).delayed(1).zeros.tolist() == [0.0]


def test_coefficients_have_one_length_and_close_the_loop():
    loop = Rational.of([0.5], [0.2, -0.3, 0.1], 2.0)
    assert loop.numerator == pytest.approx([0.0, 0.0, 2.0, -1.0])
    assert loop.denominator == pytest.approx(np.poly([0.2, -0.3, 0.1]))
    assert loop.characteristic() == pytest.approx(loop.denominator + loop.numerator)
    assert loop.characteristic(3.0) == pytest.approx(loop.denominator + 3 * loop.numerator)
    early = Rational.of([0.5, 0.1], [0.2], 2.0)
    assert early.denominator == pytest.approx([0.0, 1.0, -0.2])
    # D + N = z - 0.2 + 2 at factor 1; z - 0.2 - 1 with the sign turned and halved.
    first = Rational.of([], [0.2], 2.0)
    assert first.closed().poles == pytest.approx([-1.8])
    assert first.closed(-0.5).poles == pytest.approx([1.2])


def test_as_a_control_system():
    system = ONE_OF_EACH.delayed(9).to_control()
    z = 1.7 + 0.4j
    assert system(z) == pytest.approx(complex(ONE_OF_EACH.delayed(9)(z)), rel=1e-9)
    assert system.dt == 1
    assert Rational.of([], [0.5], 1.0).to_control(7).dt == 7
    nothing = Rational.of([], [0.5], 0.0).to_control()
    assert nothing(2.0) == 0.0
    assert nothing.num[0][0].tolist() == [0.0]
    ahead = Rational.of([0.5], [0.2, 0.1], 2.0).to_control()
    assert ahead.num[0][0] == pytest.approx([2.0, -1.0])


def test_roots_in_conjugate_pairs_give_real_coefficients_and_others_do_not():
    assert np.isrealobj(_rational._expand(PAIR))
    assert _rational._expand(PAIR) == pytest.approx([1.0, -1.6 * math.cos(0.9), 0.64])
    # As computed, a pair need not be exactly one.
    rounded = PAIR * np.array([1.0, 1 + 4e-16])
    assert np.isrealobj(_rational._expand(rounded))
    lone = np.array([0.5 + 0.2j])
    assert np.iscomplexobj(_rational._expand(lone))
    assert _rational._expand(lone)[1] == -(0.5 + 0.2j)
    assert np.iscomplexobj(_rational._expand(np.array([0.5 + 0.2j, 0.5 - 0.1j])))
    assert _rational._expand(np.empty(0)).tolist() == [1.0]


def test_what_counts_as_a_pair_grows_with_the_roots():
    assert _rational._paired(np.array([1e6 + 1j, 1e6 - 1j + 1e-4j]))
    assert not _rational._paired(np.array([1.0 + 1j, 1.0 - 1j + 1e-6j]))
    assert _rational._paired(np.array([0.3, 0.5 + 1e-10j]))
    assert not _rational._paired(np.array([0.3, 0.5 + 1e-8j]))
    assert _rational._paired(np.empty(0, dtype=complex))


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


def _one(root: complex) -> Rational:
    return Rational(np.array([root]), np.empty(0, complex), 1.0)


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
