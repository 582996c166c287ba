"""The rounding theorems against adversarial runs in float32 and float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec


def k_of(beta: Fraction, tasks: int) -> Fraction:
    """The bound of ROUND-average, in eps."""
    return 2 / (1 - beta) + tasks + 1


def readings_of(kind: str, steps: int, tasks: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    norms = np.exp(rng.normal(size=(steps, tasks)) * rng.uniform(0.1, 12))
    if kind == "dropouts":
        norms *= rng.random((steps, tasks)) > 0.5
        norms[norms.sum(axis=1) == 0] = 1.0
    if kind == "tiny":
        norms = np.float32(1e-38) * rng.random((steps, tasks)) + np.float32(1e-44)
    return norms.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("kind", ["spread", "dropouts", "tiny"])
@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_float64_average_stays_within_k_eps(kind: str, tasks: int) -> None:
    beta = 0.9
    norms = readings_of(kind, 60, tasks, 5)
    controller = Controller(GabaSpec(tasks, beta=beta, warmup=0, floor=0.01))
    exact_beta = Fraction(beta)
    ema = [Fraction(1, tasks)] * tasks
    bound = k_of(exact_beta, tasks) * Fraction(2) ** -52
    for row in norms:
        controller.observe(row)
        g = [Fraction(x) for x in row]
        total = sum(g)
        ema = [
            exact_beta * e + (1 - exact_beta) * (total - x) / total / (tasks - 1)
            for e, x in zip(ema, g, strict=True)
        ]
        found = max(
            abs(Fraction(float(a)) - b) for a, b in zip(controller.ema_weights, ema, strict=True)
        )
        assert found <= bound


def test_float32_module_average_stays_within_k_eps() -> None:
    torch = pytest.importorskip("torch")
    from gabactl.nn import GABALoss

    tasks, beta = 3, 0.9
    loss = GABALoss(beta=beta, warmup_steps=0, n_tasks=tasks)
    exact_beta = Fraction(str(beta))
    ema = [Fraction(1, tasks)] * tasks
    bound = k_of(exact_beta, tasks) * Fraction(2) ** -23
    theta = torch.zeros(tasks, requires_grad=True)
    for row in readings_of("spread", 60, tasks, 7):
        loss.forward_k([float(g) * theta[i] for i, g in enumerate(row)], [theta])
        g = [Fraction(float(x)) for x in loss._last_grad_norms]
        total = sum(g)
        ema = [
            exact_beta * e + (1 - exact_beta) * (total - x) / total / (tasks - 1)
            for e, x in zip(ema, g, strict=True)
        ]
        found = max(abs(Fraction(float(a)) - b) for a, b in zip(loss.ema_weights, ema, strict=True))
        assert found <= bound


@pytest.mark.parametrize("mode", CHOICES["floor_mode"])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9, 0.99])
def test_two_task_weights_stay_within_4_ulp_of_the_range(mode: str, beta: float) -> None:
    # Theory: [m/(1+m), 1/(1+m)] for renormalise, else [m, 1-m].
    rng = np.random.default_rng(11)
    for m in (0.05, 1e-3, 1e-9, 0.3, 0.4999):
        low, high = (m / (1 + m), 1 / (1 + m)) if mode == "renormalise" else (m, 1 - m)
        controller = Controller(GabaSpec(beta=beta, floor=m, warmup=0, floor_mode=mode))  # type: ignore[arg-type]
        for _ in range(250):
            g = np.exp(rng.normal(size=2) * 30) * (rng.random(2) > 0.3)
            for _ in range(int(rng.integers(1, 6))):
                w = controller.observe(g)
                assert w.min() >= low - 4 * np.spacing(low)
                assert w.max() <= high + 4 * np.spacing(high)
                assert controller.ema_weights.max() <= 1.0


def test_more_tasks_exceed_4_ulp_and_stay_within_k_eps() -> None:
    tasks, reading, steps = 4, (0.0, 1.0, 1.0, 5.0), 3276
    controller = Controller(GabaSpec(tasks, floor=0.001, warmup=0))
    for _ in range(steps):
        w = controller.observe(reading)
    excess = w[0] - 1 / 3
    assert excess > 4 * np.spacing(1 / 3)
    assert excess <= (tasks + 2) * float(k_of(Fraction(99, 100), tasks)) * 2.0**-52
