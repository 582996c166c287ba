"""The engine: a kill of anything, and a resume, lose and duplicate nothing."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_campaign import tiny_plan  # noqa: E402

from gabactl.base.errors import InputError  # noqa: E402
from gabactl.base.lock import FileLock  # noqa: E402
from gabactl.cli import main  # noqa: E402
from gabactl.nn.campaigns import (  # noqa: E402
    campaign_status,
    collect_results,
    load_campaign,
    load_results,
    run_campaign,
)
from gabactl.nn.campaigns.worker import train_one  # noqa: E402
from gabactl.traces import read_trace  # noqa: E402

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes by signals")

ROOT = Path(__file__).resolve().parents[2]

PLAN = tiny_plan(
    """
[[method]]
name = "grace"
balancer = "gaba"
sample_weights = "amnl"
spec = {warmup = 4, beta = 0.9}

[[method]]
name = "fixed"
balancer = "fixed"
""",
    epochs=4,
)
#: What must not depend on how often a run was interrupted.
SAME = (
    "run", "status", "steps", "epochs", "best_epoch", "validation_rmse", "rmse_capped",
    "nasa_capped", "rmse_uncapped", "nasa_uncapped", "accuracy", "rmse_all_windows",
    "rmse_test_selected", "parameters", "settings", "trace",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "tiny.toml"
    file.write_text(PLAN)
    return file


@pytest.fixture(scope="module")
def whole(plan: Path, tiny_cmapss: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign without any interruption, in this process."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(plan, folder / "campaign.toml")
    campaign = load_campaign(plan)
    for run in campaign.runs:
        train_one(campaign, run, folder, tiny_cmapss)
    return folder


def start(plan: Path, folder: Path, data: Path, *options: str) -> subprocess.Popen[str]:
    words = [
        "cmapss",
        "campaign",
        "run",
        str(plan),
        "-o",
        str(folder),
        "--data",
        str(data),
        *options,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "gabactl", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(there: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def worker_of(driver: subprocess.Popen[str]) -> int:
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(driver.pid)], capture_output=True, text=True, check=True
    )
    (pid,) = listing.stdout.split()
    return int(pid)


def assert_equal(folder: Path, whole: Path) -> None:
    """Every figure and every recorded step, bit for bit."""
    a, b = collect_results(folder), collect_results(whole)
    for name in SAME:
        assert a.table[name] == b.table[name], name
    for one, other in zip(a.table["trace"], b.table["trace"], strict=True):
        t, u = read_trace(folder / one), read_trace(whole / other)
        assert t.step.tolist() == list(range(1, 41))
        for column in ("grad_norms", "raw", "ema", "weights", "losses"):
            x, y = getattr(t, column), getattr(u, column)
            assert (x is None) == (y is None)
            assert x is None or np.array_equal(x, y, equal_nan=True), column


def test_kill_9_of_the_driver(plan: Path, whole: Path, tiny_cmapss: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    # A longer plan at first, so that the worker cannot be done before its driver is dead.
    longer = tmp_path / "long.toml"
    longer.write_text(PLAN.replace("epochs = 4", "epochs = 400"))
    driver = start(longer, folder, tiny_cmapss)
    first = folder / "runs" / "FD001-grace-seed1"
    wait_for((first / "run.ckpt").is_file)
    driver.kill()
    driver.communicate()
    # The worker that is left over saves its step and ends by itself.
    wait_for((first / "result.json").is_file)
    assert [run["status"] for run in campaign_status(folder).runs] == ["interrupted", "not_run"]
    started = read_trace(first / "trace.arrows").metadata["started"]
    status = run_campaign(plan, folder, tiny_cmapss, resume=True, workers=2)
    assert not status.stopped
    assert_equal(folder, whole)
    table = load_results(folder / "results.parquet").table
    assert table["status"] == ["finished", "finished"]
    # It went on: the recording is the one that was begun before the kill.
    assert table["started"][0] == started != table["started"][1]
    assert table["commit"][0] is not None or not (Path(__file__).parents[2] / ".git").exists()
    assert all(value > 0 for value in table["seconds"])
    # Nothing is left to do, and nothing is done.
    before = (first / "result.json").stat().st_mtime_ns
    assert main(_words(plan, folder, tiny_cmapss, "--resume")) == 0
    assert (first / "result.json").stat().st_mtime_ns == before


def _words(plan: Path, folder: Path, data: Path, *options: str) -> list[str]:
    return [
        "cmapss",
        "campaign",
        "run",
        str(plan),
        "-o",
        str(folder),
        "--data",
        str(data),
        *options,
    ]


@pytest.mark.slow
def test_kill_9_of_a_worker_ends_that_run_alone(
    plan: Path, whole: Path, tiny_cmapss: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    driver = start(plan, folder, tiny_cmapss, "--json")
    wait_for((folder / "runs" / "FD001-grace-seed1" / "run.ckpt").is_file)
    os.kill(worker_of(driver), signal.SIGKILL)
    out, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1
    killed, other = json.loads(out)["runs"]
    assert (killed["status"], other["status"]) == ("failed", "finished")
    assert killed["reason"] == "killed by SIGKILL (out of memory?)"
    run_campaign(plan, folder, tiny_cmapss, resume=True)
    assert_equal(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_checkpoints(
    plan: Path, whole: Path, tiny_cmapss: Path, tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "d"
    driver = start(plan, folder, tiny_cmapss, "--workers", "2")
    wait_for((folder / "runs" / "FD001-grace-seed1" / "run.ckpt").is_file)
    driver.send_signal(number)
    driver.communicate(timeout=300)
    assert driver.returncode == 130
    assert campaign_status(folder).runs[0]["status"] == "interrupted"
    run_campaign(plan, folder, tiny_cmapss, resume=True)
    assert_equal(folder, whole)


@pytest.mark.slow
def test_slices_until_all_is_done(
    plan: Path, whole: Path, tiny_cmapss: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    longer = tmp_path / "long.toml"
    longer.write_text(PLAN.replace("epochs = 4", "epochs = 400"))
    status = run_campaign(longer, folder, tiny_cmapss, time_limit=15)
    assert status.stopped
    assert status.runs[0]["status"] in ("interrupted", "not_run")
    # A run is extended, but not shortened behind its checkpoint; so end it as planned elsewhere.
    other = tmp_path / "e"
    slices = 0
    while slices == 0 or status.stopped:
        status = run_campaign(
            plan, other, tiny_cmapss, time_limit=6 + 3 * slices, resume=slices > 0
        )
        slices += 1
        assert slices < 30
    assert_equal(other, whole)


@pytest.mark.slow
def test_a_longer_plan_goes_on(plan: Path, tiny_cmapss: Path, tmp_path: Path) -> None:
    longer = tmp_path / "long.toml"
    longer.write_text(PLAN.replace("epochs = 4", "epochs = 6"))
    once, twice = tmp_path / "once", tmp_path / "twice"
    run_campaign(longer, once, tiny_cmapss, only="*grace*")
    run_campaign(plan, twice, tiny_cmapss, only="*grace*")
    run_campaign(longer, twice, tiny_cmapss, only="*grace*", resume=True)
    a, b = collect_results(once), collect_results(twice)
    for name in SAME:
        assert a.table[name] == b.table[name], name
    assert a.table["status"] == ["finished", "not_run"]


def test_table_and_status_of_what_is_there(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cmapss", "campaign", "status", str(whole)]) == 0
    assert "Campaign tiny: 2 of 2 runs done" in capsys.readouterr().out
    file = tmp_path / "t" / "results.parquet"
    file.parent.mkdir()
    assert main(["cmapss", "campaign", "table", str(whole), "-o", str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["table"]["method"] == ["grace", "fixed"]
    results = load_results(file)
    # The traces are found from where the table is.
    assert all((file.parent / trace).is_file() for trace in results.table["trace"])
    assert json.loads(results.table["settings"][0])["sample_weights"] == "amnl"
    (grace, _) = results.summary()
    assert grace["rmse_capped"] == results.table["rmse_capped"][0]
    assert grace["rmse_capped_sd"] is None
    assert "1 of 1" in str(results)
    assert len(results.plot().get_yticks()) == 2


def test_what_cannot_be_done_is_said_before_anything_is_begun(
    plan: Path, whole: Path, tiny_cmapss: Path, tmp_path: Path
) -> None:
    def refused(folder: Path, message: str, **options: object) -> None:
        file = options.pop("file", plan)
        with pytest.raises(InputError, match=message):
            run_campaign(file, folder, tiny_cmapss, **options)  # type: ignore[arg-type]

    refused(whole, "holds a campaign already: add --resume")
    refused(tmp_path / "a", "workers = 0 is not a whole number >= 1", workers=0)
    refused(tmp_path / "a", "time = 0 is not positive", time_limit=0)
    refused(tmp_path / "a", "only = 'x' fits none of 2 runs", only="x")
    with FileLock(whole / ".campaign"):
        refused(whole, "running a campaign there", resume=True)
    other = tmp_path / "other.toml"
    other.write_text(PLAN.replace("batch_size = 30", "batch_size = 31"))
    refused(
        whole, "run FD001-grace-seed1: was trained with batch_size = 30", file=other, resume=True
    )
    other.write_text(PLAN.replace('"FD001"', '"FD002"'))
    refused(tmp_path / "a", "RUL_FD002.txt", file=other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    refused(tmp_path / "full", "is not empty and holds no campaign")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"status": "done"}', '{"status": "finished", "steps": "9", "settings": {}}']
)
def test_a_damaged_record_is_named(plan: Path, whole: Path, tmp_path: Path, text: str) -> None:
    place = tmp_path / "runs" / "FD001-grace-seed1"
    place.mkdir(parents=True)
    shutil.copy(plan, tmp_path / "campaign.toml")
    (place / "result.json").write_text(text)
    with pytest.raises(InputError, match=r"result.json: (damaged|not valid JSON) .*delete"):
        collect_results(tmp_path)


def test_a_failed_run_says_why(
    plan: Path, make_cmapss: Callable[..., Path], tmp_path: Path
) -> None:
    campaign = load_campaign(plan)
    few = make_cmapss(train=(31, 32))  # too few windows for one batch
    record = train_one(campaign, campaign.runs[0], tmp_path, few)
    assert record["status"] == "failed"
    assert "batch_size = 30 is more than" in record["reason"]
    shutil.copy(plan, tmp_path / "campaign.toml")
    assert collect_results(tmp_path).table["status"] == ["failed", "not_run"]
    assert campaign_status(tmp_path).failed == ("FD001-grace-seed1",)


@pytest.mark.parametrize("damage", ["short", "other", "column"])
def test_a_damaged_table_is_refused(whole: Path, tmp_path: Path, damage: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gabactl.nn.campaigns import save_results

    file = save_results(collect_results(whole), tmp_path / "results.parquet")
    if damage == "short":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "other":
        pq.write_table(pa.table({"a": [1]}), file)
    else:
        table = pq.read_table(file)
        place = table.column_names.index("seed")
        pq.write_table(table.set_column(place, "seed", pa.array(["x", "y"])), file)
    message = "not a readable table" if damage == "short" else "is missing or not"
    with pytest.raises(InputError, match=message):
        load_results(file)


@pytest.mark.parametrize("every", [1, 7])
def test_what_is_published(whole: Path, tmp_path: Path, every: int) -> None:
    script = runpy.run_path(str(ROOT / "simulations" / "campaign_publish.py"))
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "old.parquet").write_bytes(b"stale")
    script["publish"](whole, tmp_path, every)
    assert (tmp_path / "campaign.toml").read_text() == PLAN
    results = load_results(tmp_path)
    assert results.table["trace"] == [f"traces/{run}.parquet" for run in results.table["run"]]
    assert not (tmp_path / "traces" / "old.parquet").exists()
    kept = read_trace(tmp_path / results.table["trace"][0])
    full = read_trace(whole / "runs" / "FD001-grace-seed1" / "trace.parquet")
    assert np.array_equal(kept.grad_norms, full.grad_norms, equal_nan=True)
    assert kept.metadata["training"] == full.metadata["training"]
    rows = np.append(np.arange(0, 39, every), 39)
    assert kept.weights is not None
    assert full.weights is not None
    assert np.array_equal(kept.weights[rows], full.weights[rows])
    assert np.isnan(kept.weights).any() == (every > 1)
    with pytest.raises(InputError, match="thin with --every 10"):
        script["publish"](whole, tmp_path, every, limit=0.001)


def test_a_crashed_worker_leaves_its_last_words(
    plan: Path, tiny_cmapss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise OSError('the library does not load')")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    status = run_campaign(plan, tmp_path / "d", tiny_cmapss, only="*fixed*")
    assert status.failed == ("FD001-fixed-seed1",)
    reason = status.runs[1]["reason"]
    assert reason == "exit code 1, see log.txt: OSError: the library does not load"
    # The driver's own exit code says so too.
    words = _words(plan, tmp_path / "d", tiny_cmapss, "--resume", "--only", "*fixed*")
    assert main(words) == 1


def test_the_command_line_says_what_is_wrong(
    plan: Path, tiny_cmapss: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_words(plan, tmp_path / "d", tmp_path / "nothing")) == 2
    assert main(["cmapss", "campaign", "status", str(tmp_path)]) == 2
    assert main(["cmapss", "campaign", "table", str(tmp_path / "x.parquet")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("gabactl: ") for line in lines)


def test_train_with_a_peer_and_sample_weights(
    tiny_cmapss: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchjd")
    words = ["--balancer", "dwa", "--sample-weights", "amnl", "--precision", "bf16"]
    words += ["--steps", "2", "--batch-size", "30", "--device", "cpu", "--json"]
    record = ["--record", str(tmp_path / "run.parquet")]
    assert main(["cmapss", "train", "--data", str(tiny_cmapss), *words, *record]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["balancer"], settings["sample_weights"]) == ("dwa", "amnl")
    assert read_trace(tmp_path / "run.parquet").balancer == "dwa"
