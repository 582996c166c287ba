"""Training at its edges: failures in the middle, checkpoints that do not fit, and what is told."""

from __future__ import annotations

import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gabactl import cmapss
from gabactl.base.devices import choose_device, use_precision
from gabactl.base.errors import InputError
from gabactl.cmapss import Cmapss
from gabactl.law.spec import GabaSpec
from gabactl.nn import checkpoint as checkpoints
from gabactl.nn.checkpoint import (
    check_optimizer,
    check_plain,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
)
from gabactl.nn.excitation import Excitation
from gabactl.nn.training.build import build_loss
from gabactl.nn.training.loop import Progress, _Run, train
from gabactl.nn.training.settings import TrainingSettings
from gabactl.traces import read_trace

QUICK = TrainingSettings(
    epochs=1,
    steps=3,
    batch_size=30,
    lr_warmup_epochs=1,
    spec=GabaSpec(warmup=1, beta=0.9),
    device="cpu",
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def data(tiny_cmapss: Path) -> Cmapss:
    return cmapss.load(tiny_cmapss)


# -- runs -------------------------------------------------------------------------------------------


def test_what_fails_in_the_middle_comes_out_and_the_record_stays(
    data: Cmapss, tmp_path: Path
) -> None:
    def breaks(now: Progress) -> None:
        if now.step == 2:
            raise ZeroDivisionError("planted")

    with pytest.raises(ZeroDivisionError):
        train(data, QUICK, on_step=breaks)
    file = tmp_path / "run.parquet"
    with pytest.raises(ZeroDivisionError):
        train(data, QUICK, record=file, on_step=breaks)
    assert read_trace(file.with_suffix(".arrows")).step.tolist() == [1, 2]


def test_a_last_checkpoint_that_cannot_be_written_leaves_the_record(
    data: Cmapss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise InputError("run.ckpt: cannot be written (No space left on device)")

    monkeypatch.setattr("gabactl.nn.training.loop.save_checkpoint", full)
    with pytest.raises(InputError, match="No space"):
        train(data, QUICK, checkpoint=tmp_path / "run.ckpt")
    with pytest.raises(InputError, match="No space"):
        train(data, QUICK, checkpoint=tmp_path / "run.ckpt", record=tmp_path / "run.parquet")
    assert read_trace(tmp_path / "run.arrows").step.tolist() == [1, 2, 3]


def test_every_window_of_the_test_set_is_scored_where_there_are_more(tiny_cmapss: Path) -> None:
    result = train(cmapss.load(tiny_cmapss, all_test_windows=True), QUICK)
    assert math.isfinite(result.rmse_all_windows)
    assert ("test RMSE, every window", f"{result.rmse_all_windows:.2f} cycles") in result.rows()


def test_losses_with_sample_weights_and_in_bfloat16(data: Cmapss) -> None:
    plain, weighted, short = (
        _Run(data, replace(QUICK, **changes))
        for changes in ({}, {"sample_weights": "amnl"}, {"precision": "bf16"})
    )
    predicted, rul = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]])
    # At failure each sample counts twice.
    assert float(weighted._rul_loss(predicted, rul)) == pytest.approx(
        2 * float(plain._rul_loss(predicted, rul))
    )
    inputs = plain.inputs[:4]
    for exact, rounded in zip(plain._forward(inputs), short._forward(inputs), strict=True):
        assert rounded.dtype == torch.float32
        assert not torch.equal(exact, rounded)
        assert torch.allclose(exact, rounded, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("balancer", ["uncertainty", "dwa", "pcgrad", "cagrad"])
def test_peers_are_trained(data: Cmapss, balancer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchjd")
    settings = replace(QUICK, balancer=balancer, steps=None)
    run = _Run(data, settings)
    loss_fn: Any = run.loss_fn
    assert loss_fn.method == balancer
    if balancer == "cagrad":
        assert loss_fn.weighting.c == settings.cagrad_c
    # What the loss learns is not decayed.
    decays = [group["weight_decay"] for group in run.optimizer.param_groups]
    assert decays[1:] == ([0.0] if balancer == "uncertainty" else [])
    ended = []
    if balancer == "dwa":
        step = loss_fn.scalarizer.step
        monkeypatch.setattr(loss_fn.scalarizer, "step", lambda: ended.append(step()))
    assert run.loop(500, lambda: False, None) == "finished"
    assert run.step == run.steps_per_epoch
    assert len(ended) == (1 if balancer == "dwa" else 0)
    assert math.isfinite(run.last_rmse)


def test_what_a_run_says_of_its_outcome(data: Cmapss) -> None:
    result = train(data, QUICK)
    bare = replace(result, test=None, validation_rmse=math.nan, rmse_all_windows=math.nan)
    labels = [row[0] for row in bare.rows()]
    assert labels == ["data", "model", "balancer", "ended", "time"]
    full = replace(
        result, validation_rmse=20.0, best_epoch=1, rmse_all_windows=25.0, rul_output_off=True
    )
    rows = dict(full.rows())
    assert rows["validation RMSE"] == "20.00 cycles (epoch 1)"
    assert rows["test RMSE, every window"] == "25.00 cycles"
    assert rows["warning"].startswith("the final ReLU of the RUL head is off")
    assert {"test RMSE", "NASA score", "health accuracy"} <= set(rows)


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(InputError, match="excite with balancer = 'uncertainty'"):
        replace(QUICK, balancer="uncertainty", excite=Excitation())
    with pytest.raises(InputError, match="excitation 3 is no text: give for example"):
        Excitation.parse(3)  # type: ignore[arg-type]
    assert build_loss(replace(QUICK, excite=Excitation()), torch.device("cpu")).inner is not None


# -- devices ----------------------------------------------------------------------------------------


def test_a_cuda_device_beyond_the_last_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1").index == 1
    with pytest.raises(InputError, match="device = 'cuda:2' is not available here"):
        choose_device("cuda:2")


@pytest.mark.parametrize(("name", "rounds"), [("tf32", True), ("float32", False)])
def test_how_cuda_rounds_is_put_back(name: str, rounds: bool) -> None:
    def now() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    within = []

    def fails() -> None:
        with use_precision(name, torch.device("cuda")):
            within.append(now())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert within == [("high" if rounds else "highest", rounds)]
    assert now() == before
    with use_precision(name, torch.device("cpu")):
        assert now() == before


# -- checkpoints --------------------------------------------------------------------------------------


def test_an_error_of_torch_that_is_no_lack_of_space_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(RuntimeError, match="planted"):
        save_checkpoint(tmp_path / "run.ckpt", {})
    assert not any(tmp_path.iterdir())


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.pt"
    torch.save({"a": torch.zeros(100)}, file)
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", file.stat().st_size)
    assert load_tensors(file)["a"].shape == (100,)
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", file.stat().st_size - 1)
    with pytest.raises(InputError, match="larger than 0 GiB, which no checkpoint is"):
        load_tensors(file)


def test_an_archive_that_would_fill_the_memory_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.pt"
    torch.save({"name": "abcdefgh", "a": torch.zeros(3)}, file)
    assert load_tensors(file)["name"] == "abcdefgh"
    for limit in ("_MAX_TEXT", "_MAX_PLAIN_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, limit, 7)
            with pytest.raises(InputError, match=r"not a readable checkpoint \(ValueError\)"):
                load_tensors(file)
    packed = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(file) as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    with pytest.raises(InputError, match=r"not a readable checkpoint \(ValueError\)"):
        load_tensors(packed)


@pytest.mark.parametrize(
    ("saved", "now", "message"),
    [
        ([], {}, "other keys"),
        ({"a": 1}, {"b": 1}, "other keys"),
        (1, [1], "another length"),
        ([1, 2], [1], "another length"),
        ("1", 1, "str for int"),
        (True, 1.0, "bool for float"),
        (1 << 63, 1, "int for int"),
        (1, "text", "int for str"),
        (0, False, "int for bool"),
        ({"a": [{"b": "x"}]}, {"a": [{"b": 2.0}]}, "str for float"),
    ],
)
def test_plain_values_of_another_kind_are_refused(saved: Any, now: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        check_plain(saved, now)


def _stepped(kind: Any = torch.optim.AdamW, **options: Any) -> torch.optim.Optimizer:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = kind([weight, nn.Parameter(torch.zeros(1))], lr=0.1, **options)
    weight.grad = torch.ones(2)
    optimizer.step()
    return optimizer


def test_the_state_of_an_optimizer_comes_back_in_tensors_of_its_own() -> None:
    for optimizer in (_stepped(), _stepped(torch.optim.SGD, momentum=0.9)):
        saved = optimizer.state_dict()
        saved["param_groups"][0].pop("maximize")  # an option that an older torch did not know
        back = check_optimizer(saved, optimizer)
        assert back["param_groups"] == optimizer.state_dict()["param_groups"]
        for name, value in saved["state"][0].items():
            assert torch.equal(back["state"][0][name], value)
            assert back["state"][0][name] is not value
    # A parameter that has had no gradient has no momentum.
    saved = _stepped(torch.optim.SGD, momentum=0.9).state_dict()
    saved["state"][1] = {"momentum_buffer": None}
    optimizer = _stepped(torch.optim.SGD, momentum=0.9)
    assert check_optimizer(saved, optimizer)["state"][1] == {"momentum_buffer": None}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: [], "no state dict"),
        (lambda s: s["param_groups"][0].update(other=1), "other options"),
        (lambda s: s["param_groups"][0].pop("lr"), "other options"),
        (lambda s: s["param_groups"][0].update(weight_decay=0.5), "other options"),
        (lambda s: s["param_groups"][0].update(lr="fast"), "str for float"),
        (lambda s: s["param_groups"][0].update(lr=0.2), "a rate above that of the start"),
        (lambda s: s["state"].update({-1: s["state"][0]}), "no state of a parameter"),
        (lambda s: s["state"].update({"0": {}}), "no state of a parameter"),
        (lambda s: s["state"].update({1: {"step": 1}}), "no state of a parameter"),
        (lambda s: s["state"][0].update(exp_avg=1.0), "exp_avg is no tensor"),
        (lambda s: s["state"][0].update(exp_avg=torch.zeros(2, dtype=torch.cfloat)), "exp_avg is"),
        (lambda s: s["state"][0].update(exp_avg=torch.zeros(3)), "a state of another shape"),
        (lambda s: s["state"].update({7: s["state"][0]}), "index out of range"),
    ],
)
def test_the_state_of_another_optimizer_is_refused(spoil: Any, message: str) -> None:
    optimizer = _stepped()
    saved: Any = optimizer.state_dict()
    other = spoil(saved)
    with pytest.raises((TypeError, ValueError, KeyError, IndexError), match=message):
        check_optimizer(other if other == [] else saved, optimizer)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": ["lr"]},
        {"x": torch.zeros(2, dtype=torch.complex64)},
        {"step": -1},
        {"best_epoch": 0.5},
        {"step": "2"},
        {"step": 1 << 62},
        {"step": 11},  # of one epoch of ten steps
        {"best_epoch": 1},  # before the first step
        {"plateau": {}},
    ],
)
def test_checkpoints_with_something_else_in_them_are_refused(
    data: Cmapss, tmp_path: Path, changes: dict[str, Any]
) -> None:
    file = tmp_path / "run.ckpt"
    state = _Run(data, QUICK).state()
    save_checkpoint(file, state)
    _Run(data, QUICK).restore(load_checkpoint(file), str(file))
    save_checkpoint(file, {**state, **changes})
    with pytest.raises(InputError, match="damaged checkpoint"):
        _Run(data, QUICK).restore(load_checkpoint(file), str(file))
