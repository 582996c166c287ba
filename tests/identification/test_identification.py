"""The whole identification: verdicts, JSON, picture, twins."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gabactl import GabaSpec
from gabactl.base.errors import InputError
from gabactl.identification import identify, identify_paired, select_arx, simulate_excited
from gabactl.traces import bundled, load_bundled

EXCITED = [name for name in bundled() if "excited" in name and f"{name}-inverted" in bundled()]


def run(rho: float, steps: int = 3000, **more: object):
    return simulate_excited(rho, steps=steps, **{"seed": 5, **more}).run(0)


@pytest.mark.parametrize(("rho", "sign"), [(-0.6, "negative"), (0.0, "none"), (0.6, "positive")])
def test_the_sign_is_told(rho: float, sign: str) -> None:
    found = identify(run(rho), draws=399)
    assert found.sign == sign
    assert found.rho_interval[0] <= rho <= found.rho_interval[1]
    assert found.loop.verdict == "stable"
    assert found.placebo.passed
    assert found.ljung_box_p_value > 0.01
    assert found.input_residual_p_value > 0.01
    assert sign == "none" or sign in str(found)


def test_strict_json_with_the_documented_keys() -> None:
    found = identify(run(-0.6), draws=199)
    record = json.loads(found.to_json())
    documented = found.facts.__doc__.split("Keys:")[1]
    keys = [k.strip(" .\n") for k in documented.split(",")]
    assert list(record) == keys
    assert record["verdict"].startswith("negative feedback")
    assert record["spec"]["beta"] == 0.99


def test_the_same_seed_gives_the_same_answer() -> None:
    assert identify(run(0.1), draws=199).to_json() == identify(run(0.1), draws=199).to_json()


def test_a_strong_plant_predicts_held_out_steps() -> None:
    found = identify(run(-3.0, a=0.5), draws=199)
    assert found.fit_percent > found.fit_percent_without_feedback + 5


def test_no_feedback_says_how_long_to_record() -> None:
    found = identify(run(0.0, steps=600), draws=199)
    assert found.sign == "none"
    assert any("readings" in note for note in found.notes)


def test_near_one_is_flagged() -> None:
    found = identify(run(0.97, steps=4000), draws=199)
    assert any("rho may be near 1" in note for note in found.notes)


def test_a_lag_beyond_the_search_is_flagged() -> None:
    found = identify(run(-3.0, a=0.98, steps=6000), max_lag=10, draws=199)
    assert any("end of the search" in note for note in found.notes)


def test_a_floor_that_opens_the_loop_is_flagged() -> None:
    found = identify(run(-0.5, log_imbalance=6.0), draws=199)
    assert found.saturated_fraction > 0.9
    assert any("the loop is open" in note for note in found.notes)


def test_twins_cancel_what_they_share() -> None:
    """A ratio that climbs and falls as in training would drown one run; twins do not see it."""
    steps = 3000
    climb = 3.0 * np.sin(np.linspace(0, 9, steps)) + 2.0 * np.sin(np.linspace(0, 90, steps))
    twins = [
        simulate_excited(
            -0.4,
            0.8,
            steps=steps,
            seed=s,
            excitation_seed=7,
            inverted=bool(s),
            log_imbalance=climb,
            spec=GabaSpec(warmup=0, floor=1e-4),
        ).run(0)
        for s in (0, 1)
    ]
    alone = identify(twins[0], draws=399)
    paired = identify_paired(*twins, draws=399)
    assert paired.paired
    assert paired.sign == "negative"
    assert paired.rho_interval[0] < -0.4 < paired.rho_interval[1]
    assert np.ptp(paired.rho_interval) < np.ptp(alone.rho_interval)
    assert paired.randomisation.low < -0.4 < paired.randomisation.high
    assert paired.placebo.passed


def test_settings_override_the_record() -> None:
    found = identify(run(-3.0, a=0.3, delay=3), spec=GabaSpec(beta=0.0), draws=199)
    # Without smoothing a gain of 3 behind a delay is unstable.
    assert found.loop.verdict == "unstable"


@pytest.mark.parametrize(
    "options",
    [
        {"max_lag": 0.0},
        {"max_lag": float("nan")},
        {"max_delay": -1},
        {"level": 1.0},
        {"draws": 5},
        {"criterion": "hqic"},
    ],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        identify(run(-0.6), **options)


def test_the_picture_shows_the_response() -> None:
    ax = identify(run(-3.0, a=0.8), draws=199).plot()
    steps, fitted = ax.lines[1].get_data()
    # A switch by +1 nat raises the imbalance by 3 nats at most (the loop takes some back).
    assert 1.5 < fitted[(steps > 20) & (steps < 40)].mean() < 3.2


def test_arx_orders_follow_the_plant() -> None:
    seen = select_arx(run(-3.0, a=0.5, delay=0), drift=0.01)
    assert seen.prefers_input
    # y answers to u with gain +3: DC gain is -rho.
    assert seen.dc_gain == pytest.approx(3.0, abs=0.8)
    assert not select_arx(run(0.0, seed=8), drift=0.01).prefers_input
    assert select_arx(run(-3.0, a=0.5), criterion="aic").value < seen.value


@pytest.mark.parametrize("pair", EXCITED)
def test_recorded_training_has_weak_negative_feedback(pair: str) -> None:
    """Twins on C-MAPSS: an independent estimate of the gain of y per logit is +0.04 to +0.3."""
    found = identify_paired(load_bundled(pair), load_bundled(pair + "-inverted"))
    assert found.sign == "negative"
    assert -0.5 < found.rho_interval[0] < found.rho_interval[1] < 0.0
    assert -0.35 < found.rho < -0.03
    assert found.randomisation.p_value < 0.01
    assert found.placebo.passed
    assert found.loop.verdict == "stable"


def test_one_recorded_run_alone_agrees_with_the_twins() -> None:
    name = "fd001-excited-adamw-w005-seed0"
    alone = identify(load_bundled(name), draws=399)
    paired = identify_paired(load_bundled(name), load_bundled(name + "-inverted"), draws=399)
    assert alone.sign == "negative"
    assert alone.rho_interval[0] < paired.rho_interval[1]
    assert paired.rho_interval[0] < alone.rho_interval[1]
    # What the twins share cancels: that is what the second run is for.
    assert np.ptp(paired.rho_interval) < 0.4 * np.ptp(alone.rho_interval)


def test_the_bundled_gaba_run_is_refused() -> None:
    with pytest.raises(InputError, match="fd001-gaba: no excitation"):
        identify(load_bundled("fd001-gaba"))
