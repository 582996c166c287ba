"""Mixed precision, gradient scaling, and a step that never waits for the device."""

import gc

import pytest
import torch
from oracles.toys import t1008
from torch.utils._python_dispatch import TorchDispatchMode

from gabactl.nn import (
    FixedLoss,
    GABALoss,
    GradNormLoss,
    LastLayerSensor,
    RepresentationSensor,
    get_shared_params,
)


class NoSync(TorchDispatchMode):
    """Refuses everything that would read a tensor's value on the host."""

    forbidden = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "item")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.forbidden:
            raise AssertionError(f"{name}: a GPU would be waited for")
        return func(*args, **(kwargs or {}))


class TestNoHostSynchronisation:
    @pytest.mark.parametrize("how", ["full", "reuse"])
    @pytest.mark.parametrize("interval", [1, 3])
    @pytest.mark.parametrize("floor_mode", ["renormalise", "clamp_state"])
    def test_full_and_reuse(self, how, interval, floor_mode):
        model, data = t1008()
        shared = get_shared_params(model)
        loss_fn = GABALoss(warmup_steps=2, interval=interval, floor_mode=floor_mode)
        with NoSync():
            for _ in range(8):
                losses = model.losses(*data)
                if how == "full":
                    loss_fn.forward_k(losses, shared).backward()
                else:
                    loss_fn.backward(losses, shared)
        assert loss_fn.step_count.item() == 8

    @pytest.mark.parametrize("kind", ["representation", "last_layer"])
    def test_proxies(self, kind):
        model, data = t1008()
        sensor = (
            RepresentationSensor(model.backbone, recalibrate_every=2)
            if kind == "representation"
            else LastLayerSensor(model.backbone[2].parameters(), recalibrate_every=2)
        )
        loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
        with NoSync():
            for _ in range(4):
                loss_fn.forward_k(model.losses(*data), get_shared_params(model)).backward()

    @pytest.mark.parametrize("make", [GradNormLoss, lambda: FixedLoss(measure_every=1)])
    def test_the_others(self, make):
        model, data = t1008()
        loss_fn = make()
        with NoSync():
            for _ in range(3):
                loss_fn.forward_k(model.losses(*data), get_shared_params(model)).backward()

    def test_the_check_can_fail(self):
        with NoSync(), pytest.raises(AssertionError, match="waited for"):
            torch.ones(()).item()


class TestGradScaler:
    def run(self, dtype, scaler, how="full", steps=20):
        model, data = t1008()
        shared = get_shared_params(model)
        loss_fn = GABALoss(warmup_steps=2, beta=0.8)
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(steps):
            optimiser.zero_grad()
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                losses = model.losses(*data)
            if how == "full":
                total = loss_fn.forward_k(losses, shared, grad_scaler=scaler)
                (total if scaler is None else scaler.scale(total)).backward()
            else:
                loss_fn.backward(losses, shared, grad_scaler=scaler)
            if scaler is None:
                optimiser.step()
            else:
                scaler.step(optimiser)
                scaler.update()
        parameters = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        return parameters, loss_fn

    @pytest.mark.parametrize("how", ["full", "reuse"])
    def test_scaled_equals_unscaled(self, how):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        plain, expected = self.run(torch.float32, None)
        scaled, got = self.run(torch.float32, scaler, how)
        assert torch.allclose(scaled, plain, rtol=1e-5, atol=1e-7)
        assert torch.allclose(got._last_grad_norms, expected._last_grad_norms, rtol=1e-5)

    @pytest.mark.parametrize("how", ["full", "reuse"])
    def test_half_precision_with_a_scaler_is_close_to_float32(self, how):
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        _, expected = self.run(torch.float32, None)
        _, got = self.run(torch.float16, scaler, how)
        assert got._last_grad_norms.dtype == torch.float32
        assert torch.allclose(got.ema_weights, expected.ema_weights, atol=2e-3)

    def test_bfloat16_needs_no_scaler(self):
        _, expected = self.run(torch.float32, None)
        _, got = self.run(torch.bfloat16, None)
        assert torch.allclose(got.ema_weights, expected.ema_weights, atol=1e-2)

    def test_without_the_scaler_small_half_gradients_vanish(self):
        # Why the scaler is passed: 1e-8 is below the smallest float16 number.
        w = torch.ones(4, dtype=torch.float16, requires_grad=True)
        v = (w * 1.0).float()
        losses = [(1e-8 * v).sum(), (1e-3 * v).sum()]
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
        norms = {}
        for name, given in (("plain", None), ("scaled", scaler)):
            loss_fn = GABALoss(warmup_steps=0)
            loss_fn.forward_k(losses, [w], grad_scaler=given)
            norms[name] = loss_fn._last_grad_norms
        assert norms["plain"][0].item() == 0.0
        assert norms["scaled"].tolist() == pytest.approx([2e-8, 2e-3], rel=1e-2)

    def test_an_overflow_of_the_scaled_gradient_is_held(self):
        model, data = t1008()
        loss_fn = GABALoss(warmup_steps=0)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
        loss_fn.backward(model.losses(*data), get_shared_params(model), grad_scaler=scaler)
        assert loss_fn.ema_weights.tolist() == [0.5, 0.5]
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        before = model.rul_head.weight.clone()
        scaler.step(optimiser)  # skipped
        assert torch.equal(model.rul_head.weight, before)


def live_tensors():
    gc.collect()
    return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())


@pytest.mark.parametrize("how", ["full", "reuse"])
def test_no_graph_grows(how):
    # Claim C17: the count of live tensors after many steps is the count after a few.
    w = torch.ones(2, requires_grad=True)
    loss_fn = GABALoss(warmup_steps=0)

    def steps(n):
        for _ in range(n):
            w.grad = None
            losses = [3.0 * w[0], w[1] * w[1]]
            if how == "full":
                loss_fn.forward_k(losses, [w]).backward()
            else:
                loss_fn.backward(losses, [w])

    steps(10)
    few = live_tensors()
    steps(300)
    assert live_tensors() <= few + 2


@pytest.mark.slow
def test_no_graph_grows_over_10000_steps():
    w = torch.ones(2, requires_grad=True)
    loss_fn = GABALoss(warmup_steps=0)
    counts = []
    for step in range(1, 10_001):
        w.grad = None
        loss_fn.forward_k([3.0 * w[0], w[1] * w[1]], [w]).backward()
        if step in (100, 10_000):
            counts.append(live_tensors())
    assert counts[1] <= counts[0] + 2
