"""One loop: the compiled path, the general path, and the figures they give."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from gabactl.balancers import Balancer, Fixed, Gaba, GradNorm
from gabactl.base.errors import InputError
from gabactl.law.authority import residual_ratio, settled_weights
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.loops import profiles
from gabactl.loops.compiled import CompiledLoop
from gabactl.loops.result import spread
from gabactl.loops.simulate import simulate
from gabactl.loops.trajectories import write_batch, write_trajectory
from gabactl.plants import LogRatio, QuadraticBowls
from gabactl.traces import Trace


class SlowGaba(Gaba):
    """GABA that is not recognised, so that it takes the general path."""


@pytest.mark.parametrize("floor_mode", CHOICES["floor_mode"])
@pytest.mark.parametrize("law", CHOICES["law"])
@pytest.mark.parametrize("plant", [None, LogRatio(-0.4, a=0.7, delay=3, n_tasks=3)])
def test_compiled_and_general_path_agree(floor_mode, law, plant):
    profile = profiles.levels([[1, 2, 7], [40, 1, 1]], [150, 150], n_tasks=3)
    profile = profile.with_dropout(200, 10).with_dropout(250, 5, "zero")
    spec = GabaSpec(n_tasks=3, warmup=20, interval=3, law=law, floor_mode=floor_mode, beta=0.95)
    fast = simulate(spec, profile, plant, noise=0.2, seed=6)
    slow = simulate(SlowGaba(spec), profile, plant, noise=0.2, seed=6)
    for name in ("grad_norms", "readings", "raw", "ema", "weights"):
        np.testing.assert_allclose(
            getattr(fast, name), getattr(slow, name), rtol=1e-10, err_msg=name
        )
    assert fast.saturated_steps == slow.saturated_steps
    assert fast.smallest_weight == pytest.approx(slow.smallest_weight, rel=1e-10)


class SlowGradNorm(GradNorm):
    """GradNorm that is not recognised, so that it takes the general path."""


class SlowFixed(Fixed):
    """Equal weights, step by step."""


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("name", ["chen2018", "textbook", "fixed"])
def test_whole_records_are_taken_as_step_by_step(name, noise, k):
    """To the last bit: what nothing answers to is run at once."""
    rng = np.random.default_rng(k)
    fast: Balancer = Fixed(n_tasks=k)
    slow: Balancer = SlowFixed(n_tasks=k)
    if name != "fixed":
        fast, slow = GradNorm(name, n_tasks=k), SlowGradNorm(name, n_tasks=k)
    norms = rng.lognormal(0.0, 3.0, (500, k))
    norms[100:103] = 0.0
    profile = profiles.from_trace(
        Trace.from_arrays(norms, losses=rng.lognormal(0.0, 0.2, (500, k)))
    )
    fast.step(norms[0], norms[0] + 1.0)
    one, other = (simulate(rule, profile, noise=noise, seed=3) for rule in (fast, slow))
    for name in ("grad_norms", "readings", "weights"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert json.dumps(one.to_dict(), default=str) == json.dumps(other.to_dict(), default=str)


def test_lost_readings_take_the_general_path():
    profile = profiles.constant(9.0, 20).with_dropout(5, 2)
    assert np.isnan(simulate("gradnorm", profile).weights[-1]).all()


def test_open_loop_is_the_controller():
    profile = profiles.published_disturbance((200, 200, 200))
    result = simulate(GabaSpec.published(), profile)
    reference = Controller(GabaSpec.published())
    expected = [reference.observe(g) for g in profile.norms]
    np.testing.assert_allclose(result.weights, expected, rtol=1e-12)


def test_published_disturbance_leaves_what_the_floor_leaves():
    spec = GabaSpec()
    result = simulate(spec, profiles.published_disturbance())
    # 2.55x, 120.05x, 25.05x: m (1 + R).
    left = [r.settled_contribution_ratio for r in result.responses]
    np.testing.assert_allclose(left, [2.55, 120.05, 25.05], rtol=1e-3)
    np.testing.assert_allclose(left, residual_ratio(spec, [50, 2400, 500]), rtol=1e-6)
    for response, ratio in zip(result.responses, [50, 2400, 500], strict=True):
        np.testing.assert_allclose(
            response.settled_weights, settled_weights(spec, ratio), rtol=1e-6
        )
    assert result.responses[1].saturated_fraction == 1.0
    assert result.smallest_weight == pytest.approx(0.04764, abs=1e-5)
    assert result.diverged_at is None
    assert result.sign_changes == 0


def test_settling_counts_updates():
    # 2 % after 390 updates at beta = 0.99; the warm-up comes on top.
    profile = profiles.constant(4.0, 1500)
    assert simulate(GabaSpec(warmup=0), profile).responses[0].settling_weights == 390
    assert simulate(GabaSpec(warmup=100), profile).responses[0].settling_weights == 490
    assert simulate(GabaSpec(warmup=0, beta=0.0), profile).responses[0].settling_weights == 1
    assert simulate("fixed", profile).responses[0].settling_weights == 0
    assert simulate(GabaSpec(), profiles.constant(4.0, 300)).responses[0].settling_weights is None


def test_leaving_saturation_takes_longer_unless_the_state_is_clamped():
    profile = profiles.levels([500, 4], [3000, 1500])
    free = simulate(GabaSpec(warmup=0), profile).responses[1].settling_weights
    clamped = (
        simulate(GabaSpec(warmup=0, floor_mode="clamp_state"), profile)
        .responses[1]
        .settling_weights
    )
    assert clamped == 390
    # eps = 1/501, c = 0.2, m = 0.05: 28 steps before a weight moves.
    assert 15 <= free - clamped <= 28


def test_measured_feedback_is_fully_balanced_where_unsaturated():
    result = simulate(GabaSpec(), profiles.constant(8.0, 3000), LogRatio(-0.15, a=0.9355))
    assert result.responses[0].settled_contribution_ratio == pytest.approx(1.0, abs=1e-9)


def test_neutral_bowls_keep_the_weights_where_they_are():
    # w_1 g_1 = w_2 g_2 at every Pareto-stationary point: the raw weights repeat the weights.
    bowls = QuadraticBowls((500, 1), (0, 1), step_size=1e-3)
    result = simulate(GabaSpec(warmup=3000, floor=1e-4), profiles.undisturbed(6000), bowls)
    assert np.ptp(result.weights[3001:], axis=0).max() < 1e-6


def test_gradient_noise_breaks_the_tie_of_bowls():
    # w_1/w_2 tends to sigma_2/sigma_1.
    bowls = QuadraticBowls(
        (50, 50), np.array([np.zeros(50), np.full(50, 1e-3)]), noise=(4.0, 1.0), step_size=1e-3
    )
    result = simulate(GabaSpec(warmup=0, floor=1e-3), profiles.undisturbed(4000), bowls, seed=2)
    w = result.weights[-1000:].mean(axis=0)
    assert w[0] / w[1] == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize("method", ["pcgrad", "cagrad", "mgda"])
def test_directions_run_on_bowls(method):
    pytest.importorskip("torchjd")
    bowls = QuadraticBowls((5, 1), ((0, 0), (1, -1)), step_size=1e-2)
    result = simulate(method, profiles.undisturbed(300), bowls)
    assert np.isfinite(result.weights).all()
    with pytest.raises(InputError, match="bowls"):
        simulate(method, profiles.undisturbed(300))


def test_gradnorm_changes_sign_and_is_counted():
    result = simulate("gradnorm", profiles.published_disturbance((300, 300, 300)))
    assert result.sign_changes > 100
    assert result.smallest_weight < 0 < result.negative_fraction
    assert result.saturated_fraction is None


def test_a_lost_reading_poisons_the_published_average_only():
    profile = profiles.constant(4.0, 400).with_dropout(200, 1)
    assert simulate(GabaSpec(guard="hold"), profile).diverged_at is None
    assert simulate(GabaSpec(guard="none"), profile).diverged_at == 201


def test_the_seed_is_the_noise():
    profile = profiles.constant(4.0, 300)
    one, again, other = (simulate(GabaSpec(), profile, noise=0.3, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.weights, again.weights)
    assert not np.array_equal(one.weights, other.weights)
    assert one.to_dict()["seed"] == 1


def test_spread_is_the_log_of_largest_over_smallest():
    c = np.array([[1.0, 1.0, 8.0], [-2.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    np.testing.assert_allclose(spread(c), [np.log(8), np.log(2), np.inf])


def test_json_is_strict_even_when_everything_went_wrong():
    profile = profiles.constant(4.0, 300).with_dropout(150, 10, "zero")
    for rule in (GabaSpec.published(), "gradnorm", "sqrt_inverse"):
        text = simulate(rule, profile.with_dropout(200, 1)).to_json()
        json.loads(text, parse_constant=pytest.fail)


def test_loop_in_pieces_is_the_loop_in_one():
    profile = profiles.published_disturbance((100, 100, 100))
    whole = CompiledLoop(GabaSpec(), LogRatio(-0.5, 0.5, 2), 0.3, 8)
    pieces = CompiledLoop(GabaSpec(), LogRatio(-0.5, 0.5, 2), 0.3, 8)
    expected = whole.advance(profile.log_norms, profile.lost)
    cuts = [0, 1, 7, 150, 300]
    got = [pieces.advance(profile.log_norms[a:b], profile.lost[a:b]) for a, b in pairwise(cuts)]
    for n in range(5):
        np.testing.assert_array_equal(expected[n], np.concatenate([g[n] for g in got]))


def test_trajectories_on_disk(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet
    from pyarrow import csv

    result = simulate(GabaSpec(), profiles.constant(4.0, 200), noise=0.3, seed=5)
    table = csv.read_csv(write_trajectory(result, tmp_path / "run.csv"))
    np.testing.assert_array_equal(table["weight_0"].to_numpy(), result.weights[:, 0])
    write_batch(
        profiles.constant(4.0, 200),
        {"noise": [0.0, 0.3]},
        tmp_path / "loops.arrow",
        seed=5,
        rows_per_piece=33,
    )
    with pa.OSFile(str(tmp_path / "loops.arrow")) as source:
        loops = pa.ipc.open_file(source).read_all().to_pandas()
    assert len(loops) == 400
    # Loop 0 without noise is the quiet simulation; loop 1 has its own draws.
    quiet = simulate(GabaSpec(), profiles.constant(4.0, 200))
    np.testing.assert_array_equal(loops[loops.loop == 0]["weight_0"], quiet.weights[:, 0])
    assert not np.array_equal(loops[loops.loop == 1]["weight_0"], result.weights[:, 0])
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []
    with pytest.raises(InputError, match=r"\.arrow"):
        write_trajectory(result, tmp_path / "run.xlsx")


@pytest.mark.parametrize(
    "call",
    [
        lambda p: simulate(GabaSpec(n_tasks=3), p),
        lambda p: simulate(GabaSpec(), p, LogRatio(0.5, n_tasks=3)),
        lambda p: simulate(GabaSpec(), p, noise=-0.1),
        lambda p: simulate(GabaSpec(), p, noise=float("nan")),
        lambda p: simulate(GabaSpec(), p, tolerance=0.0),
        lambda p: simulate(GabaSpec(), p, seed=-1),
        lambda p: simulate("nothing", p),
        lambda p: simulate(GabaSpec(), p).plot(what="everything"),
    ],
)
def test_bad_calls_are_refused_in_one_line(call):
    with pytest.raises(InputError) as caught:
        call(profiles.constant(4.0, 20))
    assert "\n" not in str(caught.value)


def test_a_balancer_is_reset_first():
    rule: Balancer = Gaba(GabaSpec(warmup=0))
    profile = profiles.constant(4.0, 50)
    first = simulate(SlowGaba(rule.spec), profile).weights
    used = SlowGaba(rule.spec)
    used.step([1.0, 9.0])
    np.testing.assert_array_equal(first, simulate(used, profile).weights)
