"""The peers from torchjd agree with torchjd itself; AMNL and GRACE."""

import pytest
import torch
from oracles.toys import t1008

from gabactl.errors import InputError
from gabactl.nn import GABALoss, get_shared_params
from gabactl.nn.peers import amnl_loss, amnl_weights, grace_losses, peer_loss

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
        total = loss_fn.forward_k(losses, get_shared_params(model))
        jacobian = torch.stack([shared_gradient(model, loss) for loss in losses])
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
