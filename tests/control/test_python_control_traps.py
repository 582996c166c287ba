"""Where python-control 0.10.2 answers wrongly in discrete time: ours, with the right value.

Each test also says what python-control answered when this was written, without requiring it: a
later version may well be right. Where it is right, it serves as an oracle.
"""

from __future__ import annotations

import math

import control
import numpy as np
import pytest

from gabactl.control._rational import Rational
from gabactl.control.describing import saturation_limit_cycle
from gabactl.control.linear import open_loop
from gabactl.control.margins import confirm_witnesses, margins
from gabactl.control.responses import step_response
from gabactl.law.filter import filter_facts, filter_system
from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio

BETA = 0.99


def _loop(k: float, delay: int = 0) -> control.TransferFunction:
    return control.TransferFunction([k * (1 - BETA)], [1, -BETA, *([0.0] * delay)], 1)


@pytest.mark.parametrize("k", [1.0, 50.0, 150.0])
def test_gain_margin_at_minus_one(k):
    # stability_margins says infinite; 1 + k' L(-1) = 0 at k' = 199/k.
    result = margins(_loop(k))
    assert result.gain_margin_up == pytest.approx(199 / k, rel=1e-12)
    assert result.witnesses["gain_margin_up"].frequency_rad_per_step == pytest.approx(math.pi)
    assert not margins(_loop(200.0)).stable


@pytest.mark.parametrize("form", ["transfer function", "state space"])
def test_delayed_loop_that_is_unstable(form):
    # stability_margins of the states says +14.7 or -15.8 degrees; the loop is unstable, and the
    # phase distance at its crossing is -40.94 degrees.
    system = _loop(5.0, delay=50)
    if form == "state space":
        chain = control.StateSpace(np.eye(50, k=-1), np.eye(50)[:, :1], np.eye(50)[-1:], 0, 1)
        system = chain * control.StateSpace([[BETA]], [[1.0]], [[5 * (1 - BETA)]], 0, 1)
    result = margins(system)
    assert not result.stable
    assert result.phase_margin_deg is None
    assert result.stabilising_gains[0][1] == pytest.approx(3.76 / 5, rel=0.02)
    rational = Rational.from_lti(system)
    (w,) = rational.gain_crossings()
    distance = math.degrees(np.angle(-rational.at(w)))
    assert distance == pytest.approx(-40.944, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_disk_margin_agrees_where_python_control_is_right(seed):
    rng = np.random.default_rng(seed)
    k, delay = float(rng.uniform(0.5, 3.0)), int(rng.integers(0, 20))
    system = _loop(k, delay)
    skew = float(rng.choice([0.0, 1.0, -1.0]))
    grid = np.concatenate([np.geomspace(1e-4, math.pi, 20_000), [math.pi]])
    theirs = control.disk_margins(system, grid, skew=skew)[0]
    assert margins(system, skew=skew).disk_margin == pytest.approx(theirs, rel=1e-4)


def test_disk_margin_of_an_unstable_loop():
    # disk_margins has no stability check: 3.57 dB at k = 300, which is the reduction needed.
    result = margins(_loop(300.0))
    assert result.disk_margin is None
    assert not result.stable
    assert result.stabilising_gains == ((0.0, pytest.approx(199 / 300)),)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99, 0.999])
def test_horizon_fits_the_slowest_pole(beta):
    # The default horizon is 26 samples for all of these, so step_info fails from 0.99 on.
    response = step_response(open_loop(GabaSpec(beta=beta, floor=0), LogRatio(0.0)))
    facts = filter_facts(GabaSpec(beta=beta))
    assert response.settling_steps == facts.settling_updates - 1
    assert response.steps > facts.settling_updates
    theirs = control.step_info(
        filter_system(GabaSpec(beta=beta)), T=np.arange(4 * facts.settling_updates + 8)
    )
    assert response.settling_steps == pytest.approx(theirs["SettlingTime"], abs=1)
    assert response.rise_time_steps == pytest.approx(theirs["RiseTime"], abs=1)


def test_step_info_of_the_default():
    info = step_response(open_loop(GabaSpec(), LogRatio(0.0)))
    assert (info.rise_time_steps, info.settling_steps) == (219, 389)


def test_bandwidth_of_a_discrete_first_order_system():
    # bandwidth raises; cos w = 1 - (1-b)^2/(2b).
    cutoff = filter_facts(GabaSpec()).cutoff_rad_per_step
    response = filter_system(GabaSpec())(np.exp(1j * cutoff))
    assert abs(response) == pytest.approx(math.sqrt(0.5), rel=1e-9)


def test_describing_function_in_discrete_time():
    # describing_function_response puts jw for z and says (16.9, 9.15) for 1.8/(z^2 (z - 0.5)).
    system = control.TransferFunction([1.8], [1.0, -0.5, 0.0, 0.0], 1)
    amplitude, w = saturation_limit_cycle(system, limit=1.0)
    assert amplitude == pytest.approx(2.88, abs=0.005)
    assert w == pytest.approx(0.876, abs=5e-4)
    # Simulated: unit saturation, negative feedback.
    y = np.zeros(4000)
    y[:3] = [1.0, 0.5, 0.2]
    for t in range(3, y.size):
        y[t] = 0.5 * y[t - 1] - 1.8 * np.clip(y[t - 3], -1, 1)
    tail = y[2000:]
    assert (tail.max() - tail.min()) / 2 == pytest.approx(amplitude, rel=0.1)
    peak = np.abs(np.fft.rfft(tail * np.hanning(tail.size)))
    peak[0] = 0
    assert 2 * math.pi * peak.argmax() / tail.size == pytest.approx(w, rel=0.1)


def test_every_margin_here_is_confirmed():
    for k, delay in [(1.0, 0), (50.0, 0), (5.0, 20), (3.0, 50)]:
        assert all(confirm_witnesses(_loop(k, delay), margins(_loop(k, delay))).values())
