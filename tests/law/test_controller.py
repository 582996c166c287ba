"""The stages and the NumPy controller: published values, properties, bad input."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles.published_numpy import PublishedController
from oracles.toys import n23

from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.floors import project
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.law.stages import error, raw_weights, saturate, share, smooth, usable

LAWS = CHOICES["law"]
FLOOR_MODES = CHOICES["floor_mode"]
GUARDS = ("hold", "none")

norms = st.floats(1e-30, 1e30)
readings = st.integers(2, 8).flatmap(lambda k: hnp.arrays(np.float64, k, elements=norms))


def simplex_points(k):
    return hnp.arrays(np.float64, k, elements=st.floats(1e-3, 1)).map(lambda a: a / a.sum())


class TestSpec:
    @pytest.mark.parametrize(
        ("setting", "value", "words"),
        [
            ("beta", 1.0, "[0, 1)"),
            ("beta", -0.1, "[0, 1)"),
            ("beta", math.nan, "finite"),
            ("beta", "0.9", "finite"),
            ("floor", 0.5, "[0, 0.5)"),
            ("floor", -1e-9, "[0, 0.5)"),
            ("floor", math.inf, "finite"),
            ("n_tasks", 1, ">= 2"),
            ("n_tasks", 2.0, "whole number"),
            ("n_tasks", True, "whole number"),
            ("warmup", -1, ">= 0"),
            ("interval", 0, ">= 1"),
            ("law", "linear", "complement, inverse"),
            ("floor_mode", "clip", "renormalise, affine, project, clamp_state"),
            ("guard", None, "hold, none"),
        ],
    )
    def test_refuses_and_names_value_range_and_remedy(self, setting, value, words):
        with pytest.raises(ValueError, match=setting) as caught:
            GabaSpec(**{setting: value})
        assert words in str(caught.value)
        assert str(value) in str(caught.value)

    def test_the_largest_floor_is_just_below_one_over_k(self):
        for k in range(2, 65):
            with pytest.raises(InputError):
                GabaSpec(n_tasks=k, floor=1 / k)
            GabaSpec(n_tasks=k, floor=np.nextafter(1 / k, 0) * (1 - 1e-15))

    def test_numpy_scalars_become_plain(self):
        spec = GabaSpec(n_tasks=np.int64(3), beta=np.float32(0.5), floor=np.float64(0.1))
        assert (type(spec.n_tasks), type(spec.beta)) == (int, float)

    def test_toml_round_trip(self, tmp_path):
        spec = GabaSpec(3, 0.9, 0.01, 7, "inverse", "project", "none", 5)
        file = tmp_path / "spec.toml"
        file.write_text(spec.to_toml())
        assert GabaSpec.from_toml(file) == spec

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("beta = ", "not valid TOML"),
            ("[gaba]\nbta = 0.9", "unknown setting 'bta'"),
            ("gaba = 3", "must be a table"),
            ("[gaba]\nbeta = 1.0", "[0, 1)"),
        ],
    )
    def test_bad_toml_is_one_clear_line(self, tmp_path, text, words):
        file = tmp_path / "spec.toml"
        file.write_text(text)
        with pytest.raises(InputError) as caught:
            GabaSpec.from_toml(file)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_missing_toml(self, tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            GabaSpec.from_toml(tmp_path / "none.toml")

    def test_measures_at(self):
        spec = GabaSpec(warmup=100, interval=10)
        assert [t for t in range(1, 131) if spec.measures_at(t)] == [101, 111, 121]


class TestPublishedValues:
    """Section 17.2 and 18.1 of the book."""

    def test_p_controller_view(self):
        g = [250.0, 0.5]
        assert share(g, "none") == pytest.approx([0.998004, 0.001996], abs=5e-7)
        assert error(share(g, "none")) == pytest.approx([-0.498004, 0.498004], abs=5e-7)
        assert raw_weights(g, guard="none") == pytest.approx([0.001996, 0.998004], abs=5e-7)

    def test_schemes_at_5_and_0_01(self):
        g = np.array([5.0, 0.01])
        assert g[0] / g[1] == pytest.approx(500.0)
        inverse_root = (1 / np.sqrt(g)) / (1 / np.sqrt(g)).sum()
        assert inverse_root == pytest.approx([0.0428, 0.9572], abs=5e-5)
        c = inverse_root * g
        assert c[0] / c[1] == pytest.approx(22.36, abs=5e-3)
        raw = raw_weights(g)
        assert raw == pytest.approx([0.001996, 0.998004], abs=5e-7)
        assert raw[0] * g[0] / (raw[1] * g[1]) == pytest.approx(1.0, abs=1e-12)

    def test_n23_sum_of_squares_equals_concatenated_norm(self):
        # Section 18.1 (N23); claim C31.
        loud, quiet = n23()
        for gradients, norm in ((loud, 26.401602), (quiet, 0.0378326)):
            by_squares = math.sqrt(sum(float((a**2).sum()) for a in gradients))
            concatenated = float(np.linalg.norm(np.concatenate([a.ravel() for a in gradients])))
            assert by_squares == pytest.approx(concatenated, rel=1e-14)
            assert by_squares == pytest.approx(norm, rel=2e-6)
        weights = raw_weights([26.401602, 0.0378326])
        assert weights == pytest.approx([0.001431, 0.998569], abs=5e-7)

    def test_five_steps(self):
        # Section 17.4: five-step check, warmup_steps = 2; compared with the oracle to the last bit.
        losses = [(5000, 1.10), (4900, 1.08), (4800, 1.06), (4700, 1.04), (4600, 1.02)]
        given_norms = [None, None, (250, 0.20), (300, 0.22), (350, 0.24)]
        ours = Controller(GabaSpec.published(warmup=2))
        oracle = PublishedController(warmup_steps=2)
        for loss, g in zip(losses, given_norms, strict=True):
            total, weights = ours.step(loss, g)
            expected, expected_weights = oracle.step(loss, g)
            assert total == expected
            assert weights.tolist() == expected_weights.tolist()
        assert ours.ema_weights.tolist() == oracle.ema_weights.tolist()
        assert ours.step_count == 5

    def test_all_zero_norms_as_published(self):
        # Section 17.4: T = 1e-12 and raw_i = 1/(K-1).
        for k in (2, 3, 5):
            assert raw_weights(np.zeros(k), guard="none") == pytest.approx(np.full(k, 1 / (k - 1)))

    def test_three_tasks_counterexample(self):
        # g = (1, 2, 7): contributions (0.45, 0.80, 1.05) are not equal (claim C09).
        raw = raw_weights([1.0, 2.0, 7.0])
        assert raw == pytest.approx([0.45, 0.40, 0.15])
        assert raw * [1, 2, 7] == pytest.approx([0.45, 0.80, 1.05])

    @pytest.mark.parametrize(("active", "expected"), [(50, 0.3025), (150, 0.1107)])
    def test_decay_toward_zero(self, active, expected):
        # Computed from ema_n = c + (1/2 - c) beta^n with c = 0 (active steps after the warm-up).
        controller = Controller()
        for _ in range(100 + active):
            controller.observe([1e9, 1e-9])
        assert controller.ema_weights[0] == pytest.approx(expected, abs=5e-5)

    def test_floor_is_reached_at_230(self):
        controller = Controller(GabaSpec(warmup=0))
        crossed = next(
            t
            for t in itertools.count(1)
            if controller.observe([1e9, 1e-9]) is not None and controller.ema_weights[0] < 0.05
        )
        assert crossed == 230

    def test_settled_under_renormalise(self):
        # w_1 = m / (m + R/(1+R)): 0.04853, 0.04771, 0.04764 at 50x, 500x, 2,400x.
        for ratio, expected in ((50, 0.04853), (500, 0.04771), (2400, 0.04764)):
            weights = saturate(raw_weights([ratio, 1.0]), 0.05)
            assert weights[0] == pytest.approx(expected, abs=5e-6)


class TestAgainstTheOracle:
    @pytest.mark.parametrize("k", [2, 3, 5])
    def test_to_the_last_bit(self, k):
        rng = np.random.default_rng(7)
        ours = Controller(GabaSpec.published(n_tasks=k, warmup=10))
        oracle = PublishedController(k, warmup_steps=10)
        for _ in range(5000):
            g = np.exp(rng.normal(0, 4, k))
            if rng.random() < 0.01:
                g[rng.integers(k)] = 0.0
            losses = rng.normal(size=k)
            reading = None if rng.random() < 0.05 else g
            total, weights = ours.step(losses, reading)
            expected, expected_weights = oracle.step(losses, reading)
            assert total == expected
            assert np.array_equal(weights, expected_weights)
            assert np.array_equal(ours.ema_weights, oracle.ema_weights)

    @given(readings)
    def test_hold_agrees_within_1e_12_over_s(self, g):
        hold, published = raw_weights(g), raw_weights(g, guard="none")
        assert np.abs(hold - published).max() <= 1e-12 / g.sum() + 1e-15


class TestAlgebra:
    @given(readings, st.sampled_from(LAWS))
    def test_raw_is_on_the_simplex(self, g, law):
        raw = raw_weights(g, law)
        assert raw.sum() == pytest.approx(1.0, abs=1e-12)
        assert (raw >= 0).all()
        if law == "complement":
            assert raw.max() <= 1 / (len(g) - 1) * (1 + 1e-15)

    @given(readings)
    def test_raw_is_the_p_law(self, g):
        # raw = 1/K + K_p e with K_p = 1/(K-1).
        k = len(g)
        assert raw_weights(g) == pytest.approx(1 / k + error(share(g)) / (k - 1), abs=1e-14)

    @given(readings, st.sampled_from(LAWS), st.randoms(use_true_random=False))
    def test_permutation_equivariance(self, g, law, random):
        order = list(range(len(g)))
        random.shuffle(order)
        assert raw_weights(g[order], law) == pytest.approx(raw_weights(g, law)[order], abs=1e-14)

    @given(readings, st.sampled_from(LAWS), st.integers(-200, 200))
    def test_homogeneous_of_degree_zero(self, g, law, exponent):
        assert raw_weights(np.ldexp(g, exponent), law) == pytest.approx(
            raw_weights(g, law), abs=1e-15
        )

    @given(hnp.arrays(np.float64, 2, elements=norms))
    def test_laws_agree_for_two_tasks(self, g):
        assert raw_weights(g, "inverse") == pytest.approx(raw_weights(g), abs=1e-14)

    @given(readings)
    def test_inverse_law_equalises_contributions(self, g):
        assert raw_weights(g, "inverse") * g / g.min() == pytest.approx(
            np.full(len(g), (raw_weights(g, "inverse") * g)[0] / g.min()), rel=1e-12
        )

    @given(
        st.integers(2, 6).flatmap(simplex_points), st.floats(0, 0.999), st.sampled_from(FLOOR_MODES)
    )
    def test_saturate_stays_on_the_simplex_and_off_the_floor(self, ema, part, mode):
        floor = part / len(ema)
        weights = saturate(ema, floor, mode)
        assert weights.sum() == pytest.approx(1.0, abs=1e-14)
        promised = floor / (1 + (len(ema) - 1) * floor) if mode == "renormalise" else floor
        assert weights.min() >= promised - 1e-15

    @given(
        st.integers(2, 6).flatmap(simplex_points),
        st.integers(2, 6).flatmap(simplex_points),
        st.floats(0, 0.99),
    )
    def test_projection_is_the_nearest_point(self, ema, other, part):
        # Variational inequality: (ema - P) . (z - P) <= 0 for every z of the set.
        k = len(ema)
        floor = part / k
        nearest = project(ema, floor)
        z = floor + (1 - k * floor) * np.resize(other, k) / np.resize(other, k).sum()
        assert (ema - nearest) @ (z - nearest) <= 1e-14

    @given(st.integers(2, 6).flatmap(simplex_points))
    def test_without_a_floor_nothing_changes(self, ema):
        for mode in FLOOR_MODES:
            assert saturate(ema, 0.0, mode) == pytest.approx(ema, abs=1e-15)

    def test_smooth_uses_beta_to_the_interval(self):
        ema, raw = np.array([0.5, 0.5]), np.array([0.2, 0.8])
        assert smooth(ema, raw, 0.9, 3) == pytest.approx(0.9**3 * ema + (1 - 0.9**3) * raw)
        assert smooth(ema, raw, 0.0).tolist() == raw.tolist()  # claim C20: beta = 0 is bit-exact
        assert smooth(ema, raw, 1.0).tolist() == ema.tolist()  # and beta = 1 never moves

    def test_stages_are_vectorised_over_leading_axes(self):
        g = np.random.default_rng(0).lognormal(size=(4, 5, 3))
        for stage in (share, raw_weights, lambda a: saturate(raw_weights(a), 0.1, "project")):
            rows = np.array([[stage(row) for row in block] for block in g])
            assert np.array_equal(stage(g), rows)

    @pytest.mark.parametrize(("law", "mode"), list(itertools.product(LAWS, FLOOR_MODES)))
    def test_fractions_stay_exact(self, law, mode):
        g = np.array([Fraction(1), Fraction(2), Fraction(7)], dtype=object)
        raw = raw_weights(g, law)
        weights = saturate(smooth(raw, raw, Fraction(1, 3)), Fraction(1, 10), mode)
        assert all(isinstance(w, Fraction) for w in weights)
        assert sum(weights) == 1
        floats = saturate(raw_weights(g.astype(float), law), 0.1, mode)
        assert weights.astype(float) == pytest.approx(floats)


class TestGuard:
    BAD = ((math.nan, 1.0), (math.inf, 1.0), (0.0, 0.0), (1.7e308, 1.7e308))

    @pytest.mark.parametrize("g", BAD)
    @pytest.mark.parametrize("mode", FLOOR_MODES)
    def test_hold_keeps_the_average_and_counts_the_step(self, g, mode):
        controller = Controller(GabaSpec(warmup=0, floor_mode=mode))
        for _ in range(50):
            controller.observe([9.0, 1.0])
        before, weights = controller.ema_weights.copy(), controller.weights
        assert np.array_equal(controller.observe(g), weights)
        assert np.array_equal(controller.ema_weights, before)
        assert controller.step_count == 51
        assert np.isnan(controller.last_raw_weights).all()

    def test_inverse_law_also_holds_at_one_zero(self):
        assert not usable([0.0, 1.0], "inverse")
        assert usable([0.0, 1.0], "complement")

    @pytest.mark.parametrize("mode", FLOOR_MODES)
    def test_none_is_poisoned_for_ever_as_published(self, mode):
        controller = Controller(GabaSpec.published(warmup=0, floor_mode=mode))
        controller.observe([math.nan, 1.0])
        assert np.isnan(controller.observe([1.0, 1.0])).all()

    def test_all_zero_drifts_to_one_as_published(self):
        # Claim C16: ema -> (1, 1), applied weights 1/2.
        controller = Controller(GabaSpec.published(warmup=0))
        for _ in range(3000):
            weights = controller.observe([0.0, 0.0])
        assert controller.ema_weights == pytest.approx([1.0, 1.0])
        assert weights.tolist() == [0.5, 0.5]

    @given(hnp.arrays(np.float64, 3, elements=st.floats().map(abs)))
    def test_hold_never_leaves_the_simplex(self, g):
        controller = Controller(GabaSpec(n_tasks=3, warmup=0, beta=0.0))
        weights = controller.observe(g)
        assert weights.sum() == pytest.approx(1.0)
        assert (weights >= 0.05 / 1.1 - 1e-15).all()


class TestController:
    def test_interval_holds_between_readings(self):
        controller = Controller(GabaSpec(warmup=2, interval=3, beta=0.5))
        seen = []
        for step in range(1, 10):
            assert controller.will_measure == (step in (3, 6, 9))
            controller.observe([9.0, 1.0] if controller.will_measure else None)
            seen.append(controller.ema_weights[0])
        pole = 0.5**3
        once = pole * 0.5 + (1 - pole) * 0.1
        twice = pole * once + (1 - pole) * 0.1
        assert seen[:2] == [0.5, 0.5]
        assert seen[2:5] == pytest.approx([once] * 3)
        assert seen[5:8] == pytest.approx([twice] * 3)

    def test_missing_reading_is_uniform_for_that_step_only(self):
        controller = Controller(GabaSpec(warmup=0))
        for _ in range(300):
            saturated = controller.observe([1e6, 1.0])
        assert controller.observe(None).tolist() == [0.5, 0.5]
        assert controller.observe([1e6, 1.0]) == pytest.approx(saturated, abs=1e-3)

    def test_clamp_state_has_no_dead_time(self):
        # eps = 0.002 and c = 0.1: `renormalise` needs 67 steps to the knee, `clamp_state` none.
        steps = {}
        for mode in ("renormalise", "clamp_state"):
            controller = Controller(GabaSpec(warmup=0, floor_mode=mode))
            for _ in range(3000):
                controller.observe([0.998, 0.002])
            steps[mode] = next(
                t
                for t in itertools.count(1)
                if controller.observe([0.9, 0.1]) is not None and controller.ema_weights[0] > 0.05
            )
        assert steps == {"renormalise": 67, "clamp_state": 1}

    @pytest.mark.parametrize(
        ("losses", "g", "words"),
        [
            ([], [1.0, 1.0], "got 0 losses for n_tasks = 2"),
            ([1.0], None, "got 1 losses"),
            ([1.0, 1.0], [1.0, 1.0, 1.0], "shape (3,)"),
            ([1.0, 1.0], [[1.0, 1.0]], "shape (1, 2)"),
            ([1.0, 1.0], [-1.0, 1.0], "negative norm"),
        ],
    )
    def test_bad_input_moves_nothing(self, losses, g, words):
        controller = Controller(GabaSpec(warmup=0))
        with pytest.raises(InputError) as caught:
            controller.step(losses, g)
        assert words in str(caught.value)
        assert controller.step_count == 0

    def test_reset(self):
        controller = Controller(GabaSpec(warmup=0))
        controller.observe([9.0, 1.0])
        controller.reset()
        assert (controller.step_count, controller.last_grad_norms) == (0, None)
        assert controller.weights.tolist() == [0.5, 0.5]
