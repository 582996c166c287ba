"""Watching a run in progress: true figures, alarms, and a writer that notices nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.cli import main
from gabactl.law.spec import GabaSpec
from gabactl.runs.replay import replay
from gabactl.runs.watch import Watcher, follow
from gabactl.traces import TraceWriter, load_bundled, read_trace

TASKS = ["rul", "health"]
STEPS = 900


def run_of(ratio, steps=STEPS, **settings):
    spec = GabaSpec(**settings)
    rng = np.random.default_rng(1)
    norms = np.exp(rng.normal(0, 0.3, (steps, 2))) * [ratio, 1.0]
    return spec, norms, replay(spec, norms)


def columns_of(norms, run, first, last):
    at = slice(first, last)
    columns = {"step": run.step[at], "wall_time": 0.1 * run.step[at]}
    for i, task in enumerate(TASKS):
        columns[f"grad_norm_{task}"] = norms[at, i]
        columns[f"ema_{task}"] = run.ema[at, i]
        columns[f"weight_{task}"] = run.weights[at, i]
    return columns


def writer_of(path, spec):
    groups = ["grad_norm", "ema", "weight"]
    return TraceWriter(path, TASKS, {"spec": spec.to_dict()}, groups=groups, sync=False)


def record(path, ratio, finish=True, **settings):
    spec, norms, run = run_of(ratio, **settings)
    writer = writer_of(path, spec)
    for first in range(0, STEPS, 100):
        writer.append(columns_of(norms, run, first, first + 100))
    writer.close(finish)
    return spec, norms, run


@pytest.mark.parametrize("ratio", [2.0, 30.0, 500.0])
def test_the_figures_are_those_of_the_run(tmp_path, ratio):
    spec, norms, run = run_of(ratio)
    writer = writer_of(tmp_path / "run.arrows", spec)
    watcher = Watcher(tmp_path / "run.arrows")
    assert watcher.look() is None
    for last in range(60, STEPS + 1, 60):
        writer.append(columns_of(norms, run, last - 60, last))
        state = watcher.look()
        low = (run.ema[:last] < spec.floor).any(axis=1)[spec.warmup :]
        trailing = len(low) if low.all() else int(np.argmin(low[::-1]))
        assert (state.step, state.steps, state.running) == (last, last, True)
        assert state.readings == last
        assert state.ratio == norms[last - 1].max() / norms[last - 1].min()
        assert state.saturated_for == trailing
        if last > spec.warmup:
            assert state.saturated_fraction == pytest.approx(low.mean())
        np.testing.assert_array_equal(state.weights, run.weights[last - 1])
        assert state.readings_per_second == pytest.approx(10.0)
        assert state.bounds == pytest.approx((1 / 21, 20 / 21))
        assert bool(state.alarms) == (trailing > 500)
    assert bool(state.alarms) == (ratio == 500.0)
    writer.close()
    assert not watcher.look().running


@pytest.mark.parametrize("pieces", [1, 7])
def test_saturated_steps_are_steps_where_only_some_are_recorded(tmp_path, pieces):
    """Every 20th: 30 rows in a row are 600 steps, and an alarm."""
    spec, norms, run = run_of(500.0)
    rows = np.arange(0, STEPS, 20)
    writer = writer_of(tmp_path / "run.arrows", spec)
    watcher = Watcher(tmp_path / "run.arrows")
    for part in np.array_split(rows, pieces):
        columns = columns_of(norms, run, 0, STEPS)
        writer.append({name: values[part] for name, values in columns.items()})
        state = watcher.look()
    low = (run.ema < spec.floor).any(axis=1)[rows]
    free = rows[~low][-1]
    assert state.saturated_for == rows[-1] - free
    assert state.saturated_for > 500
    assert state.alarms
    writer.close(finish=False)


def test_an_alarm_for_a_reading_that_was_not_finite(tmp_path):
    spec, norms, run = run_of(2.0)
    norms[150, 1] = np.inf
    norms[151, 0] = np.nan
    writer = writer_of(tmp_path / "run.arrows", spec)
    watcher = Watcher(tmp_path / "run.arrows")
    writer.append(columns_of(norms, run, 0, 100))
    assert watcher.look().alarms == ()
    writer.append(columns_of(norms, run, 100, 200))
    state = watcher.look()
    assert (state.non_finite, state.last_non_finite) == (2, 152)
    assert "2 reading(s) not finite, the last at step 152" in state.alarms
    writer.close(finish=False)


def test_a_clamped_average_counts_as_saturated(tmp_path):
    record(tmp_path / "run.arrows", 500.0, floor_mode="clamp_state")
    assert Watcher(tmp_path / "run.arrows").look().saturated_for > 500


def test_a_run_without_averages_is_not_judged(tmp_path):
    writer = TraceWriter(tmp_path / "run.arrows", TASKS, groups=["grad_norm"], sync=False)
    writer.append({"step": [1], "grad_norm_rul": [500.0], "grad_norm_health": [1.0]})
    state = Watcher(tmp_path / "run.arrows").look()
    assert np.isnan(state.saturated_fraction)
    assert state.weights is None
    assert json.loads(state.to_json())["saturated_fraction"] is None
    assert "not recorded" in str(state)
    writer.close(finish=False)


def test_it_follows_a_writer_to_the_end_and_leaves_nothing(tmp_path):
    spec, norms, run = run_of(500.0)
    path = tmp_path / "run.parquet"
    failures = []

    def train():
        try:
            time.sleep(0.1)
            with writer_of(path, spec) as writer:
                for first in range(0, STEPS, 10):
                    writer.append(columns_of(norms, run, first, first + 10))
                    time.sleep(0.005)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    states = list(follow(Watcher(path), every=0.01))
    thread.join()
    assert not failures
    assert states[0] is None
    steps = [state.step for state in states if state is not None]
    assert steps == sorted(steps)
    assert len(set(steps)) > 5
    assert (states[-1].step, states[-1].running) == (STEPS, False)
    assert [file.name for file in tmp_path.iterdir()] == ["run.parquet"]
    np.testing.assert_array_equal(read_trace(path).grad_norms, norms)


def test_a_resumed_run_is_read_again(tmp_path):
    spec, norms, run = run_of(2.0)
    path = tmp_path / "run.arrows"
    writer = writer_of(path, spec)
    writer.append(columns_of(norms, run, 0, 100))
    writer.append(columns_of(norms, run, 100, 200))
    watcher = Watcher(path)
    assert watcher.look().step == 200
    writer.close(finish=False)
    writer = TraceWriter.resume(path, after_step=150, sync=False)
    state = watcher.look()
    assert (state.step, state.steps) == (150, 150)
    writer.append(columns_of(norms, run, 150, 400))
    assert (watcher.look().step, watcher.look().steps) == (400, 400)
    writer.close(finish=False)


def test_another_ending_and_a_damaged_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="endings"):
        Watcher(tmp_path / "run.csv")
    with pytest.raises(InputError, match="below 0"):
        Watcher(tmp_path / "run.arrows", saturated_steps=-1)
    (tmp_path / "run.arrows").write_text("this is no stream")
    with pytest.raises(InputError, match="no Arrow stream"):
        Watcher(tmp_path / "run.arrows").look()
    with pytest.raises(InputError, match="no Arrow stream"):
        list(follow(Watcher(tmp_path / "run.arrows"), every=0.01, patience=0.05))
    with pytest.raises(InputError, match="above 0"):
        next(follow(Watcher(tmp_path / "run.arrows"), every=0))


class TestCommand:
    def test_once_is_a_finding_when_alarmed(self, tmp_path, capsys):
        path = tmp_path / "run.arrows"
        record(path, 500.0)
        assert main(["watch", str(path), "--once"]) == 1
        out = capsys.readouterr().out
        assert "ALARM" in out
        assert "the floor allows 19" in out
        assert main(["watch", str(path), "--once", "--saturated-steps", "5000"]) == 0
        assert "ALARM" not in capsys.readouterr().out
        assert main(["watch", str(path), "--once", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["saturated_for"] > 500

    def test_once_on_nothing_is_bad_input(self, tmp_path, capsys):
        assert main(["watch", str(tmp_path / "none.arrows"), "--once"]) == 2
        assert "nothing is recorded" in capsys.readouterr().err

    def test_lines_and_the_screen_end_with_the_recording(self, tmp_path, capsys):
        path = tmp_path / "run.parquet"
        record(path, 2.0)
        assert main(["watch", str(path), "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["running"] for line in lines] == [False]
        assert main(["watch", str(path)]) == 0
        assert "900, closed" in capsys.readouterr().out

    @pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
    def test_ctrl_c_ends_it_quietly(self, tmp_path):
        command = [sys.executable, "-m", "gabactl", "watch", str(tmp_path / "run.arrows")]
        process = subprocess.Popen(
            [*command, "--json", "--every", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        spec, norms, run = run_of(2.0)
        writer = writer_of(tmp_path / "run.arrows", spec)
        writer.append(columns_of(norms, run, 0, 200))
        first = json.loads(process.stdout.readline())
        assert (first["step"], first["running"]) == (200, True)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
        writer.close(finish=False)


def test_what_arrow_raises_is_one_line(tmp_path, monkeypatch):
    import pyarrow as pa

    from gabactl.traces.reader import StreamSource

    def broken(self):
        raise pa.ArrowInvalid("no such buffer")

    record(tmp_path / "run.arrows", 3.0, finish=False)
    monkeypatch.setattr(StreamSource, "chunks", broken)
    with pytest.raises(InputError, match=r"run.arrows: the file is damaged \(no such buffer\)"):
        Watcher(tmp_path / "run.arrows").look()


def test_the_bundled_run_alarms():
    from gabactl.runs.watch import _Sums

    sums = _Sums()
    sums.add(load_bundled("fd001-gaba"))
    state = sums.state("fd001-gaba", False, 0.0, 500)
    assert state.alarms
    assert state.plot().get_xlabel() == "step"


def test_the_alarm_is_for_more_steps_than_asked_and_for_any_lost_reading():
    from gabactl.runs.watch import _Sums

    sums = _Sums()
    sums.add(load_bundled("fd001-gaba"))
    state = sums.state("fd001-gaba", False, 0.0, 500)
    at_the_limit = dataclasses.replace(state, saturated_for=500)
    assert at_the_limit.alarms == ()
    assert len(dataclasses.replace(at_the_limit, saturated_for=501).alarms) == 1
    lost = dataclasses.replace(at_the_limit, non_finite=1, last_non_finite=7)
    assert lost.alarms == ("1 reading(s) not finite, the last at step 7",)
