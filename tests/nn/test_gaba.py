"""GABALoss: semantics pinned against the oracle, beyond it, bad input, state."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from oracles.published_torch import PublishedLoss
from oracles.toys import t480, t1008

from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.nn import GABALoss, compute_task_grad_norm, get_shared_params

MODES = CHOICES["floor_mode"]


def losses_with_norms(norms, dtype=torch.float32, values=None):
    """Losses whose gradient norms on the returned parameter are the given ones."""
    w = torch.ones(len(norms), dtype=dtype, requires_grad=True)
    losses = [g * w[i] for i, g in enumerate(norms)]
    if values is not None:
        losses = [loss - loss.detach() + v for loss, v in zip(losses, values, strict=True)]
    return losses, [w]


def feed(loss_fn, norms, dtype=torch.float32):
    losses, shared = losses_with_norms(norms, dtype)
    return loss_fn.forward_k(losses, shared)


class TestPublishedSemantics:
    """These must fail if warm-up, write-back, detach, floor, renormalisation or order change."""

    @pytest.mark.parametrize("k", [2, 3, 5])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_to_the_last_bit(self, k, dtype):
        rng = np.random.default_rng(3)
        ours = GABALoss(n_tasks=k, warmup_steps=20, guard="none").to(dtype)
        oracle = PublishedLoss(n_tasks=k, warmup_steps=20).to(dtype)
        oracle.ema_weights.fill_(1 / k)  # double() leaves 1/K rounded to float32 there
        for step in range(400):
            norms = np.exp(rng.normal(0, 3, k))
            losses, shared = losses_with_norms(norms, dtype, rng.normal(size=k))
            given = None if step % 50 == 49 else shared
            total, expected = ours.forward_k(losses, given), oracle.forward_k(losses, given)
            assert total.item() == expected.item()
            assert torch.equal(ours.ema_weights, oracle.ema_weights)
            assert torch.equal(ours.applied_weights, oracle.last_weights.to(dtype))
            assert ours.step_count.item() == oracle.step_count.item()

    def test_training_gives_the_same_parameters(self):
        # The gradient of the total is sum w_i grad L_i, with w constant: the same updates.
        models = [t1008() for _ in range(2)]
        for (model, (x, rul, health)), loss_fn in zip(
            models,
            (GABALoss(warmup_steps=5, guard="none"), PublishedLoss(warmup_steps=5)),
            strict=True,
        ):
            optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
            for _ in range(40):
                optimiser.zero_grad()
                total = loss_fn(
                    *model.losses(x, rul, health), shared_params=get_shared_params(model)
                )
                total.backward()
                optimiser.step()
        for ours, theirs in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_warm_up_ends_after_exactly_w_steps(self):
        loss_fn = GABALoss(warmup_steps=3)
        for step in range(1, 6):
            feed(loss_fn, [500.0, 1.0])
            assert loss_fn.measured_this_step == (step > 3)
            moved = bool((loss_fn.ema_weights != 0.5).any())
            assert moved == (step > 3)
            assert (loss_fn.get_gradient_stats() != {}) == (step > 3)

    def test_a_moved_average_waits_for_the_warm_up(self):
        # A checkpoint loaded into a run with a longer warm-up: uniform until it ends.
        for loss_fn in (GABALoss(warmup_steps=3, guard="none"), PublishedLoss(warmup_steps=3)):
            loss_fn.ema_weights.copy_(torch.tensor([0.1, 0.9]))
            totals = [feed(loss_fn, [1.0, 3.0]).item() for _ in range(4)]
            assert totals[:3] == [2.0, 2.0, 2.0]
            assert totals[3] == pytest.approx(0.1065 + 3 * 0.8935, abs=1e-4)

    def test_ema_is_stored_unclamped(self):
        loss_fn = GABALoss(warmup_steps=0)
        for _ in range(600):
            feed(loss_fn, [500.0, 1.0])
        assert loss_fn.ema_weights[0].item() == pytest.approx(
            1 / 501 + (0.5 - 1 / 501) * 0.99**600, rel=1e-4
        )
        stored = loss_fn.ema_weights[0].item()
        assert loss_fn.applied_weights[0].item() == pytest.approx(0.05 / (1.05 - stored), abs=1e-6)
        assert loss_fn.get_weights()["rul_weight"] == loss_fn.ema_weights[0].item()

    def test_the_reading_of_a_step_acts_at_that_step(self):
        loss_fn = GABALoss(beta=0.0, warmup_steps=0)
        feed(loss_fn, [3.0, 1.0])
        assert loss_fn.applied_weights.tolist() == [0.25, 0.75]

    def test_weights_carry_no_gradient(self):
        # A curved loss, so that a weight with a graph would add a second-order term.
        w = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
        loss_fn = GABALoss(beta=0.5, warmup_steps=0)
        losses = [(w**3).sum(), (w[0] * w[1]) ** 2]
        total = loss_fn.forward_k(losses, [w])
        assert not loss_fn.applied_weights.requires_grad
        assert not loss_fn.ema_weights.requires_grad
        weights = loss_fn.applied_weights
        (got,) = torch.autograd.grad(total, [w], retain_graph=True)
        parts = [torch.autograd.grad(loss, [w], retain_graph=True)[0] for loss in losses]
        assert got == pytest.approx(weights[0] * parts[0] + weights[1] * parts[1], rel=1e-6)

    def test_total_is_a_sum_of_products_with_the_losses_graph(self):
        losses, shared = losses_with_norms([3.0, 1.0], values=[10.0, 2.0])
        total = GABALoss(beta=0.0, warmup_steps=0).forward_k(losses, shared)
        assert total.item() == pytest.approx(0.25 * 10 + 0.75 * 2)
        assert total.requires_grad
        assert shared[0].grad is None

    def test_extra_keywords_are_ignored(self):
        losses, shared = losses_with_norms([3.0, 1.0])
        GABALoss()(losses[0], losses[1], shared_params=shared, epoch=3)

    def test_get_weights_and_stats_keys(self):
        loss_fn = GABALoss(warmup_steps=0)
        feed(loss_fn, [5.0, 0.01])
        assert list(loss_fn.get_weights()) == ["rul_weight", "health_weight"]
        stats = loss_fn.get_gradient_stats()
        assert list(stats) == [
            "grad_norm_rul",
            "grad_norm_health",
            "grad_ratio_rul_over_health",
            "raw_weight_rul",
            "raw_weight_health",
        ]
        assert stats["grad_ratio_rul_over_health"] == pytest.approx(500, rel=1e-6)
        three = GABALoss(n_tasks=3, warmup_steps=0)
        feed(three, [1.0, 2.0, 7.0])
        assert list(three.get_weights()) == ["task_0_weight", "task_1_weight", "task_2_weight"]
        assert three.get_gradient_stats()["raw_weight_task_2"] == pytest.approx(0.15)

    def test_second_measurement_needs_the_retained_graph(self):
        # Claim C18.
        model, (x, rul, health) = t480()
        loss, _ = model.losses(x, rul, health)
        shared = get_shared_params(model)
        compute_task_grad_norm(loss, shared, retain_graph=False)
        with pytest.raises(RuntimeError, match="second time"):
            compute_task_grad_norm(loss, shared)

    def test_beta_zero_is_the_unsmoothed_branch(self):
        # Claim C20: bit-exact at beta = 0.
        loss_fn = GABALoss(beta=0.0, warmup_steps=0).double()
        for norms in ([3.0, 1.0], [1.0, 7.0]):
            feed(loss_fn, norms)
            assert torch.equal(loss_fn.ema_weights, loss_fn._last_raw_weights)


class TestToys:
    """Section 18.1 (toys): norms and weights in float32."""

    @pytest.mark.parametrize(
        ("toy", "shared_numbers", "norms", "raw", "tolerance"),
        [
            (t480, 480, (76.5335, 0.3665), (0.004766, 0.995234), 5e-5),
            (t1008, 1008, (114.4296, 0.2164), (0.001888, 0.998112), 5e-5),
        ],
    )
    def test_norms_and_raw_weights(self, toy, shared_numbers, norms, raw, tolerance):
        model, (x, rul, health) = toy()
        shared = get_shared_params(model)
        assert sum(p.numel() for p in shared) == shared_numbers
        loss_fn = GABALoss(warmup_steps=0)
        loss_fn(*model.losses(x, rul, health), shared_params=shared)
        stats = loss_fn.get_gradient_stats()
        assert (stats["grad_norm_rul"], stats["grad_norm_health"]) == pytest.approx(
            norms, abs=tolerance
        )
        assert (stats["raw_weight_rul"], stats["raw_weight_health"]) == pytest.approx(raw, abs=5e-7)

    def test_ratio_of_the_toys(self):
        # Claim C29: 208.8x and 528.8x.
        for toy, ratio in ((t480, 208.8), (t1008, 528.8)):
            model, data = toy()
            loss_fn = GABALoss(warmup_steps=0)
            loss_fn(*model.losses(*data), shared_params=get_shared_params(model))
            assert loss_fn.get_gradient_stats()["grad_ratio_rul_over_health"] == pytest.approx(
                ratio, abs=0.05
            )

    def test_t480_contributions_are_equal(self):
        # Section 17.2: c = 0.364791 for both (claim C06).
        model, data = t480()
        loss_fn = GABALoss(warmup_steps=0, beta=0.0, min_weight=0.0, guard="none")
        loss_fn(*model.losses(*data), shared_params=get_shared_params(model))
        c = loss_fn.applied_weights * loss_fn._last_grad_norms
        assert c.tolist() == pytest.approx([0.364791, 0.364791], abs=1e-6)

    def test_losses_of_t480_are_not_the_printed_ones(self):
        # The source prints 5318 and 1.10; the specification gives 4521.15 and 1.1936.
        model, data = t480()
        rul, health = model.losses(*data)
        assert (rul.item(), health.item()) == (
            pytest.approx(4521.15, abs=0.01),
            pytest.approx(1.1936, abs=1e-4),
        )


class TestAgreement:
    """torch and the NumPy controller on the same 5,000 random readings."""

    # Those that read at every step are slow ones: test_agreement has their like among the fast.
    @pytest.mark.parametrize(
        ("k", "mode"),
        [
            pytest.param(k, mode, marks=[] if k == 3 else pytest.mark.slow)
            for k, mode in itertools.product((2, 3, 5), MODES)
        ],
    )
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6)]
    )
    def test_torch_equals_numpy(self, k, mode, dtype, tolerance):
        rng = np.random.default_rng(11)
        law = "inverse" if k == 5 else "complement"
        spec = GabaSpec(k, floor_mode=mode, law=law, interval=3 if k == 3 else 1)
        loss_fn = GABALoss.from_spec(spec).to(dtype)
        controller = Controller(spec)
        readings = np.exp(
            rng.normal(0, 2, (5000, k)) + 4 * np.sin(np.arange(5000) / 300)[:, None] * np.arange(k)
        )
        readings[rng.random(5000) < 0.01] = np.nan
        worst = 0.0
        for row in torch.from_numpy(readings).to(dtype):
            # The stages alone: autograd is tested elsewhere, and 5,000 graphs cost a minute.
            step = loss_fn._steps() + 1
            loss_fn._advance(step)
            due = spec.measures_at(step)
            weights = loss_fn._take(row) if due else loss_fn._weights_of_state()
            expected = controller.observe(row.double().numpy())
            worst = max(
                worst,
                float((weights.double() - torch.from_numpy(expected)).abs().max()),
                float(
                    (loss_fn.ema_weights.double() - torch.from_numpy(controller.ema_weights))
                    .abs()
                    .max()
                ),
            )
        assert worst <= tolerance


class TestBeyondThePublished:
    def test_applied_weights_and_normalise_to(self):
        one, k = GABALoss(warmup_steps=0), GABALoss(warmup_steps=0, normalise_to="n_tasks")
        total, scaled = feed(one, [3.0, 1.0]), feed(k, [3.0, 1.0])
        assert scaled.item() == pytest.approx(2 * total.item())
        assert k.applied_weights.sum().item() == pytest.approx(2.0)
        assert torch.equal(one.ema_weights, k.ema_weights)

    def test_task_names(self):
        loss_fn = GABALoss(task_names=("depth", "normals"), warmup_steps=0)
        feed(loss_fn, [3.0, 1.0])
        assert list(loss_fn.get_weights()) == ["depth_weight", "normals_weight"]
        assert "grad_ratio_depth_over_normals" in loss_fn.get_gradient_stats()

    def test_generator_of_parameters(self):
        losses, shared = losses_with_norms([3.0, 1.0])
        loss_fn = GABALoss(beta=0.0, warmup_steps=0)
        loss_fn.forward_k(losses, (p for p in shared))
        assert loss_fn.applied_weights.tolist() == [0.25, 0.75]

    def test_parameters_a_loss_does_not_reach_count_as_zero(self):
        a, b = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
        loss_fn = GABALoss(beta=0.0, warmup_steps=0, min_weight=0.0)
        loss_fn.forward_k([3.0 * a, 4.0 * b], [a, b])
        assert loss_fn._last_grad_norms.tolist() == [3.0, 4.0]
        loss_fn.forward_k([3.0 * a, 4.0 * b], [a])
        assert loss_fn._last_grad_norms.tolist() == [3.0, 0.0]

    def test_frozen_parameters_are_left_out(self):
        a, b = torch.ones((), requires_grad=True), torch.ones(())
        loss_fn = GABALoss(beta=0.0, warmup_steps=0)
        loss_fn.forward_k([3.0 * a * b, a * b], [a, b])
        assert loss_fn._last_grad_norms.tolist() == [3.0, 1.0]

    @pytest.mark.parametrize("how", ["eval", "no_grad"])
    def test_evaluation_moves_nothing_and_uses_the_last_weights(self, how):
        loss_fn = GABALoss(beta=0.0, warmup_steps=0)
        feed(loss_fn, [3.0, 1.0])
        losses, shared = losses_with_norms([1.0, 1.0], values=[10.0, 2.0])
        if how == "eval":
            loss_fn.eval()
            total = loss_fn.forward_k(losses, shared)
        else:
            with torch.no_grad():
                total = loss_fn.forward_k([loss.detach() for loss in losses], shared)
        assert total.item() == pytest.approx(4.0)
        assert loss_fn.step_count.item() == 1
        assert not loss_fn.measured_this_step
        assert loss_fn.forward_k(losses).item() == pytest.approx(6.0)  # no shared_params: uniform

    def test_guard_none_keeps_the_quirk_that_evaluation_counts(self):
        counts = {}
        for guard in ("hold", "none"):
            loss_fn = GABALoss(guard=guard)
            with torch.no_grad():
                for _ in range(7):
                    feed(loss_fn, [3.0, 1.0])
            counts[guard] = loss_fn.step_count.item()
        assert counts == {"hold": 0, "none": 7}

    def test_interval(self):
        loss_fn = GABALoss(warmup_steps=2, interval=3)
        measured = []
        for _ in range(9):
            feed(loss_fn, [3.0, 1.0])
            measured.append(loss_fn.measured_this_step)
        assert measured == [False, False, True, False, False, True, False, False, True]

    def test_between_readings_nothing_is_missed(self):
        # As Controller.observe(None): uniform only where a reading was due and not taken.
        spec = GabaSpec(warmup=0, interval=3, beta=0.5)
        loss_fn, controller = GABALoss.from_spec(spec), Controller(spec)
        for step in range(12):
            losses, shared = losses_with_norms([9.0, 1.0])
            given = step in (0, 1, 6)  # steps 4 and 10 are due, and missed
            loss_fn.forward_k(losses, shared if given else None)
            expected = controller.observe([9.0, 1.0] if given else None)
            assert loss_fn.applied_weights.tolist() == pytest.approx(expected.tolist(), abs=1e-7)

    def test_from_spec(self):
        spec = GabaSpec(3, 0.9, 0.01, 7, "inverse", "project", "none", 5)
        assert GABALoss.from_spec(spec).spec == spec

    def test_attributes_can_be_set_and_are_checked(self):
        loss_fn = GABALoss()
        loss_fn.beta, loss_fn.warmup_steps, loss_fn.min_weight = 0.5, 0, 0.1
        assert loss_fn.spec == GabaSpec(beta=0.5, warmup=0, floor=0.1)
        with pytest.raises(InputError, match="beta"):
            loss_fn.beta = 1.0

    def test_no_graph_grows_across_steps(self):
        # Claim C17: the average must be written back detached.
        loss_fn = GABALoss(warmup_steps=0)
        for _ in range(50):
            feed(loss_fn, [3.0, 1.0])
        for tensor in (loss_fn.ema_weights, loss_fn.applied_weights, loss_fn._last_grad_norms):
            assert tensor.grad_fn is None


class TestBadInput:
    @pytest.mark.parametrize(
        ("losses", "shared", "words"),
        [
            ([], "given", "got 0 losses for n_tasks = 2"),
            ([1.0], "given", "got 1 losses"),
            ([1.0, 2.0, 3.0], "given", "got 3 losses"),
            ([1.0, 2.0], [], "shared_params is empty"),
            ([1.0, 2.0], "tensor", "one tensor"),
            ([1.0, "constant"], "given", "'health' needs no gradient"),
            ([1.0, "vector"], "given", "shape (3,)"),
            ([1.0, "float"], "given", "float, not a scalar tensor"),
            ([1.0, 2.0], "frozen", "none of the shared_params requires a gradient"),
        ],
    )
    def test_one_clear_error_and_no_state_moves(self, losses, shared, words):
        w = torch.ones((), requires_grad=True)
        special = {
            "constant": torch.ones(()),
            "vector": torch.ones(3, requires_grad=True),
            "float": 1.0,
        }
        tensors = [special[v] if isinstance(v, str) else v * w for v in losses]
        choices = {"given": [w], "tensor": w, "frozen": [torch.ones(())]}
        loss_fn = GABALoss(warmup_steps=0)
        with pytest.raises(InputError) as caught:
            loss_fn.forward_k(tensors, choices[shared] if isinstance(shared, str) else shared)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert loss_fn.step_count.item() == 0

    def test_an_exception_while_measuring_moves_nothing(self):
        losses, shared = losses_with_norms([3.0, 1.0])
        (losses[0] + losses[1]).pow(2).backward()
        squared = (shared[0] ** 2).sum()
        squared.backward()
        loss_fn = GABALoss(warmup_steps=0)
        with pytest.raises(RuntimeError):
            loss_fn.forward_k([squared, squared], shared)
        assert loss_fn.step_count.item() == 0
        assert loss_fn.get_weights() == {"rul_weight": 0.5, "health_weight": 0.5}

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_non_finite_gradients_are_held(self, bad):
        loss_fn = GABALoss(warmup_steps=0)
        feed(loss_fn, [3.0, 1.0])
        before, weights = loss_fn.ema_weights.clone(), loss_fn.applied_weights.clone()
        feed(loss_fn, [bad, 1.0])
        assert torch.equal(loss_fn.ema_weights, before)
        assert torch.equal(loss_fn.applied_weights, weights)
        assert loss_fn.step_count.item() == 2
        published = GABALoss(warmup_steps=0, guard="none")
        feed(published, [bad, 1.0])
        feed(published, [3.0, 1.0])
        assert published.ema_weights.isnan().all()

    def test_all_zero_gradients(self):
        held, published = GABALoss(warmup_steps=0), GABALoss(warmup_steps=0, guard="none")
        for _ in range(2000):
            for loss_fn in (held, published):
                loss_fn._take(torch.zeros(2))
        assert held.get_weights() == {"rul_weight": 0.5, "health_weight": 0.5}
        assert published.ema_weights.tolist() == pytest.approx([1.0, 1.0], abs=1e-4)

    def test_half_precision_entries_of_256_do_not_overflow(self):
        w = torch.ones(4, dtype=torch.float16, requires_grad=True)
        norm = compute_task_grad_norm((300.0 * w).sum(), [w])
        assert (norm.item(), norm.dtype) == (600.0, torch.float32)

    def test_float32_norm_overflow_is_held(self):
        w = torch.ones(2, requires_grad=True)
        loss_fn = GABALoss(warmup_steps=0)
        loss_fn.forward_k([2e19 * w.sum(), w.sum()], [w])
        assert loss_fn._last_grad_norms[0].isinf()
        assert loss_fn.get_weights() == {"rul_weight": 0.5, "health_weight": 0.5}

    def test_head_names_as_one_string(self):
        with pytest.raises(InputError, match="one string"):
            get_shared_params(torch.nn.Linear(2, 2), "rul_head")

    @pytest.mark.parametrize("names", [("a",), ("a", "a"), ("a", "b", "c")])
    def test_task_names_must_fit(self, names):
        with pytest.raises(InputError, match="task_names"):
            GABALoss(task_names=names)


class TestState:
    def test_state_dict_holds_the_two_published_buffers(self):
        loss_fn = GABALoss(warmup_steps=0)
        feed(loss_fn, [3.0, 1.0])
        assert sorted(loss_fn.state_dict()) == ["ema_weights", "step_count"]

    def test_a_published_checkpoint_loads_and_continues_bit_equal(self):
        oracle = PublishedLoss(warmup_steps=3)
        for _ in range(10):
            feed(oracle, [30.0, 1.0], torch.float32)
        ours = GABALoss(warmup_steps=3, guard="none")
        ours.load_state_dict(oracle.state_dict())
        for _ in range(10):
            feed(ours, [7.0, 1.0], torch.float32)
            feed(oracle, [7.0, 1.0], torch.float32)
        assert torch.equal(ours.ema_weights, oracle.ema_weights)
        assert ours.step_count.item() == oracle.step_count.item() == 20

    @pytest.mark.parametrize("assign", [False, True])
    def test_round_trip_through_a_file(self, tmp_path, assign):
        first = GABALoss(warmup_steps=3)
        for _ in range(6):
            feed(first, [30.0, 1.0])
        torch.save(first.state_dict(), tmp_path / "loss.pt")
        second = GABALoss(warmup_steps=3)
        feed(second, [1.0, 1.0])
        second.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True), assign=assign)
        assert torch.equal(second.applied_weights, first.applied_weights)
        for _ in range(5):
            feed(first, [2.0, 1.0])
            feed(second, [2.0, 1.0])
        assert torch.equal(first.ema_weights, second.ema_weights)
        assert torch.equal(first.step_count, second.step_count)

    def test_writing_step_count_from_outside_is_noticed(self):
        loss_fn = GABALoss(warmup_steps=100)
        feed(loss_fn, [3.0, 1.0])
        loss_fn.step_count.fill_(200)
        feed(loss_fn, [3.0, 1.0])
        assert loss_fn.measured_this_step
        assert loss_fn.step_count.item() == 201

    def test_deepcopy_goes_its_own_way(self):
        first = GABALoss(warmup_steps=0)
        feed(first, [3.0, 1.0])
        second = copy.deepcopy(first)
        feed(second, [3.0, 1.0])
        assert (first.step_count.item(), second.step_count.item()) == (1, 2)
        assert not torch.equal(first.ema_weights, second.ema_weights)

    def test_moves_keep_the_state_and_half_keeps_the_average_in_float32(self):
        loss_fn = GABALoss(warmup_steps=0)
        feed(loss_fn, [3.0, 1.0])
        before = loss_fn.ema_weights.clone()
        assert torch.equal(loss_fn.to("cpu").ema_weights, before)
        assert torch.equal(loss_fn.half().ema_weights, before)
        assert loss_fn.double().ema_weights.dtype == torch.float64
        feed(loss_fn, [3.0, 1.0])
        assert loss_fn.step_count.item() == 2

    def test_snapshots_are_not_saved(self):
        loss_fn = GABALoss(warmup_steps=0)
        feed(loss_fn, [3.0, 1.0])
        fresh = GABALoss(warmup_steps=0)
        fresh.load_state_dict(loss_fn.state_dict())
        assert fresh._last_grad_norms is None
        assert fresh.get_gradient_stats() == {}
