"""``gabactl cmapss train``: journeys on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gabactl.cli import main
from gabactl.traces import read_trace

QUICK = [
    *("cmapss", "train", "--epochs", "2", "--batch-size", "30", "--device", "cpu"),
    *("--threads", "1", "--warmup", "3", "--lr-warmup-epochs", "1"),
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_cmapss: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GABACTL_CMAPSS", str(tiny_cmapss))


def test_a_run_leaves_a_trace_a_checkpoint_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--steps", "12", "-o", "run.parquet", "--beta", "0.9"]) == 0
    said = capsys.readouterr().out
    assert "12 steps" in said
    assert "test RMSE" in said
    trace = read_trace("run.parquet")
    assert trace.step.tolist() == list(range(1, 13))
    assert trace.spec is not None
    assert (trace.spec.beta, trace.spec.warmup) == (0.9, 3)
    assert Path("run.ckpt").is_file()
    # Again is refused before any work, unless told how.
    assert main([*QUICK, "--steps", "12", "-o", "run.parquet"]) == 2
    assert "--resume" in capsys.readouterr().err
    # Going on: more steps, same settings.
    more = [*QUICK, "--steps", "14", "-o", "run.parquet", "--beta", "0.9", "--resume", "--json"]
    assert main(more) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 14
    assert found["settings"]["spec"]["beta"] == 0.9
    assert found["stopped"] == "finished"
    assert read_trace("run.parquet").step.tolist() == list(range(1, 15))
    assert main([*QUICK, "--steps", "3", "-o", "run.parquet", "--force"]) == 0
    assert len(read_trace("run.parquet")) == 3


def test_fixed_weights_excited(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--balancer", "fixed", "--weights", "0.0476,0.9524", "--steps", "6"]
    excite = ["--excite", "prbs:amplitude=0.5,period=2,seed=1,inverted"]
    assert main([*QUICK, *options, *excite, "-o", "run.parquet"]) == 0
    trace = read_trace("run.parquet")
    assert trace.excitation is not None
    assert trace.weights is not None
    logit = np.log(trace.weights[:, 0] / trace.weights[:, 1])
    assert np.abs(logit - np.log(0.0476 / 0.9524) - trace.excitation).max() < 1e-5
    assert trace.metadata["excitation"] == excite[1]


def test_a_spec_file_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("spec.toml").write_text("[gaba]\nfloor = 0.01\nbeta = 0.5\n")
    assert main([*QUICK, "--steps", "1", "--spec", "spec.toml", "--beta", "0.7", "--json"]) == 0
    spec = json.loads(capsys.readouterr().out)["settings"]["spec"]
    assert (spec["floor"], spec["beta"], spec["warmup"]) == (0.01, 0.7, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--subset", "FD007"], "subset = 'FD007'"),
        (["--subset", "FD002"], "train_FD002.txt"),
        (["--balancer", "sorcery"], "balancer = 'sorcery'"),
        (["--model", "gpt"], "model = 'gpt'"),
        (["--weights", "a,b"], "weights = 'a,b'"),
        (["--weights", "1"], "weights = [1.0]"),
        (["--weights", "-1,2"], "weights"),
        (["--lr", "0"], "lr = 0.0"),
        (["--lr", "nan"], "lr = nan"),
        (["--epochs", "0"], "epochs = 0"),
        (["--epochs", "many"], "--epochs"),
        (["--batch-size", "100000"], "batch_size = 100000"),
        (["--optimizer", "lion"], "optimizer = 'lion'"),
        (["--beta", "1"], "beta = 1.0"),
        (["--tasks", "3"], "n_tasks = 3"),
        (["--device", "tpu"], "device = 'tpu'"),
        (["--excite", "prbs:amplitude=x"], "excitation"),
        (["--normalise-to", "3"], "normalise_to = '3'"),
        (["--gradnorm-variant", "other"], "gradnorm_variant = 'other'"),
        (["--target-scale", "0"], "target_scale = 0.0"),
        (["--threads", "0"], "--threads"),
        (["--checkpoint-every", "0", "--checkpoint", "x.ckpt"], "checkpoint_every = 0"),
        (["--record", "run.csv"], "run.csv"),
        (["--record", "no/folder/run.parquet"], "there is no folder"),
        (["--checkpoint", "no/folder/run.ckpt"], "there is no folder"),
        (["--resume"], "--resume needs"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--spec", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path.cwd().iterdir())
    assert main([*QUICK, *options]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""
    assert sorted(Path.cwd().iterdir()) == before


def test_a_bad_data_file_is_named(tiny_cmapss: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Path("bad")
    bad.mkdir()
    for file in tiny_cmapss.iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    lines = (bad / "test_FD001.txt").read_text().splitlines()
    lines[4] = lines[4].rsplit(None, 1)[0] + " oops"
    (bad / "test_FD001.txt").write_text("\n".join(lines))
    assert main([*QUICK, "--data", "bad"]) == 2
    assert "test_FD001.txt, line 5: sensor 21 is 'oops'" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_saves_and_exits_130_and_resumes(tiny_cmapss: Path) -> None:
    command = [sys.executable, "-m", "gabactl", *QUICK, "-o", "run.parquet"]
    long = [*command, "--epochs", "400"]
    environment = {**os.environ, "GABACTL_CMAPSS": str(tiny_cmapss)}
    process = subprocess.Popen(
        long, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    stream = Path("run.arrows")
    # Rows are flushed every 100 steps: then training is well under way.
    deadline = time.monotonic() + 240
    while not (stream.is_file() and stream.stat().st_size > 4000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "interrupted after" in out
    assert "Traceback" not in err
    kept = read_trace("run.arrows")
    assert kept.step.tolist() == list(range(1, len(kept) + 1))
    done = len(kept)
    assert main([*long[3:], "--steps", str(done + 5), "--resume"]) == 0
    assert read_trace("run.parquet").step.tolist() == list(range(1, done + 6))


def test_nothing_of_the_analysis_is_loaded(tiny_cmapss: Path) -> None:
    # A training machine need not have the control and proof packages.
    code = (
        "import sys; from gabactl.cli import main; import gabactl.nn.training.loop;"
        "print([m for m in ('control', 'z3', 'sympy', 'numba', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )
    assert found.stdout.strip() == "[]"
