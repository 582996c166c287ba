"""Lifting: the sampled plant against a step-by-step run of the plant itself."""

from __future__ import annotations

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.control._rational import Rational
from gabactl.control.linear import open_loop
from gabactl.control.responses import linear_response
from gabactl.control.sampling import lift, sampling_trade
from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio


def _plants():
    yield Rational.of([], [0.9], -0.5)
    yield Rational.of([], [0.0], -0.5)
    yield Rational.of([0.3], [0.9, -0.4, 0, 0, 0], 1.0)
    yield Rational.of([1.4], [0.8 * np.exp(1j), 0.8 * np.exp(-1j), 0, 0], 0.7)
    yield Rational.of([], [0.5, *[0.0] * 23], 2.0)


@pytest.mark.parametrize("plant", list(_plants()))
@pytest.mark.parametrize("interval", [1, 2, 7])
@pytest.mark.parametrize("delay", [0, 3, 11])
def test_lifted_plant_is_the_plant_seen_at_readings(plant, interval, delay):
    from scipy import signal

    readings = 40
    u = np.repeat(np.random.default_rng(0).normal(size=readings), interval)
    y = signal.lfilter(np.real(plant.numerator), np.real(plant.denominator), u)
    late = np.concatenate([np.zeros(delay), y])[: y.size]
    lifted = lift(plant, interval, delay)
    seen = signal.lfilter(np.real(lifted.numerator), np.real(lifted.denominator), u[::interval])
    assert seen == pytest.approx(late[::interval], abs=1e-9)


@pytest.mark.parametrize("interval", [1, 3, 10])
@pytest.mark.parametrize("sensor_delay", [0, 1, 4])
def test_closed_loop_maps_are_the_simulation(interval, sensor_delay):
    """Response at the readings to a disturbance that is constant between them."""
    import control

    loop = open_loop(
        GabaSpec(beta=0.9, interval=interval), LogRatio(-1.5, 0.6, 1), sensor_delay=sensor_delay
    )
    d = np.full(60 * interval, 1.0)
    run = linear_response(loop, disturbance=d)
    maps = loop.closed_loop()
    t = np.arange(60) * interval
    # What the sensor sees of the disturbance is late as well.
    seen = np.array([1.0 if s >= sensor_delay else 0.0 for s in t])
    u = control.forced_response(maps["weights"], t, seen).outputs
    assert run.log_weights[::interval] == pytest.approx(u, abs=1e-9)


def test_an_interval_of_one_is_no_lifting():
    plant = Rational.of([], [0.9], -0.5)
    assert lift(plant, 1).poles.tolist() == plant.poles.tolist()


def test_trade():
    trade = sampling_trade(GabaSpec(), (1, 10, 50))
    rows = trade.to_dict()["trade"]
    # Derived: noise power 0.0502 at N = 10; lag 99.00, 99.08, 101.08.
    assert rows[1]["noise_power_gain"] == pytest.approx(0.0502, abs=5e-5)
    assert [round(row["group_delay_dc_steps"], 2) for row in rows] == [99.0, 99.08, 101.08]
    assert rows[2]["sensor_cost"] == pytest.approx(0.02)
    assert "sensor cost" in str(trade)
    assert trade.plot().get_xlabel().startswith("interval")
    with pytest.raises(InputError, match="no intervals"):
        sampling_trade(GabaSpec(), ())
