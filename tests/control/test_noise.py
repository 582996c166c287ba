"""Noise gains against simulation and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import signal

from gabactl.base.errors import InputError
from gabactl.control.linear import open_loop
from gabactl.control.noise import (
    autocovariance,
    impulse_response,
    jensen_bias,
    noise_gain,
    noise_report,
)
from gabactl.control.responses import linear_response
from gabactl.law.controller import Controller
from gabactl.law.filter import filter_facts
from gabactl.law.spec import GabaSpec
from gabactl.plants import LogRatio


@pytest.mark.parametrize("interval", [1, 10])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99])
def test_without_feedback_it_is_the_filter(beta, interval):
    spec = GabaSpec(beta=beta, interval=interval)
    gain = noise_gain(open_loop(spec, LogRatio(0.0)))
    assert gain == pytest.approx(filter_facts(spec).noise_power_gain, rel=1e-9)


@pytest.mark.parametrize(("rho", "a", "delay"), [(0.5, 0.0, 0), (-3.0, 0.8, 2), (-15.0, 0.0, 5)])
def test_closed_loop_gain_is_the_h2_norm(rho, a, delay):
    loop = open_loop(GabaSpec(beta=0.9), LogRatio(rho / 10, a, delay))
    w = (np.arange(200_000) + 0.5) * np.pi / 200_000
    for name in ("weights", "sensitivity", "contributions"):
        response = np.abs(loop.closed_loop()[name](np.exp(1j * w))) ** 2
        assert noise_gain(loop, signal_name=name) == pytest.approx(response.mean(), rel=1e-6)


@pytest.mark.parametrize("interval", [1, 10])
@pytest.mark.parametrize(("rho", "a", "delay"), [(0.5, 0.9, 2), (-0.4, 0.0, 0), (0.0, 0.0, 1)])
def test_impulse_responses_are_python_controls(rho, a, delay, interval):
    control = pytest.importorskip("control")
    loop = open_loop(GabaSpec(beta=0.5, interval=interval), LogRatio(rho, a, delay))
    for name, system in loop.closed_loop().items():
        response = impulse_response(loop, signal_name=name)
        times = interval * np.arange(len(response))
        expected = interval * control.impulse_response(system, T=times).y.ravel()
        np.testing.assert_allclose(response, expected, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("interval", [1, 4])
def test_white_noise_simulated(interval):
    spec = GabaSpec(beta=0.9, interval=interval)
    loop = open_loop(spec, LogRatio(-2.0, 0.3))
    d = np.random.default_rng(0).normal(size=60_000)
    u = linear_response(loop, disturbance=d).log_weights[2000::interval]
    # A reading's noise is that of its own step; the plant's answer carries the earlier ones.
    assert u.var() == pytest.approx(noise_gain(loop), rel=0.08)


@pytest.mark.parametrize("interval", [1, 5])
def test_coloured_noise_folds(interval):
    spec = GabaSpec(beta=0.95, interval=interval)
    loop = open_loop(spec, LogRatio(0.0))
    pole = 0.8
    r = pole ** np.arange(400)
    gain = noise_gain(loop, autocovariances=r)
    x = signal.lfilter(
        [math.sqrt(1 - pole**2)], [1, -pole], np.random.default_rng(1).normal(size=400_000)
    )
    u = linear_response(loop, disturbance=x[:40_000]) if interval > 1 else None
    if u is None:
        out = signal.lfilter([0.05], [1, -0.95], x)
    else:
        p = 0.95**interval
        out = signal.lfilter([1 - p], [1, -p], x[::interval])
    assert out[1000:].var() == pytest.approx(gain, rel=0.05)
    assert gain > filter_facts(spec).noise_power_gain


def test_measured_autocovariance():
    x = signal.lfilter([1.0], [1, -0.7], np.random.default_rng(2).normal(size=200_000))
    r = autocovariance(x, 2000)
    assert r[1] / r[0] == pytest.approx(0.7, abs=0.02)
    # A taper keeps the spectrum non-negative.
    spectrum = np.fft.rfft(np.concatenate([r, r[1:][::-1]])).real
    assert spectrum.min() > -1e-9 * spectrum.max()


@pytest.mark.parametrize(("mu", "s"), [(0.0, 0.5), (2.0, 0.6), (6.0, 0.5), (5.0, 1.5), (-4.0, 1.0)])
def test_jensen_bias_against_drawn_noise(mu, s):
    y = mu + s * np.random.default_rng(3).normal(size=2_000_000)
    bias = jensen_bias(mu, s)
    assert bias.mean_ema == pytest.approx((1 / (1 + np.exp(y))).mean(), rel=5e-3)
    if mu - s**2 > 3:
        # Derived: exp(-mu + s^2/2) where mu - s^2 >> 1.
        assert bias.mean_ema == pytest.approx(bias.asymptote, rel=0.1)


def test_the_controller_settles_at_the_biased_mean():
    rng = np.random.default_rng(4)
    controller = Controller(GabaSpec(warmup=0, beta=0.99))
    emas = []
    for y in 3.0 + 1.0 * rng.normal(size=20_000):
        controller.observe([math.exp(y), 1.0])
        emas.append(controller.ema_weights[0])
    assert np.mean(emas[2000:]) == pytest.approx(jensen_bias(3.0, 1.0).mean_ema, rel=0.03)
    assert np.mean(emas[2000:]) > 1.3 * jensen_bias(3.0, 0.0).mean_ema


def test_jensen_is_symmetric():
    assert jensen_bias(2.0, 0.7).log_bias == pytest.approx(-jensen_bias(-2.0, 0.7).log_bias)
    assert jensen_bias(0.0, 0.7).log_bias == 0.0
    assert jensen_bias(1.0, 0.0).log_bias == 0.0


def test_report():
    report = noise_report(open_loop(GabaSpec(), LogRatio(-0.1)), noise_std=0.5, log_ratio=2.0)
    assert report.to_dict()["noise_power_gain"] < filter_facts(GabaSpec()).noise_power_gain
    assert "nats" in str(report)


def test_unstable_loops_have_no_noise_gain():
    with pytest.raises(InputError, match="unstable"):
        noise_gain(open_loop(GabaSpec(), LogRatio(1.5)))
    with pytest.raises(InputError, match="positive variance"):
        noise_gain(open_loop(GabaSpec(), LogRatio(0.0)), autocovariances=[0.0])
    with pytest.raises(InputError, match="max_lag"):
        autocovariance([1.0, 2.0], 2)
