"""torch, NumPy and replay agree on the same gradient norms, through a recorded trace.

Bounds: float64 to 1e-12; float32 to 5e-6 absolute on ema and weights (the pole 0.99 is stored in
float32 with an error of 1e-8 relative, which the filter's gain of 100 makes 1e-6).
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gabactl import Controller, GabaSpec  # noqa: E402
from gabactl.law.spec import CHOICES  # noqa: E402
from gabactl.nn import GABALoss, TraceRecorder  # noqa: E402
from gabactl.runs.replay import replay  # noqa: E402
from gabactl.runs.run import Run  # noqa: E402
from gabactl.traces import read_trace  # noqa: E402
from gabactl.validation.check import check  # noqa: E402

FLOORS = CHOICES["floor_mode"]
BOUND = {torch.float64: 1e-12, torch.float32: 5e-6}


class Fed(GABALoss):
    """Takes its gradient norms from an array; all else is GABALoss."""

    rows: np.ndarray

    def _norms(self, *given):
        return torch.tensor(self.rows[int(self.step_count)], dtype=self.ema_weights.dtype)


def norms_with_trouble(seed, steps, k, guard):
    """Drifting log-normal norms; under the guard also zero, infinite and NaN readings."""
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(0, 0.03, (steps, k)), axis=0)
    norms = np.exp(drift + rng.normal(0, 1.5, (steps, k)))
    if guard == "hold":
        for row in rng.choice(np.arange(101, steps), 3 * (steps // 500), replace=False):
            norms[row, rng.integers(k)] = rng.choice([0.0, np.inf, np.nan])
        norms[steps // 2] = 0.0
    return norms


def record(path, spec, norms, dtype, without=()):
    """A recorded run of GABALoss on these norms; ``without`` are steps with no shared_params."""
    loss_fn = Fed.from_spec(spec, [f"t{i}" for i in range(spec.n_tasks)])
    loss_fn.rows = norms
    if dtype == torch.float64:
        loss_fn.double()
    w = torch.ones(1, dtype=dtype, requires_grad=True)
    losses = [w.sum()] * spec.n_tasks
    with TraceRecorder(path, loss_fn, {"seed": 0}) as recorder:
        for i in range(len(norms)):
            loss_fn.forward_k(losses, None if i in without else [w])
            recorder.log(losses)
    return read_trace(path)


def compared(tmp_path, spec, steps, dtype):
    # Steps called without shared parameters, at which a reading was due (or in the warm-up).
    third = spec.warmup + spec.interval * (steps // 3 // spec.interval)
    without = {3, third, third + spec.interval}
    norms = norms_with_trouble(spec.n_tasks, steps, spec.n_tasks, spec.guard)
    trace = record(tmp_path / "run.parquet", spec, norms, dtype, without)
    assert len(trace) == steps
    assert trace.spec == spec
    bound = BOUND[dtype]

    controller = Controller(spec)
    numpy_ema, numpy_weights = [], []
    for reading, seen in zip(trace.grad_norms, trace.measured, strict=True):
        numpy_weights.append(controller.observe(reading if seen else None))
        numpy_ema.append(controller.ema_weights)
    replayed = Run(trace, spec).replay

    np.testing.assert_allclose(replayed.ema, numpy_ema, rtol=0, atol=1e-12)
    np.testing.assert_allclose(replayed.weights, numpy_weights, rtol=0, atol=1e-12)
    np.testing.assert_allclose(trace.ema, replayed.ema, rtol=0, atol=bound)
    np.testing.assert_allclose(trace.weights, replayed.weights, rtol=0, atol=bound)

    # Norms the controller did not look at are null in the record; the rest are as they were.
    rows = trace.measured
    seen = (np.arange(1, steps + 1) > spec.warmup) & ~np.isin(np.arange(steps), list(without))
    seen &= (np.arange(steps) - spec.warmup) % spec.interval == 0
    np.testing.assert_array_equal(rows, seen)
    np.testing.assert_allclose(trace.grad_norms[rows], norms[rows], rtol=1e-7)

    found = check(trace)
    assert found.tolerance == bound
    assert found.ok is True
    return found


# Law, guard and precision alternate here; the slow test takes all of them.
@pytest.mark.parametrize("floor_mode", FLOORS)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_5000_steps(tmp_path, k, floor_mode):
    i, j = [2, 3, 5].index(k), FLOORS.index(floor_mode)
    spec = GabaSpec(
        n_tasks=k,
        floor_mode=floor_mode,
        law=CHOICES["law"][(i + j) % 2],
        guard=("hold", "none")[(i + j // 2) % 2],
    )
    compared(tmp_path, spec, 5000, (torch.float64, torch.float32)[j % 2 if k == 3 else i % 2])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("guard", ["hold", "none"])
@pytest.mark.parametrize("law", CHOICES["law"])
@pytest.mark.parametrize("floor_mode", FLOORS)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_5000_steps_of_every_law_floor_and_guard(tmp_path, k, floor_mode, law, guard, dtype):
    spec = GabaSpec(n_tasks=k, floor_mode=floor_mode, law=law, guard=guard)
    compared(tmp_path, spec, 5000, dtype)


@pytest.mark.parametrize("interval", [3, 10])
def test_sampled_sensor(tmp_path, interval):
    spec = GabaSpec(warmup=20, interval=interval)
    found = compared(tmp_path, spec, 400, torch.float64)
    assert found.readings == -(-380 // interval) - 2


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999, 0.9999])
def test_other_poles_stay_within_their_tolerance(tmp_path, beta):
    spec = GabaSpec(beta=beta, warmup=5)
    norms = norms_with_trouble(1, 2000, 2, "hold")
    trace = record(tmp_path / "run.parquet", spec, norms, torch.float32)
    assert check(trace).ok is True


def test_a_beta_beyond_0_99_needs_the_wider_tolerance(tmp_path):
    # Not an excuse: the pole alone costs more than 5e-6 here.
    spec = GabaSpec(beta=0.9999, warmup=5)
    trace = record(tmp_path / "run.parquet", spec, np.tile([1e4, 1.0], (5000, 1)), torch.float32)
    assert check(trace, tolerance=5e-6).ok is False
    assert check(trace).ok is True


def test_with_real_gradients(tmp_path):
    """No feeding: the norms come from autograd on a small network."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    shared = list(model[0].parameters())
    loss_fn = GABALoss(warmup_steps=10, beta=0.9)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
        for _ in range(150):
            out = model(torch.randn(16, 6))
            losses = [(10 * out[:, 0] - 3).square().mean(), out[:, 1].square().mean()]
            total = loss_fn(*losses, shared_params=shared)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            recorder.log(losses)
    trace = read_trace(tmp_path / "run.parquet")
    assert check(trace).ok is True
    spec = trace.spec
    # Another setting is seen at once, and so is a norm that was tampered with.
    for other in (spec.replace(beta=0.91), spec.replace(floor=0.2), spec.replace(warmup=11)):
        found = check(trace, other)
        assert found.ok is False
        assert found.first_difference >= 11
    norms = trace.grad_norms.copy()
    norms[70, 0] *= 1.01
    found = check(trace.replace(grad_norms=norms))
    assert found.ok is False
    assert found.first_difference == 71
    assert replay(spec, norms, trace.measured).readings == 140
