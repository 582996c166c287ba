"""What losses, sensors and integrations refuse, and what they do at their edges."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.nn import (
    EventSensor,
    FixedLoss,
    GABALoss,
    GradNormLoss,
    LastLayerSensor,
    TraceRecorder,
    compute_task_grad_norm,
)
from gabactl.nn.checkpoint import load_tensors
from gabactl.nn.excitation import Excitation
from gabactl.nn.integrations.accelerate import backward
from gabactl.nn.losses.base import BalancedLoss
from gabactl.nn.losses.excited import ExcitedLoss
from gabactl.nn.losses.gradnorm import _are_all_shared
from gabactl.nn.recording.monitor import BoardMonitor
from gabactl.nn.sensors import base, proxy
from gabactl.nn.sensors.calibration import calibrate
from gabactl.nn.sensors.gradients import add_to_grad, each_task
from gabactl.nn.sensors.trigger import EventTrigger
from gabactl.traces import TraceWriter

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def two_losses(w):
    return [3.0 * w[0], 1.0 * w[1]]


def ones(**options):
    return torch.ones(2, requires_grad=True, **options)


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GABALoss(normalise_to=2), r"^normalise_to = 2 is unknown: choose 1 or 'n_tasks'$"),
        (lambda: GABALoss(normalise_to=True), r"^normalise_to = True is unknown"),
        (lambda: FixedLoss(measure_every=-1), r"^measure_every = -1 is not a whole number >= 0: 0 measures never"),
        (lambda: compute_task_grad_norm(ones().sum(), []), r"^shared_params is empty: pass the"),
        (
            lambda: compute_task_grad_norm(torch.ones(()), [ones()]),
            r"^the loss needs no gradient: compute it from the model",
        ),
        (lambda: EventSensor().trigger, r"^this sensor belongs to no loss: GABALoss\(sensor"),
        (lambda: EventTrigger(2, 0.1, 1.0).bound(-1.0), r"^rate = -1.0 is not a number >= 0"),
        (lambda: EventTrigger(2, 0.1, 1.0).bound(math.inf), r"^rate = inf is not a number >= 0"),
        (
            lambda: backward(
                SimpleNamespace(distributed_type="DistributedType.DEEPSPEED"), GABALoss(),
                two_losses(ones()), [ones()], reuse=True,
            ),
            r"^reuse does not work with DistributedType.DEEPSPEED, which runs backward itself",
        ),
    ],
)  # fmt: skip
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_pole_of_one_in_float32_is_refused_until_the_loss_is_in_double(tmp_path):
    loss_fn = GABALoss(beta=1.0 - 1e-9, warmup_steps=0)
    w = ones()
    with pytest.raises(InputError, match=r"is 1 in float32.*: call double\(\) on the loss"):
        loss_fn.forward_k(two_losses(w), [w])
    w = ones(dtype=torch.float64)
    loss_fn.double().forward_k(two_losses(w), [w])
    assert loss_fn.ema_weights[0] < 0.5


def test_micro_batches_that_reach_other_parameters_are_refused():
    w, extra = ones(), ones()
    loss_fn = GABALoss(warmup_steps=0)
    loss_fn.backward(two_losses(w), [w], micro_batches=2)
    with pytest.raises(InputError, match="the micro-batches of one step reach different param"):
        loss_fn.backward([3.0 * w[0] + extra.sum(), w[1]], [w], micro_batches=2)


def test_a_recorder_takes_parameters_and_no_yes(tmp_path):
    with pytest.raises(InputError, match="pass the named parameters, as in a dict"):
        TraceRecorder(tmp_path / "run.parquet", GABALoss(), param_norms=True)
    assert not any(tmp_path.iterdir())


def test_sharded_parameters_need_their_module_and_one_reduction(monkeypatch):
    w = ones()
    monkeypatch.setattr(base, "is_sharded", lambda tensor: True)
    with pytest.raises(InputError, match="sharded: pass the module, as in"):
        base.exact_norms(two_losses(w), [w], base.Context())
    model = torch.nn.Linear(2, 2)
    for reduce, weighted in (("mean_of_norm", False), ("norm_of_mean", True)):
        context = base.Context(reducer=SimpleNamespace(reduce=reduce, weighted=weighted))
        with pytest.raises(InputError, match="are reduced by their module, all ranks alike"):
            list(each_task(two_losses(w), [w], context, retain_last=False, module=model))


# -- losses ----------------------------------------------------------------------------------------


def test_a_loss_without_memory_of_its_own_yet_gets_it_later():
    saved = GABALoss(beta=0.5, warmup_steps=0)
    w = ones()
    saved.forward_k(two_losses(w), [w])
    with torch.device("meta"):
        empty = GABALoss(beta=0.5, warmup_steps=0)
    assert empty.step_count.is_meta
    empty.load_state_dict(saved.state_dict(), assign=True)
    assert torch.equal(empty.ema_weights, saved.ema_weights)
    with torch.device("meta"):
        other = GABALoss(beta=0.5, warmup_steps=0)
    # Of a tensor without memory nothing can be copied.
    with pytest.warns(UserWarning, match="meta"):
        other.load_state_dict(saved.state_dict())
    other.to_empty(device="cpu")
    other.load_state_dict(saved.state_dict())
    for loss_fn in (empty, other):
        loss_fn.forward_k(two_losses(w), [w])
        assert loss_fn.step_count == 2


def test_buffers_follow_the_gradients():
    """To another device, for which the meta device stands, as it is everywhere."""
    w = ones(device="meta")
    loss_fn = GABALoss()
    loss_fn._follow(w.device)
    assert loss_fn.ema_weights.is_meta
    gradnorm = GradNormLoss()
    gradnorm.forward_k(two_losses(w), [w])
    assert gradnorm.task_weights.is_meta
    sensor = LastLayerSensor([w], recalibrate_every=1)
    sensor.check(GabaSpec())
    sensor.due(1, GabaSpec(warmup=0), two_losses(w))
    sensor.read(two_losses(w), [w], base.Context())
    assert sensor.log_bias.is_meta


def test_fixed_weights_in_evaluation_count_no_step():
    loss_fn = FixedLoss([0.25, 0.75], measure_every=1).eval()
    w = ones()
    with torch.no_grad():
        assert float(loss_fn.forward_k(two_losses(w), [w])) == 1.5
    assert loss_fn.step_count == 0
    assert not loss_fn.measured_this_step


def test_gradnorm_leaves_out_what_a_loss_does_not_reach():
    w, unreached = ones(), ones()
    with_it, without = GradNormLoss(lr=0.1), GradNormLoss(lr=0.1)
    for _ in range(3):
        with_it.forward_k(two_losses(w), [w, unreached])
        without.forward_k(two_losses(w), [w])
    assert torch.equal(with_it.task_weights, without.task_weights)


def test_parameters_that_are_made_of_others_are_not_all_that_is_shared():
    w = ones()
    assert _are_all_shared(two_losses(w), [w])
    made = 2.0 * w
    assert not _are_all_shared(two_losses(made), [made])


def test_the_state_of_a_loss_without_buffers_is_a_plain_number():
    assert GABALoss().double()._state().dtype == torch.float64
    assert FixedLoss()._state().shape == (2,)
    assert BalancedLoss(2)._state().shape == ()


# -- sensors -----------------------------------------------------------------------------------------


def test_calibration_stops_at_so_many_batches():
    w = ones()
    taken = []

    def batches():
        for i in range(9):
            taken.append(i)
            yield float(i + 1)

    model = torch.nn.Linear(2, 2, bias=False)
    sensor = LastLayerSensor([w])
    found = calibrate(
        model, batches(), lambda _, x: [x * w[0], w[1]], sensor, shared_params=[w], max_batches=3
    )
    assert found.batches == 3
    assert len(taken) <= 4


def test_gradients_that_are_none_leave_what_is_there():
    w, other = ones(), ones()
    w.grad = torch.tensor([1.0, 2.0])
    add_to_grad([w, other], [None, torch.ones(2)])
    assert w.grad.tolist() == [1.0, 2.0]
    assert other.grad.tolist() == [1.0, 1.0]


def test_a_trend_learns_nothing_from_norms_that_are_none():
    trigger = EventTrigger(2, 0.1, 1.0)
    trigger.took(1, [3.0, 1.0])
    before = trigger.state()
    for step, norms in ((2, [math.inf, 1.0]), (3, [3.0, 0.0]), (4, [math.nan, 1.0])):
        trigger.took(step, norms)
        after = trigger.state()
        changed = {name for name in after if after[name] != before[name]}
        assert changed <= {"tokens", "last"}


def test_a_sensor_that_moves_to_another_loss_keeps_its_state():
    sensor = EventSensor(budget=0.1, reading_cost=0.6)
    GABALoss(sensor=sensor, warmup_steps=0)
    sensor.took(1, torch.tensor([3.0, 1.0]))
    state = sensor.get_extra_state()
    sensor.check(GabaSpec())
    assert sensor.get_extra_state() == state
    # Micro-batches after the first ask without looking at the losses again.
    sensor.due(2, GabaSpec(warmup=0), [torch.tensor(2.0), torch.tensor(1.0)])
    assert sensor.get_extra_state()["before"] == [2.0, 1.0]
    sensor.due(3, GabaSpec(warmup=0), [torch.tensor(9.0), torch.tensor(9.0)], alone=False)
    assert sensor.get_extra_state()["before"] == [2.0, 1.0]
    sensor.set_extra_state({**state, "before": None})
    assert sensor.get_extra_state()["before"] is None


def test_losses_on_their_way_from_a_device_are_waited_for():
    sensor = EventSensor()
    waited = []
    sensor._fetching = (
        torch.tensor([2.0, 1.0]), SimpleNamespace(synchronize=lambda: waited.append(1))
    )  # fmt: skip
    assert sensor._fetched() == [2.0, 1.0]
    assert waited == [1]


# -- integrations ---------------------------------------------------------------------------------


def test_a_figure_without_weights_has_no_legend_below(tmp_path):
    drawn = []
    writer = SimpleNamespace(
        add_scalar=lambda *a: None, add_figure=lambda name, figure, step: drawn.append(figure)
    )
    recorder = TraceWriter(tmp_path / "run.arrows", ["a", "b"], groups=["grad_norm"])
    recorder.append({"step": [1], "grad_norm_a": [5.0], "grad_norm_b": [2.0]})
    BoardMonitor(writer, recorder, every=1).update()
    recorder.close()
    (figure,) = drawn
    bottom = figure.axes[1]
    assert bottom.get_legend() is None
    assert bottom.get_ylabel() == "applied weight"


class _Trainer:
    """What the mixin needs of a Trainer to save and to load."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def _save_checkpoint(self, model, trial):
        self.saved = True

    def _load_from_checkpoint(self, folder):
        self.loaded = True

    def _get_output_dir(self, trial):
        return self.folder


def _mixed(tmp_path, reuse=False, should_save=True, scaler=None):
    from gabactl.nn.integrations.transformers import BalancedTrainerMixin

    class Trainer(BalancedTrainerMixin, _Trainer):
        pass

    return Trainer(
        balancer=GABALoss(),
        reuse=reuse,
        folder=str(tmp_path),
        args=SimpleNamespace(should_save=should_save, device="cpu"),
        state=SimpleNamespace(global_step=3),
        accelerator=SimpleNamespace(scaler=scaler),
    )


def test_only_the_rank_that_saves_writes_the_balancer(tmp_path):
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    _mixed(tmp_path, should_save=False)._save_checkpoint(None, None)
    assert not any(folder.iterdir())
    trainer = _mixed(tmp_path)
    trainer._save_checkpoint(None, None)
    (file,) = folder.iterdir()
    assert "ema_weights" in load_tensors(file)
    trainer._load_from_checkpoint(str(folder))
    assert trainer.loaded


def test_checkpoints_without_a_balancer_or_with_something_else_are_refused(tmp_path):
    trainer = _mixed(tmp_path)
    with pytest.raises(InputError, match="resume from a checkpoint this trainer has written"):
        trainer._load_from_checkpoint(str(tmp_path))
    file = tmp_path / trainer._FILE
    for state in ([1, 2], {"ema_weights": torch.zeros(2, dtype=torch.complex64)}):
        torch.save(state, file)
        with pytest.raises(InputError, match="not the state of a balancer: resume from another"):
            trainer._load_from_checkpoint(str(tmp_path))


def test_reuse_and_a_gradient_scaler_do_not_go_together(tmp_path):
    trainer = _mixed(tmp_path, reuse=True, scaler=object())
    with pytest.raises(InputError, match="reuse does not work with fp16 scaling"):
        trainer.training_step(torch.nn.Linear(1, 1), {})


# -- peers ----------------------------------------------------------------------------------------


class TestPeers:
    @pytest.fixture(autouse=True)
    def _torchjd(self):
        pytest.importorskip("torchjd")

    def test_a_combined_loss_measures_for_the_record_only(self):
        from gabactl.nn.losses.peers import ScalarizedLoss

        w = ones()
        loss_fn = ScalarizedLoss("uncertainty", measure_every=2)
        seen = []
        for _ in range(4):
            loss_fn.forward_k(two_losses(w), [w])
            seen.append(loss_fn.measured_this_step)
        assert seen == [True, False, True, False]
        assert loss_fn._last_grad_norms.tolist() == [3.0, 1.0]
        assert loss_fn.describe_sensor() == {"name": "full", "coasts": False, "interval": 2}
        assert ScalarizedLoss("uncertainty").describe_sensor() is None
        assert loss_fn._state().shape == ()
        weights = loss_fn.applied_weights
        total = loss_fn.eval().forward_k(two_losses(w), [w])
        assert float(total.detach()) == pytest.approx(float(weights[0] * 3.0 + weights[1]))
        assert loss_fn.step_count == 4

    def test_refusals(self, monkeypatch):
        from gabactl.nn.losses.peers import GramianLoss, ScalarizedLoss

        with pytest.raises(InputError, match=r"^measure_every = -1 is not a whole number"):
            ScalarizedLoss("uncertainty", measure_every=-1)
        for kind in (ScalarizedLoss, GramianLoss):
            with pytest.raises(InputError, match="'nothing'"):
                kind("nothing")
        loss_fn = ScalarizedLoss("dwa")
        loss_fn.scalarizer = torch.nn.Identity()  # of a torchjd that keeps it elsewhere
        with pytest.raises(InputError, match="keeps the history of dwa elsewhere"):
            loss_fn.get_extra_state()

    def test_an_optimizer_of_something_else_is_no_history_of_famo(self):
        from gabactl.nn.losses.peers import ScalarizedLoss

        state = ScalarizedLoss("famo").get_extra_state()
        assert state["_optimizer"] is None
        with pytest.raises(InputError, match="the saved optimizer is none of famo"):
            ScalarizedLoss("famo").set_extra_state({**state, "_optimizer": {"state": {}}})


def test_parts_to_be_filled_in_say_so():
    class Bare(BalancedLoss):
        pass

    loss_fn = Bare(2)
    assert loss_fn.describe_sensor() is None
    with pytest.raises(NotImplementedError):
        loss_fn.forward_k([])
    assert loss_fn.applied_weights.tolist() == [0.5, 0.5]
    for sensor, ask in ((base.Sensor(), "read"), (proxy.ProxySensor(), "cheap_norms")):
        with pytest.raises(NotImplementedError):
            getattr(sensor, ask)([], [], base.Context())


def test_weights_before_the_first_call_are_those_of_the_state():
    assert GradNormLoss().applied_weights.tolist() == [1.0, 1.0]
    excited = ExcitedLoss(FixedLoss([0.25, 0.75]), Excitation())
    assert excited.applied_weights.tolist() == [0.25, 0.75]


def test_what_is_printed_of_a_loss_and_its_sensor():
    told = repr(GABALoss(task_names=["a", "b"], sensor=EventSensor(budget=0.05)))
    assert "floor=0.05" in told
    assert "tasks=['a', 'b']" in told
    assert "EventSensor(budget=0.05, tolerance=0.02)" in told
    assert "recalibrate_every=7" in repr(LastLayerSensor([ones()], recalibrate_every=7))


def test_what_a_budget_of_readings_promises():
    sensor = EventSensor(budget=0.1, reading_cost=0.6)
    GABALoss(sensor=sensor)
    told = sensor.bound(0.002).to_dict()
    assert told["budget"] == 0.1
    assert told == EventTrigger(2, 0.1, 0.6).bound(0.002).to_dict()


def test_a_recorder_that_cannot_end_adds_that_to_the_error(tmp_path, monkeypatch):
    def recorder(name):
        return TraceRecorder(tmp_path / name, GABALoss())

    def full(*_, **__):
        raise InputError("run.arrows: cannot be written (No space left on device)")

    def fails(run):
        with run:
            monkeypatch.setattr(run, "flush", full)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fails(recorder("a.parquet"))
    assert caught.value.__notes__ == [
        "and the recording: run.arrows: cannot be written (No space left on device)"
    ]
    run = recorder("b.parquet")
    monkeypatch.setattr(run, "flush", full)
    with pytest.raises(InputError, match="No space"):
        run.close()
    # What was flushed before stays, for a resume.
    assert (tmp_path / "b.arrows").exists()


def test_a_state_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\)"):
        load_tensors(tmp_path / "none.pt")


def test_norms_are_those_of_numpy():
    w = ones()
    assert float(compute_task_grad_norm((w * torch.tensor([3.0, 4.0])).sum(), [w])) == 5.0
    assert np.isfinite(GABALoss().applied_weights.numpy()).all()
