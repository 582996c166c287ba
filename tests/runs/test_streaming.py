"""What is computed of a long run in pieces is what is computed of it whole, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.cli import main
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.runs.quantiles import PassingQuantiles
from gabactl.runs.replay import Replayer
from gabactl.runs.run import Run
from gabactl.runs.saturation import saturation
from gabactl.traces import Trace, load_bundled, load_trace, read_trace, reader, write_parquet
from gabactl.validation.check import check

# -- quantiles -----------------------------------------------------------------------------------

_numbers = st.one_of(
    st.floats(min_value=0.0, allow_nan=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1.0, 1.0 + 2**-52, 1.0 + 2**-51, 19.0, float("inf")]),
)


def passed(series: np.ndarray, pieces: int, percents: list[float], held: int | None):
    found = PassingQuantiles(percents, held)
    again, count = True, 0
    while again:
        for piece in np.array_split(series, pieces):
            found.add(piece)
        again, count = found.end_pass(), count + 1
    return found, count


@given(
    st.lists(_numbers, min_size=1, max_size=60), st.integers(1, 5), st.integers(0, 70),
    st.sampled_from([0.0, 5.0, 33.3, 50.0, 95.0, 100.0]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_quantiles_are_those_of_numpy(numbers, pieces, held, percent):
    series = np.array(numbers)
    found, count = passed(series, pieces, [percent, 50.0], held)
    assert count <= 3
    with np.errstate(all="ignore"):
        want = [np.percentile(series, percent), np.median(series)]
    np.testing.assert_array_equal([found.percentile(percent), found.median], want)


def test_quantiles_of_many_that_are_alike():
    """All share their leading bits, so that no pass but the last tells them apart."""
    series = 1.0 + np.random.default_rng(0).integers(0, 40, 5000) * 2.0**-52
    found, count = passed(series, 7, [50.0, 95.0], 10)
    assert count == 3
    assert found.percentile(95.0) == np.percentile(series, 95.0)
    assert found.median == np.median(series)


def test_quantiles_with_nan_negative_and_changed_series():
    found, _ = passed(np.array([1.0, np.nan, 3.0]), 2, [50.0], 1)
    assert np.isnan(found.median)
    assert np.isnan(found.percentile(50.0))
    assert np.isnan(passed(np.array([]), 1, [50.0], 1)[0].median)
    with pytest.raises(InputError, match="below 0"):
        PassingQuantiles([50.0]).add(np.array([-1.0]))
    found = PassingQuantiles([50.0], held=1)
    found.add(np.ones(5))
    assert found.end_pass()
    found.add(np.ones(6))
    with pytest.raises(InputError, match=r"6 values where there were 5.*changed while it"):
        found.end_pass()


# -- replay --------------------------------------------------------------------------------------


def recording(
    spec: GabaSpec, n: int, seed: int = 0, *, first: int = 1, every: int = 1, coasts: bool = False
) -> Trace:
    """A run under ``spec`` with unmeasured, zero and unusable readings in it."""
    rng = np.random.default_rng(seed)
    k = spec.n_tasks
    norms = rng.lognormal(np.arange(k)[::-1] * 1.5, 0.6, size=(n, k))
    norms[rng.random(n) < 0.05, 0] = rng.choice([0.0, np.inf, 1e-310, 1.7e308])
    norms[rng.random(n) < 0.05] = np.nan
    measured = rng.random(n) > (0.5 if coasts else 0.03)
    norms[~measured] = np.nan
    controller = Controller(spec)
    averages = []
    for row in norms:
        with np.errstate(all="ignore"):
            controller.observe(row)
        averages.append(controller.ema_weights.copy())
    sensor = {"name": "event", "coasts": True} if coasts else {"name": "full"}
    return Trace.from_arrays(
        norms,
        step=first + every * np.arange(n),
        measured=measured,
        ema=averages,
        metadata={"sensor": sensor, "spec": spec.to_dict()},
        source="run.parquet",
    )


def cut(trace: Trace, at: list[int]) -> list[Trace]:
    """The rows in pieces, as the streaming reader hands them out."""
    parts = [part for part in np.split(np.arange(len(trace)), sorted(at)) if len(part)]
    names = ("step", "measured", "grad_norms", "raw", "ema", "weights", "losses")
    return [
        trace.replace(
            present={k: v[rows] for k, v in trace.present.items()},
            **{n: getattr(trace, n)[rows] for n in names if getattr(trace, n) is not None},
        )
        for rows in parts
    ]


@given(
    st.integers(0, 1000),
    st.lists(st.integers(1, 79), max_size=5),
    st.sampled_from(CHOICES["law"]),
    st.sampled_from(CHOICES["floor_mode"]),
    st.sampled_from(["hold", "none"]),
    st.sampled_from([(1, 1), (1, 7), (30, 1), (43, 5)]),
    st.sampled_from([1, 1, 3]),
    st.booleans(),
    st.sampled_from(["gaba", "fixed"]),
    st.sampled_from([2, 3, 9]),
)
@settings(max_examples=50, deadline=None)
def test_a_replay_in_pieces_is_the_replay(
    seed, at, law, mode, guard, where, interval, coasts, balancer, k
):
    first, every = where
    spec = GabaSpec(k, 0.9, 0.04, 5, law, mode, guard, 1 if coasts else interval)
    trace = recording(spec, 80, seed, first=first, every=every, coasts=coasts)
    trace = trace.replace(metadata={**trace.metadata, "balancer": balancer})
    with np.errstate(all="ignore"):
        run = Run(trace, spec)
        whole = run.replay
        unread = "uniform" if balancer == "gaba" else "unrecorded"
        replayer = Replayer(spec, unread=unread, coast=coasts)
        if run.starts_late:
            replayer.start_from(trace)
        parts = [replayer.add(piece) for piece in cut(trace, at)]
    for name in ("step", "raw", "ema", "weights", "active"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name), err_msg=name)
    for name in ("readings", "held_readings", "unrecorded_readings", "untaken_readings"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name), name


def test_pieces_out_of_order_are_refused():
    trace = recording(GabaSpec(warmup=0), 20)
    first, second = cut(trace, [10])
    replayer = Replayer(GabaSpec(warmup=0))
    replayer.add(second)
    with pytest.raises(InputError, match="strictly increasing"):
        replayer.add(first)


def test_the_gap_after_a_late_start_is_counted_like_every_other():
    """It used to count as one reading, so that the average fell behind from its second row on."""
    spec = GabaSpec(warmup=0, beta=0.9)
    norms = np.tile([1.0, 3.0], (3, 1))
    trace = Trace.from_arrays(norms, step=[50, 100, 150], ema=np.full((3, 2), 0.5))
    run = Run(trace, spec).replay
    want = 0.75 - 0.25 * 0.9 ** np.array([0, 50, 100])
    assert run.ema[:, 0] == pytest.approx(want, rel=1e-12)
    assert run.unrecorded_readings == 98


# -- saturation ----------------------------------------------------------------------------------


def plain(trace: Trace, spec: GabaSpec) -> dict[str, object]:
    """The definitions, on whole arrays."""
    run = Run(trace, spec).replay
    norms = trace.grad_norms
    ok = np.isfinite(norms).all(axis=1) & (norms > 0).all(axis=1) & run.active
    below = run.ema[run.active] < spec.floor
    pinned = (
        run.ema[run.active] <= spec.floor + 1e-12 if spec.floor_mode == "clamp_state" else below
    )
    ratios = norms[ok].max(axis=1) / norms[ok].min(axis=1)
    effective = norms[ok] * run.weights[ok]
    steps = run.step[run.active][pinned.any(axis=1)]
    return {
        "active_steps": int(run.active.sum()),
        "saturated_fraction": float(below.any(axis=1).mean()),
        "pinned_fraction": float(pinned.any(axis=1).mean()),
        "pinned_fraction_by_task": dict(
            zip(trace.tasks, pinned.mean(axis=0).tolist(), strict=True)
        ),
        "first_pinned_step": int(steps[0]) if steps.size else None,
        "ratio_median": float(np.median(ratios)),
        "ratio_high": float(np.percentile(ratios, 95)),
        "residual_ratio_median": float(np.median(effective.max(axis=1) / effective.min(axis=1))),
        "unrecorded_readings": run.unrecorded_readings,
    }


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 50 rows, and 20 values held at once."""
    monkeypatch.setattr(reader, "_ROWS", 50)
    monkeypatch.setattr("gabactl.runs.saturation.HELD", 20)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("mode", ["renormalise", "clamp_state"])
@pytest.mark.parametrize("k", [2, 3])
def test_saturation_of_a_file_is_that_of_the_trace(tmp_path: Path, mode: str, k: int):
    spec = GabaSpec(k, 0.95, 0.1, 20, floor_mode=mode)
    trace = recording(spec, 700, seed=k)
    file = write_parquet(trace, tmp_path / "run.parquet")
    assert len(list(reader.iter_trace(file))) == 14
    streamed, loaded = saturation(file), saturation(trace)
    assert streamed == loaded
    want = plain(trace, spec)
    assert {name: getattr(loaded, name) for name in want} == want


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", ["fd001-gaba", "fd001-equal"])
def test_saturation_of_a_recorded_run(tmp_path: Path, name: str):
    trace = load_bundled(name)
    file = write_parquet(trace, tmp_path / "run.parquet")
    assert saturation(file) == saturation(read_trace(file)) == saturation(trace)


def test_the_command_answers_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "fd001-gaba", "--saturation-only", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    want = saturation(load_bundled("fd001-gaba"))
    assert told["verdict"] == want.verdict
    assert told["ratio_high"] == want.ratio_high
    assert (
        main(["report", "--saturation-only", "--floor", "1e-4", "--plot", str(tmp_path / "a.svg")])
        == 0
    )
    assert "now 0.0001" in capsys.readouterr().out
    assert (tmp_path / "a.svg").exists()
    assert main(["report", "--saturation-only", str(tmp_path / "gone.parquet")]) == 2
    assert "gone.parquet: cannot be read" in capsys.readouterr().err
    (tmp_path / "quiet.csv").write_text("grad_norm_a,grad_norm_b\n0,1\n0,1\n")
    assert main(["report", "--saturation-only", str(tmp_path / "quiet.csv"), "--warmup", "0"]) == 2
    assert "quiet.csv: no reading after the warm-up of 0 steps" in capsys.readouterr().err


# -- the replay check ----------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kind", ["faithful", "late", "wrong", "no ema", "gradnorm", "sparse"])
def test_validation_of_a_file_is_that_of_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    spec = GabaSpec(2, 0.95, 0.1, 20)
    first, every = {"late": (300, 1), "sparse": (1, 10)}.get(kind, (1, 1))
    trace = recording(spec, 700, seed=4, first=first, every=every)
    run = Run(trace, spec).replay
    trace = trace.replace(
        ema=run.ema, weights=run.weights,
        present={**trace.present, "ema": np.ones(700, bool), "weights": np.ones(700, bool)},
    )  # fmt: skip
    if kind == "wrong":
        trace.ema[431:] += 1e-6 * np.linspace(1, 2, 269)[:, None]
    if kind == "no ema":
        trace = trace.replace(ema=None)
    if kind == "gradnorm":
        trace = trace.replace(metadata={**trace.metadata, "balancer": "gradnorm"})
    file = write_parquet(trace, tmp_path / "run.parquet")
    monkeypatch.setattr("gabactl.validation.check._KEPT", 40)
    loaded, streamed = check(read_trace(file)), check(file)
    assert streamed.to_dict() == loaded.to_dict()
    assert len(loaded.step) == 700
    assert 40 <= len(streamed.step) <= 81
    assert set(streamed.step) <= set(loaded.step)
    want = {"wrong": False, "gradnorm": None, "sparse": None}.get(kind, True)
    assert loaded.ok is want
    if kind == "wrong":
        assert streamed.first_difference == loaded.first_difference == 432
        assert streamed.error.max() == loaded.error.max() == loaded.max_abs_error_ema
    else:
        np.testing.assert_array_equal(
            streamed.error, loaded.error[np.isin(loaded.step, streamed.step)]
        )


# -- parts of a run ------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pieces")
def test_the_end_of_a_run_is_replayed_as_in_the_whole(tmp_path: Path):
    spec = GabaSpec(2, 0.95, 0.1, 20)
    trace = recording(spec, 700, seed=4)
    file = write_parquet(trace, tmp_path / "run.parquet")
    whole = load_trace(file)
    for name in ("step", "measured", "grad_norms", "ema"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(read_trace(file), name))
    for last in (1, 50, 51, 120, 700, 9999):
        part = load_trace(file, last=last)
        assert len(part) == min(last, 700)
        np.testing.assert_array_equal(part.grad_norms, trace.grad_norms[-last:])
        for name, rows in part.present.items():
            np.testing.assert_array_equal(rows, trace.present[name][-last:])
        np.testing.assert_allclose(
            Run(part, spec).replay.ema[1:], Run(trace, spec).replay.ema[-last:][1:], atol=1e-15
        )
    assert len(load_trace(file, last=300, most_steps=300)) == 300
    for last, most in ((None, 699), (301, 300)):
        with pytest.raises(InputError, match=rf"more than {most} steps.*--last {most}.*saturation"):
            load_trace(file, last=last, most_steps=most)
    with pytest.raises(InputError, match="last = 0"):
        load_trace(file, last=0)


def test_commands_refuse_what_they_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("gabactl.traces.MOST_STEPS", 500)
    file = write_parquet(recording(GabaSpec(), 700), tmp_path / "run.parquet")
    page = tmp_path / "page.html"
    for words in (["report", str(file), "-o", str(page)], ["check", str(file)]):
        assert main(words) == 2
        assert "--last 500" in capsys.readouterr().err
    assert not page.exists()
    assert main(["check", str(file), "--replay-only"]) == 0
    assert main(["check", str(file), "--replay-only", "--last", "400"]) == 0
    assert main(["report", str(file), "--saturation-only"]) == 0
    out = capsys.readouterr().out
    assert "700 (600 active" in out
    assert "400 (400 active" in out
