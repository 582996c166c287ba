"""The peers from torchjd agree with torchjd itself; AMNL and GRACE."""

import pytest
import torch
from oracles.toys import t1008

from gabactl.base.errors import InputError
from gabactl.nn import GABALoss, get_shared_params
from gabactl.nn.excitation import Excitation
from gabactl.nn.losses.amnl import amnl_loss, amnl_weights, grace_losses
from gabactl.nn.losses.excited import ExcitedLoss
from gabactl.nn.losses.peers import peer_loss

aggregation = pytest.importorskip("torchjd.aggregation")

AGGREGATORS = {
    "cagrad": ("CAGrad", {"c": 0.4}),
    "imtl_g": ("IMTLG", {}),
    "mgda": ("MGDA", {}),
    "pcgrad": ("PCGrad", {}),
    "upgrad": ("UPGrad", {}),
}


def shared_gradient(model, total):
    return torch.cat(
        [
            g.reshape(-1)
            for g in torch.autograd.grad(total, get_shared_params(model), retain_graph=True)
        ]
    )


class TestGramian:
    @pytest.mark.parametrize("method", sorted(AGGREGATORS))
    def test_shared_gradient_is_the_aggregators(self, method):
        name, options = AGGREGATORS[method]
        if method == "cagrad":
            pytest.importorskip("cvxpy")
        if method == "upgrad":
            pytest.importorskip("quadprog")
        model, (x, rul, health) = t1008()
        model, data = model.double(), (x.double(), rul.double() / 125, health)
        losses = model.losses(*data)
        loss_fn = peer_loss(method, **options)
        jacobian = torch.stack([shared_gradient(model, loss) for loss in losses])
        total = loss_fn.forward_k(losses, get_shared_params(model))
        expected = getattr(aggregation, name)(**options)(jacobian)
        assert torch.allclose(shared_gradient(model, total), expected, rtol=1e-6, atol=1e-9)
        assert loss_fn.measured_this_step
        assert loss_fn._last_grad_norms.tolist() == pytest.approx(jacobian.norm(dim=1).tolist())
        assert all(p.grad is None for p in model.parameters())

    def test_evaluation_and_no_shared_params(self):
        model, data = t1008()
        loss_fn = peer_loss("pcgrad")
        losses = model.losses(*data)
        expected = (losses[0] + losses[1]).item() / 2
        assert loss_fn.forward_k(losses).item() == pytest.approx(expected)
        loss_fn.eval()
        assert loss_fn.forward_k(losses, get_shared_params(model)).item() == pytest.approx(expected)
        assert loss_fn.step_count.item() == 0


class TestGramianCost:
    """As many passes through the backbone as torchjd itself takes, and the gradients it gives."""

    def toy(self):
        model, (x, rul, health) = t1008()
        passes, features = [], []

        def watch(module, inputs, output):
            features.append(output)
            output.register_hook(lambda g: passes.append(1))

        model.double().backbone.register_forward_hook(watch)
        return model, model.losses(x.double(), rul.double() / 125, health), passes, features

    def test_k_passes_and_the_gradients_of_the_weighted_sum(self):
        model, losses, passes, _ = self.toy()
        loss_fn = peer_loss("imtl_g")
        total = loss_fn.forward_k(losses, get_shared_params(model))
        (3.0 * total).backward()
        assert len(passes) == 2
        same, again, _, _ = self.toy()
        weights = loss_fn.applied_weights
        assert total.item() == pytest.approx((weights[0] * again[0] + weights[1] * again[1]).item())
        (3.0 * (weights[0] * again[0] + weights[1] * again[1])).backward()
        for got, expected in zip(model.parameters(), same.parameters(), strict=True):
            assert torch.allclose(got.grad, expected.grad, rtol=1e-12, atol=1e-15)

    def test_torchjds_own_step_takes_as_many(self):
        from torchjd.autojac import jac_to_grad, mtl_backward

        model, losses, _, features = self.toy()
        shared = get_shared_params(model)
        passes = []
        shared[0].register_hook(lambda g: passes.append(1))
        heads = [list(model.rul_head.parameters()), list(model.health_head.parameters())]
        mtl_backward(
            losses,
            features=features,
            tasks_params=heads,
            shared_params=shared,
            parallel_chunk_size=1,
        )
        jac_to_grad(shared, aggregation.PCGrad())
        assert len(passes) == 2
        ours, ours_losses, _, _ = self.toy()
        peer_loss("pcgrad").forward_k(ours_losses, get_shared_params(ours)).backward()
        for got, expected in zip(get_shared_params(ours), shared, strict=True):
            assert torch.allclose(got.grad, expected.grad, rtol=1e-9, atol=1e-12)

    def test_the_graph_is_freed_unless_kept(self):
        model, losses, _, _ = self.toy()
        loss_fn = peer_loss("pcgrad")
        loss_fn.forward_k(losses, get_shared_params(model))
        with pytest.raises(RuntimeError, match="second time"):
            losses[0].backward()
        model, losses, _, _ = self.toy()
        loss_fn.keep_graph = True
        loss_fn.forward_k(losses, get_shared_params(model))
        losses[0].backward()

    def test_excited_weights_need_the_graph_and_get_it(self):
        model, losses, _, _ = self.toy()
        loss_fn = ExcitedLoss(peer_loss("pcgrad"), Excitation(amplitude=0.5, seed=0))
        loss_fn.forward_k(losses, get_shared_params(model)).backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_hooks_of_the_parameters_run(self):
        model, losses, _, _ = self.toy()
        seen = []
        weight = model.backbone[0].weight
        weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        peer_loss("pcgrad").forward_k(losses, get_shared_params(model)).backward()
        assert len(seen) == 1
        assert torch.equal(seen[0], weight.grad)

    def test_features_instead_of_parameters_cost_one_pass(self):
        model, losses, _, features = self.toy()
        loss_fn = peer_loss("mgda")
        total = loss_fn.forward_k(losses, features)
        norms = [torch.autograd.grad(x, features, retain_graph=True)[0].norm() for x in losses]
        assert loss_fn._last_grad_norms.tolist() == pytest.approx([n.item() for n in norms])
        weight_passes = []
        model.backbone[0].weight.register_hook(lambda g: weight_passes.append(1))
        total.backward()
        assert len(weight_passes) == 1

    def test_a_grad_scaler_changes_nothing(self):
        grads = []
        for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
            model, losses, _, _ = self.toy()
            loss_fn = peer_loss("imtl_g")
            total = loss_fn.forward_k(losses, get_shared_params(model), grad_scaler=scaler)
            (total if scaler is None else scaler.scale(total)).backward()
            scale = 1.0 if scaler is None else 1024.0
            grads.append(torch.cat([p.grad.reshape(-1) / scale for p in model.parameters()]))
            norms = loss_fn._last_grad_norms
            assert norms[0] == pytest.approx(norms[0].item())
        assert torch.allclose(*grads, rtol=1e-12)

    def test_sharded_parameters_are_refused(self):
        model, losses, _, _ = self.toy()
        model.backbone[0].weight.device_mesh = "a mesh"
        with pytest.raises(InputError, match="sharded"):
            peer_loss("pcgrad").forward_k(losses, get_shared_params(model))


class TestHistory:
    """What dwa and famo remember is saved, and a resumed run goes on bit for bit."""

    def run(self, loss_fn, method, steps, first=0):
        weights = []
        for i in range(first, first + steps):
            values = torch.tensor([4.0 / (i + 1), 1.0 + 0.1 * i], requires_grad=True)
            loss_fn.forward_k(list(values))
            weights.append(loss_fn.applied_weights.clone())
            if method == "famo":
                loss_fn.scalarizer.update(values.detach() * torch.tensor([0.9, 1.05]))
            elif i % 3 == 2:
                loss_fn.scalarizer.step()
        return torch.stack(weights) if weights else None

    @pytest.mark.parametrize("method", ["dwa", "famo"])
    @pytest.mark.parametrize("at", [0, 1, 4, 8])
    def test_resumed_bit_equal(self, method, at, tmp_path):
        expected = self.run(peer_loss(method), method, 16)
        first = peer_loss(method)
        self.run(first, method, at)
        torch.save(first.state_dict(), tmp_path / "peer.pt")
        second = peer_loss(method)
        second.load_state_dict(torch.load(tmp_path / "peer.pt", weights_only=True))
        assert torch.equal(self.run(second, method, 16 - at, at), expected[at:])
        assert not torch.equal(expected[-1], expected[0])

    def test_a_resume_between_the_step_and_the_update(self, tmp_path):
        first, second = peer_loss("famo"), peer_loss("famo")
        first.forward_k(list(torch.tensor([4.0, 1.0], requires_grad=True)))
        torch.save(first.state_dict(), tmp_path / "peer.pt")
        second.load_state_dict(torch.load(tmp_path / "peer.pt", weights_only=True))
        for loss_fn in (first, second):
            loss_fn.scalarizer.update(torch.tensor([2.0, 1.0]))
        assert torch.equal(first.scalarizer._w, second.scalarizer._w)

    def test_the_history_of_something_else_is_refused(self):
        three = peer_loss("famo", 3)
        three.forward_k(list(torch.ones(3, requires_grad=True)))
        with pytest.raises(InputError, match="not one of famo with 2 tasks"):
            peer_loss("famo").set_extra_state(three.get_extra_state())
        with pytest.raises(InputError, match="not one of dwa"):
            peer_loss("dwa").set_extra_state(three.get_extra_state())


class TestScalarized:
    @pytest.mark.parametrize("method", ["dwa", "famo", "imtl_l", "uncertainty"])
    def test_gradient_is_the_weighted_sum(self, method):
        w = torch.tensor([2.0, 3.0], requires_grad=True)
        losses = [w[0] ** 2, w[1] ** 2]
        loss_fn = peer_loss(method)
        total = loss_fn.forward_k(losses, [w])
        (got,) = torch.autograd.grad(total, w)
        weights = loss_fn.applied_weights
        assert got.tolist() == pytest.approx([4 * weights[0].item(), 6 * weights[1].item()])
        assert not weights.requires_grad
        assert loss_fn.step_count.item() == 1

    def test_uncertainty_is_kendalls_formula_and_learns(self):
        loss_fn = peer_loss("uncertainty")
        (s,) = loss_fn.parameters()
        optimiser = torch.optim.SGD(loss_fn.parameters(), lr=0.1)
        losses = [torch.tensor(4.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)]
        total = loss_fn.forward_k(losses)
        assert total.item() == pytest.approx(0.5 * 4 + 0.5 * 1)
        total.backward()
        optimiser.step()
        # d/ds (e^-s L / 2 + s / 2) = (1 - L) / 2 at s = 0.
        assert s.tolist() == pytest.approx([0.15, 0.0])

    def test_famo_and_dwa_move_when_told(self):
        famo, dwa = peer_loss("famo", lr=0.1), peer_loss("dwa")
        values = torch.tensor([4.0, 1.0], requires_grad=True)
        famo.forward_k(list(values))
        before = famo.applied_weights / famo.applied_weights.sum()
        famo.scalarizer.update(torch.tensor([2.0, 1.0]))  # only the first improves
        famo.forward_k(list(values))
        after = famo.applied_weights / famo.applied_weights.sum()
        assert after[1] > before[1]
        for epoch_losses in ((4.0, 1.0), (2.0, 1.0), (1.0, 1.0)):
            dwa.forward_k(list(torch.tensor(epoch_losses, requires_grad=True)))
            dwa.scalarizer.step()
        dwa.forward_k(list(values))
        assert dwa.applied_weights[1] > dwa.applied_weights[0]


def test_unknown_names():
    with pytest.raises(InputError, match="method = 'x' is unknown"):
        peer_loss("x")


class TestAmnlAndGrace:
    def test_weights(self):
        assert amnl_weights(torch.tensor([-5.0, 0.0, 125.0, 300.0])).tolist() == [2, 2, 1, 1]
        with pytest.raises(InputError, match="limit"):
            amnl_weights(torch.zeros(1), 0.0)

    def test_broadcasting_is_refused(self):
        with pytest.raises(InputError, match="broadcast"):
            amnl_loss(torch.zeros(4, 1), torch.zeros(4))

    def test_grace_is_gaba_on_amnl(self):
        model, (x, rul, health) = t1008()
        shared = get_shared_params(model)
        loss_fn = GABALoss(warmup_steps=0)
        features = model.backbone(x)
        losses = grace_losses(
            model.rul_head(features)[:, 0], rul[:, 0], model.health_head(features), health
        )
        loss_fn.forward_k(losses, shared).backward()
        plain = GABALoss(warmup_steps=0)
        plain.forward_k(model.losses(x, rul, health), shared)
        # Sample weights in [1, 2] make the RUL task louder, and its weight smaller.
        assert loss_fn._last_grad_norms[0] > plain._last_grad_norms[0]
        assert loss_fn._last_grad_norms[1] == pytest.approx(plain._last_grad_norms[1].item())


def test_the_call_with_two_losses_hands_the_scaler_on() -> None:
    class Scaler:
        calls = 0

        def scale(self, value):
            self.calls += 1
            return 4.0 * value

    w = torch.ones(2, requires_grad=True)
    scaler, loss_fn = Scaler(), peer_loss("imtl_g")
    loss_fn(3.0 * w[0], 1.0 * w[1], shared_params=[w], grad_scaler=scaler)
    assert scaler.calls
    assert loss_fn._last_grad_norms.tolist() == [3.0, 1.0]
