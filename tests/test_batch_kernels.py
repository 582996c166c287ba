"""The fast kernels and PyTorch against the general ones."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit, types
from numba.extending import intrinsic

from gabactl._kernels import bounded, runner, vectors
from gabactl._kernels.controller import codes
from gabactl._kernels.loop import run_loop
from gabactl.batch import complete_parameters, run_batch
from gabactl.controller import Controller
from gabactl.errors import InputError
from gabactl.plants import LogRatio
from gabactl.profiles import Profile, constant, levels
from gabactl.simulate import CompiledLoop
from gabactl.spec import GabaSpec

LOOPS = 70


def some_loops(n_tasks, seed=0):
    """Settings of loops, most of them within the bounds, and their disturbance."""
    rng = np.random.default_rng(seed)
    profile = levels(rng.uniform(0.1, 50, (3, n_tasks)).tolist(), [90, 60, 131], n_tasks=n_tasks)
    rows = {
        "beta": rng.choice([0.0, 0.5, 0.9, 0.99], LOOPS),
        "floor": rng.uniform(0.01, 0.9 / n_tasks, LOOPS),
        "warmup": rng.integers(0, 120, LOOPS),
        "interval": rng.integers(1, 5, LOOPS),
        "rho": rng.uniform(-2, 0.9, LOOPS),
        "a": rng.uniform(-0.5, 0.9, LOOPS),
        "noise": rng.choice([0.0, 0.3], LOOPS),
        "amplitude": rng.uniform(-1, 1.5, LOOPS),
    }
    return profile.with_dropout(100, 20), rows


def agree(one, other, rtol, atol):
    for name, values in one.items():
        # Growth sets one rounding error against another where an impulse has died out.
        if name != "growth":
            np.testing.assert_allclose(values, other[name], rtol=rtol, atol=atol, err_msg=name)


def fast(profile, rows, dtype="float64", law=0):
    table, _ = complete_parameters(rows, profile.n_tasks)
    return runner.Runner((law, 0, 0), 0, 0, 0, dtype, 1).bounded_loops(profile.log_norms, table)


@pytest.mark.parametrize(
    ("n_tasks", "delay"), [(2, 0), (3, 3), pytest.param(5, 0, marks=pytest.mark.slow)]
)
def test_bounded_kernel_equals_the_general_one(monkeypatch, n_tasks, delay):
    profile, rows = some_loops(n_tasks)
    assert fast(profile, rows).all()
    options = {"delay": delay, "seed": 2**40 + 3, "first_loop": 2**32 - 3}
    quick = run_batch(profile, rows, **options)
    monkeypatch.setattr(
        runner.Runner, "bounded_loops", lambda self, logs, t: np.zeros(len(t["beta"]), bool)
    )
    slow = run_batch(profile, rows, **options)
    # The standard deviation of a weight that rests is a rounding error's square root.
    agree(quick, slow, rtol=1e-10, atol=3e-8)
    for name in ("worst_weight", "final_weight", "mean_weight", "mean_log_spread"):
        np.testing.assert_allclose(quick[name], slow[name], rtol=1e-11, err_msg=name)


def test_loops_that_might_overflow_take_the_general_kernel():
    profile = constant(50.0, 400)
    inside = {"floor": [0.05, 0.0, 0.0, 0.05, 0.05], "beta": [0.0, 0.99, 0.0, 0.9, 0.9]}
    inside |= {"rho": [0.5, 0.5, 0.0, -60.0, 0.5], "noise": [0.3, 0.3, 0.0, 0.0, 100.0]}
    assert fast(profile, inside).tolist() == [True, True, False, False, False]
    assert not fast(profile, {"beta": 0.9}, law=1).any()
    assert not fast(constant(2.0, 10, n_tasks=bounded.MAX_TASKS + 1), {"floor": 0.01}).any()
    assert not fast(Profile(np.full((5, 2), 750.0)), {}).any()
    assert not fast(Profile(np.array([[0.0, -np.inf], [0.0, 0.0]])), {}).any()
    # e^45 is a float32, and its square is not.
    assert fast(constant(np.exp(45.0), 10), {}).all()
    assert not fast(constant(np.exp(45.0), 10), {}, "float32").any()


def test_extremes_within_the_bounds_stay_finite():
    ratio = np.exp(bounded.LIMITS["float64"][0] - 3.1)
    out = run_batch(constant(ratio, 4000), {"warmup": 0}, settling=False, stability=False)
    np.testing.assert_allclose(out["final_log_spread"], np.log(0.05 * (1 + ratio)), rtol=1e-9)
    np.testing.assert_allclose(out["worst_log_spread"], np.log(ratio), rtol=0.05)


@intrinsic
def _apply(typing_context, function, x, y):
    def generate(context, builder, signature, arguments):
        lanes = vectors.Lanes(builder, 8)
        source, target = (context.make_array(x)(context, builder, a).data for a in arguments[1:])
        zero = context.get_constant(types.int64, 0)
        called = (vectors.exp_bounded, vectors.log, vectors.inverse)[function.count]
        lanes.store(called(lanes.load(source, zero)), target, zero)
        return context.get_dummy_value()

    return types.void(function, x, y), generate


@njit
def _eight(function, x, y):
    _apply(function, x, y)


@pytest.mark.parametrize(
    ("which", "reference", "low", "high", "ulps"),
    [
        (0, np.exp, -300, 300, 1.0),
        (1, np.log, -300, 300, 1.5),
        (2, lambda x: 1 / x, -300, 300, 1.0),
    ],
)
def test_vector_functions_are_accurate(which, reference, low, high, ulps):
    rng = np.random.default_rng(which)
    x = rng.uniform(low, high, (400, 8))
    x[:100] = rng.uniform(-0.5, 0.5, (100, 8))
    if which:
        x = np.exp(x)
    y = np.empty_like(x)
    for source, target in zip(x, y, strict=True):
        _eight((0,) * which, source, target)
    exact = reference(x.astype(np.longdouble))
    worst = np.abs((y - exact) / np.spacing(np.abs(exact).astype(float))).max()
    assert worst <= ulps


class TestPair:
    """The quick loop of two tasks."""

    PROFILE = levels([2.0, 80.0, 0.5], [70, 150, 160])

    @pytest.mark.parametrize(("warmup", "interval"), [(0, 1), (33, 1), (40, 7)])
    def test_is_the_controller_to_the_last_bit(self, warmup, interval):
        spec = GabaSpec(beta=0.9, warmup=warmup, interval=interval)
        loop = CompiledLoop(spec, LogRatio(0.4, 0.8))
        logs, lost = self.PROFILE.log_norms, np.asarray(self.PROFILE.lost)
        pieces = [loop.advance(logs[a:b], lost[a:b]) for a, b in [(0, 20), (20, 101), (101, 380)]]
        reference = Controller(spec)
        for signals in pieces:
            for g, ema, weights in zip(signals.readings, signals.ema, signals.weights, strict=True):
                expected = reference.observe(g)
                np.testing.assert_array_equal(ema, reference.ema_weights)
                np.testing.assert_array_equal(weights, expected)

    def test_is_the_general_loop_to_rounding(self):
        spec, plant = GabaSpec(beta=0.9, warmup=5), LogRatio(-0.7, 0.8)
        logs, lost = self.PROFILE.log_norms, np.asarray(self.PROFILE.lost)
        quick = CompiledLoop(spec, plant).advance(logs, lost)
        slow = [np.empty(logs.shape) for _ in range(5)]
        settings = (*codes(spec), plant.rho, plant.a, 0, 0)
        state = (np.full(2, 0.5), np.zeros(2), np.zeros((1, 2)))
        run_loop(logs, lost, 0.0, 0, 0, *settings, *state, *slow)
        for a, b in zip(quick, slow, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)

    def test_the_guard_holds(self):
        logs = np.array([[0.0, 1.0], [800.0, 0.0], [-np.inf, -np.inf], [0.0, 2.0]])
        signals = CompiledLoop(GabaSpec(warmup=0)).advance(logs, np.zeros((4, 2), bool))
        assert (signals.ema[1] == signals.ema[0]).all()
        assert (signals.ema[2] == signals.ema[0]).all()
        assert np.isnan(signals.raw[1:3]).all()
        assert (signals.ema[3] != signals.ema[0]).all()


class TestTorch:
    """PyTorch on the processor; the same code runs on a GPU."""

    @pytest.mark.parametrize(
        ("law", "floor_mode", "guard"),
        [
            ("complement", "renormalise", "hold"),
            ("complement", "affine", "none"),
            ("inverse", "project", "hold"),
            ("inverse", "clamp_state", "none"),
            pytest.param("complement", "clamp_state", "hold", marks=pytest.mark.slow),
            pytest.param("inverse", "renormalise", "none", marks=pytest.mark.slow),
        ],
    )
    def test_equals_the_compiled_kernel(self, law, floor_mode, guard):
        pytest.importorskip("torch")
        profile, rows = some_loops(3, seed=1)
        if guard == "none":
            profile = Profile(profile.log_norms)
        options = {
            "law": law,
            "floor_mode": floor_mode,
            "guard": guard,
            "delay": 2,
            "seed": 2**40 + 3,
            "first_loop": 2**32 - 3,
            "settling": floor_mode == "renormalise",
            "stability": False,
        }
        compiled = run_batch(profile, rows, **options)
        there = run_batch(profile, rows, **options, device="cpu")
        agree(compiled, there, rtol=1e-10, atol=3e-8)

    def test_float32_is_near(self):
        pytest.importorskip("torch")
        profile, rows = some_loops(2)
        compiled = run_batch(profile, rows, stability=False, settling=False)
        there = run_batch(
            profile, rows, stability=False, settling=False, dtype="float32", device="cpu"
        )
        agree(compiled, there, rtol=1e-3, atol=1e-3)

    def test_a_device_that_is_not_there_is_refused(self):
        pytest.importorskip("torch")
        for device in ("nonsense", "cuda:99"):
            with pytest.raises(InputError, match="is not there"):
                run_batch(constant(2.0, 5), {}, device=device)
