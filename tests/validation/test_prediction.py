"""Measured against predicted: right on runs that obey the theory, and not on runs that do not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from gabactl import GabaSpec, InputError
from gabactl.cli import main
from gabactl.identification.output_error import lag_response
from gabactl.plants import LogRatio
from gabactl.runs.replay import replay
from gabactl.traces import Trace, load_bundled, write_parquet
from gabactl.validation import _average
from gabactl.validation.check import check
from gabactl.validation.forecast import RunSignals, block_bootstrap, score_forecasts
from gabactl.validation.prediction import predict

SPEC = GabaSpec()


def run(
    rho: float = 0.0,
    a: float = 0.8,
    *,
    level: float = 6.0,
    noise: float = 0.4,
    drift: float = 0.0,
    steps: int = 2400,
    seed: int = 0,
    spec: GabaSpec = SPEC,
) -> Trace:
    """A closed loop of the log-ratio plant and the published controller, stepped plainly."""
    rng = np.random.default_rng(seed)
    d = level + noise * rng.standard_normal(steps) + np.cumsum(drift * rng.standard_normal(steps))
    ema, x, u = np.array([0.5, 0.5]), 0.0, 0.0
    rows = {"norms": [], "raw": [], "ema": [], "weights": []}
    for t in range(steps):
        x = a * x - (1 - a) * u
        g = np.exp(np.array([0.5, -0.5]) * (rho * x + d[t]))
        raw = np.full(2, np.nan)
        weights = np.array([0.5, 0.5])
        if t >= spec.warmup:
            raw = 1 - g / g.sum()
            ema = spec.beta * ema + (1 - spec.beta) * raw
            weights = np.maximum(ema, spec.floor)
            weights = weights / weights.sum()
        u = math.log(weights[0] / weights[1])
        for name, values in (("norms", g), ("raw", raw), ("ema", ema), ("weights", weights)):
            rows[name].append(values)
    return Trace.from_arrays(
        rows.pop("norms"), metadata={"balancer": "gaba", "spec": spec.to_dict()}, **rows
    )


@pytest.fixture(scope="module")
def steady() -> Trace:
    return run()


def test_a_run_by_the_book_agrees(steady):
    found = predict(steady)
    judged = {item.key: item.agrees for item in found.comparisons}
    assert judged == dict.fromkeys(
        (
            "time_constant",
            "rise_time",
            "settling_time",
            "time_to_floor",
            "saturated_fraction",
            "settled_weight",
            "residual_ratio",
            "noise_gain",
        ),
        True,
    )
    # Theory: -1/ln beta; from 1/2 toward exp(-6 + 0.4^2/2): ln(0.4973/0.0473)/0.01005 = 234.
    assert found.comparison("time_constant").measured == pytest.approx(99.499, abs=1e-3)
    assert found.comparison("time_to_floor").measured == pytest.approx(234, abs=2)
    assert found.comparison("noise_gain").predicted == pytest.approx(0.0050251, rel=0.35)
    assert found.plant is None
    assert "not excited" in found.plant_from


def test_another_filter_than_the_recorded_one_is_found_out(steady):
    wrong = predict(steady, GabaSpec(beta=0.985))
    assert wrong.comparison("time_constant").agrees is False
    assert wrong.comparison("time_constant").measured == pytest.approx(99.5, abs=0.1)
    assert wrong.comparison("time_to_floor").agrees is False
    assert "steps: not as foretold" in str(wrong)
    assert "is the replay check" in str(wrong)
    assert "not as foretold" not in str(predict(steady))


def test_an_average_that_lets_too_much_noise_through_is_found_out(steady):
    rng = np.random.default_rng(5)
    ema = steady.ema.copy()
    ema[100:, 0] += 2e-4 * rng.standard_normal(len(ema) - 100)
    found = predict(steady.replace(ema=ema)).comparison("noise_gain")
    assert found.agrees is False
    assert found.measured > 2 * found.predicted


def test_a_drift_is_no_fault_of_the_filter_but_foretold_badly():
    found = predict(run(level=3.2, drift=0.3, seed=3))
    assert found.comparison("time_constant").agrees is True
    late = [found.comparison(k) for k in ("time_to_floor", "saturated_fraction")]
    assert any(item.agrees is False for item in late)


def test_an_unsaturated_run_never_reaches_the_floor():
    found = predict(run(level=1.0, noise=0.2))
    floor = found.comparison("time_to_floor")
    assert (floor.measured, floor.agrees) == (None, True)
    assert "never" in floor.reason
    assert found.comparison("residual_ratio").measured == pytest.approx(1.0, abs=0.05)


def test_short_runs_are_not_judged():
    found = predict(run(steps=320))
    assert found.comparison("step_response").agrees is None
    assert "not enough data" in str(found)
    middle = predict(run(steps=915))
    for key in ("noise_gain", "settled_weight", "residual_ratio"):
        assert "not enough data" in middle.comparison(key).reason
    assert middle.comparison("time_to_floor").agrees is True


def test_an_average_that_was_thinned_out_is_said_to_be(steady):
    ema = steady.ema.copy()
    ema[np.arange(len(ema)) % 10 != 0] = np.nan
    found = predict(steady.replace(ema=ema))
    assert "not recorded at consecutive readings" in found.comparison("time_constant").reason
    assert found.comparison("time_to_floor").agrees is True


@pytest.mark.slow
def test_the_noise_gain_interval_covers():
    agree = [predict(run(seed=s), draws=50).comparison("noise_gain").agrees for s in range(12)]
    assert sum(agree) >= 9


def test_the_right_plant_beats_none_and_a_wrong_one_loses():
    trace = run(-3.0, 0.98, level=1.0, noise=0.05, drift=0.02, spec=GabaSpec(beta=0.95), steps=2000)
    right = predict(trace, plant=LogRatio(-3.0, 0.98)).forecasts
    wrong = predict(trace, plant=LogRatio(0.9, 0.5)).forecasts

    def at(scores, horizon):
        return next(s for s in scores if (s.signal, s.horizon) == ("log_ratio", horizon))

    assert at(right, 10).beats_last_value is True
    assert at(right, 10).fit_percent > at(wrong, 10).fit_percent
    assert at(wrong, 10).beats_open_loop is not True


def test_a_plant_that_is_not_there_is_not_said_to_help(steady):
    found = predict(steady, plant=LogRatio(-0.3, 0.9))
    assert all(score.beats_open_loop is not True for score in found.forecasts)
    assert any("does NOT demonstrably help" in note for note in found.notes)


def test_an_excited_run_is_forecast_from_its_first_half():
    rng = np.random.default_rng(0)
    e = np.repeat(rng.choice([-0.5, 0.5], 80), 25)
    y = -3.0 * lag_response(e, 0.7) + 0.2 * rng.standard_normal(e.size)
    w = 1 / (1 + np.exp(-e))
    trace = Trace.from_arrays(
        np.exp(np.outer(y, [0.5, -0.5])),
        weights=np.stack([w, 1 - w], axis=1),
        excitation=e,
        metadata={"balancer": "fixed"},
    )
    found = predict(trace)
    assert found.plant.rho == pytest.approx(-3.0, abs=0.3)
    one = found.forecasts[0]
    assert one.beats_last_value is True
    assert one.beats_open_loop is True
    assert one.origins <= 1000


def test_forecasts_of_white_noise_are_its_mean():
    rng = np.random.default_rng(1)
    y = 2.0 + rng.standard_normal(1500)
    (score,) = score_forecasts(
        RunSignals(y, np.zeros(1500), None, SPEC), LogRatio(0.0), horizons=(1,)
    )
    # The last value of white noise has twice the error power: 1 - sqrt 2 = -41 %.
    assert score.last_value_fit_percent == pytest.approx(-41.4, abs=5)
    assert score.fit_percent == pytest.approx(0, abs=3)
    assert score.gain_over_last_value[0] == pytest.approx(50, abs=5)


def test_too_few_blocks_have_no_interval():
    assert block_bootstrap(np.ones((1, 70)), lambda m: m[..., 0], 10) is None
    with pytest.raises(InputError):
        RunSignals(np.array([np.nan, 1.0]), np.zeros(2), None, SPEC)


def test_other_balancers_and_tasks_are_left_alone(steady):
    fixed = steady.replace(metadata={**steady.metadata, "balancer": "gradnorm"})
    assert "weights are those of gradnorm" in str(predict(fixed))
    three = np.exp(np.random.default_rng(0).normal(0, 1, (600, 3)))
    spec = GabaSpec(n_tasks=3)
    done = replay(spec, three)
    trace = Trace.from_arrays(
        three, ema=done.ema, weights=done.weights, metadata={"spec": spec.to_dict()}
    )
    assert "3 tasks" in predict(trace).plant_from


def test_the_command_keeps_its_keys_and_its_exit_code(tmp_path, capsys, steady):
    file = tmp_path / "run.parquet"
    write_parquet(steady, file)
    picture = tmp_path / "picture.png"
    plant = "log-ratio:rho=-0.2,a=0.9"
    assert main(["check", str(file), "--json", "--plant", plant, "--plot", str(picture)]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    for key in ("max_abs_error_ema", "saturated_fraction", "ok", "spec", "first_difference"):
        assert key in said
    made = said["prediction"]
    assert {item["key"] for item in made["comparisons"]} >= {"time_constant", "noise_gain"}
    assert made["plant"] == "log-ratio:rho=-0.2,a=0.9,delay=0"
    assert {score["horizon"] for score in made["forecasts"]} == {1, 10, 100}
    assert picture.stat().st_size > 10_000
    assert main(["check", str(file), "--replay-only", "--json"]) == 0
    assert "prediction" not in json.loads(capsys.readouterr().out)[0]
    # Predictions that differ are findings in the output; only the replay decides the exit code.
    weights = steady.weights.copy()
    weights[2000, 0] += 1e-3
    write_parquet(steady.replace(weights=weights), file)
    assert main(["check", str(file), "--replay-only"]) == 1


def test_plants_that_cannot_be_used_are_refused(tmp_path, capsys, steady):
    file = tmp_path / "run.parquet"
    write_parquet(steady, file)
    assert main(["check", str(file), "--plant", "bowls:curvatures=1/2,minimisers=0/1"]) == 2
    assert main(["check", str(file), *["--plant", "a"] * 3]) == 2
    assert "give one excited trace, or two twins" in capsys.readouterr().err


RECORDED = sorted(
    (Path(__file__).parents[2] / "simulations" / "results" / "campaign").glob("traces/*.parquet")
)


@pytest.mark.parametrize("name", ["fd001-gaba", "fd002-gaba"])
def test_bundled_float32_runs_replay_within_their_tolerance(name):
    found = check(load_bundled(name))
    assert found.precision == "float32"
    assert found.ok is True
    assert max(found.max_abs_error_ema, found.max_abs_error_weights) <= 5e-6


@pytest.mark.skipif(not RECORDED, reason="no campaign is committed")
def test_campaign_runs_replay_within_their_tolerance():
    from gabactl.traces import read_trace

    compared = 0
    for path in RECORDED:
        found = check(read_trace(path))
        if found.balancer != "gaba":
            assert found.ok is None
            continue
        assert found.ok is True, path.name
        for error in (found.max_abs_error_ema, found.max_abs_error_weights):
            assert error is not None
            assert error <= 5e-6, path.name
        compared += 1
    assert compared >= 4


@pytest.mark.parametrize("held", [1, 3 * 550, 10**9])
def test_simulated_averages_do_not_depend_on_how_many_are_held(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces are those of one array of innovations, with the levels drawn after it."""
    x = 1.0 / (1.0 + np.exp(-np.random.default_rng(2).normal(1.0, 0.5, 500)))
    noise, spec, draws = _average.short_memory(x), GabaSpec(), 20
    monkeypatch.setattr(_average, "_HELD", held)
    shown = np.array([0, 7, 499])
    found, kept = _average.simulated_averages(x, noise, spec, draws, 5, 20, shown)
    rng = np.random.default_rng(5)
    eps = noise.innovation_std * rng.standard_normal((draws, 550))
    y = signal.lfilter([1.0], np.concatenate(([1.0], -noise.ar)), eps, axis=1)[:, 50:]
    error = noise.innovation_std / abs(1.0 - noise.ar.sum()) / math.sqrt(20)
    y += np.mean(np.log(x[:20]) - np.log1p(-x[:20])) + error * rng.standard_normal((draws, 1))
    ema, expected = np.full(draws, 0.5), []
    for raw in (1.0 / (1.0 + np.exp(-y))).T:
        ema = 0.99 * ema + 0.01 * raw
        expected.append(ema)
    averages = np.array(expected).T
    np.testing.assert_allclose(kept, averages[:, shown], rtol=1e-12)
    for name, values in _average.step_statistics(averages, spec).items():
        np.testing.assert_allclose(found[name], values, err_msg=name)
