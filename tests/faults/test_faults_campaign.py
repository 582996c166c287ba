"""Campaigns and the dashboard under faults that their own tests do not stage."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_campaign import tiny_plan

from faults.scenes import disk, finish, started, unwritable
from gabactl.base.errors import InputError
from gabactl.base.lock import FileLock
from gabactl.traces import load_bundled, read_trace, write_parquet

torch = pytest.importorskip("torch")

from gabactl.nn.campaigns import load_campaign, run_campaign  # noqa: E402
from gabactl.nn.campaigns import worker as campaign_worker  # noqa: E402
from gabactl.nn.campaigns.files import read_record, run_folder  # noqa: E402

PLAN = tiny_plan(
    """
[[method]]
name = "gaba"
balancer = "gaba"
spec = {warmup = 4, beta = 0.9}
""",
    epochs=2,
)


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "tiny.toml"
    file.write_text(PLAN)
    return file


@pytest.fixture(scope="module")
def whole(plan: Path, tiny_cmapss: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train_again(plan, folder, tiny_cmapss)
    return folder


def train_again(plan: Path, folder: Path, data: Path) -> dict[str, Any]:
    """The one run of the plan, or what is left of it, in this process."""
    campaign = load_campaign(plan)
    return campaign_worker.train_one(campaign, campaign.runs[0], folder, data)


def place_of(folder: Path) -> Path:
    return run_folder(folder, "FD001-gaba-seed1")


def assert_same(folder: Path, whole: Path) -> None:
    a, b = (read_record(place_of(f)) for f in (folder, whole))
    assert a is not None
    assert b is not None
    for key in ("status", "steps", "validation_rmse", "rmse_capped", "nasa_capped", "settings"):
        assert a[key] == b[key], key
    t, u = (read_trace(place_of(f) / "trace.parquet") for f in (folder, whole))
    for name in ("step", "grad_norms", "ema", "weights", "losses"):
        assert np.array_equal(getattr(t, name), getattr(u, name), equal_nan=True), name


def after_step(monkeypatch: pytest.MonkeyPatch, step: int, fault: Callable[[], object]) -> None:
    real = campaign_worker._Reporter.__call__

    def report(self: Any, now: Any) -> None:
        real(self, now)
        if now.step == step:
            fault()

    monkeypatch.setattr(campaign_worker._Reporter, "__call__", report)


def test_a_full_disk_fails_the_run_and_keeps_its_checkpoint(
    plan: Path, whole: Path, tiny_cmapss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk"
    with disk(folder, "16m"):

        def fill() -> None:
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            (folder / "ballast").write_bytes(bytes(max(0, free - 20480)))

        with monkeypatch.context() as patch:
            after_step(patch, 7, fill)
            record = train_again(plan, folder, tiny_cmapss)
        assert record["status"] == "failed"
        assert "run.ckpt: cannot be written (No space left on device)" in record["reason"]
        assert read_record(place_of(folder)) == record
        (folder / "ballast").unlink()
        assert train_again(plan, folder, tiny_cmapss)["status"] == "finished"
        assert_same(folder, whole)


def test_no_memory_in_a_worker_fails_that_run(
    plan: Path, whole: Path, tiny_cmapss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory() -> None:
        raise MemoryError("no more")

    with monkeypatch.context() as patch:
        after_step(patch, 7, no_memory)
        assert train_again(plan, tmp_path, tiny_cmapss)["reason"] == "MemoryError: no more"
    train_again(plan, tmp_path, tiny_cmapss)
    assert_same(tmp_path, whole)


def test_a_campaign_does_not_depend_on_the_clock(
    plan: Path, whole: Path, tiny_cmapss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    after_step(monkeypatch, 7, lambda: monkeypatch.setattr(time, "time", lambda: real() - 1e9))
    train_again(plan, tmp_path, tiny_cmapss)
    assert_same(tmp_path, whole)


def test_a_second_driver_is_refused(plan: Path, tiny_cmapss: Path, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".campaign"),
        pytest.raises(InputError, match="running a campaign there"),
    ):
        run_campaign(plan, tmp_path, tiny_cmapss)


def test_places_that_cannot_be_written_or_are_gone(
    plan: Path, tiny_cmapss: Path, tmp_path: Path
) -> None:
    with (
        unwritable(tmp_path / "locked") as place,
        pytest.raises(InputError, match=r"locked/out: cannot be (made|written)"),
    ):
        run_campaign(plan, place / "out", tiny_cmapss)
    with pytest.raises(InputError, match="no such folder or zip archive"):
        run_campaign(plan, tmp_path / "out", tmp_path / "gone")
    with pytest.raises(InputError, match="cannot be read"):
        run_campaign(tmp_path / "gone.toml", tmp_path / "out", tiny_cmapss)
    assert not (tmp_path / "out").exists()


# -- the dashboard, which writes nothing ---------------------------------------------------------


def test_a_trace_that_vanishes_is_still_shown(tmp_path: Path) -> None:
    pytest.importorskip("panel")
    from gabactl.app.session import Session

    file = write_parquet(load_bundled("fd001-gaba"), tmp_path / "run.parquet")
    session = Session(read_trace(file))
    file.unlink()
    assert len(session.replayed.weights) == len(session.trace)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_dashboard_leaves_its_port_and_nothing_else(tmp_path: Path, number: int) -> None:
    pytest.importorskip("panel")
    port = 0
    for attempt in range(2):
        process = started("dashboard", "--no-browser", "--port", port, cwd=tmp_path)
        assert process.stdout is not None
        address = process.stdout.readline()
        if attempt:
            assert f":{port}/" in address  # the port of the one before is free at once
        port = int(address.split(":")[2].split("/")[0])
        process.send_signal(number)
        done = finish(process)
        assert done.code == (-9 if number == signal.SIGKILL else 0), done.err
        assert "Traceback" not in done.err
        assert not list(tmp_path.iterdir())
