"""The kernel of many loops: against single loops, itself, and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.loops.batch import run_batch
from gabactl.loops.compiled import CompiledLoop
from gabactl.loops.kernels.controller import codes
from gabactl.loops.kernels.loop import run_loop
from gabactl.loops.profiles import Profile, constant, levels
from gabactl.loops.simulate import simulate
from gabactl.plants import LogRatio

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


def test_a_ratio_whose_square_overflows_float32_stays_exact():
    ratio = np.exp(81.9)
    out = run_batch(constant(ratio, 4000), {"warmup": 0}, settling=False, stability=False)
    np.testing.assert_allclose(out["final_log_spread"], np.log(0.05 * (1 + ratio)), rtol=1e-9)
    np.testing.assert_allclose(out["worst_log_spread"], np.log(ratio), rtol=0.05)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_products_of_the_largest_ratios_do_not_overflow(dtype, sign):
    """The logarithm of the product is the sum of the logarithms, whatever the ratios."""
    spec = GabaSpec(warmup=0)
    limit = 600.0 if dtype == "float64" else 75.0
    profile = Profile(np.array([[sign * limit, 0.0]] * 200))
    out = run_batch(profile, {"warmup": 0}, settling=False, stability=False, dtype=dtype)
    want = simulate(spec, profile).integrated_error / profile.steps
    np.testing.assert_allclose(
        out["mean_log_spread"], want, rtol=1e-12 if dtype == "float64" else 1e-5
    )


def test_a_disturbance_that_stays_equals_one_that_is_worked_out_anew():
    # One unit in the last place of a difference, and every step is worked out anew.
    profile = levels([[5.0, 2.0, 0.3], [80.0, 2.0, 7.0]], [37, 90], n_tasks=3)
    held = profile.log_norms
    moving = held.copy()
    moving[::2] = np.nextafter(held[::2], 1e9)
    rows = {"floor": np.linspace(0, 0.2, 9), "beta": 0.9, "warmup": 5, "interval": np.arange(9) + 1}
    options = {"settling": False, "stability": False}
    one, other = (
        run_batch(Profile(held), rows, **options),
        run_batch(Profile(moving), rows, **options),
    )
    agree(one, other, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("task", [0, 1, 2])
def test_a_change_of_one_task_alone_is_noticed(task):
    logs = np.zeros((60, 3))
    logs[20:40, task] = 2.0
    profile = Profile(logs)
    out = run_batch(profile, {"warmup": 0}, settling=False, stability=False)
    want = simulate(GabaSpec(3, warmup=0), profile)
    np.testing.assert_allclose(out["final_weight"], want.weights[-1, 0], rtol=1e-12)
    np.testing.assert_allclose(out["mean_log_spread"], want.integrated_error / 60, rtol=1e-12)


def test_a_batch_of_all_kinds_gives_each_loop_what_it_gets_alone():
    profile, rows = some_loops(3, seed=4)
    rows["rho"] = np.where(np.arange(LOOPS) % 3 == 0, 0.0, rows["rho"])
    rows["interval"] = np.where(np.arange(LOOPS) % 5 < 3, 1, rows["interval"])
    rows["rho"][7] = -200.0  # numbers leave every range
    options = {"settling": False, "stability": False, "seed": 5, "delay": 1}
    whole = run_batch(profile, rows, **options)
    for n in (0, 1, 7, 33, 64, LOOPS - 1):
        mine = {name: values[n : n + 1] for name, values in rows.items()}
        alone = run_batch(profile, mine, first_loop=n, **options)
        for name, values in alone.items():
            np.testing.assert_array_equal(values[0], whole[name][n], err_msg=f"{name} of {n}")


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
