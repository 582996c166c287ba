"""The event-triggered sensor: its budget, its bound, its state, and a recorded C-MAPSS run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.laws import LAWS
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.law.stages import raw_weights, saturate, smooth
from gabactl.nn import EventSensor, GABALoss
from gabactl.nn.sensors.trigger import EventTrigger
from gabactl.traces import load_bundled


def follow(trigger, norms, losses, spec):
    """Run the trigger over recorded norms; readings, and the averages it and `full` end up with."""
    controller = Controller(spec)
    held = ema = np.full(spec.n_tasks, 1 / spec.n_tasks)
    taken, errors = [], []
    for step in range(1, len(norms) + 1):
        controller.observe(norms[step - 1])
        if trigger.due(step, spec.warmup, losses[step - 2] if step > 1 else None):
            trigger.took(step, norms[step - 1])
            held = raw_weights(norms[step - 1], spec.law)
            taken.append(step)
        if step > spec.warmup:
            ema = smooth(ema, held, spec.beta)
        errors.append(np.abs(ema - controller.ema_weights).max())
    return taken, np.array(errors), ema, controller


class TestBudget:
    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        budget=st.floats(0.01, 0.5),
        cost=st.floats(0.3, 3.0),
        noise=st.floats(0.0, 3.0),
    )
    def test_never_more_than_promised_and_never_a_longer_gap(self, seed, budget, cost, noise):
        rng = np.random.default_rng(seed)
        trigger = EventTrigger(2, budget, cost)
        taken = []
        for step in range(1, 601):
            if trigger.due(step, 0, rng.lognormal(0, noise, 2)):
                trigger.took(step, rng.lognormal(0, noise, 2))
                taken.append(step)
        taken = np.array(taken)
        bound = trigger.bound(0.0)
        assert taken[0] == 1
        assert np.diff(taken).max(initial=0) <= bound.max_gap
        for first in range(len(taken)):
            for last in range(first, len(taken)):
                steps = taken[last] - taken[first] + 1
                # One more: the very first reading is not paid for.
                assert last - first + 1 <= bound.burst + budget * steps / cost + 1 + 1e-6

    def test_overhead_of_a_long_run(self):
        rng = np.random.default_rng(0)
        trigger = EventTrigger(2, 0.03, 0.62)
        n = 0
        for step in range(1, 20001):
            if trigger.due(step, 100):
                trigger.took(step, rng.lognormal(0, 0.5, 2))
                n += 1
        assert 0.62 * n / 20000 <= 0.0302

    @pytest.mark.parametrize(
        ("name", "value"),
        [("budget", 0.0), ("budget", math.nan), ("reading_cost", -1.0), ("tolerance", 1.0)],
    )
    def test_bad_settings(self, name, value):
        with pytest.raises(InputError, match=name):
            EventSensor(**{name: value})


@pytest.mark.parametrize("law", CHOICES["law"])
def test_the_trigger_uses_the_controllers_law(law):
    logs = np.random.default_rng(0).normal(0, 3, 4)
    got = LAWS[law].raw_of_logs(logs.tolist())
    assert got == pytest.approx(raw_weights(np.exp(logs), law).tolist(), abs=1e-12)


class TestWeightError:
    @settings(max_examples=30, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        rate=st.floats(0.001, 0.05),
        k=st.integers(2, 4),
        law=st.sampled_from(CHOICES["law"]),
    )
    def test_within_the_bound_for_any_motion_of_that_rate(self, seed, rate, k, law):
        rng = np.random.default_rng(seed)
        spec = GabaSpec(n_tasks=k, warmup=3, law=law)
        # Every log norm moves at most rate/2 per step, so every log-ratio at most rate.
        signs = rng.choice([-1, 1], size=(40, k)).repeat(10, axis=0)
        logs = np.cumsum(signs * rate / 2, axis=0) + rng.normal(0, 0.5, k)
        trigger = EventTrigger(k, 0.05, 0.6 * k, law=law)
        _, errors, _, _ = follow(trigger, np.exp(logs), np.ones_like(logs), spec)
        assert errors.max() <= trigger.bound(rate).ema_error + 1e-12

    def test_the_bound_is_nearly_reached(self):
        # Half the gap ahead of a crossing, a reading; then a ramp through 1/2, noise-free.
        trigger = EventTrigger(2, budget=0.02, reading_cost=0.6, tolerance=0.9)
        rate = 0.02
        gap = trigger.max_gap
        logs = rate * (np.arange(20 * gap) - 10.5 * gap)
        norms = np.stack([np.exp(logs), np.ones_like(logs)], axis=1)
        _, errors, _, _ = follow(trigger, norms, np.ones_like(norms), GabaSpec(beta=0.0, warmup=0))
        assert errors.max() == pytest.approx(trigger.bound(rate).ema_error, rel=0.02)

    @pytest.mark.parametrize("name", ["fd001-equal", "fd002-equal"])
    def test_on_a_recorded_run(self, name):
        # Budget 0.03: final weight error under 0.02 on C-MAPSS (recorded norms of every step).
        trace, spec = load_bundled(name), GabaSpec()
        trigger = EventTrigger(2, 0.03, 1.2)
        taken, _, ema, controller = follow(trigger, trace.grad_norms, trace.losses, spec)
        weights = saturate(ema, spec.floor)
        assert np.abs(weights - controller.weights).max() < 0.02
        assert len(taken) * 1.2 / len(trace.grad_norms) <= 0.03

    def test_reads_more_often_while_the_ratio_moves(self):
        trigger = EventTrigger(2, 0.05, 0.6)
        steps = np.arange(1600)
        logs = np.interp(steps, [0, 800, 1000, 1600], [0.0, 0.0, 4.0, 4.0])
        norms = np.stack([np.exp(logs), np.ones(1600)], axis=1)
        taken, _, _, _ = follow(trigger, norms, norms, GabaSpec(warmup=0))
        taken = np.array(taken)
        moving = ((taken > 800) & (taken <= 1000)).sum() / 200
        resting = ((taken > 400) & (taken <= 800)).sum() / 400
        assert moving > 1.5 * resting


def run(loss_fn, steps, seed):
    rng = np.random.default_rng(seed)
    measured, averages = [], []
    for _ in range(steps):
        w = torch.ones(2, dtype=torch.float64, requires_grad=True)
        g = rng.lognormal(0, 0.5, 2)
        loss_fn.forward_k([g[0] * w[0], g[1] * w[1]], [w])
        measured.append(loss_fn.measured_this_step)
        averages.append(loss_fn.ema_weights.clone())
    return measured, torch.stack(averages)


class TestInTheLoss:
    def make(self):
        return GABALoss(warmup_steps=5, beta=0.9, sensor=EventSensor(0.1, 0.6)).double()

    def test_average_follows_the_last_raw_weights(self):
        loss_fn = self.make()
        measured, averages = run(loss_fn, 60, 0)
        raw, ema = torch.full((2,), 0.5).double(), torch.full((2,), 0.5).double()
        rng = np.random.default_rng(0)
        for step in range(60):
            g = rng.lognormal(0, 0.5, 2)
            if measured[step]:
                raw = torch.from_numpy(raw_weights(g))
            if step >= 5:
                ema = 0.9 * ema + (1 - 0.9) * raw
            assert torch.allclose(averages[step], ema, rtol=0, atol=1e-12)
        assert 3 <= sum(measured) <= 15

    def test_resumed_from_a_file_it_goes_on_bit_equal(self, tmp_path):
        whole = self.make()
        expected = run(whole, 40, 1)
        first = self.make()
        run(first, 23, 1)
        torch.save(first.state_dict(), tmp_path / "loss.pt")
        second = self.make()
        second.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
        rng = np.random.default_rng(1)
        rng.lognormal(0, 0.5, (23, 2))
        for step in range(23, 40):
            w = torch.ones(2, dtype=torch.float64, requires_grad=True)
            g = rng.lognormal(0, 0.5, 2)
            second.forward_k([g[0] * w[0], g[1] * w[1]], [w])
            assert second.measured_this_step == expected[0][step]
            assert torch.equal(second.ema_weights, expected[1][step])

    def test_a_state_of_other_tasks_is_refused(self):
        sensor = EventSensor()
        GABALoss(n_tasks=3, sensor=sensor)
        other = EventSensor()
        loss_fn = GABALoss(sensor=other, warmup_steps=0)
        run(loss_fn, 3, 0)
        with pytest.raises(InputError, match="does not fit 3 tasks"):
            sensor.set_extra_state(other.get_extra_state())

    def test_backward_reuses_at_readings(self):
        grads = []
        for reusing in (True, False):
            loss_fn = self.make()
            w = torch.ones(3, dtype=torch.float64, requires_grad=True)
            for _ in range(30):
                losses = [(w[:2] ** 2).sum(), (w[1:] ** 3).sum()]
                if reusing:
                    loss_fn.backward(losses, [w])
                else:
                    loss_fn.forward_k(losses, [w]).backward()
            grads.append(w.grad)
        assert torch.allclose(*grads, rtol=1e-12)

    def test_an_interval_is_refused(self):
        with pytest.raises(InputError, match="interval = 10 with the event sensor"):
            GABALoss(interval=10, sensor=EventSensor())

    def test_half_keeps_the_held_weights_in_float32(self):
        loss_fn = GABALoss(sensor=EventSensor()).half()
        assert loss_fn.held_raw.dtype == loss_fn.ema_weights.dtype == torch.float32


def test_measured_on_cmapss():
    # What simulations/sensors_on_cmapss.py wrote: real training, targets in cycles as published.
    folder = Path(__file__).resolve().parents[2] / "simulations" / "results"
    found = json.loads((folder / "sensors_cmapss.json").read_text(encoding="utf-8"))["runs"]
    runs = [run for run in found.values() if run["target_scale"] == 1.0]
    assert {run["subset"] for run in runs} >= {"FD001", "FD002"}
    for run in runs:
        event = run["sensors"]["event 0.03"]
        assert run["overhead_of_event"] <= 0.03  # CPU time, against a plain step
        assert event["final_weight_error"] < 0.02
        assert event["final_ema_error"] < 0.02
        assert event["readings"] < 0.03 * run["steps"]
