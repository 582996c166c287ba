"""``torch.compile`` of the model: same weights, and a clear word about donated buffers."""

import shutil
import tempfile

import pytest
import torch
import torch._functorch.config
from oracles.toys import t1008

from gabactl.base.errors import InputError
from gabactl.nn import GABALoss, get_shared_params
from gabactl.nn.sensors.norms import task_gradients


def run(compiled, how, backend, part="backbone"):
    model, data = t1008()
    shared = get_shared_params(model)
    if compiled:
        setattr(model, part, torch.compile(getattr(model, part), backend=backend))
    loss_fn = GABALoss(warmup_steps=1, beta=0.8, interval=2)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(6):
        optimiser.zero_grad()
        losses = model.losses(*data)
        if how == "full":
            loss_fn.forward_k(losses, shared).backward()
        else:
            loss_fn.backward(losses, shared)
        optimiser.step()
    return loss_fn, torch.cat([p.detach().reshape(-1) for p in shared])


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("how", ["full", "reuse"])
def test_compiled_equals_eager(how):
    eager, parameters = run(False, how, None)
    with torch._functorch.config.patch(donated_buffer=False):
        compiled, got = run(True, how, "aot_eager")
    assert torch.allclose(compiled.ema_weights, eager.ema_weights, rtol=1e-5)
    assert torch.allclose(got, parameters, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the inductor back end needs g++")
@pytest.mark.skipif(
    len(f"{torch.__file__} {tempfile.gettempdir()}".split()) > 2,
    reason="the inductor back end takes no folder with a blank in its name",
)
def test_the_default_back_end():
    for how in ("full", "reuse"):
        eager, parameters = run(False, how, None)
        with torch._functorch.config.patch(donated_buffer=False):
            compiled, got = run(True, how, "inductor")
        assert torch.allclose(compiled.ema_weights, eager.ema_weights, rtol=1e-4)
        assert torch.allclose(got, parameters, rtol=1e-4, atol=1e-5)


def test_donated_buffers_get_a_clear_word():
    with (
        torch._functorch.config.patch(donated_buffer=True),
        pytest.raises(InputError, match="donated_buffer = False"),
    ):
        run(True, "full", "aot_eager")


def test_other_errors_pass_through():
    w = torch.ones((), requires_grad=True)
    loss = w * w
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        task_gradients(loss, [w])


def test_no_graph_break_in_the_stages():
    # The controller's arithmetic compiles as one graph.
    from gabactl.law.floors import FLOORS
    from gabactl.law.spec import GabaSpec
    from gabactl.law.stages import follow, raw_weights, saturate, usable

    for mode in FLOORS:
        spec = GabaSpec(floor_mode=mode)

        def stages(g, ema, spec=spec):
            raw = raw_weights(g, spec.law, spec.guard)
            ema = follow(ema, raw, spec.beta, spec.interval, spec.floor, spec.floor_mode)
            ema = torch.where(usable(g, spec.law), ema, 0.5)
            return saturate(ema, spec.floor, spec.floor_mode)

        g, ema = torch.tensor([30.0, 1.0]), torch.tensor([0.4, 0.6])
        compiled = torch.compile(stages, backend="eager", fullgraph=True)
        assert torch.equal(compiled(g, ema), stages(g, ema))
