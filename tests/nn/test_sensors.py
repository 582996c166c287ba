"""Proxies: what they measure, their recalibration, and the unbiased estimate from a subset."""

import copy

import numpy as np
import pytest
import torch
from oracles.toys import t1008

from gabactl.base.errors import InputError
from gabactl.nn import (
    FullSensor,
    GABALoss,
    LastLayerSensor,
    RepresentationSensor,
    SubsetSensor,
    get_shared_params,
)
from gabactl.nn.sensors.context import Context
from gabactl.nn.sensors.norms import fused_norm_of, norm_of


def step(loss_fn, model, data):
    loss_fn.forward_k(model.losses(*data), get_shared_params(model))
    return loss_fn._last_grad_norms


class TestProxies:
    def test_representation_is_the_gradient_at_the_features(self):
        model, data = t1008()
        sensor = RepresentationSensor(model.backbone, recalibrate_every=None)
        loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
        norms = step(loss_fn, model, data)
        features = model.backbone(data[0]).detach().requires_grad_(True)
        rul = torch.nn.functional.mse_loss(model.rul_head(features), data[1])
        expected = torch.autograd.grad(rul, features)[0].norm()
        assert norms[0].item() == pytest.approx(expected.item(), rel=1e-5)

    def test_last_layer_is_the_gradient_on_it(self):
        model, data = t1008()
        layer = list(model.backbone[2].parameters())
        loss_fn = GABALoss(warmup_steps=0, sensor=LastLayerSensor(layer, recalibrate_every=None))
        norms = step(loss_fn, model, data)
        expected = FullSensor().read(model.losses(*data), layer, Context())
        assert torch.equal(norms, expected)

    @pytest.mark.parametrize("kind", ["representation", "last_layer"])
    def test_recalibration_makes_it_exact_until_the_model_moves(self, kind):
        model, data = t1008()
        sensor = (
            RepresentationSensor(model.backbone, recalibrate_every=4)
            if kind == "representation"
            else LastLayerSensor(model.backbone[2].parameters(), recalibrate_every=4)
        )
        loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
        exact = FullSensor().read(model.losses(*data), get_shared_params(model), Context())
        for i in range(5):
            norms = step(loss_fn, model, data)
            if i % 4 == 0:
                assert torch.equal(norms, exact)
            assert torch.allclose(norms, exact, rtol=1e-5)

    def test_no_pass_through_the_backbone_but_to_recalibrate(self):
        model, data = t1008()
        passes = []
        model.backbone[0].weight.register_hook(lambda g: passes.append(1))
        sensor = RepresentationSensor(model.backbone, recalibrate_every=3)
        loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
        counts = []
        for _ in range(4):
            step(loss_fn, model, data)
            counts.append(len(passes))
            passes.clear()
        assert counts == [2, 0, 0, 2]

    def test_backward_with_a_proxy_leaves_the_combined_gradient(self):
        model, data = t1008()
        sensor = LastLayerSensor(model.backbone[2].parameters(), recalibrate_every=None)
        loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
        loss_fn.backward(model.losses(*data), get_shared_params(model))
        got = model.backbone[0].weight.grad.clone()
        weights = loss_fn.applied_weights
        losses = model.losses(*data)
        total = weights[0] * losses[0] + weights[1] * losses[1]
        assert torch.allclose(got, torch.autograd.grad(total, model.backbone[0].weight)[0])
        with pytest.raises(InputError, match="reads one batch"):
            loss_fn.backward(model.losses(*data), get_shared_params(model), micro_batches=2)

    def test_state_dict_holds_the_bias_and_not_the_model(self):
        model, _ = t1008()
        loss_fn = GABALoss(sensor=RepresentationSensor(model.backbone))
        assert sorted(loss_fn.state_dict()) == ["ema_weights", "sensor.log_bias", "step_count"]
        assert list(loss_fn.parameters()) == []

    def test_misuse(self):
        model, data = t1008()
        with pytest.raises(InputError, match="for 2 tasks, the loss for 3"):
            GABALoss(n_tasks=3, sensor=RepresentationSensor(model.backbone))
        with pytest.raises(InputError, match="no multiple of interval = 4: choose 12"):
            GABALoss(interval=4, sensor=RepresentationSensor(model.backbone))
        with pytest.raises(InputError, match="recalibrate_every"):
            LastLayerSensor(model.parameters(), recalibrate_every=0)
        with pytest.raises(InputError, match="no parameter"):
            LastLayerSensor([])
        sensor = RepresentationSensor(model.backbone, recalibrate_every=None)
        loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
        losses = model.losses(*data)
        loss_fn.forward_k(losses, get_shared_params(model))
        with pytest.raises(InputError, match="no feature tensor"):
            loss_fn.forward_k(losses, get_shared_params(model))
        with pytest.raises(InputError, match="build a new sensor"):
            copy.deepcopy(loss_fn)
        sensor.remove()


def test_a_copy_of_a_watched_model_is_not_watched():
    # As torch.optim.swa_utils.AveragedModel makes one.
    model, data = t1008()
    sensor = RepresentationSensor(model.backbone, recalibrate_every=None)
    loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
    copied = copy.deepcopy(model)
    losses = model.losses(*data)
    copied.losses(*data)
    loss_fn.forward_k(losses, get_shared_params(model)).backward()
    with pytest.raises(InputError, match="build a new sensor"):
        copy.deepcopy(sensor)


class TestSubset:
    def sensor(self, of, fraction=0.5, noise=1.0):
        # Per-sample gradients (1, 0) + noise: |G|^2 = 1, tr(S) = 2 noise^2; and 3 of that.
        self.w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        mean = torch.tensor([1.0, 0.0], dtype=torch.float64)

        def losses_of(x):
            one = ((mean + noise * x) @ self.w).mean()
            return [one, 3.0 * one]

        return SubsetSensor(losses_of, fraction, of)

    @pytest.mark.parametrize(("of", "expected"), [("signal", 1.0), ("batch", 1.0 + 2 / 16)])
    def test_the_square_is_unbiased(self, of, expected):
        sensor = self.sensor(of)
        rng = np.random.default_rng(0)
        squares = []
        for _ in range(4000):
            sensor.feed(torch.from_numpy(rng.normal(size=(16, 2))))
            squares.append(sensor.squares([self.w]).tolist())
        assert np.mean(squares, axis=0) == pytest.approx([expected, 9 * expected], rel=0.04)

    def test_the_plain_norm_of_a_small_batch_is_not(self):
        # |G|^2 + tr(S)/b = 1.5 at b = 4: what the estimate corrects.
        sensor = self.sensor("signal", fraction=0.25)
        rng = np.random.default_rng(1)
        plain = []
        for _ in range(2000):
            x = torch.from_numpy(rng.normal(size=(4, 2)))
            (g,) = torch.autograd.grad(sensor.losses_of(x)[0], self.w)
            plain.append(float(g @ g))
        assert np.mean(plain) == pytest.approx(1.5, abs=0.08)

    def test_equals_the_two_batch_size_formula(self):
        sensor = self.sensor("signal", fraction=1.0)
        x = torch.from_numpy(np.random.default_rng(2).normal(size=(8, 2)))
        sensor.feed(x)
        got = sensor.read([], [self.w], Context())[0].item() ** 2
        squares = {}
        for name, part in (("a", x[:4]), ("b", x[4:]), ("all", x)):
            (g,) = torch.autograd.grad(sensor.losses_of(part)[0], self.w)
            squares[name] = float(g @ g)
        assert got == pytest.approx(2 * squares["all"] - (squares["a"] + squares["b"]) / 2)

    def test_a_negative_estimate_is_held(self):
        sensor = self.sensor("signal", fraction=1.0)
        loss_fn = GABALoss(warmup_steps=0, sensor=sensor).double()
        x = torch.tensor([[5.0, 0.0], [-7.0, 0.0]], dtype=torch.float64)  # halves 6 and -6
        sensor.feed(x)
        loss_fn.forward_k(sensor.losses_of(x), [self.w])
        assert loss_fn._last_grad_norms.isnan().all()
        assert loss_fn.ema_weights.tolist() == [0.5, 0.5]
        assert loss_fn.applied_weights.tolist() == [0.5, 0.5]

    def test_misuse(self):
        with pytest.raises(InputError, match="fraction = 0"):
            SubsetSensor(list, 0.0)
        with pytest.raises(InputError, match="of = 'x'"):
            SubsetSensor(list, 0.5, "x")
        sensor = self.sensor("batch", fraction=0.1)
        with pytest.raises(InputError, match="no two halves"):
            sensor.feed(torch.zeros(8, 2))
        with pytest.raises(InputError, match="has no batch"):
            sensor.read([], [self.w], Context())


@pytest.mark.parametrize("of", ["signal", "batch"])
def test_a_grad_scaler_keeps_the_small_gradients_of_a_subset(of):
    # 1e-8 is below the smallest float16 number, and 1e-8 times 2**14 is not.
    torch.manual_seed(0)
    w = torch.ones(4, dtype=torch.float16, requires_grad=True)
    x = torch.rand(16) + 0.5
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)

    def losses_of(x):
        v = (w * 1.0).float().sum()
        return [1e-8 * v * x.mean(), 1e-3 * v * x.mean()]

    norms = {}
    for name, given in (("plain", None), ("scaled", scaler)):
        sensor = SubsetSensor(losses_of, 0.5, of)
        loss_fn = GABALoss(warmup_steps=0, sensor=sensor)
        sensor.feed(x)
        loss_fn.forward_k(losses_of(x), [w], grad_scaler=given)
        norms[name] = loss_fn._last_grad_norms
    assert norms["plain"][0].item() == 0.0
    assert norms["scaled"][0].item() == pytest.approx(1e-5 * norms["scaled"][1].item(), rel=0.01)
    assert norms["scaled"][1].item() == pytest.approx(norms["plain"][1].item(), rel=0.01)


def test_fused_norms_agree_within_rounding():
    rng = np.random.default_rng(0)
    gradients = [torch.from_numpy(rng.normal(size=n)).float() for n in (7, 1, 1000)] + [None]
    assert fused_norm_of(gradients).item() == pytest.approx(norm_of(gradients).item(), rel=1e-6)
    half = [torch.full((4,), 300.0, dtype=torch.float16)]
    assert fused_norm_of(half).item() == 600.0
    assert fused_norm_of([None]).item() == 0.0
