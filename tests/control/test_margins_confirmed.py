"""Witnesses applied: what is confirmed, and what is not."""

from __future__ import annotations

import dataclasses
import math

import control
import pytest

from gabactl.control import margins as margins_module
from gabactl.control.margins import Margins, Witness, confirm_witnesses, margins

#: 0.5/(z - 0.99): every margin by hand.
LOOP = control.TransferFunction([0.5], [1, -0.99], 1)


@pytest.fixture(scope="module")
def found() -> Margins:
    return margins(LOOP)


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
    delta = margins_module.disk_delta(factor, 0.5)
    half = margins_module._scaled("disk_margin", factor, 0.5, 0.5)
    assert half == pytest.approx(margins_module.disk_factor(0.5 * delta, 0.5))
    assert margins_module._scaled("gain_margin_up", 4.0, 0.5, 0.5) == pytest.approx(2.0)
