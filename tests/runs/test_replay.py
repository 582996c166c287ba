"""Replay against the stateful controller, over every law, floor, guard and interval."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl import Controller, GabaSpec, InputError
from gabactl.law.floors import project
from gabactl.law.spec import CHOICES
from gabactl.law.stages import raw_weights, smooth, usable
from gabactl.runs.replay import replay
from gabactl.runs.run import Run
from gabactl.traces import Trace

LAWS = CHOICES["law"]
FLOORS = CHOICES["floor_mode"]
GUARDS = ("hold", "none")


def random_norms(seed, steps, k, spread=2.0):
    """Log-normal norms around a drift, as in training."""
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(0, 0.03, (steps, k)), axis=0)
    return np.exp(drift + rng.normal(0, spread, (steps, k)))


def stepped(spec, norms, measured):
    """The same through ``Controller``, one step at a time."""
    controller = Controller(spec)
    weights, ema = [], []
    for reading, seen in zip(norms, measured, strict=True):
        weights.append(controller.observe(reading if seen else None))
        ema.append(controller.ema_weights)
    return np.array(weights), np.array(ema)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("floor_mode", FLOORS)
def test_replay_is_the_controller(k, floor_mode):
    for law, guard, interval in itertools.product(LAWS, GUARDS, (1, 7)):
        spec = GabaSpec(
            n_tasks=k, law=law, floor_mode=floor_mode, guard=guard, interval=interval, warmup=10
        )
        norms = random_norms(1, 300, k)
        measured = np.ones(300, dtype=bool)
        measured[[5, 60, 61, 62, 100]] = False
        if guard == "hold":
            norms[80] = 0.0
            norms[81, 0] = np.inf
            norms[82, -1] = np.nan
            norms[83, 0] = 0.0
        weights, ema = stepped(spec, norms, measured)
        done = replay(spec, norms, measured)
        np.testing.assert_allclose(done.ema, ema, rtol=0, atol=1e-13)
        np.testing.assert_allclose(done.weights, weights, rtol=0, atol=1e-13)
        assert done.unrecorded_readings == 0


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3, 5])
def test_replay_is_the_controller_over_5000_steps(k):
    for floor_mode, law, guard in itertools.product(FLOORS, LAWS, GUARDS):
        spec = GabaSpec(n_tasks=k, law=law, floor_mode=floor_mode, guard=guard)
        norms = random_norms(2, 5000, k)
        weights, ema = stepped(spec, norms, np.ones(5000, dtype=bool))
        done = replay(spec, norms)
        np.testing.assert_allclose(done.ema, ema, rtol=0, atol=1e-12)
        np.testing.assert_allclose(done.weights, weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("floor_mode", FLOORS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_without_the_guard_one_bad_reading_poisons_both_alike(floor_mode, poison):
    spec = GabaSpec.published(warmup=2, floor_mode=floor_mode)
    norms = random_norms(3, 20, 2)
    norms[9, 0] = poison
    weights, ema = stepped(spec, norms, np.ones(20, dtype=bool))
    done = replay(spec, norms, np.ones(20, dtype=bool))
    assert np.isnan(done.ema[9:]).any(axis=1).all()
    np.testing.assert_allclose(done.ema, ema, rtol=0, atol=1e-13)
    np.testing.assert_allclose(done.weights, weights, rtol=0, atol=1e-13)


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(2, 4),
    beta=st.floats(0, 0.999),
    law=st.sampled_from(LAWS),
    floor_mode=st.sampled_from(FLOORS),
    guard=st.sampled_from(GUARDS),
    warmup=st.integers(0, 6),
    interval=st.integers(1, 5),
    data=st.data(),
)
def test_replay_is_the_controller_on_any_norms(
    k, beta, law, floor_mode, guard, warmup, interval, data
):
    spec = GabaSpec(k, beta, 0.04, warmup, law, floor_mode, guard, interval)
    norm = st.one_of(st.floats(0, 1e300), st.sampled_from([0.0, 1e-13, np.inf, np.nan]))
    rows = data.draw(st.lists(st.lists(norm, min_size=k, max_size=k), min_size=1, max_size=12))
    measured = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    norms = np.array(rows)
    with np.errstate(all="ignore"):
        weights, ema = stepped(spec, norms, measured)
        done = replay(spec, norms, measured)
    np.testing.assert_allclose(done.ema, ema, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(done.weights, weights, rtol=1e-12, atol=1e-12)


def test_step_numbers_place_the_warm_up_and_the_interval():
    spec = GabaSpec(warmup=4, interval=3, beta=0.5)
    norms = random_norms(4, 20, 2)
    whole = replay(spec, norms)
    # Steps without a reading may be left out of the record.
    keep = np.array([5, 8, 9, 11, 14, 17, 20]) - 1
    thinned = replay(spec, norms[keep], step=keep + 1)
    np.testing.assert_array_equal(thinned.ema, whole.ema[keep])
    assert thinned.unrecorded_readings == 0
    assert whole.readings == thinned.readings == 6
    # A reading that was left out is noticed: those of steps 8 and 14.
    assert replay(spec, norms[[4, 10, 16]], step=[5, 11, 17]).unrecorded_readings == 2


def test_unread_steps_are_uniform_or_stood_for_by_the_next_reading():
    spec = GabaSpec(warmup=0, beta=0.5)
    norms = np.array([[9.0, 1.0], [np.nan, np.nan], [9.0, 1.0]])
    uniform, held = replay(spec, norms), replay(spec, norms, unread="unrecorded")
    np.testing.assert_array_equal(uniform.weights[1], [0.5, 0.5])
    np.testing.assert_array_equal(held.weights[1], held.weights[0])
    np.testing.assert_array_equal(uniform.ema[:2], held.ema[:2])
    # From 0.3 with raw weights 0.1: once, and twice.
    assert uniform.ema[2, 0] == pytest.approx(0.2)
    assert held.ema[2, 0] == pytest.approx(0.15)
    assert (uniform.untaken_readings, uniform.unrecorded_readings) == (1, 0)
    assert (held.untaken_readings, held.unrecorded_readings) == (0, 1)


def test_saturated_fraction_counts_active_steps_only():
    # From 1/2 toward 0 with beta = 0.99 the average is below 0.05 after 230 readings
    # (0.99**n / 2 < 0.05 iff n > 229.1), and so on 1000 - 229 of 1000 active steps.
    spec = GabaSpec()
    done = replay(spec, np.tile([1e12, 1e-12], (1100, 1)))
    assert done.saturated_fraction == pytest.approx((1000 - 229) / 1000)
    assert np.isnan(replay(spec, np.ones((50, 2))).saturated_fraction)


def test_a_trace_that_starts_late_continues_from_its_first_average():
    spec = GabaSpec(warmup=10)
    norms = random_norms(5, 60, 2)
    whole = replay(spec, norms)
    late = Trace.from_arrays(norms[30:], step=range(31, 61), ema=whole.ema[30:])
    done = Run(late, spec).replay
    np.testing.assert_array_equal(done.ema, whole.ema[30:])
    np.testing.assert_array_equal(done.weights, whole.weights[30:])
    assert done.readings == 29


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"grad_norms": [[1.0, 2.0, 3.0]]}, "n_tasks = 2"),
        ({"grad_norms": [1.0, 2.0]}, "shape"),
        ({"grad_norms": [[1.0, -2.0]]}, "norms are >= 0"),
        ({"grad_norms": [[1.0, 2.0]] * 2, "step": [2, 2]}, "strictly increasing"),
        ({"grad_norms": [[1.0, 2.0]], "step": [0]}, "counted from 1"),
        ({"grad_norms": [[1.0, 2.0]], "measured": [True, True]}, "measured has shape"),
    ],
)
def test_bad_input(arguments, said):
    with pytest.raises(InputError, match=said):
        replay(GabaSpec(), **arguments)


def test_an_empty_record_replays_to_nothing():
    assert replay(GabaSpec(), np.empty((0, 2))).weights.shape == (0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("floor_mode", FLOORS)
def test_a_hundred_thousand_steps_take_about_a_second(floor_mode):
    norms = random_norms(6, 100_000, 2)
    best = min(_seconds(GabaSpec(floor_mode=floor_mode), norms) for _ in range(3))
    assert best < 3.0  # about 0.5 s (clamp_state 0.8 s) on one free core


def _seconds(spec, norms):
    start = time.perf_counter()
    replay(spec, norms)
    return time.perf_counter() - start


def coasted(spec, norms, measured):
    """The average that goes on following the last raw weights, one step at a time."""
    ema = held = np.full(spec.n_tasks, 1 / spec.n_tasks)
    rows = []
    for step, (reading, seen) in enumerate(zip(norms, measured, strict=True), start=1):
        usable_now = not seen or bool(usable(reading, spec.law)) or spec.guard == "none"
        if step > spec.warmup and usable_now:
            if seen:
                raw = raw_weights(reading, spec.law, spec.guard)
                ema = smooth(ema, raw, spec.beta)
                held = raw if np.isfinite(raw).all() else held
            else:
                ema = smooth(ema, held, spec.beta)
            if spec.floor_mode == "clamp_state":
                ema = project(ema, spec.floor)
        rows.append(ema)
    return np.array(rows)


class TestCoasting:
    """A sensor that chooses its own times, and an average that does not wait for it."""

    def readings(self, k=2, steps=300):
        norms = random_norms(3, steps, k)
        measured = np.random.default_rng(4).random(steps) < 0.1
        norms[~measured] = np.nan
        return norms, measured

    @pytest.mark.parametrize("floor_mode", FLOORS)
    @pytest.mark.parametrize("k", [2, 4])
    def test_follows_the_last_raw_weights(self, k, floor_mode):
        norms, measured = self.readings(k)
        measured[[150, 200]] = True
        norms[150], norms[200] = 0.0, np.inf  # readings at which the guard holds
        spec = GabaSpec(n_tasks=k, warmup=20, beta=0.95, floor_mode=floor_mode)
        done = replay(spec, norms, measured, coast=True)
        np.testing.assert_allclose(done.ema, coasted(spec, norms, measured), rtol=0, atol=1e-13)
        assert done.readings == measured[20:].sum()
        assert done.unrecorded_readings == done.untaken_readings == 0
        held = replay(spec, norms, measured)
        assert np.abs(held.ema - done.ema).max() > 0.05

    def test_a_trace_says_whether_it_coasts(self):
        norms, measured = self.readings()
        spec = GabaSpec(warmup=20)
        sensor = {"name": "event", "coasts": True, "interval": 1, "budget": 0.03}
        trace = Trace.from_arrays(norms, metadata={"sensor": sensor, "spec": spec.to_dict()})
        assert trace.coasts
        assert trace.sensor == sensor
        whole = replay(spec, norms, measured, coast=True)
        np.testing.assert_array_equal(Run(trace, spec).replay.ema, whole.ema)
        # Other settings coast too; with an interval it is a sampled sensor that is asked about.
        assert Run(trace, GabaSpec(beta=0.9)).replay.untaken_readings == 0
        assert Run(trace, GabaSpec(warmup=20, interval=5)).replay.untaken_readings > 0
        assert not Trace.from_arrays(norms).coasts

    def test_a_trace_that_starts_late_goes_on_from_its_first_reading(self):
        norms, measured = self.readings()
        spec = GabaSpec(warmup=20)
        whole = replay(spec, norms, measured, coast=True)
        sensor = {"sensor": {"name": "event", "coasts": True}}
        for first in (60, 61, 62, 63, 75):
            late = Trace.from_arrays(
                norms[first:], step=range(first + 1, 301), ema=whole.ema[first:], metadata=sensor
            )
            done = Run(late, spec).replay
            np.testing.assert_array_equal(done.ema, whole.ema[first:])
            np.testing.assert_array_equal(done.weights, whole.weights[first:])
        nothing = Trace.from_arrays(norms[:0].reshape(0, 2), metadata=sensor)
        assert len(Run(nothing, spec).replay.ema) == 0
        last = np.flatnonzero(measured)[-1] + 1
        silent = Trace.from_arrays(
            norms[last:], step=range(last + 1, 301), ema=whole.ema[last:], metadata=sensor
        )
        np.testing.assert_array_equal(Run(silent, spec).replay.ema, whole.ema[last:])

    def test_an_interval_is_refused(self):
        with pytest.raises(InputError, match="interval = 5 with a sensor that chooses"):
            replay(GabaSpec(interval=5), [[1.0, 2.0]], coast=True)
