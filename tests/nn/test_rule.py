"""A rule of three methods gets everything else from the machine: readings, reuse, recording, resume."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from gabactl.law.spec import GabaSpec  # noqa: E402
from gabactl.nn import EventSensor, TraceRecorder  # noqa: E402
from gabactl.nn.losses.reusing import ReusingLoss  # noqa: E402
from gabactl.traces import read_trace  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Integral(ReusingLoss):
    """Integral control of the log-contributions: any rule that is not GABA's."""

    def __init__(self, gain=0.1, n_tasks=2, **more):
        super().__init__(GabaSpec(n_tasks, warmup=2), **more)
        self.gain = gain
        self.register_buffer("log_weights", torch.zeros(n_tasks))
        self.coasted = 0

    def _take(self, norms):
        error = norms.log() + self.log_weights
        self.log_weights -= self.gain * (error - error.mean())
        return self._weights()

    def _weights(self):
        return self.log_weights.softmax(0)

    def _coast(self):
        self.coasted += 1


def model_and_batches(steps=6):
    torch.manual_seed(0)
    model = torch.nn.ModuleList(
        [torch.nn.Linear(4, 3), torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)]
    )
    return model, torch.randn(steps, 8, 4)


def losses_of(model, x):
    z = model[0](x).tanh()
    return [50.0 * model[1](z).pow(2).mean(), model[2](z).pow(2).mean()]


def train(loss_fn, reuse=False, micro=1, recorder=None, batches=slice(None), state=None):
    model, data = model_and_batches()
    if state is not None:
        model.load_state_dict(state)
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    shared = list(model[0].parameters())
    for x in data[batches]:
        sgd.zero_grad()
        for part in x.chunk(micro):
            losses = losses_of(model, part)
            if reuse:
                loss_fn.backward(losses, shared, micro_batches=micro)
            else:
                loss_fn.forward_k(losses, shared).backward()
        sgd.step()
        if recorder is not None:
            recorder.log(losses)
    return model.state_dict()


def close(a, b):
    return all(torch.allclose(a[k], b[k], rtol=1e-5, atol=1e-7) for k in a)


def test_it_measures_after_its_warm_up_and_moves_the_weights():
    loss_fn = Integral()
    train(loss_fn, batches=slice(2))
    assert loss_fn.applied_weights.tolist() == [0.5, 0.5]
    assert not loss_fn.measured_this_step
    train(loss_fn, batches=slice(2, 6))
    assert loss_fn.measured_this_step
    assert loss_fn.applied_weights[0] < 0.4


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_the_reusing_backward_is_the_same_update(micro):
    plain, reusing = Integral(), Integral()
    assert close(train(plain), train(reusing, reuse=True, micro=micro))
    assert torch.allclose(plain.log_weights, reusing.log_weights, atol=1e-6)
    assert reusing.step_count == 6
    assert not reusing.accumulating


def test_it_is_recorded(tmp_path):
    loss_fn = Integral()
    with TraceRecorder(tmp_path / "run.parquet", loss_fn) as recorder:
        train(loss_fn, recorder=recorder)
    trace = read_trace(tmp_path / "run.parquet")
    assert trace.measured.tolist() == [False, False, True, True, True, True]
    assert trace.weights[-1].tolist() == loss_fn.applied_weights.double().tolist()
    assert trace.metadata["balancer"] == "Integral"


def test_a_resumed_run_is_the_same_to_the_bit():
    whole, first, second = Integral(), Integral(), Integral()
    expected = train(whole)
    state = train(first, batches=slice(4))
    second.load_state_dict(first.state_dict())
    got = train(second, batches=slice(4, 6), state=state)
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    assert torch.equal(whole.log_weights, second.log_weights)


def test_it_coasts_between_the_readings_of_a_sensor_that_does():
    loss_fn = Integral(sensor=EventSensor(budget=0.1, reading_cost=0.6))
    train(loss_fn)
    assert loss_fn.coasted == 3  # the third step reads, and nothing is saved up for another


def test_half_precision_leaves_its_state_alone():
    assert Integral().half().log_weights.dtype == torch.float32
    assert Integral().double().log_weights.dtype == torch.float64
