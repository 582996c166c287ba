"""The compiled kernels against the NumPy reference, to the last bit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.loops.batch import run_batch
from gabactl.loops.compiled import CompiledLoop
from gabactl.loops.kernels import controller as kernel
from gabactl.loops.kernels import elementary, random
from gabactl.loops.profiles import constant, levels
from gabactl.loops.result import spread
from gabactl.plants import LogRatio

norms = st.one_of(
    st.floats(0.0, 1e300),
    st.sampled_from([0.0, 5e-324, 1e-12, 1.0, float("nan"), float("inf"), 1e308]),
)


@st.composite
def specs(draw: st.DrawFn) -> GabaSpec:
    k = draw(st.integers(2, 20))
    return GabaSpec(
        n_tasks=k,
        beta=draw(st.sampled_from([0.0, 0.5, 0.99, 0.9999])),
        floor=draw(st.floats(0.0, 0.99 / k)),
        warmup=draw(st.integers(0, 3)),
        law=draw(st.sampled_from(CHOICES["law"])),
        floor_mode=draw(st.sampled_from(CHOICES["floor_mode"])),
        guard=draw(st.sampled_from(["hold", "none"])),
        interval=draw(st.integers(1, 4)),
    )


@given(spec=specs(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_compiled_step_equals_the_reference_to_the_last_bit(spec, data):
    reference = Controller(spec)
    k = spec.n_tasks
    ema, weights, scratch = np.full(k, 1.0 / k), np.empty(k), np.empty(2 * k)
    for step in range(1, 12):
        g = np.array(data.draw(st.lists(norms, min_size=k, max_size=k)))
        with np.errstate(all="ignore"):
            expected = reference.observe(g)
        kernel.observe(g, step, ema, weights, scratch, *kernel.codes(spec))
        np.testing.assert_array_equal(ema, reference.ema_weights)
        np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 31, 64, 128])
def test_sum_rounds_as_numpy(n):
    x = np.random.default_rng(n).lognormal(0, 20, size=(50, n))
    one = np.empty(1)
    for row, total in zip(x, x.sum(axis=-1), strict=True):
        kernel.sums_into(one, row)
        assert one[0] == total
    side_by_side = np.empty(50)
    kernel.sums_into(side_by_side, x.T.ravel(), np.uint64(50))
    np.testing.assert_array_equal(side_by_side, x.sum(axis=-1))


class TestElementary:
    """Against 40 digits of mpmath, in units of the last place."""

    @staticmethod
    def worst(function, reference, points, kind):
        mpmath = pytest.importorskip("mpmath")
        with mpmath.workdps(40):
            worst = 0.0
            for x in points:
                exact = reference(mpmath)(mpmath.mpf(float(x)))
                ulp = float(np.spacing(np.abs(kind(float(exact)))))
                worst = max(worst, abs(float(mpmath.mpf(float(function(kind(x)))) - exact)) / ulp)
        return worst

    def test_exp(self):
        rng = np.random.default_rng(1)
        x = np.concatenate([rng.uniform(-1, 1, 500), rng.uniform(-708, 709, 500)])
        assert self.worst(elementary.exp, lambda m: m.exp, x, np.float64) < 1.0
        x = rng.uniform(-87, 88, 500).astype(np.float32)
        assert self.worst(elementary.exp32, lambda m: m.exp, x, np.float32) < 2.0

    def test_log(self):
        rng = np.random.default_rng(2)
        near = 1 + rng.uniform(-0.4, 1, 500) * 10 ** rng.uniform(-8, 0, 500)
        x = np.concatenate([np.exp(rng.uniform(-700, 700, 500)), near])
        assert self.worst(elementary.log, lambda m: m.log, x, np.float64) < 1.001
        x = np.concatenate([np.exp(rng.uniform(-80, 80, 300)), near]).astype(np.float32)
        assert self.worst(elementary.log32, lambda m: m.log, x, np.float32) < 2.0

    def test_those_with_short_chains(self):
        rng = np.random.default_rng(7)
        x = np.concatenate([rng.uniform(-1, 1, 500), rng.uniform(-708, 709, 500)])
        assert self.worst(elementary.quick_exp, lambda m: m.exp, x, np.float64) < 1.5
        near = 1 + rng.uniform(-0.4, 1, 500) * 10 ** rng.uniform(-8, 0, 500)
        x = np.concatenate([np.exp(rng.uniform(-700, 700, 500)), near, rng.uniform(0.5, 2, 500)])
        assert self.worst(elementary.quick_log, lambda m: m.log, x, np.float64) < 1.5
        # Beyond the bounds of the short form: what exp says.
        for x in (np.nan, -np.inf, np.inf, 705.0, -705.0):
            np.testing.assert_array_equal(elementary.quick_exp(x), elementary.exp(x))

    def test_edges(self):
        assert np.isnan(elementary.exp(np.nan))
        assert np.isnan(elementary.log(np.nan))
        assert elementary.exp(-np.inf) == 0.0
        assert elementary.exp(np.inf) == np.inf
        assert elementary.log(np.inf) == np.inf
        assert elementary.exp(0.0) == 1.0
        assert elementary.log(1.0) == 0.0

    def test_cosine_and_sine(self):
        for word in np.random.default_rng(3).integers(0, 2**32, 2000):
            angle = 2 * np.pi * int(word) / 2**32
            c, s = elementary.cos_sin_turn(int(word))
            # NumPy's own angle is off by half an ulp of 2 pi.
            assert abs(c - np.cos(angle)) < 1e-15
            assert abs(s - np.sin(angle)) < 1e-15


class TestRandom:
    @pytest.mark.parametrize(
        ("word", "expected"),
        # Known answers of the authors' library (Random123, kat_vectors, philox4x32 10).
        [
            (0, "6627e8d5e169c58dbc57ac4c9b00dbd8"),
            (0xFFFFFFFF, "408f276d41c83b0ea20bc7c66d5451fd"),
        ],
    )
    def test_philox_known_answers(self, word, expected):
        assert "".join(f"{w:08x}" for w in random.philox(*[word] * 6)) == expected

    def test_normals_are_normal_and_independent(self):
        from scipy import stats

        z = random.normals(11, 4, 100_000, 5)
        # Kolmogorov-Smirnov over half a million numbers, per task and pooled.
        assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
        n = len(z)
        off = np.corrcoef(z.T) - np.eye(5)
        assert np.abs(off).max() < 5 / np.sqrt(n)
        assert np.abs(np.mean(z[1:] * z[:-1], axis=0)).max() < 5 / np.sqrt(n)
        other = random.normals(11, 5, n, 5)
        assert np.abs((z * other).mean(axis=0)).max() < 5 / np.sqrt(n)

    def test_a_draw_depends_on_its_place_alone(self):
        whole = random.normals(3, 2**33 + 1, 50, 7)
        later = np.empty((20, 7))
        random.fill_normals(later, 3, 2**33 + 1, 30)
        np.testing.assert_array_equal(later, whole[30:])


class TestBatch:
    PROFILE = levels([[5.0, 1.0, 0.3], [100.0, 2.0, 7.0]], [120, 200], n_tasks=3)

    @pytest.mark.parametrize("law", CHOICES["law"])
    @pytest.mark.parametrize("floor_mode", CHOICES["floor_mode"])
    @pytest.mark.parametrize("guard", ["hold", "none"])
    def test_batch_equals_single_loops(self, law, floor_mode, guard):
        profile = self.PROFILE
        if guard == "hold":
            profile = profile.with_dropout(100, 15).with_dropout(250, 5, "zero", task=1)
        rows = {
            "beta": [0.9, 0.99, 0.0],
            "floor": [0.05, 0.2, 0.0],
            "interval": [1, 3, 2],
            "warmup": [0, 50, 7],
            "rho": [0.3, -0.2, 0.0],
            "noise": [0.3, 0.0, 0.1],
        }
        out = run_batch(
            profile,
            {**rows, "a": 0.8},
            law=law,
            floor_mode=floor_mode,
            guard=guard,
            delay=2,
            seed=4,
            settling=False,
            stability=False,
        )
        for n in range(3):
            spec = GabaSpec(
                n_tasks=3,
                law=law,
                floor_mode=floor_mode,
                guard=guard,
                **{key: rows[key][n] for key in ("beta", "floor", "interval", "warmup")},
            )
            loop = CompiledLoop(spec, LogRatio(rows["rho"][n], 0.8, 2, 3), rows["noise"][n], 4, n)
            signals = loop.advance(profile.log_norms, profile.lost)
            close = {"rtol": 1e-9, "atol": 1e-12}
            np.testing.assert_allclose(out["final_weight"][n], signals.weights[-1, 0], **close)
            np.testing.assert_allclose(out["smallest_weight"][n], signals.weights.min(), **close)
            np.testing.assert_allclose(out["largest_weight"][n], signals.weights.max(), **close)
            np.testing.assert_allclose(
                out["mean_weight"][n], signals.weights[240:, 0].mean(), **close
            )
            below = (signals.ema < spec.floor).any(axis=1)[spec.warmup :].mean()
            np.testing.assert_allclose(out["saturated_fraction"][n], below, **close)
            if guard == "none":
                spreads = spread(signals.weights * signals.grad_norms)
                np.testing.assert_allclose(out["mean_log_spread"][n], spreads.mean(), rtol=1e-9)
                np.testing.assert_allclose(out["final_log_spread"][n], spreads[-1], rtol=1e-9)

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_results_do_not_depend_on_batch_or_threads(self, dtype):
        rng = np.random.default_rng(0)
        n = 333
        rows = {
            "beta": rng.uniform(0.5, 0.99, n),
            # With a gain of -60, numbers leave every range.
            "rho": np.where(
                rng.random(n) < 0.3, rng.choice([0.0, -60.0], n), rng.uniform(-1, 0.9, n)
            ),
            "noise": np.where(rng.random(n) < 0.3, 0.0, rng.uniform(0, 1, n)),
        }
        # The passes for settling and stability once: each compiles kernels of its own.
        passes = {"settling": dtype == "float64", "stability": dtype == "float64"}
        whole = run_batch(self.PROFILE, rows, seed=9, dtype=dtype, **passes)
        threaded = run_batch(self.PROFILE, rows, seed=9, dtype=dtype, threads=3, **passes)
        cuts = [0, 1, 64, 65, 200, n]
        split = [
            run_batch(
                self.PROFILE,
                {k: v[a:b] for k, v in rows.items()},
                seed=9,
                first_loop=a,
                dtype=dtype,
                **passes,
            )
            for a, b in pairwise(cuts)
        ]
        for name, values in whole.items():
            np.testing.assert_array_equal(values, threaded[name], err_msg=name)
            np.testing.assert_array_equal(values, np.concatenate([s[name] for s in split]), name)

    def test_float32_is_near_float64(self):
        rows = {"beta": [0.9, 0.99], "rho": [-0.5, 0.5]}
        double = run_batch(self.PROFILE, rows)
        single = run_batch(self.PROFILE, rows, dtype="float32")
        for name in ("final_weight", "smallest_weight", "mean_weight", "mean_log_spread"):
            np.testing.assert_allclose(single[name], double[name], rtol=2e-4, err_msg=name)

    def test_64_tasks(self):
        profile = levels([list(range(1, 65))], [600], n_tasks=64)
        out = run_batch(profile, {"floor": 0.001, "beta": 0.9}, law="inverse", settling=False)
        weights = (1 / np.arange(1, 65)) / (1 / np.arange(1, 65)).sum()
        np.testing.assert_allclose(out["final_weight"], weights[0], rtol=1e-9)
        np.testing.assert_allclose(out["final_log_spread"], 0.0, atol=1e-9)

    @pytest.mark.parametrize(
        "rows",
        [
            {"beta": 1.0},
            {"floor": 0.34},
            {"noise": -0.1},
            {"noise": float("nan")},
            {"warmup": 2.5},
            {"interval": 0},
            {"a": 1.0},
            {"speed": 3.0},
            {"beta": [0.9, 0.8], "rho": [0.1, 0.2, 0.3]},
            {"beta": []},
        ],
    )
    def test_bad_parameters_are_refused(self, rows):
        with pytest.raises(InputError) as caught:
            run_batch(self.PROFILE, rows)
        assert "\n" not in str(caught.value)


class TestAgreementWithAnalysis:
    """Closed forms against the simulation."""

    def test_settling_is_that_of_the_filter(self):
        # 2 % of a change is reached after ln(0.02)/ln(beta) updates.
        beta = np.array([0.5, 0.9, 0.99, 0.995])
        out = run_batch(constant(4.0, 5000), {"beta": beta, "warmup": 0, "floor": 0.0})
        expected = np.ceil(np.log(0.02) / np.log(beta))
        np.testing.assert_array_equal(out["settling_weights"], expected)
        assert expected[2] == 390

    def test_settled_weight_at_the_floor(self):
        # w_1 = m / (m + R/(1+R)): 0.04853, 0.04771, 0.04764 at 50x, 500x, 2,400x.
        for ratio, weight in ((50.0, 0.04853), (500.0, 0.04771), (2400.0, 0.04764)):
            got = run_batch(constant(ratio, 4000), {}, settling=False, stability=False)
            assert round(float(got["final_weight"][0]), 5) == weight
            np.testing.assert_allclose(
                got["final_log_spread"], np.log(0.05 * (1 + ratio)), rtol=1e-9
            )

    def test_white_noise_gain_of_the_average(self):
        # var(ema) = (1-beta)/(1+beta) var(raw); near balance raw = 1/2 - (y/4), var(y) = 2 s^2.
        s, loops = 0.05, 512
        beta = np.repeat([0.9, 0.99], loops)
        out = run_batch(
            constant(1.0, 8000),
            {"beta": beta, "noise": s, "warmup": 0, "floor": 0.0},
            seed=3,
            settling=False,
            stability=False,
        )
        # Mean square about 1/2: the mean of a finite window would hide the slow part.
        square = out["weight_std"] ** 2 + (out["mean_weight"] - 0.5) ** 2
        for pole in (0.9, 0.99):
            values = square[beta == pole]
            expected = (1 - pole) / (1 + pole) * 2 * s**2 / 16
            error = values.std(ddof=1) / np.sqrt(loops)
            # Four standard errors, and 1 % for the curvature of the law at this noise.
            assert abs(values.mean() - expected) < 4 * error + 0.01 * expected
            assert error < 0.03 * expected

    def test_sampled_sensor_has_the_predicted_noise(self):
        # Interval N: var = (1 - beta^N)/(1 + beta^N) var(raw).
        s, loops, pole = 0.05, 512, 0.99**10
        out = run_batch(
            constant(1.0, 8000),
            {"interval": 10, "noise": np.full(loops, s), "warmup": 0, "floor": 0.0},
            seed=5,
            settling=False,
            stability=False,
        )
        values = out["weight_std"] ** 2 + (out["mean_weight"] - 0.5) ** 2
        expected = (1 - pole) / (1 + pole) * 2 * s**2 / 16
        error = values.std(ddof=1) / np.sqrt(loops)
        assert abs(values.mean() - expected) < 4 * error + 0.01 * expected

    @pytest.mark.parametrize("delay", [0, 1, 5])
    def test_stability_boundary_brackets_the_closed_form(self, delay):
        # Published lower limits of rho at a = 0, beta = 0.99 are -199, -100, -28.9; upper limit 1.
        low = {0: -199.0, 1: -100.0, 5: -28.9}[delay]
        rho = np.array([low * 1.02, low * 0.98, 0.98, 1.02])
        out = run_batch(constant(1.0, 4000), {"rho": rho, "warmup": 0}, delay=delay, settling=False)
        assert out["stable"].tolist() == [False, True, True, False]

    def test_equilibrium_of_an_unstable_plant_is_bounded_by_the_floor(self):
        # y = rho (ln(1/m) - ln(1 + e^-y)): 3.254 at rho = 1.1, m = 0.05.
        y = 3.0
        for _ in range(200):
            y = 1.1 * (np.log(20) - np.log1p(np.exp(-y)))
        assert round(y, 3) == 3.254
        loop = CompiledLoop(GabaSpec(warmup=0), LogRatio(1.1))
        kick = np.zeros((30_000, 2))
        kick[0, 0] = 0.01
        g = loop.advance(kick, np.zeros(kick.shape, bool)).grad_norms[-1]
        np.testing.assert_allclose(np.log(g[0] / g[1]), y, atol=1e-6)

    @pytest.mark.parametrize(("raw", "dead"), [(0.5, 11), (0.1, 67), (0.06, 175)])
    def test_dead_time_after_saturation(self, raw, dead):
        # ln((c - eps)/(c - m))/-ln(beta) with eps = 0.002: 11, 67, 175 steps; none when clamped.
        ratio = (1 - raw) / raw
        profile = levels([(1 - 0.002) / 0.002, ratio], [4000, 600])
        for floor_mode, expected in (("renormalise", dead), ("clamp_state", 1)):
            loop = CompiledLoop(GabaSpec(warmup=0, floor_mode=floor_mode))
            ema = loop.advance(profile.log_norms, profile.lost).ema[4000:, 0]
            # Updates until the average is back above the floor: the first one, when clamped.
            assert int(np.argmax(ema > 0.05)) + 1 == expected


class TestExpectedNorms:
    """The quick loop expects the next norms from the step before; that must show nowhere."""

    PROFILE = levels([2.0, 2000.0, 0.5, 8.0], [300, 400, 500, 300])

    @staticmethod
    def exact(spec, plant, profile):
        """Norms of the loop as it stands, in NumPy."""
        controller, answer = Controller(spec), plant.start()
        norms = np.empty((profile.steps, 2))
        for t in range(profile.steps):
            norms[t] = answer.measure(profile.log_norms[t])
            answer.apply(controller.observe(norms[t]))
        return norms

    @pytest.mark.parametrize("beta", [0.0, 0.9, 0.99, 0.999])
    @pytest.mark.parametrize(
        ("rho", "a"), [(0.5, 0.9), (-0.8, 0.0), (2.0, 0.0), (-1.9, 0.1), (0.99, 0.999), (-9.0, 0.5)]
    )
    def test_norms_are_those_of_the_loop_as_it_stands(self, beta, rho, a):
        # Slow and quick averages take the series and the exponential; a gain of -9 no series.
        spec, plant, profile = GabaSpec(beta=beta, warmup=0), LogRatio(rho, a), self.PROFILE
        signals = CompiledLoop(spec, plant).advance(profile.log_norms, profile.lost)
        expected = self.exact(spec, plant, profile)
        np.testing.assert_allclose(signals.grad_norms, expected, rtol=1e-12)
        reference = Controller(spec)
        for g, ema, weights in zip(signals.readings, signals.ema, signals.weights, strict=True):
            np.testing.assert_array_equal(weights, reference.observe(g))
            np.testing.assert_array_equal(ema, reference.ema_weights)

    @pytest.mark.parametrize("rho", [0.5, 0.0, -9.0])
    def test_pieces_of_any_length_give_the_same_bits(self, rho):
        spec, plant, profile = GabaSpec(warmup=5, interval=2), LogRatio(rho, 0.7), self.PROFILE
        whole = CompiledLoop(spec, plant).advance(profile.log_norms, profile.lost)
        loop = CompiledLoop(spec, plant)
        cuts = [0, 1, 2, 3, 3, 7, 299, 301, 302, 900, profile.steps]
        pieces = [
            loop.advance(profile.log_norms[a:b], profile.lost[a:b]) for a, b in pairwise(cuts)
        ]
        for name in whole._fields:
            together = np.concatenate([getattr(piece, name) for piece in pieces])
            np.testing.assert_array_equal(together, getattr(whole, name), err_msg=name)

    def test_a_piece_with_a_lost_reading_in_between(self):
        spec, plant, profile = GabaSpec(warmup=0), LogRatio(0.5, 0.9), self.PROFILE
        lost = np.zeros((profile.steps, 2), bool)
        lost[350] = True
        loop = CompiledLoop(spec, plant)
        pieces = [
            loop.advance(profile.log_norms[a:b], lost[a:b])
            for a, b in pairwise([0, 340, 360, profile.steps])
        ]
        whole = CompiledLoop(spec, plant).advance(profile.log_norms, lost)
        for name in ("grad_norms", "ema", "weights"):
            together = np.concatenate([getattr(piece, name) for piece in pieces])
            np.testing.assert_allclose(together, getattr(whole, name), rtol=1e-12, err_msg=name)
