"""Excited runs: what can be identified, and the refusals that say why not."""

from __future__ import annotations

import numpy as np
import pytest

from gabactl import GabaSpec
from gabactl.base.errors import InputError
from gabactl.identification import ExcitedRun, simulate_excited
from gabactl.identification.signals import difference, from_run
from gabactl.runs.replay import replay
from gabactl.runs.run import Run
from gabactl.traces import Trace

STEPS = 1000


@pytest.fixture
def pushed() -> np.ndarray:
    return np.repeat(np.random.default_rng(1).choice([-0.5, 0.5], STEPS // 50), 50)


def noise(seed: int = 0) -> np.ndarray:
    return 0.5 * np.random.default_rng(seed).standard_normal(STEPS)


def as_trace(log_ratio: np.ndarray, actuation: np.ndarray, **more: object) -> Trace:
    w = 1.0 / (1.0 + np.exp(-actuation))
    norms = np.stack([np.exp(log_ratio / 2), np.exp(-log_ratio / 2)], axis=1)
    return Trace.from_arrays(norms, weights=np.stack([w, 1 - w], axis=1), **more)


def test_fixed_weights_are_refused() -> None:
    with pytest.raises(InputError, match=r"weights never move.*--excite prbs:amplitude=0.5"):
        ExcitedRun(noise(), np.zeros(STEPS), np.zeros(STEPS))


def test_gaba_without_perturbation_is_refused() -> None:
    norms = np.exp(np.stack([noise(1), noise(2)], axis=1))
    weights = replay(GabaSpec(warmup=0), norms).weights
    trace = Trace.from_arrays(norms, weights=weights)
    with pytest.raises(InputError, match=r"cannot tell the plant from the noise; record a run"):
        from_run(Run(trace))


def test_a_trace_gives_back_the_signals(pushed: np.ndarray) -> None:
    y = noise()
    metadata = {"excitation": "prbs:period=50,seed=1"}
    found = from_run(Run(as_trace(y, pushed, excitation=pushed, metadata=metadata)))
    np.testing.assert_allclose(found.log_ratio, y, atol=1e-12)
    np.testing.assert_allclose(found.actuation, pushed, atol=1e-12)
    assert found.block == 50


def test_steps_that_were_not_recorded_keep_their_place(pushed: np.ndarray) -> None:
    every_other = np.arange(0, STEPS, 2)
    trace = as_trace(
        noise()[every_other],
        pushed[every_other],
        excitation=pushed[every_other],
        step=every_other + 1,
    )
    found = from_run(Run(trace))
    assert len(found.log_ratio) == STEPS - 1
    assert not found.measured[1::2].any()
    np.testing.assert_allclose(found.actuation, pushed[:-1], atol=1e-12)


def test_warm_up_rows_without_weights_are_uniform(pushed: np.ndarray) -> None:
    weights = np.full((STEPS, 2), np.nan)
    weights[100:] = np.stack([1 / (1 + np.exp(-pushed)), 1 / (1 + np.exp(pushed))], axis=1)[100:]
    trace = Trace.from_arrays(np.ones((STEPS, 2)), weights=weights, excitation=pushed)
    assert (from_run(Run(trace)).actuation[:100] == 0).all()


@pytest.mark.parametrize(
    ("norms", "more", "words"),
    [
        (np.ones((STEPS, 3)), {}, "3 tasks"),
        (np.ones((STEPS, 2)), {}, "no applied weights"),
        (np.ones((100, 2)), {"weights": np.full((100, 2), 0.5)}, "100 readings are too few"),
    ],
)
def test_what_cannot_be_used(norms: np.ndarray, more: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_run(Run(Trace.from_arrays(norms, **more)))


def test_absurd_step_numbers_do_not_exhaust_memory() -> None:
    step = np.arange(1, STEPS + 1)
    step[-1] = 10**12
    trace = Trace.from_arrays(np.ones((STEPS, 2)), weights=np.full((STEPS, 2), 0.5), step=step)
    with pytest.raises(InputError, match="too many"):
        from_run(Run(trace))


def test_difference_of_twins_is_their_difference() -> None:
    runs = [
        simulate_excited(-0.5, steps=STEPS, seed=s, excitation_seed=3, inverted=bool(s)).run(0)
        for s in (0, 1)
    ]
    found = difference(*runs)
    np.testing.assert_allclose(found.excitation, 2 * runs[0].excitation)
    np.testing.assert_allclose(found.log_ratio, runs[0].log_ratio - runs[1].log_ratio)


def test_what_are_no_twins() -> None:
    run = simulate_excited(-0.5, steps=STEPS, seed=0).run(0)
    other = simulate_excited(-0.5, steps=STEPS, seed=1, excitation_seed=5, inverted=True).run(0)
    short = simulate_excited(-0.5, steps=500, seed=0, inverted=True).run(0)
    spec = GabaSpec(warmup=0, beta=0.9)
    tuned = simulate_excited(-0.5, steps=STEPS, seed=0, inverted=True, spec=spec).run(0)
    for twin, words in ((other, "not twins"), (short, "500 steps"), (tuned, "settings")):
        with pytest.raises(InputError, match=words):
            difference(run, twin)
