"""``backward()``: the measured gradients as the update, equal to the published procedure."""

import pytest
import torch
from oracles.toys import t1008
from torch import nn

from gabactl.base.errors import InputError
from gabactl.nn import GABALoss, get_shared_params


def toy(double=True):
    model, (x, rul, health) = t1008()
    return (
        (model.double(), (x.double(), rul.double(), health))
        if double
        else (model, (x, rul, health))
    )


def train(how, steps, make=GABALoss, optimiser=torch.optim.AdamW, **call):
    model, data = toy()
    loss_fn = make().double()
    shared = get_shared_params(model)
    opt = optimiser(model.parameters(), lr=1e-3)
    weights = []
    for _ in range(steps):
        opt.zero_grad()
        losses = model.losses(*data)
        if how == "full":
            loss_fn.forward_k(losses, shared).backward()
        else:
            loss_fn.backward(losses, shared, **call)
        opt.step()
        weights.append(loss_fn.applied_weights.clone())
    return model, loss_fn, torch.stack(weights)


def worst_difference(a, b):
    return max(
        float((p - q).detach().abs().max())
        for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


class TestEqualsFull:
    @pytest.mark.parametrize("interval", [1, 7])
    @pytest.mark.parametrize("guard", ["hold", "none"])
    def test_weights_and_parameters_over_100_steps(self, interval, guard):
        def make():
            return GABALoss(warmup_steps=5, interval=interval, guard=guard)

        full, full_loss, full_weights = train("full", 100, make, torch.optim.SGD)
        reused, reused_loss, weights = train("reuse", 100, make, torch.optim.SGD)
        assert (weights - full_weights).abs().max() < 1e-12
        assert worst_difference(full, reused) < 1e-12
        assert torch.equal(full_loss.step_count, reused_loss.step_count)
        assert full_weights[-1][0] < 0.4  # the controller did move

    def test_heads_are_scaled_by_their_own_weight(self):
        model, data = toy()
        loss_fn = GABALoss(warmup_steps=0, beta=0.0).double()
        loss_fn.backward(model.losses(*data), get_shared_params(model))
        grads = {n: p.grad.clone() for n, p in model.named_parameters()}
        for i, name in enumerate(("rul_head", "health_head")):
            losses = model.losses(*data)
            alone = torch.autograd.grad(losses[i], list(getattr(model, name).parameters()))
            for parameter, expected in zip(("weight", "bias"), alone, strict=True):
                got = grads[f"{name}.{parameter}"]
                assert torch.allclose(got, loss_fn.applied_weights[i] * expected, rtol=1e-13)

    @pytest.mark.parametrize("warmup", [0, 10])
    def test_accumulates_into_what_is_there(self, warmup):
        model, data = toy()
        loss_fn = GABALoss(warmup_steps=warmup, beta=0.0).double()
        loss_fn.backward(model.losses(*data), get_shared_params(model))
        once = [p.grad.clone() for p in model.parameters()]
        loss_fn.backward(model.losses(*data), get_shared_params(model))
        for parameter, gradient in zip(model.parameters(), once, strict=True):
            assert torch.allclose(parameter.grad, 2 * gradient, rtol=1e-13)

    def test_only_the_parameters_asked_for(self):
        model, data = toy()
        wanted = list(model.rul_head.parameters())
        for warmup in (0, 10):
            model.zero_grad()
            loss_fn = GABALoss(warmup_steps=warmup).double()
            loss_fn.backward(model.losses(*data), get_shared_params(model), wanted)
            filled = {n for n, p in model.named_parameters() if p.grad is not None}
            assert filled == {"rul_head.weight", "rul_head.bias"}

    def test_three_tasks_and_a_parameter_of_two_of_them(self):
        def losses(p):
            return [(p[0] ** 3).sum(), (p[0] * p[1]).sum() ** 2, (p[0] - p[1] * p[2]).pow(4).sum()]

        grads = []
        for how in ("full", "reuse"):
            torch.manual_seed(1)
            p = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
            loss_fn = GABALoss(n_tasks=3, warmup_steps=0, beta=0.2).double()
            if how == "full":
                loss_fn.forward_k(losses(p), p[:1]).backward()
            else:
                loss_fn.backward(losses(p), p[:1])
            grads.append([x.grad for x in p])
        for a, b in zip(*grads, strict=True):
            assert torch.allclose(a, b, rtol=1e-13, atol=0)

    def test_backbone_passes(self):
        # K passes with a reading, one without.
        passes = []
        model, data = toy()
        model.backbone[0].weight.register_hook(lambda g: passes.append(1))
        loss_fn = GABALoss(warmup_steps=1, interval=2).double()
        counts = []
        for _ in range(4):
            loss_fn.backward(model.losses(*data), get_shared_params(model))
            counts.append(len(passes))
            passes.clear()
        assert counts == [1, 2, 1, 2]

    def test_returns_the_weighted_sum_detached(self):
        model, data = toy()
        loss_fn = GABALoss(warmup_steps=0).double()
        losses = model.losses(*data)
        total = loss_fn.backward(losses, get_shared_params(model))
        expected = sum(w * v.detach() for w, v in zip(loss_fn.applied_weights, losses, strict=True))
        assert total.item() == pytest.approx(expected.item())
        assert not total.requires_grad

    def test_the_graph_is_freed_as_by_any_backward_pass_unless_kept(self):
        model, data = toy()
        loss_fn = GABALoss(warmup_steps=0).double()
        losses = model.losses(*data)
        loss_fn.backward(losses, get_shared_params(model))
        with pytest.raises(RuntimeError, match="second time"):
            losses[0].backward()
        loss_fn.keep_graph = True
        losses = model.losses(*data)
        loss_fn.backward(losses, get_shared_params(model))
        losses[0].backward()


class TestAccumulation:
    """One reading per optimiser step, on the gradient of the whole batch."""

    @pytest.mark.parametrize("interval", [1, 3])
    def test_four_micro_batches_equal_one_batch(self, interval):
        results = []
        for pieces in (1, 4):
            model, (x, rul, health) = toy()
            loss_fn = GABALoss(warmup_steps=2, beta=0.9, interval=interval).double()
            opt = torch.optim.SGD(model.parameters(), lr=1e-3)
            for _ in range(20):
                opt.zero_grad()
                for part in zip(*(t.chunk(pieces) for t in (x, rul, health)), strict=True):
                    loss_fn.backward(
                        model.losses(*part), get_shared_params(model), micro_batches=pieces
                    )
                opt.step()
            results.append((model, loss_fn))
        (one, first), (four, second) = results
        assert worst_difference(one, four) < 1e-12
        assert (first.ema_weights - second.ema_weights).abs().max() < 1e-12
        assert first.step_count.item() == second.step_count.item() == 20

    def test_an_unfinished_step_is_noticed(self):
        model, data = toy()
        loss_fn = GABALoss(warmup_steps=0).double()
        shared = get_shared_params(model)
        loss_fn.backward(model.losses(*data), shared, micro_batches=2)
        with pytest.raises(InputError, match="1 of 2 micro-batches"):
            loss_fn.forward_k(model.losses(*data), shared)
        with pytest.raises(InputError, match="in the middle of a step of 2"):
            loss_fn.backward(model.losses(*data), shared, micro_batches=3)
        loss_fn.reset_accumulation()
        loss_fn.forward_k(model.losses(*data), shared)
        assert loss_fn.step_count.item() == 1


class TestRefusals:
    def test_a_hook_it_would_not_run(self):
        model, data = toy()
        model.backbone[0].weight.register_post_accumulate_grad_hook(lambda p: None)
        loss_fn = GABALoss(warmup_steps=0).double()
        with pytest.raises(InputError, match="post-accumulate-grad hook"):
            loss_fn.backward(model.losses(*data), get_shared_params(model))
        assert loss_fn.step_count.item() == 0

    @pytest.mark.parametrize("bad", [0, -1, 1.5, True])
    def test_micro_batches(self, bad):
        model, data = toy()
        with pytest.raises(InputError, match="micro_batches"):
            GABALoss().double().backward(
                model.losses(*data), get_shared_params(model), micro_batches=bad
            )

    def test_non_finite_gradients_hold_the_average_and_reach_grad(self):
        w = torch.ones(2, dtype=torch.float64, requires_grad=True)
        loss_fn = GABALoss(warmup_steps=0).double()
        loss_fn.backward([3.0 * w[0], 1.0 * w[1]], [w])
        before = loss_fn.ema_weights.clone()
        w.grad = None
        loss_fn.backward([float("nan") * w[0], 1.0 * w[1]], [w])
        assert torch.equal(loss_fn.ema_weights, before)
        assert w.grad[0].isnan()  # as a backward pass would leave it


def test_sparse_gradients():
    table = nn.Embedding(10, 4, sparse=True).double()
    other = nn.Embedding.from_pretrained(table.weight.detach().clone(), False, sparse=True)
    for loss_fn, embedding, reusing in (
        (GABALoss(warmup_steps=0).double(), table, True),
        (GABALoss(warmup_steps=0).double(), other, False),
    ):
        rows = embedding(torch.tensor([1, 2, 2]))
        losses = [rows.pow(2).sum(), rows.sum() * 0.1]
        if reusing:
            loss_fn.backward(losses, [embedding.weight])
        else:
            loss_fn.forward_k(losses, [embedding.weight]).backward()
    assert torch.allclose(table.weight.grad.to_dense(), other.weight.grad.to_dense(), rtol=1e-12)
