"""`gabactl trace` and `gabactl check` as a user types them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gabactl import GabaSpec
from gabactl.cli import main
from gabactl.runs.replay import replay
from gabactl.traces import Trace, TraceWriter, read_trace, write_csv, write_parquet

SPEC = GabaSpec(warmup=5, beta=0.9)


@pytest.fixture
def trace(tmp_path):
    norms = np.exp(np.random.default_rng(0).normal(0, 2, (60, 2)))
    done = replay(SPEC, norms)
    metadata = {"spec": SPEC.to_dict(), "balancer": "gaba", "seed": 4, "model": "toy"}
    trace = Trace.from_arrays(
        norms, ema=done.ema, weights=done.weights, metadata=metadata, tasks=["rul", "health"]
    )
    return write_parquet(trace, tmp_path / "run.parquet")


@pytest.fixture
def killed(tmp_path):
    writer = TraceWriter(tmp_path / "killed.arrows", ["a", "b"], groups=["grad_norm"])
    writer.append({"step": [1, 2], "grad_norm_a": [1.0, 2.0], "grad_norm_b": [3.0, 4.0]})
    writer.close(finish=False)
    return tmp_path / "killed.arrows"


def run(capsys, *arguments, code=0):
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return err if code == 2 else out


def test_check_agrees(capsys, trace):
    found = json.loads(run(capsys, "check", trace, "--json"))
    assert len(found) == 1
    assert found[0]["steps"] == 60
    assert found[0]["max_abs_error_ema"] < 1e-12
    assert found[0]["max_abs_error_weights"] < 1e-12
    assert found[0]["max_abs_error_raw"] is None
    assert 0 <= found[0]["saturated_fraction"] <= 1
    assert found[0]["ok"] is True
    assert "agrees" in run(capsys, "check", trace)


def test_check_lists_one_entry_per_trace_and_finds_the_bad_one(capsys, trace, tmp_path):
    good = read_trace(trace)
    ema = good.ema.copy()
    ema[30, 0] += 1e-3
    write_parquet(good.replace(ema=ema), tmp_path / "bad.parquet")
    found = json.loads(run(capsys, "check", trace, tmp_path / "bad.parquet", "--json", code=1))
    assert [entry["ok"] for entry in found] == [True, False]
    assert found[1]["first_difference"] == 31
    run(capsys, "check", tmp_path / "bad.parquet", "--tolerance", "0.01")


def test_an_option_beats_the_file_and_the_file_the_trace(capsys, trace, tmp_path):
    (tmp_path / "spec.toml").write_text("[gaba]\nbeta = 0.8\nwarmup = 5\n")
    run(capsys, "check", trace, "--beta", "0.8", code=1)
    run(capsys, "check", trace, "--spec", tmp_path / "spec.toml", code=1)
    out = run(capsys, "check", trace, "--spec", tmp_path / "spec.toml", "--beta", 0.9, "--json")
    assert json.loads(out)[0]["spec"]["beta"] == 0.9


def test_csv_needs_the_settings_from_the_user(capsys, trace, tmp_path):
    write_csv(read_trace(trace), tmp_path / "run.csv")
    out = run(capsys, "check", tmp_path / "run.csv", code=1)
    assert "names no settings" in out
    run(capsys, "check", tmp_path / "run.csv", "--beta", "0.9", "--warmup", "5")


def test_info(capsys, trace, killed):
    out = run(capsys, "trace", "info", trace)
    assert "60 (1 to 60)" in out
    assert "toy" in out
    facts = json.loads(run(capsys, "trace", "info", killed, "--json"))
    assert facts["format"] == "arrow stream"
    assert facts["truncated"] is True
    assert facts["measured_steps"] == 2


def test_finish(capsys, killed):
    assert "killed.parquet: 2 steps" in run(capsys, "trace", "finish", killed)
    output = killed.with_name("other.parquet")
    found = json.loads(run(capsys, "trace", "finish", killed, "-o", output, "--json"))
    assert found == {"output": str(output), "steps": 2}
    assert read_trace(output).truncated
    assert killed.exists()


def test_convert(capsys, trace, tmp_path):
    output = tmp_path / "run.csv"
    assert "60 steps" in run(capsys, "trace", "convert", trace, "-o", output)
    np.testing.assert_array_equal(read_trace(output).ema, read_trace(trace).ema)


def test_list(capsys):
    names = json.loads(run(capsys, "trace", "list", "--json"))["traces"]
    assert isinstance(names, list)
    run(capsys, "trace", "list")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "nowhere.parquet"],
        ["check"],
        ["trace", "info", "nowhere.parquet"],
        ["trace", "finish", "nowhere.arrows"],
        ["trace", "convert", "nowhere.parquet", "-o", "x.csv"],
        ["trace", "convert", "nowhere.parquet"],
        ["check", "nowhere.parquet", "--beta", "2"],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments):
    line = run(capsys, *arguments, code=2)
    assert line.startswith("gabactl: ")
    assert line.count("\n") == 1


def test_a_damaged_file_is_one_line(capsys, trace):
    trace.write_bytes(trace.read_bytes()[:-20])
    for command in (["check"], ["trace", "info"]):
        assert "stops before its end" in run(capsys, *command, trace, code=2)
