"""Verdicts on poles, and rational functions from whatever a user gives."""

from __future__ import annotations

import math

import control
import numpy as np
import pytest
from scipy import signal

from gabactl.base.errors import InputError
from gabactl.control import _rational
from gabactl.control._rational import Rational, Stability, roots_of, stability_of

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


@pytest.mark.parametrize(("height", "paired"), [(2.25e-9, True), (3.5e-9, False)])
def test_a_lone_root_off_the_axis_by_less_than_rounding_counts_as_on_it(height, paired):
    # 1e-9 of 1 + |root|, and as much for each root off the axis.
    assert _rational._paired(np.array([0.5 + 1j * height])) == paired


def test_dust_is_judged_by_the_size_of_the_coefficients():
    # A turned chain of delays beside a pole at 30, which makes both coefficients and dust larger.
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    plain = np.zeros((4, 4))
    plain[0, 0], plain[2, 1], plain[3, 2] = 30.0, 1.0, 1.0
    a, b, c = turn @ plain @ turn.T, turn @ np.eye(4)[:, 1:2], np.eye(4)[3:, :] @ turn.T
    loop = Rational.from_lti(control.ss(a, b, c, [[0.0]], 1))
    assert np.sort(np.abs(loop.poles)) == pytest.approx([0.0, 0.0, 0.0, 30.0])
    assert (loop.poles == 0).sum() == 3
    # A quiet loop is no dust.
    for size in (1e-9, 1e-16):
        quiet = Rational.from_lti(control.ss([[0.5]], [[size]], [[1.0]], [[0.0]], 1))
        assert quiet.gain == size


def test_what_is_exactly_on_a_limit_is_kept():
    # Paired: of height 2e-9 in all for each root off the axis, and once more. Dust: below 1e-14.
    assert _rational._paired(np.array([1.0, 0.5 + 4e-9j]))
    pole = Rational.from_lti(control.ss([[1e-14]], [[1.0]], [[1.0]], [[0.0]], 1))
    assert pole.poles.tolist() == [1e-14]
    zero = Rational.from_lti(control.ss([[0.0]], [[1e-14]], [[1.0]], [[1.0]], 1))
    assert zero.zeros.tolist() == [-1e-14]
