"""Training: resumable to the last bit, recorded without gaps, and honest about bad input."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_states import same_state

from gabactl import cmapss
from gabactl.base.devices import choose_device
from gabactl.base.errors import InputError
from gabactl.cmapss import Cmapss
from gabactl.law.spec import GabaSpec
from gabactl.nn import FixedLoss, GABALoss, GradNormLoss
from gabactl.nn.checkpoint import load_checkpoint, save_checkpoint
from gabactl.nn.excitation import Excitation
from gabactl.nn.losses.excited import ExcitedLoss
from gabactl.nn.training.build import build_loss
from gabactl.nn.training.loop import Progress, Score, train
from gabactl.nn.training.settings import TrainingSettings
from gabactl.traces import Trace, read_trace

# 10 engines, 315 training windows with seed 0: 10 steps of 30 per epoch.
QUICK = TrainingSettings(
    epochs=2,
    batch_size=30,
    lr_warmup_epochs=1,
    spec=GabaSpec(warmup=4, beta=0.9),
    device="cpu",
)


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def data(tiny_cmapss: Path) -> Cmapss:
    return cmapss.load(tiny_cmapss)


def stop_at(step: int) -> Callable[[Progress], None]:
    def on_step(now: Progress) -> None:
        if now.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return on_step


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        replace(QUICK, balancer="fixed", excite=Excitation(period=3, seed=5), lr_warmup_epochs=0),
        replace(QUICK, balancer="gradnorm", optimizer="sgd", lr=1e-4, clip=10.0),
    ],
    ids=["gaba", "fixed-excited", "gradnorm-sgd"],
)
def test_resumed_equals_uninterrupted(
    data: Cmapss, tmp_path: Path, settings: TrainingSettings
) -> None:
    whole = train(data, settings, record=tmp_path / "a.parquet", checkpoint=tmp_path / "a.ckpt")
    assert whole.stopped == "finished"
    assert whole.steps == 20
    pieces = {"record": tmp_path / "b.parquet", "checkpoint": tmp_path / "b.ckpt"}
    # Stopped inside an epoch, at the end of one, and twice.
    first = train(data, settings, **pieces, on_step=stop_at(7))
    assert first.interrupted
    assert first.steps == 7
    assert first.test is None
    second = train(data, settings, **pieces, resume=True, on_step=stop_at(10))
    assert second.steps == 10
    last = train(data, settings, **pieces, resume=True)
    assert last.stopped == "finished"
    assert last.test == whole.test
    assert last.validation_rmse == whole.validation_rmse
    a, b = (load_checkpoint(tmp_path / f"{n}.ckpt") for n in "ab")
    assert same_state(a, b)
    t, u = read_trace(tmp_path / "a.parquet"), read_trace(tmp_path / "b.parquet")
    assert u.step.tolist() == list(range(1, 21))
    assert not u.truncated
    for name in ("grad_norms", "raw", "ema", "weights", "losses", "excitation"):
        one, other = getattr(t, name), getattr(u, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert np.array_equal(one, other, equal_nan=True), name


def test_a_killed_run_resumes_from_an_older_checkpoint(data: Cmapss, tmp_path: Path) -> None:
    train(data, QUICK, record=tmp_path / "a.parquet")
    pieces = {"record": tmp_path / "b.parquet", "checkpoint": tmp_path / "b.ckpt"}

    def die(now: Progress) -> None:
        if now.step == 17:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(data, QUICK, **pieces, checkpoint_every=5, on_step=die)
    # The trace has gone on to step 17, the checkpoint is of step 15.
    assert read_trace(tmp_path / "b.arrows").step[-1] == 17
    assert load_checkpoint(tmp_path / "b.ckpt")["step"] == 15
    train(data, QUICK, **pieces, resume=True)
    t, u = read_trace(tmp_path / "a.parquet"), read_trace(tmp_path / "b.parquet")
    assert u.step.tolist() == list(range(1, 21))
    assert np.array_equal(t.losses, u.losses)
    assert np.array_equal(t.weights, u.weights)


@pytest.mark.parametrize("died_at", [0, 7])
def test_killed_before_the_first_checkpoint_it_starts(
    data: Cmapss, tmp_path: Path, died_at: int
) -> None:
    """At 0 there is not even a recording: a queue may give the same command from the start."""
    train(data, QUICK, record=tmp_path / "a.parquet")
    pieces = {"record": tmp_path / "b.parquet", "checkpoint": tmp_path / "b.ckpt"}

    def die(now: Progress) -> None:
        if now.step == died_at:
            raise RuntimeError("killed")

    if died_at:
        with pytest.raises(RuntimeError, match="killed"):
            train(data, QUICK, **pieces, on_step=die)
        assert read_trace(tmp_path / "b.arrows").step[-1] == died_at
    assert train(data, QUICK, **pieces, resume=True).steps == 20
    t, u = read_trace(tmp_path / "a.parquet"), read_trace(tmp_path / "b.parquet")
    assert u.step.tolist() == list(range(1, 21))
    assert not u.truncated
    assert np.array_equal(t.losses, u.losses)
    assert np.array_equal(t.weights, u.weights)


def test_a_finished_recording_is_not_started_anew(data: Cmapss, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    train(data, QUICK, record=file, checkpoint=tmp_path / "a.ckpt")
    before = file.read_bytes()
    with pytest.raises(InputError, match="no such checkpoint"):
        train(data, QUICK, record=file, checkpoint=tmp_path / "b.ckpt", resume=True)
    assert file.read_bytes() == before


def test_a_finished_run_can_be_extended(data: Cmapss, tmp_path: Path) -> None:
    pieces = {"record": tmp_path / "b.parquet", "checkpoint": tmp_path / "b.ckpt"}
    train(data, replace(QUICK, epochs=1), **pieces)
    train(data, QUICK, **pieces, resume=True)
    train(data, QUICK, record=tmp_path / "a.parquet")
    t, u = read_trace(tmp_path / "a.parquet"), read_trace(tmp_path / "b.parquet")
    assert np.array_equal(t.losses, u.losses)


def test_what_is_recorded_is_what_was_done(data: Cmapss, tmp_path: Path) -> None:
    from gabactl.law.controller import Controller

    result = train(data, QUICK, record=tmp_path / "a.parquet", command="gabactl cmapss train")
    trace = read_trace(tmp_path / "a.parquet")
    assert trace.spec == QUICK.spec
    assert trace.balancer == "gaba"
    for key in ("model", "data", "optimizer", "seed", "device", "versions", "command"):
        assert key in trace.metadata
    assert trace.metadata["training"]["batch_size"] == 30
    assert trace.measured.tolist() == [False] * 4 + [True] * 16
    # The NumPy reference, fed with the recorded norms, takes the recorded decisions.
    reference = Controller(QUICK.spec)
    for norms, measured, weights in zip(
        trace.grad_norms, trace.measured, trace.weights, strict=True
    ):
        expected = reference.observe(norms if measured else None)
        assert np.abs(expected - weights).max() < 5e-6
    assert result.record == tmp_path / "a.parquet"
    assert not (tmp_path / "a.arrows").exists()


def test_excited_weights_are_recorded_and_can_be_rebuilt(data: Cmapss, tmp_path: Path) -> None:
    excite = Excitation(amplitude=0.5, period=4, seed=2)
    settings = replace(QUICK, balancer="fixed", weights=(0.05, 0.95), excite=excite)
    traces = {}
    for name, e in (("up", excite), ("down", replace(excite, inverted=True))):
        train(data, replace(settings, excite=e), record=tmp_path / f"{name}.parquet")
        traces[name] = read_trace(tmp_path / f"{name}.parquet")
    up, down = traces["up"], traces["down"]
    assert np.array_equal(up.excitation, excite.sequence(20))
    assert np.array_equal(up.excitation, -down.excitation)
    logit = np.log(up.weights[:, 0] / up.weights[:, 1]) - np.log(0.05 / 0.95)
    assert np.abs(logit - up.excitation).max() < 1e-5
    assert np.abs(up.weights.sum(axis=1) - 1).max() < 1e-6
    assert Excitation.parse(up.metadata["excitation"]) == excite
    # Twins share everything up to the first perturbed update.
    assert np.array_equal(up.losses[0], down.losses[0])
    assert up.measured.all()


def test_excitation_leaves_the_controller_alone() -> None:
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    plain = GABALoss(warmup_steps=0, beta=0.9)
    excited = ExcitedLoss(GABALoss(warmup_steps=0, beta=0.9), Excitation(1.0, 1, 3))
    for _ in range(9):
        plain(30.0 * w[0], w[1], shared_params=[w])
        total = excited(30.0 * w[0], w[1], shared_params=[w])
        assert torch.equal(plain.ema_weights, excited.ema_weights)
        ratio = excited.applied_weights / plain.applied_weights
        assert (ratio[0] / ratio[1]).log().item() == pytest.approx(excited.excitation_now, abs=1e-5)
        assert total.item() == pytest.approx(
            (excited.applied_weights @ torch.tensor([30.0, 1.0])).item()
        )
    # In evaluation nothing moves and nothing is perturbed.
    before = excited.excitation_now
    with torch.no_grad():
        excited(30.0 * w[0], w[1], shared_params=[w])
    assert int(excited.step_count) == 9
    assert excited.excitation_now == before
    assert torch.equal(excited.applied_weights, plain.applied_weights)


def test_excitation_of_three_tasks_moves_the_first_against_the_rest() -> None:
    loss = ExcitedLoss(FixedLoss([0.2, 0.3, 0.5]), Excitation(0.7, 1, 0))
    loss.forward_k([torch.tensor(1.0)] * 3)
    w = loss.applied_weights.double()
    assert w.sum().item() == pytest.approx(1.0)
    assert (torch.logit(w[0]) - np.log(0.2 / 0.8)).item() == pytest.approx(0.7, abs=1e-5)
    assert (w[1] / w[2]).item() == pytest.approx(0.6)


def test_the_sequence_is_balanced_and_prefix_stable() -> None:
    e = Excitation(amplitude=0.5, period=50, seed=1)
    long = e.sequence(100_000)
    assert np.array_equal(e.sequence(777), long[:777])
    assert set(np.unique(long)) == {-0.5, 0.5}
    assert abs(long.mean()) < 0.05
    blocks = long.reshape(-1, 50)
    assert (blocks == blocks[:, :1]).all()
    assert (e.sequence(0) == []).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sine:amplitude=1",
        "prbs:amplitude=big",
        "prbs:period=1.5",
        "prbs:amplitude=0",
        "prbs:amplitude=nan",
        "prbs:amplitude=99",
        "prbs:period=0",
        "prbs:seed=-1",
        "prbs:phase=3",
        "prbs:inverted=1",
    ],
)
def test_bad_excitations_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="excitation"):
        Excitation.parse(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"subset": "FD009"},
        {"model": "huge"},
        {"balancer": "magic"},
        {"optimizer": "lion"},
        {"channels": 3},
        {"epochs": 0},
        {"steps": 0},
        {"patience": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"weight_decay": -1.0},
        {"momentum": 1.0},
        {"average": 1.0},
        {"clip": 0.0},
        {"dropout": 1.0},
        {"target_scale": 0.0},
        {"target_scale": -125.0},
        {"seed": -1},
        {"measure_every": -1},
        {"normalise_to": 2},
        {"weights": (1.0,)},
        {"weights": (0.0, 0.0)},
        {"weights": (-1.0, 2.0)},
        {"weights": (float("nan"), 1.0)},
        {"gradnorm_lr": 0.0},
        {"gradnorm_alpha": -1.0},
        {"gradnorm_variant": "other"},
        {"spec": GabaSpec(n_tasks=3)},
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        replace(QUICK, **changes)
    assert "\n" not in str(error.value)


def test_resuming_something_else_is_refused(data: Cmapss, tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    train(data, replace(QUICK, epochs=1), checkpoint=file)
    with pytest.raises(InputError, match=r"was trained with lr = 0\.001, not 0\.01"):
        train(data, replace(QUICK, lr=0.01), checkpoint=file, resume=True)
    with pytest.raises(InputError, match="spec"):
        train(data, replace(QUICK, spec=GabaSpec(floor=0.01)), checkpoint=file, resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        train(data, QUICK, resume=True)
    fewer = replace(
        data,
        train=replace(
            data.train,
            **{
                f: getattr(data.train, f)[:100]
                for f in ("inputs", "rul", "health", "true_rul", "unit", "cycle")
            },
        ),
    )
    with pytest.raises(InputError, match="315 windows, the data have 100"):
        train(fewer, QUICK, checkpoint=file, resume=True)


def test_damaged_and_hostile_checkpoints_are_refused(data: Cmapss, tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    train(data, replace(QUICK, steps=2), checkpoint=file)
    good = file.read_bytes()

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    evil = tmp_path / "evil.pt"
    torch.save({"format": "gabactl-training-checkpoint", "x": Evil()}, evil)
    for bytes_ in (
        good[: len(good) // 2],
        b"",
        b"junk" * 100,
        pickle.dumps(Evil(), 2),
        evil.read_bytes(),
    ):
        file.write_bytes(bytes_)
        with pytest.raises(InputError, match="not a readable checkpoint"):
            train(data, QUICK, checkpoint=file, resume=True)
    assert not (tmp_path / "pwned").exists()
    torch.save({"other": 1}, file)
    with pytest.raises(InputError, match="no checkpoint of `gabactl cmapss train`"):
        load_checkpoint(file)
    torch.save({"format": "gabactl-training-checkpoint", "version": 99}, file)
    with pytest.raises(InputError, match="version 99"):
        load_checkpoint(file)
    file.write_bytes(good)
    state = load_checkpoint(file)
    for key in ("model", "optimizer", "settings", "rng", "step"):
        broken = {k: v for k, v in state.items() if k not in (key, "format", "version")}
        save_checkpoint(file, broken)
        with pytest.raises(InputError, match="damaged checkpoint"):
            train(data, QUICK, checkpoint=file, resume=True)


def test_a_failed_save_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.ckpt"
    save_checkpoint(file, {"step": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(InputError, match="cannot be written"):
        save_checkpoint(file, {"step": 2})
    assert load_checkpoint(file)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]
    with pytest.raises(InputError, match="cannot be written"):
        save_checkpoint(tmp_path / "nowhere" / "run.ckpt", {})


def test_mismatched_data_and_large_batches_are_refused(data: Cmapss) -> None:
    with pytest.raises(InputError, match="the settings say FD001, 14, 1"):
        train(data, replace(QUICK, seed=1))
    with pytest.raises(InputError, match="more than the 315 training windows"):
        train(data, replace(QUICK, batch_size=512))
    with pytest.raises(InputError, match="checkpoint_every = 0"):
        train(data, QUICK, checkpoint_every=0)


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(InputError, match="is unknown"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="not available here"):
            choose_device("cuda")
    with pytest.raises(InputError, match="not available here"):
        choose_device("meta")


def test_balancers_are_built_as_asked() -> None:
    cpu = torch.device("cpu")
    gaba = build_loss(replace(QUICK, normalise_to="n_tasks"), cpu)
    assert isinstance(gaba, GABALoss)
    assert gaba.spec == QUICK.spec
    assert gaba.normalise_to == "n_tasks"
    fixed = build_loss(replace(QUICK, balancer="fixed", weights=(0.1, 0.9), measure_every=7), cpu)
    assert isinstance(fixed, FixedLoss)
    assert fixed.measure_every == 7
    assert fixed.task_weights.tolist() == pytest.approx([0.1, 0.9])
    gradnorm = build_loss(
        replace(QUICK, balancer="gradnorm", gradnorm_variant="textbook", gradnorm_alpha=0.5), cpu
    )
    assert isinstance(gradnorm, GradNormLoss)
    assert (gradnorm.variant, gradnorm.alpha) == ("textbook", 0.5)


def test_the_learning_rate_warms_up_then_follows_the_plateau(data: Cmapss) -> None:
    from gabactl.nn.training.loop import _Run

    run = _Run(data, replace(QUICK, lr_warmup_epochs=10))
    seen = []
    for epoch in range(13):
        run.step = epoch * run.steps_per_epoch
        run._set_lr()
        seen.append(run.optimizer.param_groups[0]["lr"])
    expected = [1e-3 * (0.1 + 0.09 * e) for e in range(10)] + [1e-3] * 3
    assert seen == pytest.approx(expected)
    # The published plateau: after 30 epochs without improvement, half.
    for _ in range(32):
        run.plateau.step(10.0)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)


def test_every_epoch_has_its_own_order(data: Cmapss) -> None:
    from gabactl.nn.training.loop import _Run

    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        run = _Run(replace(data, seed=seed), replace(QUICK, seed=seed))
        run.step = epoch * run.steps_per_epoch + 3
        orders.append(run._order().tolist())
        assert sorted(orders[-1]) == list(range(len(data.train)))
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_averaged_weights_are_the_stated_average(data: Cmapss) -> None:
    from gabactl.nn.training.loop import _Run

    run = _Run(data, replace(QUICK, average=0.5))
    order = run._order()
    name = "rul_head.0.weight"
    expected = run.average.model.state_dict()[name].clone()
    for step in range(1, 13):
        run._step(order[:32])
        decay = min(0.5, step / (9 + step))
        expected = decay * expected + (1 - decay) * run.model.state_dict()[name]
    assert torch.allclose(run.average.model.state_dict()[name], expected, atol=1e-6)
    # A short average forgets its start at once.
    assert int(run.average.model.state_dict()["conv.1.num_batches_tracked"]) == 12


def test_early_stopping(data: Cmapss) -> None:
    from gabactl.nn.training.loop import _Run

    run = _Run(data, replace(QUICK, epochs=50, patience=3))
    # Better until epoch 2, then no more.
    for epoch, error in enumerate([20.0, 15.0, 15.0, 16.0, 15.5], start=1):
        run._score = lambda _, e=error: Score(e, 0, 0, 0, 0)  # type: ignore[method-assign]
        run.step = epoch * run.steps_per_epoch
        run._finish_epoch()
        assert run._ended() == ("stopped early" if epoch == 5 else "")
    assert (run.best_epoch, run.best_rmse) == (2, 15.0)


def test_divergence_ends_the_run(data: Cmapss) -> None:
    from gabactl.nn.training.loop import _Run

    run = _Run(data, replace(QUICK, epochs=50, balancer="fixed", measure_every=0))
    run.model.rul_head[0].weight.data.fill_(float("nan"))
    assert run.loop(500, lambda: False, None) == "diverged"
    assert run.epoch == 1


def test_a_dead_output_is_said(data: Cmapss) -> None:
    from gabactl.nn.training.loop import _Run

    result = train(data, replace(QUICK, steps=3))
    assert not result.rul_output_off
    run = _Run(data, replace(QUICK, steps=3))
    run.model.rul_head[-2].bias.data.fill_(-1e4)
    run.loop(500, lambda: False, None)
    assert run.rul_output_off()
    assert "warning" in str(replace(result, rul_output_off=True))


def test_units_scale_the_ratio(data: Cmapss, tmp_path: Path) -> None:
    # The gradient of the mean square error goes with prediction - target. At the start the
    # prediction is about 1; targets average 35 cycles here, or 0.28 when divided by 125.
    ratios = {}
    for scale in (1.0, 125.0):
        settings = replace(QUICK, balancer="fixed", target_scale=scale, steps=10)
        file = tmp_path / f"{scale:g}.parquet"
        result = train(data, settings, record=file)
        g = read_trace(file).grad_norms
        ratios[scale] = np.median(g[:, 0] / g[:, 1])
        assert result.test is not None
    assert ratios[1.0] / ratios[125.0] > 10


def test_predictions_are_tested_in_cycles(data: Cmapss) -> None:
    from gabactl.nn.training.loop import _Run

    scores = {}
    for scale in (1.0, 125.0):
        run = _Run(data, replace(QUICK, target_scale=scale))
        last = run.average.model.rul_head[-2]
        last.weight.data.zero_()
        last.bias.data.fill_(60.0 / scale)
        scores[scale] = run.test(data.test)
    # Test engines have 20, 70 and 120 cycles left; 60 is predicted for each.
    assert scores[1.0].rmse == pytest.approx(np.sqrt((40**2 + 10**2 + 60**2) / 3), rel=1e-6)
    assert scores[125.0].rmse == pytest.approx(scores[1.0].rmse, rel=1e-5)
    expected = (np.exp(4.0) - 1) + (np.exp(10 / 13) - 1) + (np.exp(60 / 13) - 1)
    assert scores[1.0].nasa == pytest.approx(expected, rel=1e-5)


def test_runs_are_reproducible_and_seeds_differ(data: Cmapss, tmp_path: Path) -> None:
    def losses(seed: int, name: str) -> np.ndarray:
        examples = replace(data, seed=seed)
        train(examples, replace(QUICK, steps=5, seed=seed), record=tmp_path / f"{name}.parquet")
        trace: Trace = read_trace(tmp_path / f"{name}.parquet")
        assert trace.losses is not None
        return trace.losses

    assert np.array_equal(losses(0, "a"), losses(0, "b"))
    assert not np.array_equal(losses(0, "c"), losses(1, "d"))


def test_training_learns(data: Cmapss) -> None:
    settings = replace(QUICK, balancer="fixed", measure_every=0, epochs=12, lr=3e-3)
    result = train(data, settings)
    # Predicting the mean gives about 20 cycles on these engines of 50 to 80 cycles.
    assert result.validation_rmse < 12


@pytest.mark.cmapss
def test_one_step_on_real_data(cmapss_dir: Path, tmp_path: Path) -> None:
    real = cmapss.load(cmapss_dir, "FD001")
    result = train(real, TrainingSettings(steps=8, balancer="fixed"), record=tmp_path / "r.parquet")
    assert result.steps == 8
    g = read_trace(tmp_path / "r.parquet").grad_norms
    ratio = np.median(g[:, 0] / g[:, 1])
    # With RUL in cycles the squared error's gradient is hundreds of times the cross-entropy's.
    assert 50 < ratio < 5000


@pytest.mark.slow
@pytest.mark.cmapss
def test_real_training_reaches_a_plausible_error(cmapss_dir: Path) -> None:
    real = cmapss.load(cmapss_dir, "FD001")
    result = train(real, TrainingSettings(epochs=12, balancer="fixed", measure_every=0))
    assert result.test is not None
    # Networks of this kind reach 12 to 18 cycles on FD001.
    assert result.test.rmse < 20


def test_a_trace_that_ends_before_the_checkpoint_is_not_continued(
    data: Cmapss, tmp_path: Path
) -> None:
    pieces = {"record": tmp_path / "b.parquet", "checkpoint": tmp_path / "b.ckpt"}
    train(data, replace(QUICK, steps=3), record=tmp_path / "b.parquet")
    train(data, replace(QUICK, steps=6), checkpoint=tmp_path / "b.ckpt")
    with pytest.raises(InputError, match="ends at step 3, the checkpoint is of step 6"):
        train(data, QUICK, **pieces, resume=True)
