"""GradNormLoss and FixedLoss."""

import numpy as np
import pytest
import torch
from oracles.toys import t480

from gabactl.base.errors import InputError
from gabactl.nn import FixedLoss, GradNormLoss, get_shared_params

TOY = (76.5335, 0.36654)  # gradient norms of the 480-parameter toy


def step(loss_fn, norms=TOY, values=None):
    w = torch.ones(len(norms), dtype=torch.float64, requires_grad=True)
    losses = [g * w[i] for i, g in enumerate(norms)]
    if values is not None:
        losses = [loss - loss.detach() + v for loss, v in zip(losses, values, strict=True)]
    return loss_fn.forward_k(losses, [w]), w


class TestGradNorm:
    """GradNorm on the 480-parameter toy, section 19.1: all rates 1, eta = 0.05."""

    @pytest.mark.parametrize("create_graph", [True, False])
    @pytest.mark.parametrize(
        ("variant", "auxiliary", "expected"),
        [
            ("textbook", 1.0, (-2.8267, 1.0183)),
            ("textbook", 0.1, (0.617, 1.0018)),
            ("chen2018", 1.0, (3.126, -1.126)),
        ],
    )
    def test_one_step_from_one(self, variant, auxiliary, expected, create_graph):
        loss_fn = GradNormLoss(
            variant, lr=0.05, auxiliary_weight=auxiliary, create_graph=create_graph
        )
        step(loss_fn)
        assert loss_fn.task_weights.tolist() == pytest.approx(expected, abs=6e-4)

    def test_on_the_real_toy(self):
        # Claim C34: one step at lr 0.05 sends 1.0 to -2.83.
        model, data = t480()
        loss_fn = GradNormLoss("textbook", lr=0.05, auxiliary_weight=1.0)
        loss_fn(*model.losses(*data), shared_params=get_shared_params(model))
        assert loss_fn.task_weights[0].item() == pytest.approx(-2.8267, abs=1e-4)

    @pytest.mark.parametrize("variant", ["chen2018", "textbook"])
    def test_closed_form_equals_autograd(self, variant):
        rng = np.random.default_rng(5)
        both = [GradNormLoss(variant, lr=1e-3, create_graph=g).double() for g in (True, False)]
        for _ in range(200):
            norms, values = rng.lognormal(0, 2, 2), rng.lognormal(size=2)
            for loss_fn in both:
                step(loss_fn, norms, values)
        assert both[0].task_weights.tolist() == pytest.approx(
            both[1].task_weights.tolist(), abs=1e-12
        )

    @pytest.mark.parametrize("part", ["all", "last"])
    def test_closed_form_trains_the_model_alike_in_k_passes(self, part):
        trained, passes = [], []
        for create_graph in (True, False):
            model, data = t480()
            model.double()
            data = (data[0].double(), data[1].double(), data[2])
            weights = get_shared_params(model)
            shared = weights if part == "all" else weights[-1:]  # the bias
            loss_fn = GradNormLoss(lr=1e-4, create_graph=create_graph).double()
            optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
            count = []
            model.backbone.register_forward_hook(
                lambda m, i, o, count=count: o.register_hook(lambda g: count.append(1)) and None
            )
            for _ in range(5):
                optimiser.zero_grad()
                loss_fn.forward_k(model.losses(*data), shared).backward()
                optimiser.step()
            trained.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
            passes.append(len(count) / 5)
        assert torch.allclose(*trained, rtol=1e-10)
        assert passes[1] == (2 if part == "all" else 3)

    def test_alpha_zero_settles_at_inverse_norms(self):
        loss_fn = GradNormLoss("chen2018", alpha=0.0, lr=1e-3, create_graph=False)
        for _ in range(1000):
            step(loss_fn, (5.0, 1.0))
        # The relay goes on stepping: within its step lr * g of the fixed point (1/3, 5/3).
        assert loss_fn.task_weights.tolist() == pytest.approx([2 / 6, 10 / 6], abs=6e-3)

    def test_positive_alpha_gives_the_lagging_task_more_weight(self):
        loss_fn = GradNormLoss("chen2018", alpha=1.5, lr=1e-3)
        step(loss_fn, (1.0, 1.0), (10.0, 10.0))
        for _ in range(50):
            step(loss_fn, (1.0, 1.0), (10.0, 5.0))  # the first task has made no progress
        assert loss_fn.task_weights[0] > loss_fn.task_weights[1]

    def test_auxiliary_gradients_do_not_leak_into_the_model(self):
        loss_fn = GradNormLoss(lr=1e-3)
        total, w = step(loss_fn)
        assert w.grad is None
        total.backward()
        assert w.grad.tolist() == pytest.approx(TOY)  # the weights of this step were 1 and 1

    def test_without_shared_params_and_in_evaluation_nothing_is_learnt(self):
        loss_fn = GradNormLoss(lr=0.05)
        loss_fn(torch.ones((), requires_grad=True), torch.ones((), requires_grad=True))
        assert loss_fn.task_weights.tolist() == [1.0, 1.0]
        step(loss_fn.eval())
        assert loss_fn.task_weights.tolist() == [1.0, 1.0]
        assert loss_fn.step_count.item() == 1

    def test_state_round_trip(self):
        first, second = GradNormLoss(lr=1e-3), GradNormLoss(lr=1e-3)
        step(first, values=(10.0, 2.0))
        second.load_state_dict(first.state_dict())
        for loss_fn in (first, second):
            step(loss_fn, values=(9.0, 1.5))
        assert torch.equal(first.task_weights, second.task_weights)
        assert second.initial_losses.tolist() == [10.0, 2.0]

    @pytest.mark.parametrize(
        "settings",
        [
            {"variant": "x"},
            {"alpha": -1.0},
            {"lr": 0.0},
            {"lr": float("nan")},
            {"auxiliary_weight": -1.0},
            {"n_tasks": 1},
        ],
    )
    def test_bad_settings(self, settings):
        with pytest.raises(InputError, match=next(iter(settings))):
            GradNormLoss(**settings)


class TestFixed:
    def test_weighted_sum_and_applied_weights(self):
        loss_fn = FixedLoss([0.0476, 0.9524])
        assert loss_fn(torch.tensor(10.0), torch.tensor(1.0)).item() == pytest.approx(1.4284)
        assert loss_fn.applied_weights.tolist() == pytest.approx([0.0476, 0.9524])

    def test_measures_for_the_record(self):
        loss_fn = FixedLoss(measure_every=2)
        measured = []
        for _ in range(4):
            step(loss_fn)
            measured.append(loss_fn.measured_this_step)
        assert measured == [True, False, True, False]
        assert loss_fn._last_grad_norms.tolist() == pytest.approx(TOY)

    @pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
    def test_bad_weights(self, weights):
        with pytest.raises(InputError, match="weights"):
            FixedLoss(weights)
