"""Plants: the simulation protocol, and the statements about quadratic bowls."""

from __future__ import annotations

import control
import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.plants import (
    CallablePlant,
    LogRatio,
    LtiPlant,
    Plant,
    QuadraticBowls,
    parse_plant,
)


def _weights(log_ratio: float) -> np.ndarray:
    first = 1 / (1 + np.exp(-log_ratio))
    return np.array([first, 1 - first])


def _drive(plant, inputs, disturbances=None):
    """Log norm ratio of every step, for given log weight ratios."""
    state, out = plant.start(3), []
    for t, u in enumerate(inputs):
        norms = state.measure(None if disturbances is None else disturbances[t])
        out.append(np.log(norms[0] / norms[1]))
        state.apply(_weights(u))
    return np.array(out)


@pytest.mark.parametrize("rho", [0.5, -3.0])
@pytest.mark.parametrize("a", [0.0, 0.9, -0.4])
@pytest.mark.parametrize("delay", [0, 1, 7])
def test_log_ratio_is_its_transfer_function(rho, a, delay):
    plant = LogRatio(rho=rho, a=a, delay=delay)
    rng = np.random.default_rng(1)
    u, d = rng.normal(size=60), rng.normal(size=60)
    response = control.forced_response(plant.to_control(), np.arange(60), u)
    assert _drive(plant, u, d) == pytest.approx(response.outputs + d, abs=1e-10)
    assert _drive(LtiPlant(plant.to_control()), u, d) == pytest.approx(
        response.outputs + d, abs=1e-9
    )
    as_states = control.ss(plant.to_control())
    assert _drive(LtiPlant(as_states), u, d) == pytest.approx(response.outputs + d, abs=1e-9)


def test_log_ratio_with_many_tasks():
    plant = LogRatio(rho=0.5, n_tasks=3)
    state = plant.start()
    d = np.array([1.0, -2.0, 0.5])
    assert np.log(state.measure(d)) == pytest.approx(d)
    w = np.array([0.2, 0.3, 0.5])
    state.apply(w)
    expected = d - 0.5 * (np.log(w) - np.log(w).mean())
    assert np.log(state.measure(d)) == pytest.approx(expected)


def test_a_weight_of_zero_stays_finite():
    state = LogRatio(rho=0.5).start()
    state.apply([0.0, 1.0])
    assert np.isfinite(state.measure()).all()


def _settle(plant, first_weight, steps, spec=None, seed=0):
    controller = Controller(spec or GabaSpec(warmup=0, floor=1e-6))
    controller.ema_weights = np.array([first_weight, 1 - first_weight])
    state, weights = plant.start(seed), np.array([first_weight, 1 - first_weight])
    # The loop is opened at first, so that the parameters are stationary for these weights.
    for _ in range(2000):
        state.measure()
        state.apply(weights)
    history = []
    for _ in range(steps):
        weights = controller.observe(state.measure())
        state.apply(weights)
        history.append(weights)
    return np.array(history)


@pytest.mark.parametrize("first", [0.2, 0.5, 0.8])
def test_pareto_stationary_bowls_are_neutral(first):
    # Derivation: w_1 g_1 = w_2 g_2 at stationarity, for every w, so raw = w.
    plant = QuadraticBowls(curvatures=(500, 1), minimisers=(0, 1), step_size=1e-3)
    history = _settle(plant, first, 1500)
    assert history[-1] == pytest.approx([first, 1 - first], abs=2e-3)


def test_gradient_noise_decides_between_the_neutral_points():
    # Derivation: where noise dominates, g_i = sigma_i and w_1/w_2 -> sigma_2/sigma_1 = 4.
    plant = QuadraticBowls((1, 1), ([0.0] * 50, [0.0] * 50), noise=(0.5, 2.0), step_size=1e-2)
    history = _settle(plant, 0.5, 1500)
    mean = history[-500:].mean(axis=0)
    assert mean[0] / mean[1] == pytest.approx(4.0, rel=0.03)


def test_bowls_measure_what_they_apply_and_are_seeded():
    plant = QuadraticBowls((1, 1), (0.0, 1.0), noise=0.5)
    one, two, other = plant.start(1), plant.start(1), plant.start(2)
    assert one.measure().tolist() == two.measure().tolist()
    assert one.measure().tolist() != other.measure().tolist()
    big = QuadraticBowls((1,) * 2, ([3.0] * 4, [0.0] * 4), noise=2.0, start_at=[0.0] * 4)
    squares = np.mean([big.start(seed).measure() ** 2 for seed in range(4000)], axis=0)
    assert squares == pytest.approx([36 + 4, 4], rel=0.05)


def test_callable_with_memory():
    def factory(seed):
        seen = []

        def respond(weights):
            seen.append(weights)
            return [len(seen), weights[1]]

        return respond

    state = CallablePlant(factory).start()
    assert state.measure().tolist() == state.measure().tolist() == [1.0, 0.5]
    state.apply([0.25, 0.75])
    assert state.measure().tolist() == [2.0, 0.75]


@pytest.mark.parametrize(
    "plant",
    [
        LogRatio(0.5),
        QuadraticBowls((1, 2), (0, 1)),
        CallablePlant(lambda seed: lambda w: [1.0, 1.0]),
        LtiPlant(control.TransferFunction([1.0], [1.0, -0.5], True)),
    ],
)
def test_protocol(plant):
    assert isinstance(plant, Plant)
    assert plant.n_tasks == 2
    state = plant.start(0)
    assert state.measure(0.3).shape == (2,)
    assert state.apply(np.array([0.4, 0.6])) is None


@pytest.mark.parametrize(
    ("text", "plant"),
    [
        ("log-ratio:rho=0.5,a=0.9,delay=1", LogRatio(0.5, 0.9, 1)),
        ("log-ratio: rho=-3, n_tasks=4", LogRatio(-3.0, n_tasks=4)),
        (
            "bowls:curvatures=500/1,minimisers=0/1,noise=0.1/2",
            QuadraticBowls((500.0, 1.0), (0.0, 1.0), (0.1, 2.0)),
        ),
    ],
)
def test_parse(text, plant):
    assert parse_plant(text) == plant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pid:k=1", "choose from log-ratio, bowls, such"),
        ("log-ratio", "rho is missing"),
        ("log-ratio:rho", "not of the form"),
        ("log-ratio:rho=x", "is not a number"),
        ("log-ratio:rho=nan", "not a finite number"),
        ("log-ratio:rho=1,delay=1.5", "not a whole number"),
        ("log-ratio:rho=1,a=1", "not in \\(-1, 1\\)"),
        ("log-ratio:rho=1,rho=2", "given twice"),
        ("bowls:curvatures=1/-1,minimisers=0/1", "positive"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(InputError, match=message):
        parse_plant(text)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (control.TransferFunction([1.0], [1.0, 1.0]), "dt = 0"),
        (control.TransferFunction([1.0], [1.0, -0.5], 5), "dt = 5"),
        (control.TransferFunction([1.0, 0.0], [1.0, -0.5], 1), "feed-through"),
        ("P(z)", "type str"),
    ],
)
def test_lti_refuses(system, message):
    with pytest.raises(InputError, match=message):
        LtiPlant(system)


@pytest.mark.parametrize("disturbance", [[1.0], [1.0, 2.0, 3.0]])
def test_wrong_disturbance_shape(disturbance):
    with pytest.raises(InputError, match="one number per task"):
        LogRatio(0.5).start().measure(disturbance)
