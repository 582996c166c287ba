"""Every promise of the margins in a quick test of its own, against closed forms and counting."""

from __future__ import annotations

import dataclasses
import json
import math

import control
import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.control import margins as margins_module
from gabactl.control._rational import Rational
from gabactl.control.linear import open_loop
from gabactl.control.margins import Margins, Witness, confirm_witnesses, margins, stabilising_gains
from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio

#: 0.5/(z - 0.99): every margin by hand.
LOOP = control.TransferFunction([0.5], [1, -0.99], 1)


def _db(value: float) -> float:
    return 20 * math.log10(value)


@pytest.fixture(scope="module")
def found() -> Margins:
    return margins(LOOP)


# -- numbers ------------------------------------------------------------------------------------


def test_a_first_order_loop_by_hand(found):
    assert (found.interval, found.disk_skew, found.stable) == (1, 0.0, True)
    assert found.closed.poles.tolist() == pytest.approx([0.49])
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
    assert found.stabilising_gains == ()
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
        result = margins(LOOP, skew=skew)
        assert result.disk_skew == skew
        assert result.disk_margin == pytest.approx(1 / max(heights))
        assert all(confirm_witnesses(LOOP, result).values())


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
    factors = [k for k, _ in margins_module._critical_gains(Rational.from_coefficients(*squares))]
    assert twice[0][0] == min(factors)
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
    assert (result.interval, result.disk_skew) == (1, 0.4)
    assert result.reasons["margins"].startswith("the closed loop is unstable (poles ")
    for name in (
        *("gain_margin_up", "gain_margin_down", "phase_margin_deg", "delay_margin_steps"),
        *("disk_margin", "disk_gain_down", "disk_gain_up", "disk_phase_deg", "ms", "mt"),
    ):
        assert getattr(result, name) is None
    assert result.witnesses == {}
    assert result.to_dict()["gain_margin_up_db"] is None
    assert result.stabilising_gains == ((0.0, pytest.approx(0.8)),)
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
    assert result.stabilising_gains == ((pytest.approx(-1.0), pytest.approx(-1 / 3)),)
    assert result.rows()[2][1] == "-1 to -0.33333"


def test_several_ranges_are_joined_by_or():
    poles = np.array([2.0 + 0j])
    result = dataclasses.replace(
        margins(control.TransferFunction([-3.0], [1, -2], 1)),
        stabilising_gains=((0.0, 0.5), (2.0, math.inf)),
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
    assert result.stabilising_gains == ()


@pytest.mark.parametrize(
    ("loop", "skew", "message"),
    [
        (LOOP, math.inf, "skew = inf is not a finite number: such as 0 (balanced)"),
        (
            control.TransferFunction([-1.0, 0.2], [1.0, 0.5], 1),
            0.0,
            "1 + L vanishes at infinity (an algebraic loop): add a delay of one step to the loop",
        ),
    ],
)
def test_refusals(loop, skew, message):
    with pytest.raises(InputError) as told:
        margins(loop, skew=skew)
    assert str(told.value) == message


def test_nearly_algebraic_is_not_algebraic():
    # 1 + L at infinity is 1e-6: an early pole, and a verdict.
    near = control.TransferFunction([-1.0 + 1e-6, 0.2], [1.0, 0.5], 1)
    assert margins(near).closed.verdict == "unstable"
    nearer = control.TransferFunction([-1.0 + 1.5e-14, 0.2], [1.0, 0.5], 1)
    assert margins(nearer).closed.verdict == "unstable"
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


def test_json_has_a_reason_beside_every_null():
    for loop in (LOOP, control.TransferFunction([0.25], [1, -0.5], 1)):
        for skew in (0.0, 1.0):
            report = json.loads(margins(loop, skew=skew).to_json())
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


@pytest.mark.parametrize("gain", [1e6, -1e6, 1e-9, -1e-9])
def test_a_zero_on_the_circle_is_one_at_any_gain(gain):
    loop = Rational.of([-1.0], [0.5, 0.0], gain)
    found = {round(w, 6): k for k, w in margins_module._critical_gains(loop)}
    assert round(math.pi, 6) not in found
    if gain < 0:
        assert found[0.0] == pytest.approx(-0.25 / gain)  # L(1) = 4 gain


def test_a_range_of_tiny_factors():
    # z - 1/2 + k 1e8: stable up to 1.5e-8.
    assert stabilising_gains(Rational.of([], [0.5], 1e8)) == ((0.0, pytest.approx(1.5e-8)),)
