"""What the margins say: keys, labels and reasons that users and their scripts read."""

import control
import pytest

from gabactl.control.margins import margins, stabilising_gains

LOOP = control.TransferFunction([0.01 * 50], [1, -0.99], 1)


def test_keys_of_the_machine_output():
    found = margins(LOOP).to_dict()
    assert found["verdict"] == "stable"
    assert found["spectral_radius"] == pytest.approx(0.49)
    assert {"ms", "ms_db", "mt", "mt_db", "gain_margin_up", "gain_margin_up_db"} <= set(found)
    assert {"ms", "mt", "gain_margin_up", "phase_margin_deg"} <= set(found["witnesses"])


def test_rows_name_each_margin_and_where_it_is_read():
    rows = {row[0]: row[1:] for row in margins(LOOP).rows()}
    assert rows["gain margin up"][1] == "at 3.1416 rad/step"
    assert rows["peak of S (Ms)"][1].startswith("at ")
    assert rows["peak of T (Mt)"][1].startswith("at ")
    assert rows["gain margin down"][1] == "stable for every smaller gain"


def test_a_neutral_loop_says_why_it_has_no_margins():
    neutral = margins(control.TransferFunction([2.0], [1, -1], 1))
    assert neutral.reasons["margins"].startswith("the closed loop has a pole on the unit circle")


def test_a_range_of_gains_without_an_upper_end():
    # (z - 1/2)/(z - 2): the closed-loop pole (2 + k/2)/(1 + k) is inside for every k > 2.
    ((low, high),) = stabilising_gains(control.TransferFunction([1.0, -0.5], [1, -2], 1))
    assert (low, high) == (pytest.approx(2.0), float("inf"))
