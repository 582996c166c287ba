"""What campaigns train beyond GABA, GradNorm and fixed weights: peers, sample weights, precision."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_states import same_state  # noqa: E402

from gabactl import cmapss  # noqa: E402
from gabactl.base.errors import InputError  # noqa: E402
from gabactl.cmapss import Cmapss  # noqa: E402
from gabactl.law.spec import GabaSpec  # noqa: E402
from gabactl.nn.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from gabactl.nn.excitation import Excitation  # noqa: E402
from gabactl.nn.training.loop import Progress, train  # noqa: E402
from gabactl.nn.training.models import build_model  # noqa: E402
from gabactl.nn.training.settings import TrainingSettings  # noqa: E402
from gabactl.traces import read_trace  # noqa: E402

# 10 engines, 315 training windows with seed 0: 5 steps of 63 per epoch.
QUICK = TrainingSettings(
    epochs=3, batch_size=63, lr_warmup_epochs=1, spec=GabaSpec(warmup=4, beta=0.9), device="cpu"
)
PEERS = ("uncertainty", "dwa", "pcgrad", "cagrad")


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def data(tiny_cmapss: Path) -> Cmapss:
    return cmapss.load(tiny_cmapss, all_test_windows=True)


def settings_of(name: str) -> TrainingSettings:
    if name == "grace":
        return replace(QUICK, sample_weights="amnl")
    if name == "amnl":
        return replace(QUICK, balancer="fixed", sample_weights="amnl")
    if name == "cagrad":
        pytest.importorskip("cvxpy")
    pytest.importorskip("torchjd")
    return replace(QUICK, balancer=name)


@pytest.mark.parametrize(
    "name",
    [
        "uncertainty",
        "dwa",
        pytest.param("cagrad", marks=pytest.mark.slow),
        pytest.param("grace", marks=pytest.mark.slow),
        pytest.param("pcgrad", marks=pytest.mark.slow),
        pytest.param("amnl", marks=pytest.mark.slow),
    ],
)
def test_resumed_equals_uninterrupted(data: Cmapss, tmp_path: Path, name: str) -> None:
    settings = settings_of(name)
    whole = train(data, settings, record=tmp_path / "a.parquet", checkpoint=tmp_path / "a.ckpt")
    pieces = {"record": tmp_path / "b.parquet", "checkpoint": tmp_path / "b.ckpt"}

    def stop(now: Progress) -> None:
        if now.step in (7, 10):  # inside the second epoch, and at its end
            os.kill(os.getpid(), signal.SIGINT)

    assert train(data, settings, **pieces, on_step=stop).steps == 7
    assert train(data, settings, **pieces, on_step=stop, resume=True).steps == 10
    last = train(data, settings, **pieces, resume=True)
    assert last.test == whole.test
    assert last.rmse_all_windows == whole.rmse_all_windows
    assert last.rmse_test_selected == whole.rmse_test_selected
    a, b = (load_checkpoint(tmp_path / f"{n}.ckpt") for n in "ab")
    assert same_state(a, b)
    t, u = (read_trace(tmp_path / f"{n}.parquet") for n in "ab")
    assert t.measured.tolist()[4:] == [True] * 11  # GABA's warm-up is 4 steps
    for column in ("step", "grad_norms", "weights", "losses"):
        assert np.array_equal(getattr(t, column), getattr(u, column), equal_nan=True), column
    assert t.balancer == settings.balancer


def test_the_peers_differ_and_do_as_they_say(data: Cmapss, tmp_path: Path) -> None:
    weights = {}
    for name in PEERS:
        train(data, settings_of(name), record=tmp_path / f"{name}.parquet")
        weights[name] = read_trace(tmp_path / f"{name}.parquet").weights
    # Uncertainty weighting begins at exp(-0) / 2, and lowers the weight of the larger loss.
    assert weights["uncertainty"][0].tolist() == [0.5, 0.5]
    assert weights["uncertainty"][-1, 0] < weights["uncertainty"][-1, 1]
    # DWA is uniform for two epochs, then 2 softmax(rates / 2) for the whole third.
    assert np.all(weights["dwa"][:10] == 1.0)
    trace = read_trace(tmp_path / "dwa.parquet")
    rates = trace.losses[5:10].mean(axis=0) / trace.losses[:5].mean(axis=0)
    expected = 2 * np.exp(rates / 2) / np.exp(rates / 2).sum()
    assert weights["dwa"][10:] == pytest.approx(np.tile(expected, (5, 1)), rel=1e-5)
    # PCGrad keeps gradients that do not conflict, and adds to both weights where they do.
    assert np.all(weights["pcgrad"] >= 1.0)
    assert not np.array_equal(weights["pcgrad"], weights["cagrad"])


@pytest.mark.parametrize("scale", [1.0, 125.0])
def test_amnl_weighs_samples_by_their_age_in_cycles(
    data: Cmapss, tmp_path: Path, scale: float
) -> None:
    settings = replace(
        QUICK, balancer="fixed", sample_weights="amnl", target_scale=scale, steps=1, dropout=0.0
    )
    train(data, settings, record=tmp_path / "a.parquet")
    torch.manual_seed(0)
    model = build_model("small", dropout=0.0)
    first = np.random.default_rng([0, 0]).permutation(len(data.train))[:63]
    with torch.no_grad():
        predicted = model(torch.from_numpy(data.train.inputs[first]))[0].double().numpy()
    y = data.train.rul[first].astype(np.float64)
    weight = 1 + np.clip(1 - y / 125, 0, 1)
    assert weight.max() > 1.5
    recorded = read_trace(tmp_path / "a.parquet").losses[0, 0]
    assert recorded == pytest.approx(np.mean(weight * (predicted - y / scale) ** 2), rel=1e-5)


def test_the_test_engines_change_nothing(data: Cmapss, tmp_path: Path) -> None:
    other = replace(data.test, rul=data.test.rul[::-1].copy(), inputs=-data.test.inputs)
    for name, test in (("a", data.test), ("b", other)):
        train(
            replace(data, test=test),
            QUICK,
            record=tmp_path / f"{name}.parquet",
            checkpoint=tmp_path / f"{name}.ckpt",
        )
    a, b = (load_checkpoint(tmp_path / f"{n}.ckpt") for n in "ab")
    assert a.pop("best_test_rmse") != b.pop("best_test_rmse")
    assert same_state(a, b)


def test_the_best_test_error_outlives_an_interruption(data: Cmapss, tmp_path: Path) -> None:
    pieces = {"record": tmp_path / "a.parquet", "checkpoint": tmp_path / "a.ckpt"}
    train(data, replace(QUICK, epochs=1), **pieces)
    saved = load_checkpoint(tmp_path / "a.ckpt")
    # Better than any later epoch can be.
    saved["best_test_rmse"] = 0.5
    save_checkpoint(tmp_path / "a.ckpt", saved)
    assert train(data, replace(QUICK, epochs=2), **pieces, resume=True).rmse_test_selected == 0.5
    assert load_checkpoint(tmp_path / "a.ckpt")["best_test_rmse"] == 0.5


def test_last_windows_are_scored_beside_all(data: Cmapss, tiny_cmapss: Path) -> None:
    last = cmapss.load(tiny_cmapss)
    assert len(last.test) == 3 < len(data.test)
    a, b = train(data, QUICK), train(last, QUICK)
    assert a.test == b.test
    assert a.rmse_test_selected == b.rmse_test_selected <= a.test.rmse
    assert np.isfinite(a.rmse_all_windows)
    assert a.rmse_all_windows != a.test.rmse
    assert np.isnan(b.rmse_all_windows)


def test_bf16_is_autocast_and_the_balancer_stays_float32(data: Cmapss, tmp_path: Path) -> None:
    for name in ("float32", "bf16"):
        train(data, replace(QUICK, precision=name, steps=12), record=tmp_path / f"{name}.parquet")
    full, half = (read_trace(tmp_path / f"{n}.parquet") for n in ("float32", "bf16"))
    gap = np.abs(half.losses / full.losses - 1).max()
    assert 1e-6 < gap < 0.3
    assert half.metadata["training"]["precision"] == "bf16"
    # The same law on the norms that were measured, in float32.
    norms = half.grad_norms[half.measured]
    raw = norms[:, ::-1] / norms.sum(axis=1, keepdims=True)
    assert half.raw[half.measured] == pytest.approx(raw, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_weights": "AMNL"}, "sample_weights = 'AMNL' is unknown"),
        ({"precision": "fp16"}, "precision = 'fp16' is unknown"),
        ({"cagrad_c": 1.0}, "cagrad_c = 1.0 is not in"),
        ({"balancer": "magic"}, "balancer = 'magic' is unknown"),
        (
            {"balancer": "uncertainty", "excite": Excitation()},
            "log-variances would get no gradient",
        ),
    ],
)
def test_bad_settings_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(QUICK, **changes)


def test_a_checkpoint_of_an_earlier_release_resumes() -> None:
    before = QUICK.to_dict()
    for name in ("sample_weights", "precision", "cagrad_c"):
        del before[name]
    QUICK.refuse_other(before, "run.ckpt")
    with pytest.raises(InputError, match="sample_weights = 'none', not 'amnl'"):
        replace(QUICK, sample_weights="amnl").refuse_other(before, "run.ckpt")
