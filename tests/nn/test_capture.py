"""CUDA graphs: what can be captured is, and what cannot says so."""

import pytest
import torch
from oracles.toys import t1008

import gabactl.nn.losses.base
from gabactl.base.errors import InputError
from gabactl.nn import (
    EventSensor,
    FixedLoss,
    GABALoss,
    LastLayerSensor,
    RepresentationSensor,
    get_shared_params,
)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def last(model):
    return model.backbone[2].parameters()


class TestRefusals:
    """On a CPU the capture is pretended: what is asked is whether all steps are alike."""

    def step(self, make, monkeypatch, how="full", before=0):
        model, data = t1008()
        loss_fn = make(model)
        shared = get_shared_params(model)

        def call():
            if how == "full":
                return loss_fn.forward_k(model.losses(*data), shared).backward()
            return loss_fn.backward(model.losses(*data), shared)

        for _ in range(before):
            call()
        with monkeypatch.context() as patch:
            patch.setattr(gabactl.nn.losses.base, "_capturing", lambda tensor: True)
            call()
        return loss_fn

    @pytest.mark.parametrize("how", ["full", "reuse"])
    @pytest.mark.parametrize(
        "make",
        [
            lambda m: GABALoss(),  # in its warm-up
            lambda m: GABALoss(warmup_steps=0, interval=2),
            lambda m: GABALoss(warmup_steps=0, sensor=EventSensor()),
            lambda m: GABALoss(warmup_steps=0, sensor=RepresentationSensor(m.backbone)),
        ],
    )
    def test_steps_that_differ(self, make, how, monkeypatch):
        with pytest.raises(InputError, match="cannot be captured in a CUDA graph"):
            self.step(make, monkeypatch, how)

    def test_a_fixed_loss_that_measures_now_and_then(self, monkeypatch):
        with pytest.raises(InputError, match="cannot be captured"):
            self.step(lambda m: FixedLoss(measure_every=5), monkeypatch)
        self.step(lambda m: FixedLoss(), monkeypatch)

    @pytest.mark.parametrize("how", ["full", "reuse"])
    @pytest.mark.parametrize(
        "make",
        [
            lambda m: GABALoss(warmup_steps=3),
            lambda m: GABALoss(
                warmup_steps=3, sensor=LastLayerSensor(last(m), recalibrate_every=None)
            ),
            lambda m: GABALoss(
                warmup_steps=3, sensor=RepresentationSensor(m.backbone, recalibrate_every=None)
            ),
        ],
    )
    def test_after_the_warm_up_the_device_knows_the_step(self, make, how, monkeypatch):
        loss_fn = self.step(make, monkeypatch, how, before=3)
        loss_fn.step_count.data.add_(10)  # replays: they pass the host by
        assert loss_fn._steps() == 14
        assert loss_fn.measured_this_step


@needs_cuda
@pytest.mark.parametrize("how", ["full", "reuse"])
@pytest.mark.parametrize("floor_mode", ["renormalise", "clamp_state"])
def test_a_replayed_step_is_a_step(how, floor_mode):
    device = torch.device("cuda")

    def start():
        model, (x, rul, health) = t1008()
        data = x.to(device), rul.to(device) / 125, health.to(device)
        loss_fn = GABALoss(warmup_steps=3, beta=0.9, floor_mode=floor_mode).to(device)
        model.to(device)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)

        def step():
            optimiser.zero_grad(set_to_none=True)
            losses = model.losses(*data)
            if how == "full":
                loss_fn.forward_k(losses, get_shared_params(model)).backward()
            else:
                loss_fn.backward(losses, get_shared_params(model))
            optimiser.step()

        return loss_fn, model, step

    eager, expected, step = start()
    for _ in range(25):
        step()
    captured, model, step = start()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(20):  # what is captured has not run
        graph.replay()
    assert captured._steps() == 25
    assert torch.allclose(captured.ema_weights, eager.ema_weights, rtol=1e-5)
    for got, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-6)
