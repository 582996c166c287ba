"""Every analysis takes what people have: a setting and its plant, their loop, or a transfer function."""

from __future__ import annotations

import json
import math

import control
import numpy as np
import pytest

from gabactl import GabaSpec, InputError, LogRatio
from gabactl.control.analysis import analyze
from gabactl.control.certificates import circle, exact_circle, lyapunov, tsypkin
from gabactl.control.describing import limit_cycles
from gabactl.control.frequency import frequency_response, root_locus
from gabactl.control.linear import open_loop, vector_loop
from gabactl.control.margins import margins, stabilising_gains
from gabactl.control.noise import noise_gain, noise_report
from gabactl.control.nonlinear import equilibria, region_of_attraction, small_gain
from gabactl.control.responses import linear_response, ramp_response, step_response
from gabactl.plants import LtiPlant

SPEC = GabaSpec(beta=0.9)
PLANT = LogRatio(rho=-2.0, a=0.5, delay=1)
#: The same plant, -rho (1 - a)/(z (z - a)).
TRANSFER = control.TransferFunction([1.0], [1.0, -0.5, 0.0], 1)

LINEAR = {
    "margins": margins,
    "stabilising_gains": stabilising_gains,
    "frequency_response": lambda *a, **k: frequency_response(*a, **k, frequencies=[0.1, 1.0]),
    "root_locus": lambda *a, **k: root_locus(*a, **k, values=[-3.0, -2.0, 0.5]),
    "step_response": lambda *a, **k: step_response(*a, **k, steps=50),
    "ramp_response": lambda *a, **k: ramp_response(*a, **k, steps=50),
    "linear_response": lambda *a, **k: linear_response(*a, **k, disturbance=[0.0, 1.0, 0.5]),
    "noise_gain": noise_gain,
    "noise_report": noise_report,
    "circle": circle,
    "tsypkin": tsypkin,
}
EXACT = {
    "equilibria": equilibria,
    "region_of_attraction": lambda *a: region_of_attraction(*a, n_starts=9, steps=400),
    "small_gain": small_gain,
    "limit_cycles": limit_cycles,
    "analyze": analyze,
}


def figures(result: object) -> list[float]:
    """Every number in a result, in order."""
    if hasattr(result, "to_json"):
        result = json.loads(result.to_json(series=True))

    def walk(value: object) -> list[float]:
        if isinstance(value, dict):
            return [x for key, item in value.items() if key != "plant" for x in walk(item)]
        if isinstance(value, (list, tuple)):
            return [x for item in value for x in walk(item)]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return [float(value)] if number and math.isfinite(value) else []

    return walk(result)


@pytest.mark.parametrize("name", [*LINEAR, *EXACT])
def test_a_setting_and_its_plant_in_every_form(name: str) -> None:
    analysis = {**LINEAR, **EXACT}[name]
    gain = 20.0 if name == "limit_cycles" else 1.0  # a stable loop has none
    plant, system = LogRatio(gain * PLANT.rho, PLANT.a, PLANT.delay), gain * TRANSFER
    expected = figures(analysis(SPEC, plant))
    assert expected
    for same in (system, control.tf2ss(system), LtiPlant(system)):
        assert figures(analysis(SPEC, same)) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert figures(analysis(open_loop(SPEC, plant))) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", LINEAR)
def test_the_operating_point_goes_with_the_setting(name: str) -> None:
    spec = GabaSpec(beta=0.9, floor=0.05, warmup=0)
    given = LINEAR[name](spec, PLANT, ratio=100.0, sensor_delay=2)
    loop = open_loop(spec, PLANT, ratio=100.0, sensor_delay=2)
    assert figures(given) == figures(LINEAR[name](loop))
    assert figures(given) != figures(LINEAR[name](spec, PLANT))


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("form", ["transfer function", "state space"])
def test_the_open_loop_alone(name: str, form: str) -> None:
    """L = 0.5/(z - 0.99): margins 3.98 up (at z = -1), and y = d/(1 + L) throughout."""
    system = control.TransferFunction([0.5], [1, -0.99], 1)
    loop = system if form == "transfer function" else control.tf2ss(system)
    result = LINEAR[name](loop)
    if name == "margins":
        assert result.gain_margin_up == pytest.approx(3.98)
    elif name == "step_response":
        theirs = control.step_response(control.feedback(1, system), T=np.arange(50))
        assert result.log_ratio == pytest.approx(theirs.outputs, abs=1e-12)
        assert result.log_weights == pytest.approx(-result.log_ratio)
    elif name == "noise_gain":
        assert result == pytest.approx(control.norm(control.feedback(1, system), 2) ** 2, rel=1e-6)
    elif name == "root_locus":
        # P(1) = 50; with P(1) = -rho the pole is at 0.99 + 0.01 rho.
        assert result.spectral_radius == pytest.approx([0.96, 0.97, 0.995])
    elif name in ("circle", "tsypkin"):
        assert "linear system" in result.model
    assert figures(result)


def test_a_bare_loop_has_no_floor_and_no_average() -> None:
    for analysis in EXACT.values():
        with pytest.raises(InputError, match="has no floor and no average"):
            analysis(TRANSFER)
    with pytest.raises(InputError, match="give a GabaSpec and a plant"):
        root_locus(TRANSFER, parameter="beta")


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_missing_or_too_much_is_said(name: str) -> None:
    with pytest.raises(InputError, match="give its plant too"):
        LINEAR[name](SPEC)
    with pytest.raises(InputError, match="is a whole loop"):
        LINEAR[name](open_loop(SPEC, PLANT), PLANT)
    with pytest.raises(InputError, match="TransferFunction or"):
        LINEAR[name]("a word")


def test_of_many_tasks_the_loop_serves_the_bound() -> None:
    spec, plant = GabaSpec(n_tasks=5), LogRatio(-0.3, a=0.9, n_tasks=5)
    assert small_gain(vector_loop(spec, plant)).stable is small_gain(spec, plant).stable is True


def test_certificates_of_the_exact_loop_know_the_plant_in_its_other_forms() -> None:
    plain = control.TransferFunction([3.0], [1.0, 0.0], 1)  # rho = -3, a = 0
    assert exact_circle(SPEC, plain).sector == pytest.approx(
        exact_circle(SPEC, LogRatio(-3.0)).sector
    )
    assert lyapunov(open_loop(SPEC, LogRatio(-3.0))).certified
    with pytest.raises(InputError, match="give a LogRatio"):
        lyapunov(SPEC, control.TransferFunction([1.0, 0.3], [1.0, -0.5, 0.0], 1))


def test_analysis_of_a_late_sensor_is_that_of_its_loop() -> None:
    late = analyze(SPEC, PLANT, sensor_delay=2)
    loop = analyze(open_loop(SPEC, PLANT, sensor_delay=2))
    assert loop.margins is not None
    assert late.margins is not None
    assert loop.margins.delay_margin_steps == late.margins.delay_margin_steps
    assert loop.verdict == late.verdict


def test_an_unstable_loop_that_answers_at_once_is_refused_where_it_is_stepped() -> None:
    with pytest.raises(InputError, match="multiply L by 1/z"):
        step_response(control.TransferFunction([0.2, -3.0], [1.0, -0.5], 1), steps=5)
