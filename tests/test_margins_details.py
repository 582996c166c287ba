"""Every promise of the margins in a quick test of its own, against closed forms and counting."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from types import SimpleNamespace

import control
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gabactl import _delay_margin, _disk_margin, plots
from gabactl import margins as margins_module
from gabactl._delay_margin import delay_margin
from gabactl._rational import Rational
from gabactl.errors import InputError
from gabactl.linear import open_loop
from gabactl.margins import Margins, Witness, confirm_witnesses, margins, stabilising_gains
from gabactl.plants import LogRatio
from gabactl.spec import GabaSpec

#: 0.5/(z - 0.99): every margin by hand.
LOOP = control.TransferFunction([0.5], [1, -0.99], 1)
#: 1.5/(z - 0.5) is stable only from -1/3 to 1 times itself.
STEEP = control.TransferFunction([1.5], [1, -0.5], 1)


def _db(value: float) -> float:
    return 20 * math.log10(value)


@pytest.fixture(scope="module")
def found() -> Margins:
    return margins(LOOP)


# -- numbers ------------------------------------------------------------------------------------


def test_a_first_order_loop_by_hand(found):
    assert (found.interval, found.skew, found.stable) == (1, 0.0, True)
    assert found.stability.poles.tolist() == pytest.approx([0.49])
    assert found.gain_margin_up == pytest.approx(1.99 / 0.5)
    assert found.gain_margin_down == 0.0
    w = math.acos((1 + 0.99**2 - 0.25) / (2 * 0.99))  # |e^jw - 0.99| = 0.5
    phase = abs(np.angle(-0.5 / (np.exp(1j * w) - 0.99)))
    assert found.phase_margin_deg == pytest.approx(math.degrees(phase))
    assert found.witnesses["phase_margin_deg"].frequency_rad_per_step == pytest.approx(w)
    assert abs(found.witnesses["phase_margin_deg"].factor) == pytest.approx(1.0)
    n = max(n for n in range(40) if _stable([1, -0.99], [0.5], n))
    assert (found.delay_margin_steps, found.witnesses["delay_margin_steps"]) == (
        n,
        Witness(stable_steps=n, unstable_steps=n + 1),
    )
    assert found.ms == pytest.approx(1.99 / 1.49)
    assert found.mt == pytest.approx(50 / 51)
    assert found.witnesses["ms"] == Witness(frequency_rad_per_step=pytest.approx(math.pi))
    assert found.witnesses["mt"] == Witness(frequency_rad_per_step=0.0)
    # S - 1/2 = (1 - L)/(2 (1 + L)) = (z - 1.49)/(2 (z - 0.49)) peaks at z = -1: 2.49/2.98.
    assert found.disk_margin == pytest.approx(2.98 / 2.49)
    assert found.witnesses["disk_margin"].factor == pytest.approx(3.98)
    assert found.witnesses["disk_margin"].frequency_rad_per_step == pytest.approx(math.pi)
    half = 2.98 / 2.49 / 2
    assert found.disk_gain_up == pytest.approx((1 + half) / (1 - half))
    assert found.disk_gain_down == pytest.approx((1 - half) / (1 + half))
    assert found.disk_phase_deg == pytest.approx(math.degrees(2 * math.atan(half)))
    assert found.stabilising == ()
    assert found.reasons == {"gain_margin_down": "stable for every smaller gain"}


def _stable(den: list[float], num: list[float], n: int) -> bool:
    closed = np.polyadd(np.array([*den, *[0.0] * n]), np.array(num))
    return bool((np.abs(np.roots(closed)) < 1).all())


def test_what_a_witness_tells():
    assert Witness(0.5 + 0.5j, 0.25).to_dict() == {
        "factor": 0.5 + 0.5j,
        "frequency_rad_per_step": 0.25,
    }
    assert Witness(stable_steps=0, unstable_steps=1).to_dict() == {
        "stable_steps": 0,
        "unstable_steps": 1,
    }
    assert Witness().to_dict() == {"factor": 1.0, "frequency_rad_per_step": None}


def test_the_machine_output_whole(found):
    told = found.to_dict()
    assert list(told) == [
        "stable",
        "verdict",
        "poles",
        "spectral_radius",
        *("gain_margin_up", "gain_margin_up_db", "gain_margin_down", "gain_margin_down_db"),
        *("disk_gain_up", "disk_gain_up_db", "disk_gain_down", "disk_gain_down_db"),
        *("phase_margin_deg", "delay_margin_steps", "disk_margin", "disk_phase_deg", "disk_skew"),
        *("ms", "ms_db", "mt", "mt_db", "witnesses", "stabilising_gains", "reasons"),
    ]
    for name in ("gain_margin_up", "disk_gain_up", "disk_gain_down", "ms", "mt"):
        assert told[name] == getattr(found, name)
        assert told[name + "_db"] == pytest.approx(_db(told[name]))
    assert told["gain_margin_down_db"] == -math.inf
    for name in ("phase_margin_deg", "delay_margin_steps", "disk_margin", "disk_phase_deg"):
        assert told[name] == getattr(found, name)
    assert (told["stable"], told["verdict"], told["disk_skew"]) == (True, "stable", 0.0)
    assert told["spectral_radius"] == pytest.approx(0.49)
    assert told["poles"].tolist() == pytest.approx([0.49])
    assert list(told["witnesses"]) == [
        *("gain_margin_up", "phase_margin_deg", "delay_margin_steps", "ms", "mt", "disk_margin")
    ]
    assert told["witnesses"]["delay_margin_steps"] == {
        "stable_steps": found.delay_margin_steps,
        "unstable_steps": found.delay_margin_steps + 1,
    }
    assert told["stabilising_gains"] == []
    assert told["reasons"] == found.reasons


def test_the_table_whole(found):
    n = int(found.delay_margin_steps)
    w = found.witnesses["phase_margin_deg"].frequency_rad_per_step
    assert found.rows() == [
        ("closed loop", "stable", "largest pole 0.49"),
        ("gain margin up", "3.98 (12.00 dB)", "at 3.1416 rad/step"),
        ("gain margin down", "any reduction", "stable for every smaller gain"),
        ("phase margin", f"{found.phase_margin_deg:.4g} deg", f"at {w:.5g} rad/step"),
        ("delay margin", f"{n} steps", ""),
        (
            "disk margin (skew 0)",
            "1.197",
            f"gain 0.2513 to 3.98, phase +-{found.disk_phase_deg:.4g} deg",
        ),
        ("peak of S (Ms)", "1.3356 (2.51 dB)", "at 3.1416 rad/step"),
        ("peak of T (Mt)", "0.98039 (-0.17 dB)", "at 0 rad/step"),
    ]
    assert str(found).splitlines()[0] == "Margins"
    assert found._where("delay_margin_steps") == ""


def test_the_words_for_numbers():
    m = margins_module
    assert (m._gain(None), m._gain(math.inf), m._gain(0.0)) == (
        "none",
        "infinite",
        "any reduction",
    )
    assert (m._plain(None), m._plain(math.inf), m._plain(2.5)) == ("infinite", "infinite", "2.5")
    assert (m._degrees(None), m._degrees(math.inf), m._degrees(2.5)) == (
        "none",
        "infinite",
        "2.5 deg",
    )
    assert (m._range(0.5, 2.0), m._range(0.5, math.inf)) == ("0.5 to 2", "0.5 to infinity")
    assert (m._db(None), m._db(10.0), m._db(0.0)) == (None, 20.0, -math.inf)


def test_words_of_a_loop_that_any_delay_leaves_stable():
    quiet = margins(control.TransferFunction([0.25], [1, -0.5], 1))
    rows = {row[0]: row[1:] for row in quiet.rows()}
    told = "the loop gain does not exceed 1 at any frequency"
    assert rows["delay margin"] == ("none needed (any delay)", told)
    assert rows["phase margin"] == ("infinite", "the loop gain is below 1 at every frequency")
    assert quiet.delay_margin_steps == math.inf
    assert "delay_margin_steps" not in quiet.witnesses
    unknown = dataclasses.replace(quiet, delay_margin_steps=None)
    assert unknown._delay_text() == "none needed (any delay)"


def test_each_skew_by_hand():
    # c = (skew - 1)/2: |S + c| = |(1 + c)(z - 0.99) + c 0.5|/|z - 0.49|, largest at z = 1 or -1.
    for skew in (-1.0, -0.5, 0.6, 1.0, 3.0):
        c = (skew - 1) / 2
        heights = [abs((1 + c) * (z - 0.99) + c * 0.5) / abs(z - 0.49) for z in (1.0, -1.0)]
        result = margins(LOOP, skew)
        assert result.skew == skew
        assert result.disk_margin == pytest.approx(1 / max(heights))
        assert all(confirm_witnesses(LOOP, result).values())


# -- the disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-3.0, -1.5, -1.0, -0.4, 0.0, 0.7, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("alpha", [0.3, 0.9, 1.1, 1.9, 2.5, 6.0])
def test_what_the_disk_holds_by_asking_every_factor(skew, alpha):
    """A factor f is in the disk where its delta is smaller than alpha."""
    down, up, phase = _disk_margin.disk_contents(alpha, skew)
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
    down, up, phase = _disk_margin.disk_contents(1.0, 1.0)
    assert (down, up, phase) == (0.5, math.inf, pytest.approx(60.0))
    # skew -3, alpha 1: f = (1 + 2 d)/(1 + d) is the half plane left of 3/2.
    assert _disk_margin.disk_contents(1.0, -3.0)[:2] == (0.0, 1.5)
    assert _disk_margin.disk_contents(math.inf, 0.3) == (0.0, math.inf, math.inf)


@pytest.mark.parametrize("skew", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_factor_and_delta_are_inverse(skew):
    for delta in (0.3, -0.2 + 0.4j, 1.5j):
        factor = _disk_margin.disk_factor(delta, skew)
        assert factor == pytest.approx((2 + (1 - skew) * delta) / (2 - (1 + skew) * delta))
        assert _disk_margin.disk_delta(factor, skew) == pytest.approx(delta)
    assert _disk_margin.disk_factor(1.0, 1.0) == complex(math.inf)


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
    open_ = _disk_margin.disk_margin(Rational.of([], [0.5], 0.0), result.stability, 0.0)
    assert open_ == (math.inf, complex(math.inf), 0.0)


def test_peaks_against_a_grid():
    """With zeros, complex poles, and S + c whose leading coefficient vanishes."""
    w = np.linspace(0, math.pi, 20_001)
    for loop in (
        Rational.of([0.5], [0.6 + 0.3j, 0.6 - 0.3j, -0.2], 0.4),
        Rational.of([-0.4], [0.3], 1.0),  # skew 0: (D - N)/2, of degree 0
    ):
        for skew in (-1.0, 0.0, 0.5, 1.0):
            result = margins(loop.to_control(), skew)
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
    assert margins(control.TransferFunction([1.0], [1.0], 1), 1.0).disk_margin == 2.0
    closed = Rational.of([], [], 1.0).closed()
    nothing = _disk_margin._over_closed(Rational.of([], [], 1.0), closed, 0.5, -0.5)
    assert nothing.peak() == (0.0, 0.0)


# -- gains --------------------------------------------------------------------------------------


def test_ranges_with_a_hole():
    # Conditionally stable: z^2 - 2.2 z + 1.3 + k (z - 0.9).
    loop = control.TransferFunction([1, -0.9], [1, -2.2, 1.3], 1)
    (first,) = stabilising_gains(loop)
    gains = np.linspace(0.001, 10, 1001)
    stable = [(np.abs(np.roots([1, -2.2 + k, 1.3 - 0.9 * k])) < 1).all() for k in gains]
    on_grid = gains[np.flatnonzero(stable)]
    assert first == (pytest.approx(on_grid[0], abs=1e-2), pytest.approx(on_grid[-1], abs=1e-2))


def test_ranges_are_open_to_infinity_or_begin_at_zero():
    # z - 0.5 + k (z - 0.2): inside for every positive k.
    assert stabilising_gains(control.TransferFunction([1, -0.2], [1, -0.5], 1)) == (
        (0.0, math.inf),
    )
    # z - 2 + k (z - 0.5): for k > 2.
    ((low, high),) = stabilising_gains(control.TransferFunction([1, -0.5], [1, -2], 1))
    assert (low, high) == (pytest.approx(2.0), math.inf)
    assert stabilising_gains(Rational.of([], [2.0], -1.0)) == ()
    assert stabilising_gains(open_loop(GabaSpec(), LogRatio(0.5))) == ((0.0, pytest.approx(2.0)),)


def test_two_ranges_are_told_apart():
    # Found by a search: two pairs of poles near the circle, one pair of zeros.
    angles, radii = np.array([0.40493220269, 0.92184873319]), np.array([0.9915754239, 0.9837472285])
    poles = [*(radii * np.exp(1j * angles)), *(radii * np.exp(-1j * angles))]
    zeros = 0.82207240444 * np.exp(1j * np.array([0.560284994469, -0.560284994469]))
    loop = Rational.of(zeros, poles, -1.0)
    first, second = stabilising_gains(loop)
    assert first == (0.0, pytest.approx(0.0894735, abs=1e-4))
    assert second == (pytest.approx(0.4408, abs=1e-3), pytest.approx(0.4414, abs=1e-3))
    edges = [first[1], *second]
    gains = [k * factor for k in edges for factor in (0.9999, 1.0001)]
    stable = [(np.abs(np.roots(loop.characteristic(k))) < 1).all() for k in gains]
    assert stable == [True, False, False, True, True, False]


def test_a_range_without_end_above_a_factor_below_one():
    # As above with 20/9 times the loop: every k > 0.9.
    ((low, high),) = stabilising_gains(control.TransferFunction([20 / 9, -10 / 9], [1, -2], 1))
    assert (low, high) == (pytest.approx(0.9), math.inf)


def test_a_pole_on_the_circle_within_rounding_is_no_gain_margin():
    turned = Rational.of([], [1.0 - 2.0**-53, 0.5], -0.01)
    assert margins_module._critical_gains(turned) == [(pytest.approx(300), math.pi)]
    # A true one above 1e-9 is one.
    ((k, w),) = margins_module._critical_gains(Rational.of([], [1.0], 2 / 1.5e-9))
    assert (k, w) == (pytest.approx(1.5e-9), math.pi)


def test_a_range_goes_on_where_a_pole_only_touches_the_circle():
    # Built so that at k = 1 a pair of poles comes to the circle at w = 2.3396 and turns back.
    angle, s, n2 = 2.3396338853038303, -0.21879166393254573, -1.2459109472530652
    z0 = np.exp(1j * angle)
    closed = np.poly([z0, np.conj(z0), -0.5967137997958223, 0.42888513190508315]).real
    value = 1j * z0 * np.polyval(np.polyder(closed), z0) * s - n2 * z0**2
    n1 = value.imag / z0.imag
    top = np.array([n2, n1, value.real - n1 * z0.real])
    bottom = np.polysub(closed, top)
    ((low, high),) = stabilising_gains(control.TransferFunction(top, bottom, 1))
    for k in (low * 1.001, 0.97, 1.03, high * 0.999):
        assert (np.abs(np.roots(np.polyadd(bottom, k * top))) < 1).all()
    for k in (low * 0.999, high * 1.001):
        assert (np.abs(np.roots(np.polyadd(bottom, k * top))) > 1).any()
    # The same in z^2: every critical gain is one twice over.
    squares = [np.insert(p, range(1, len(p)), 0.0) for p in (top, bottom)]
    twice = stabilising_gains(control.TransferFunction(*squares, 1))
    assert (twice[0][0], twice[-1][1]) == (pytest.approx(low), pytest.approx(high))
    half = control.TransferFunction(0.5 * top, bottom, 1)
    result = margins(half)
    assert result.gain_margin_up == pytest.approx(2.0, abs=1e-5)
    assert confirm_witnesses(half, result)["gain_margin_up"]


def test_poles_on_the_circle_make_no_margin_at_a_gain_of_zero():
    pair = np.exp(1j * np.array([1.2, -1.2]))
    loop = Rational.of([0.3], [*pair], 1e-3) * -1.0
    if not loop.closed().stable:
        loop = loop * -1.0
    result = margins(loop.to_control())
    assert result.gain_margin_down == 0.0
    assert result.reasons["gain_margin_down"] == "stable for every smaller gain"
    # Of a loop without such poles a tiny factor may well be critical.
    small = margins_module._critical_gains(Rational.of([], [-0.5], 1.5e10))
    assert [k for k, _ in small] == pytest.approx([0.5 / 1.5e10])
    assert [w for _, w in small] == pytest.approx([math.pi])


def test_the_nearest_critical_gain_on_either_side():
    loop = control.TransferFunction([1.5, -1.35], [1, -2.2, 1.3], 1)
    result = margins(loop)
    ((low, high),) = stabilising_gains(loop)
    assert result.gain_margin_down == pytest.approx(low)
    assert result.gain_margin_up == pytest.approx(high)
    assert result.witnesses["gain_margin_down"].factor == pytest.approx(low)
    assert "gain_margin_down" not in result.reasons
    rational = Rational.from_lti(loop)
    for name in ("gain_margin_up", "gain_margin_down"):
        witness = result.witnesses[name]
        at = complex(rational.at(witness.frequency_rad_per_step))
        assert witness.factor * at == pytest.approx(-1.0, abs=1e-9)


def test_the_least_angle_to_minus_one_of_several():
    loop = Rational.of([], [0.9 * np.exp(1j), 0.9 * np.exp(-1j), 0.9], 0.16)
    crossings = loop.gain_crossings()
    angles = np.abs(np.angle(-1 / loop.at(crossings)))
    assert crossings.size > 1
    result = margins(loop.to_control())
    assert result.phase_margin_deg == pytest.approx(np.degrees(angles.min()))
    assert angles.argmin() > 0
    witness = result.witnesses["phase_margin_deg"]
    value = complex(loop.at(witness.frequency_rad_per_step))
    assert witness.factor * value == pytest.approx(-1.0, abs=1e-7)


# -- loops without margins ----------------------------------------------------------------------


def test_an_unstable_loop_says_which_poles_and_which_gains():
    result = margins(open_loop(GabaSpec(beta=0.0), LogRatio(1.25, a=0.5, delay=1)), skew=0.4)
    assert not result.stable
    assert (result.interval, result.skew) == (1, 0.4)
    assert result.reasons["margins"].startswith("the closed loop is unstable (poles ")
    for name in (
        *("gain_margin_up", "gain_margin_down", "phase_margin_deg", "delay_margin_steps"),
        *("disk_margin", "disk_gain_down", "disk_gain_up", "disk_phase_deg", "ms", "mt"),
    ):
        assert getattr(result, name) is None
    assert result.witnesses == {}
    assert result.to_dict()["gain_margin_up_db"] is None
    assert result.stabilising == ((0.0, pytest.approx(0.8)),)
    label, ranges = result.rows()[2]
    assert (label, ranges) == ("stable with the gain times", "0 to 0.8")


def test_the_poles_named_are_those_outside():
    result = margins(control.TransferFunction([0.0, 0.5], np.poly([2.0, -0.3, 0.0]), 1))
    poles = np.roots(np.polyadd(np.poly([2.0, -0.3, 0.0]), [0.5]))
    (outside,) = poles[np.abs(poles) > 1]
    assert result.reasons == {"margins": f"the closed loop is unstable (poles {outside.real:.6g})"}
    assert result.rows()[:2] == [
        ("closed loop", "unstable", f"largest pole {abs(outside):.6g}"),
        ("margins", "none", result.reasons["margins"]),
    ]
    # One on the circle is not outside.
    both = margins(Rational(np.empty(0, complex), np.array([2.0 + 0j, 1.0]), 0.0))
    assert both.reasons["margins"] == "the closed loop is unstable (poles 2)"
    many = margins(control.TransferFunction([0.01], np.poly([2.0, 3.0, 4.0, 5.0]), 1))
    assert "4 in all" in many.reasons["margins"]
    assert many.rows()[2] == ("stable with the gain times", "nothing (no factor does)")


def test_a_reversed_sign_that_stabilises_is_told_as_negative_gains():
    # z - 2 - 3 k is inside only for k from -1 to -1/3.
    result = margins(control.TransferFunction([-3.0], [1, -2], 1))
    assert result.stabilising == ((pytest.approx(-1.0), pytest.approx(-1 / 3)),)
    assert result.rows()[2][1] == "-1 to -0.33333"


def test_several_ranges_are_joined_by_or():
    poles = np.array([2.0 + 0j])
    result = dataclasses.replace(
        margins(control.TransferFunction([-3.0], [1, -2], 1)),
        stabilising=((0.0, 0.5), (2.0, math.inf)),
        reasons={"margins": "why"},
    )
    assert result.rows()[2][1] == "0 to 0.5 or 2 to infinity"
    assert result.to_dict()["stabilising_gains"] == [[0.0, 0.5], [2.0, None]]
    assert np.abs(poles[0]) > 1


def test_a_neutral_loop_has_no_gains_to_offer():
    result = margins(control.TransferFunction([2.0], [1, -1], 1))
    assert result.rows() == [
        ("closed loop", "neutral", "largest pole 1"),
        (
            "margins",
            "none",
            "the closed loop has a pole on the unit circle: any push moves it for good",
        ),
    ]
    assert result.stabilising == ()


@pytest.mark.parametrize(
    ("loop", "skew", "message"),
    [
        (LOOP, math.inf, "skew = inf is not finite: give a number, such as 0 (balanced)"),
        (
            control.TransferFunction([-1.0, 0.2], [1.0, 0.5], 1),
            0.0,
            "1 + L vanishes at infinity (an algebraic loop): add a delay of one step to the loop",
        ),
    ],
)
def test_refusals(loop, skew, message):
    with pytest.raises(InputError) as told:
        margins(loop, skew)
    assert str(told.value) == message


def test_nearly_algebraic_is_not_algebraic():
    # 1 + L at infinity is 1e-6: an early pole, and a verdict.
    near = control.TransferFunction([-1.0 + 1e-6, 0.2], [1.0, 0.5], 1)
    assert margins(near).stability.verdict == "unstable"
    nearer = control.TransferFunction([-1.0 + 1.5e-14, 0.2], [1.0, 0.5], 1)
    assert margins(nearer).stability.verdict == "unstable"
    with pytest.raises(InputError, match="algebraic"):
        margins(control.TransferFunction([-1.0 + 1e-15, 0.2], [1.0, 0.5], 1))


# -- phase --------------------------------------------------------------------------------------


def test_reasons_without_a_gain_crossing():
    above = margins(control.TransferFunction([5.0, 0.0], [1.0, -0.5], 1))
    assert above.phase_margin_deg == math.inf
    assert above.reasons["phase_margin_deg"] == "the loop gain is above 1 at every frequency"
    one = margins(control.TransferFunction([1.0], [1.0], 1))
    assert one.phase_margin_deg is None
    told = "the loop gain is 1 at every frequency: none stands out"
    assert one.reasons["phase_margin_deg"] == told
    assert one.rows()[3] == ("phase margin", "none", told)
    near = margins(control.TransferFunction([1.0 + 1e-9], [1.0], 1))
    assert near.reasons["phase_margin_deg"] == "the loop gain is above 1 at every frequency"


def test_frequencies_of_a_sampled_sensor_are_per_step():
    loop = open_loop(GabaSpec(beta=0.9, interval=4), LogRatio(-3.0, 0.3))
    result = margins(loop)
    assert result.interval == 4
    rational = loop.rational
    for name in ("gain_margin_up", "phase_margin_deg"):
        witness = result.witnesses[name]
        at = complex(rational.at(4 * witness.frequency_rad_per_step))
        assert witness.factor * at == pytest.approx(-1.0, abs=1e-9)
    s = 1 / (1 + complex(rational.at(4 * result.witnesses["ms"].frequency_rad_per_step)))
    assert abs(s) == pytest.approx(result.ms)
    t = 1 - 1 / (1 + complex(rational.at(4 * result.witnesses["mt"].frequency_rad_per_step)))
    assert abs(t) == pytest.approx(result.mt)
    witness = result.witnesses["disk_margin"]
    assert witness.factor * complex(
        rational.at(4 * witness.frequency_rad_per_step)
    ) == pytest.approx(-1.0)
    down = margins(open_loop(GabaSpec(beta=0.9, interval=4), LogRatio(0.5)))
    assert down.gain_margin_up == pytest.approx(2.0)


def test_the_lower_gain_margin_of_a_sampled_sensor_is_per_step():
    # A loop that needs gain, dressed as one that reads every fifth step.
    rational = Rational.of([], [1.5], 1.0)
    witnesses: dict[str, Witness] = {}
    up, down = margins_module._gain_margins(rational * 1.2, 5, witnesses, {})
    assert (up, down) == (pytest.approx(2.5 / 1.2), pytest.approx(0.5 / 1.2))
    assert witnesses["gain_margin_up"].frequency_rad_per_step == pytest.approx(math.pi / 5)
    assert witnesses["gain_margin_down"].frequency_rad_per_step == 0.0
    turned = Rational.of([], [-1.5], -1.0)
    margins_module._gain_margins(turned * 1.2, 5, witnesses, {})
    assert witnesses["gain_margin_down"].frequency_rad_per_step == pytest.approx(math.pi / 5)


# -- delays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0.45, -0.45, 0.5, -0.5, 0.51, -0.51, 0.7, 1.2])
@pytest.mark.parametrize("pole", [0.5, -0.5])
def test_delays_by_trying_each(gain, pole):
    """Gains of 1 touch the circle at 0 or pi only; quieter loops stand any delay."""
    loop = Rational.of([], [pole], gain)
    if not loop.closed().stable:
        pytest.skip("no margins")
    verdicts = [loop.delayed(n).closed().stable for n in range(80)]
    expected = verdicts.index(False) - 1 if False in verdicts else math.inf
    assert margins(loop.to_control()).delay_margin_steps == expected
    n, why = delay_margin(loop.delayed, 1)
    assert n == expected
    assert why == ("the loop gain does not exceed 1 at any frequency" if n == math.inf else None)


def test_a_delay_margin_of_more_than_a_million():
    # |L| > 1 only below w = 6e-8: -1 is reached after 5e7 steps.
    loop = Rational.of([], [0.999], 0.001 * (1 + 3e-9))
    n, why = delay_margin(loop.delayed, 1)
    assert (n, why) == (math.inf, "stable with any delay up to 1000000 readings")


def test_the_worst_of_the_steps_between_two_readings_counts():
    def unstable_from(n: int) -> Rational:
        """A quiet loop, but for -1 reached by the n-th delay."""
        return SimpleNamespace(peak=lambda: (2.0, 0.0), first=n)

    loops = {0: unstable_from(5), 1: unstable_from(2), 2: unstable_from(3)}
    counters = _delay_margin.root_counter

    def counter(loop):
        return lambda n: ((n >= loop.first).astype(int), np.ones(len(n)))

    _delay_margin.root_counter = counter
    try:
        assert delay_margin(loops.__getitem__, 3) == (2 * 3 + 1 - 1, None)
        assert delay_margin(loops.__getitem__, 1) == (4, None)
        loops[0] = SimpleNamespace(peak=lambda: (0.5, 0.0))
        assert delay_margin(loops.__getitem__, 3) == (6, None)
        # A gain of 1 within 1e-9 only touches the circle, and is tried for 256 delays or so.
        loops[0] = SimpleNamespace(peak=lambda: (1.0, 0.0), first=5_000)
        told = "the loop gain does not exceed 1 at any frequency"
        assert delay_margin(loops.__getitem__, 1) == (math.inf, told)
        loops[0] = SimpleNamespace(peak=lambda: (1.0, 0.0), first=250)
        assert delay_margin(loops.__getitem__, 1) == (249, None)
    finally:
        _delay_margin.root_counter = counters


def test_delays_are_looked_at_block_by_block():
    asked: list[tuple[int, int]] = []

    def count(n):
        asked.append((int(n[0]), len(n)))
        return np.zeros(len(n), int), np.ones(len(n))

    assert _delay_margin._first_unstable(count, 200_000) is None
    assert asked[:4] == [(0, 64), (64, 256), (320, 1024), (1344, 4096)]
    assert all(a + size == b for (a, size), (b, _) in pairwise(asked))
    assert max(size for _, size in asked) == 65_536
    assert asked[-1][0] <= 200_000 < sum(asked[-1])


@pytest.mark.parametrize("at", [0, 1, 63, 64, 319, 320, 5000])
def test_the_first_unstable_delay_by_count_or_by_distance(at):
    def by_count(n):
        return (n >= at).astype(int), np.ones(len(n))

    def by_distance(n):
        return np.zeros(len(n), int), np.where(n == at, 1e-10, 1e-8)

    for count in (by_count, by_distance):
        assert _delay_margin._first_unstable(count, 10_000) == at
        assert _delay_margin._first_unstable(count, max(at, 1)) == at


def test_the_delay_of_a_lifted_loop_counts_steps():
    loop = open_loop(GabaSpec(beta=0.9, interval=3), LogRatio(-6.0, 0.3))
    n = int(margins(loop).delay_margin_steps)
    stable = [loop.delayed(k).rational.closed().stable for k in range(n + 2)]
    assert stable == [True] * (n + 1) + [False]


# -- confirming ---------------------------------------------------------------------------------


def test_every_witness_of_this_loop_is_confirmed(found):
    assert confirm_witnesses(LOOP, found) == dict.fromkeys(
        ("gain_margin_up", "phase_margin_deg", "delay_margin_steps", "disk_margin"), True
    )


def test_confirmation_can_fail(found):
    def with_witness(name: str, **changes: object) -> Margins:
        wrong = {**found.witnesses, name: dataclasses.replace(found.witnesses[name], **changes)}
        return dataclasses.replace(found, witnesses=wrong)

    for name in ("gain_margin_up", "phase_margin_deg", "disk_margin"):
        factor = found.witnesses[name].factor
        for power in (1.01, 0.99):  # too far, not far enough
            other = with_witness(name, factor=factor**power)
            assert not confirm_witnesses(LOOP, other)[name]
        # Wider bounds hold the true one between them.
        near = with_witness(name, factor=factor**0.99)
        assert confirm_witnesses(LOOP, near, outside=1.05)[name]
        near = with_witness(name, factor=factor**1.01)
        assert confirm_witnesses(LOOP, near, inside=0.95)[name]
    n = int(found.delay_margin_steps)
    for shifted in (n - 1, n + 1):
        other = with_witness("delay_margin_steps", stable_steps=shifted, unstable_steps=shifted + 1)
        assert confirm_witnesses(LOOP, other)["delay_margin_steps"] is False


def test_the_default_bounds_are_a_thousandth(found):
    for power, right in [(1.0005, True), (1.002, False), (0.9995, True), (0.998, False)]:
        witness = Witness(found.witnesses["gain_margin_up"].factor ** power, math.pi)
        one = dataclasses.replace(found, witnesses={"gain_margin_up": witness})
        assert confirm_witnesses(LOOP, one) == {"gain_margin_up": right}


def test_only_delays_below_300_are_confirmed_by_roots(found, monkeypatch):
    monkeypatch.setattr(margins_module, "_confirmed_delay", lambda loop, n: n)
    for n, outcome in [(299, {"delay_margin_steps": 299}), (300, {})]:
        late = {"delay_margin_steps": Witness(stable_steps=n, unstable_steps=n + 1)}
        assert confirm_witnesses(LOOP, dataclasses.replace(found, witnesses=late)) == outcome


def test_a_delay_that_is_not_told_is_not_confirmed(found):
    empty = dataclasses.replace(found, witnesses={"delay_margin_steps": Witness()})
    assert confirm_witnesses(LOOP, empty) == {}


def test_the_disk_is_scaled_by_its_own_measure():
    factor = 0.4 + 0.3j
    delta = _disk_margin.disk_delta(factor, 0.5)
    half = margins_module._scaled("disk_margin", factor, 0.5, 0.5)
    assert half == pytest.approx(_disk_margin.disk_factor(0.5 * delta, 0.5))
    assert margins_module._scaled("gain_margin_up", 4.0, 0.5, 0.5) == pytest.approx(2.0)


# -- the picture --------------------------------------------------------------------------------


def test_the_picture_shows_the_disk_and_each_margin(found):
    ax = found.plot()
    disk = ax.patches[0].get_xy()
    factor = 10 ** (disk[:, 0] / 20) * np.exp(1j * np.radians(disk[:, 1]))
    delta = np.abs(_disk_margin.disk_delta(factor, 0.0))
    assert delta == pytest.approx(found.disk_margin)
    # One point every half degree, counted upwards, and back to the first.
    assert len(disk) == 721
    around = _disk_margin.disk_delta(factor, 0.0)
    assert np.angle(around[1:-1] / around[:-2]) == pytest.approx(math.radians(0.5))
    assert ax.patches[0].get_alpha() == 0.25
    assert ax.patches[0].get_facecolor()[:3] == pytest.approx(to_rgb(plots.PALETTE[0]))
    assert to_rgb(ax.lines[0].get_color()) == pytest.approx(to_rgb(plots.PALETTE[1]))
    assert to_rgb(ax.lines[1].get_color()) == pytest.approx(to_rgb(plots.PALETTE[2]))
    up, turns = ax.lines[0], ax.lines[1]
    assert list(up.get_xdata()) == pytest.approx([_db(found.gain_margin_up)])
    assert list(up.get_ydata()) == [0]
    assert up.get_marker() == "o"
    assert list(turns.get_xdata()) == [0, 0]
    assert list(turns.get_ydata()) == [found.phase_margin_deg, -found.phase_margin_deg]
    assert turns.get_marker() == "s"
    assert [line.get_marker() for line in ax.lines[2:]] == ["o", "s"]
    assert all(len(line.get_xdata()) == 0 for line in ax.lines[2:])
    assert ax.lines[2].get_color() == up.get_color() != turns.get_color()
    assert ax.lines[3].get_color() == turns.get_color() != ax.patches[0].get_facecolor()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["disk margin", "gain margins", "phase margin"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == (
        "gain error, dB",
        "phase error, degrees",
        "Margins",
    )
    assert found.plot(ax) is ax


def test_the_picture_leaves_out_what_is_infinite():
    quiet = margins(control.TransferFunction([-0.25], [1, 0.5], 1), skew=1.0)
    for phase in (None, math.inf):
        ax = dataclasses.replace(
            quiet, gain_margin_up=math.inf, gain_margin_down=None, phase_margin_deg=phase
        ).plot()
        assert [len(line.get_xdata()) for line in ax.lines] == [0, 0]
    # A disk that reaches beyond its half plane is cut just before it.
    wide = dataclasses.replace(quiet, disk_margin=5.0).plot()
    edge = wide.patches[0].get_xy()
    factor = 10 ** (edge[:, 0] / 20) * np.exp(1j * np.radians(edge[:, 1]))
    assert np.abs(_disk_margin.disk_delta(factor, 1.0)) == pytest.approx(0.999)
    both = dataclasses.replace(quiet, gain_margin_up=4.0, gain_margin_down=0.25).plot()
    points = [float(x) for line in both.lines for x in line.get_xdata()]
    assert points[:2] == pytest.approx([_db(0.25), _db(4.0)])


def test_the_picture_of_a_loop_without_margins_is_its_poles():
    ax = margins(STEEP).plot()
    assert ax.get_title() == "no margins: the loop is neutral"
    assert dataclasses.replace(margins(STEEP), disk_margin=0.5).plot().get_title() == ax.get_title()
    gone = dataclasses.replace(margins(LOOP), disk_margin=None).plot()
    assert gone.get_title() == "no margins: the loop is stable"


def test_json_has_a_reason_beside_every_null():
    for loop in (LOOP, control.TransferFunction([0.25], [1, -0.5], 1)):
        for skew in (0.0, 1.0):
            report = json.loads(margins(loop, skew).to_json())
            for name, value in report.items():
                if value is None and not name.endswith("_db"):
                    assert name in report["reasons"], name


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        # (1 + k) z^2 + (2 k - 1/2) z + k: Jury's three conditions hold for every k > 0.
        ([1, 2, 1], [1, -0.5, 0], ((0.0, math.inf),)),
        # z^2 + (k - 1/2) z + k: the product of the roots is k.
        ([1, 1], [1, -0.5, 0], ((0.0, 1.0),)),
    ],
)
def test_a_zero_on_the_circle_is_no_critical_gain(numerator, denominator, expected):
    ranges = stabilising_gains(control.TransferFunction(numerator, denominator, 1))
    assert np.asarray(ranges) == pytest.approx(np.asarray(expected), rel=1e-9)
