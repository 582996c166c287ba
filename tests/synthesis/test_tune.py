"""Tuning: the errors against simulation and closed forms, and the recommendation's constraints."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl import GabaSpec
from gabactl.base.errors import InputError
from gabactl.identification import simulate_excited
from gabactl.law.authority import settled_weights
from gabactl.runs.run import Run
from gabactl.synthesis import Workload, loop_errors, tune, workload_of
from gabactl.traces import Trace


@settings(max_examples=30, deadline=None)
@given(
    beta=st.floats(0.5, 0.999),
    interval=st.integers(1, 20),
    noise_pole=st.floats(0.0, 0.9),
)
def test_open_loop_closed_forms(beta: float, interval: int, noise_pole: float) -> None:
    """AR(1) noise through a first-order filter, and a random walk followed by one."""
    errors = loop_errors(GabaSpec(beta=beta, interval=interval), 0.5, noise_pole, 0.01)
    p, phi = beta**interval, noise_pole**interval
    jitter = 0.5 * math.sqrt((1 - p) / (1 + p) * (1 + p * phi) / (1 - p * phi))
    assert errors.jitter == pytest.approx(jitter, rel=1e-6)
    # Right after a reading p w / (1 - p^2); k steps later k more increments.
    drift = 0.01 * math.sqrt(interval * p * p / (1 - p * p) + (interval - 1) / 2)
    assert errors.lag_error == pytest.approx(drift, rel=1e-3)


@pytest.mark.parametrize(
    ("spec", "rho", "a", "delay"),
    [
        (GabaSpec(beta=0.9, warmup=0, floor=0.0), -3.0, 0.8, 2),
        (GabaSpec(beta=0.97, warmup=0, floor=0.0, interval=7), 0.6, 0.5, 0),
    ],
)
def test_closed_loop_errors_match_the_nonlinear_loop(
    spec: GabaSpec, rho: float, a: float, delay: int
) -> None:
    quiet = {"amplitude": 0.0, "noise_pole": 0.4, "steps": 1500, "runs": 400, "spec": spec}
    noise = simulate_excited(rho, a, delay, noise_std=0.1, drift_std=0.0, seed=1, **quiet)
    walk = simulate_excited(rho, a, delay, noise_std=0.0, drift_std=0.003, seed=2, **quiet)
    errors = loop_errors(spec, 0.1, 0.4, 0.003, rho, a, delay)
    assert noise.actuation[:, 500:].std() == pytest.approx(errors.jitter, rel=0.04)
    # Between readings the imbalance is not recorded; at readings the error is the linear one.
    if spec.interval == 1:
        left = (walk.log_ratio + walk.actuation)[:, 500:]
        assert left.std() == pytest.approx(errors.lag_error, rel=0.06)


def test_an_unstable_loop_has_infinite_errors() -> None:
    assert loop_errors(GabaSpec(), 0.5, 0.0, 0.01, rho=-200.0).total == math.inf


def test_beta_is_the_kalman_gain_where_nothing_binds() -> None:
    """White noise s and a random walk q: gain K with K^2/(1-K) = (q/s)^2."""
    work = Workload(0.5, 2.0, noise_std=0.5, noise_pole=0.0, drift_std=0.005)
    found = tune(work, noise_target=10.0, max_overhead=10.0)
    lam = (0.005 / 0.5) ** 2
    gain = (-lam + math.sqrt(lam * lam + 4 * lam)) / 2
    assert 1.0 - found.spec.beta == pytest.approx(gain, rel=0.1)
    assert "noise against drift" in "; ".join(found.binding)


@settings(max_examples=6, deadline=None)
@given(
    low=st.floats(0.01, 100.0),
    width=st.floats(1.0, 1000.0),
    noise=st.floats(0.05, 1.0),
    drift=st.floats(1e-3, 0.05),
    tasks=st.integers(2, 6),
)
def test_what_is_promised_is_kept(
    low: float, width: float, noise: float, drift: float, tasks: int
) -> None:
    work = Workload(
        low, low * width, noise_std=noise, drift_std=drift, n_tasks=tasks, sensor_cost=0.55 * tasks
    )
    found = tune(work)
    best = found.alternatives[0]
    assert best.name == "recommended"
    assert best.overhead <= 0.1 + 1e-12
    assert best.stable
    assert "cannot be brought" in str(found.binding) or best.errors.jitter <= 0.1 * 1.1
    # Authority: nothing is left over at either end of the range.
    assert best.residual == pytest.approx(1.0, rel=1e-9)
    for ratio in (work.ratio_low, work.ratio_high):
        w = settled_weights(found.spec, ratio)
        assert w[0] / w[1] * ratio == pytest.approx(1.0, rel=1e-6)
    assert found.spec.law == ("inverse" if tasks > 2 else "complement")


def test_published_range_and_what_the_published_floor_leaves() -> None:
    found = tune(Workload(50.0, 2400.0))
    published = found.alternatives[1]
    # theory: m (1 + R) is left at the published floor, 120.05 at a ratio of 2,400.
    assert published.residual == pytest.approx(120.05, abs=0.01)
    assert found.spec.floor == pytest.approx(1 / 2401, rel=0.01)
    assert found.spec.interval == 11
    assert "multiply the first (loud) loss by 0.0029" in found.advice


@pytest.mark.parametrize(
    ("work", "options", "words"),
    [
        (Workload(50.0, 2400.0), {}, "interval: cost"),
        (Workload(50.0, 2400.0), {"noise_target": 0.05}, "beta: jitter"),
        (Workload(50.0, 2400.0), {"noise_target": 1e-4}, "cannot be brought"),
        (Workload(0.5, 2.0), {"noise_target": 5.0}, "beta: noise against drift"),
        (Workload(0.5, 2.0, rho=(-500.0, -1.0)), {"max_overhead": 2.0}, "beta: stability"),
    ],
)
def test_the_constraint_that_binds_is_named(
    work: Workload, options: dict[str, float], words: str
) -> None:
    assert words in "; ".join(tune(work, **options).binding)


def test_a_loop_that_the_published_setting_would_not_hold() -> None:
    """At rho = -250 the published beta is beyond its limit of -199."""
    found = tune(Workload(0.5, 2.0, rho=(-250.0, -250.0)), max_overhead=2.0)
    recommended, published = found.alternatives[:2]
    assert recommended.stable
    assert not published.stable
    assert "unstable" in str(found)


def test_a_ramp_asks_for_a_shorter_memory() -> None:
    slow = Workload(50.0, 2400.0)
    fast = dataclasses.replace(slow, ramp=math.log(48) / 500)
    assert tune(fast, noise_target=1.0).spec.beta < tune(slow, noise_target=1.0).spec.beta


def test_positive_feedback_needs_a_lower_floor() -> None:
    assert (
        tune(Workload(5.0, 20.0, rho=(0.4, 0.5))).spec.floor < tune(Workload(5.0, 20.0)).spec.floor
    )


def test_comparable_units_are_left_alone() -> None:
    assert "leave them" in tune(Workload(0.1, 2.0)).advice


@pytest.mark.parametrize(
    "change",
    [
        {"ratio_low": 0.0},
        {"ratio_high": 1.0},
        {"ratio_high": math.inf},
        {"noise_std": -1.0},
        {"noise_pole": 1.0},
        {"drift_std": 0.0},
        {"ramp": -1.0},
        {"rho": (0.5, 1.0)},
        {"rho": (0.5, 0.2)},
        {"delay": -1},
    ],
)
def test_bad_workloads(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        dataclasses.replace(Workload(50.0, 2400.0), **change)


def test_bad_limits() -> None:
    with pytest.raises(InputError, match="max_overhead"):
        tune(Workload(50.0, 2400.0), max_overhead=0.0)


def test_a_workload_is_measured() -> None:
    steps = 6000
    level = np.linspace(math.log(50.0), math.log(800.0), steps)
    run = simulate_excited(
        0.0, steps=steps, seed=3, amplitude=0.0, drift_std=0.003, log_imbalance=level
    )
    half = run.log_ratio[0] / 2
    work = workload_of(Trace.from_arrays(np.exp(np.stack([half, -half], axis=1))))
    assert work.noise_std == pytest.approx(0.5, rel=0.1)
    assert work.noise_pole == pytest.approx(0.4, abs=0.1)
    assert work.drift_std < 0.012
    assert work.ratio_low == pytest.approx(50.0, rel=0.5)
    assert work.ratio_high == pytest.approx(800.0, rel=0.5)
    assert work.settled_after == 0


def test_a_start_up_transient_sets_the_warm_up() -> None:
    rng = np.random.default_rng(0)
    level = 4.0 * np.exp(-np.arange(3000) / 60.0)
    half = (level + 0.3 * rng.standard_normal(3000)) / 2
    norms = np.exp(np.stack([half, -half], axis=1))
    found = workload_of(Trace.from_arrays(norms)).settled_after
    # At 5 time constants 0.03 of 4 nats are left, at 1 they move by more than the noise.
    assert 60 <= found <= 300
    late = Trace.from_arrays(norms, step=range(101, 3101))
    assert workload_of(late).settled_after is None


@pytest.mark.parametrize("every", [2, 4, 7])
def test_a_workload_is_counted_in_steps_whatever_was_logged(every: int) -> None:
    """A start-up transient of 300 steps, then a walk and noise that remembers."""
    steps = 24_000
    level = math.log(500.0) + np.where(np.arange(steps) < 300, -3.0, 0.0)
    run = simulate_excited(
        0.0, steps=steps, seed=3, amplitude=0.0, drift_std=0.02, log_imbalance=level
    )
    half = run.log_ratio[0] / 2
    trace = Trace.from_arrays(np.exp(np.stack([half, -half], axis=1)))
    whole = workload_of(trace)
    assert whole.settled_after == 300
    for first in {0, every // 2, every - 1}:
        logged = workload_of(Run(trace.rows(slice(first, None, every))))
        assert logged.drift_std == pytest.approx(whole.drift_std, rel=0.15)
        assert logged.noise_std == pytest.approx(whole.noise_std, rel=0.1)
        assert logged.ratio_low == pytest.approx(whole.ratio_low, rel=0.3)
        assert logged.ratio_high == pytest.approx(whole.ratio_high, rel=0.3)
        # To a block of 20 steps, or of 5 readings.
        assert abs(logged.settled_after - 300) <= max(20, 5 * every)


def test_json_and_toml_agree(tmp_path) -> None:
    found = tune(Workload(50.0, 2400.0))
    file = tmp_path / "spec.toml"
    file.write_text(found.to_toml())
    assert GabaSpec.from_toml(file) == found.spec
    record = json.loads(found.to_json())
    assert GabaSpec.from_dict(record["spec"]) == found.spec
    assert record["alternatives"][0]["name"] == "recommended"


def test_the_table_and_the_picture() -> None:
    found = tune(Workload(50.0, 2400.0))
    assert "Alternatives" in str(found)
    assert "what binds" in str(found)
    ax = found.plot()
    jitter = ax.lines[0].get_ydata()
    # Drawn from the longest time constant to the shortest, where the noise passes unfiltered.
    assert (np.diff(jitter) > 0).all()
    assert jitter[-1] == pytest.approx(0.5, rel=0.01)
