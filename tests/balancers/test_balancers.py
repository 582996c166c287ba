"""Balancers: the published numbers, and the same weights as their PyTorch counterparts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gabactl import balancers
from gabactl.balancers import Dwa, Fixed, Gaba, GradNorm, SqrtInverse, Uncertainty, make_balancer
from gabactl.balancers.gradnorm import target_weights
from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec

# Gradient norms of the published 480-parameter toy (section 18.1).
TOY = np.array([76.5335, 0.36654])


def test_gradnorm_relay_leaves_the_positive_orthant():
    # Published: one step at lr 0.05 with auxiliary weight 1 takes a weight from 1.0 to -2.8267.
    balancer = GradNorm("textbook", lr=0.05, auxiliary_weight=1.0)
    assert balancer.step(TOY).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(balancer.step(TOY)[0], 1 - 0.05 * 76.5335, rtol=1e-15)
    np.testing.assert_allclose(balancer.reset() or balancer.weights, 1.0)
    # With the textbook's auxiliary weight 0.1 it goes to 0.617.
    mild = GradNorm("textbook", lr=0.05)
    mild.step(TOY)
    np.testing.assert_allclose(mild.weights[0], 0.617, atol=5e-4)
    # With renormalisation to sum K: (3.126, -1.126).
    original = GradNorm("chen2018", lr=0.05)
    original.step(TOY)
    np.testing.assert_allclose(original.weights, [3.126, -1.126], atol=5e-4)


@pytest.mark.parametrize(
    ("losses", "expected"),
    # Published comparison (chapter 19), initial losses (20, 2), alpha 1.5, g = (5, 0.01).
    [((10, 1), 0.001996), ((5, 1.5), 0.000385), ((10, 0.5), 0.005625)],
)
def test_published_comparison_with_gradnorm(losses, expected):
    weights = target_weights([5, 0.01], losses, [20, 2], alpha=1.5)
    assert round(float(weights[0]), 6) == expected


def test_published_schemes_at_one_imbalance():
    # Uniform 500.00, inverse square root 22.36, GABA 1.00 (section 18.1).
    g = np.array([5.0, 0.01])
    for rule, left in [
        (Fixed(), 500.0),
        (SqrtInverse(), 22.36),
        (Gaba(warmup=0, beta=0, floor=0), 1.0),
    ]:
        c = rule.step(g) * g
        assert round(float(c[0] / c[1]), 2) == left


def test_gradnorm_ends_in_a_limit_cycle_as_wide_as_its_step():
    # Unequal losses, so that the fixed point w_i = T_i / g_i is not where the weights start.
    g, losses = np.array([3.0, 1.0]), np.array([1.0, 1.0])
    balancer = GradNorm("textbook", lr=0.01, auxiliary_weight=1.0, alpha=0.0)
    weights = np.array([balancer.step(g, losses) for _ in range(4000)])[2000:]
    swing = np.ptp(weights, axis=0)
    assert (swing <= 2.01 * balancer.relay_step(g)).all()
    assert swing[0] >= balancer.relay_step(g)[0]
    # About the fixed point of alpha = 0: w proportional to 1/g.
    mean = weights.mean(axis=0)
    assert abs(mean[0] * g[0] / (mean[1] * g[1]) - 1) < 0.1


def test_alpha_gives_the_lagging_task_more_weight():
    assert (
        target_weights([1, 1], [10, 1.5], [20, 2])[1] > target_weights([1, 1], [10, 1], [20, 2])[1]
    )


def test_uncertainty_settles_at_half_the_inverse_loss():
    balancer = Uncertainty(lr=0.1)
    for _ in range(2000):
        weights = balancer.step(None, [4.0, 0.25])
    np.testing.assert_allclose(weights, [1 / 8, 2.0], rtol=1e-9)


@given(
    st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), min_size=1, max_size=20),
    st.sampled_from(CHOICES["law"]),
    st.sampled_from(CHOICES["floor_mode"]),
)
@settings(deadline=None, max_examples=50)
def test_gaba_is_the_controller(norms, law, floor_mode):
    spec = GabaSpec(warmup=2, law=law, floor_mode=floor_mode)
    rule, reference = Gaba(spec), Controller(spec)
    for g in norms:
        np.testing.assert_array_equal(rule.step(g), reference.observe(g))


@pytest.mark.parametrize(
    "name", ["gaba", "fixed", "sqrt_inverse", "gradnorm", "uncertainty", "dwa"]
)
class TestEveryBalancer:
    def readings(self, k: int):
        rng = np.random.default_rng(5)
        return rng.lognormal(0, 2, (30, k)), rng.lognormal(0, 0.3, (30, k))

    @pytest.mark.parametrize("k", [2, 5])
    def test_reset_starts_it_again(self, name, k):
        rule = make_balancer(name, k)
        norms, losses = self.readings(k)
        first = [rule.step(g, loss) for g, loss in zip(norms, losses, strict=True)]
        rule.reset()
        again = [rule.step(g, loss) for g, loss in zip(norms, losses, strict=True)]
        np.testing.assert_array_equal(first, again)

    def test_what_it_returns_is_not_its_memory(self, name):
        rule = make_balancer(name, 2)
        norms, losses = self.readings(2)
        clean = make_balancer(name, 2)
        for g, loss in zip(norms, losses, strict=True):
            weights = rule.step(g, loss)
            np.testing.assert_array_equal(weights, clean.step(g, loss))
            weights[:] = np.nan

    def test_tasks_are_treated_alike(self, name):
        order = [2, 0, 1]
        norms, losses = self.readings(3)
        a, b = make_balancer(name, 3), make_balancer(name, 3)
        for g, loss in zip(norms, losses, strict=True):
            np.testing.assert_allclose(
                a.step(g, loss)[order], b.step(g[order], loss[order]), rtol=1e-9
            )

    def test_wrong_input_is_refused(self, name):
        rule = make_balancer(name, 2)
        for g, loss in [
            ([1.0, 2.0, 3.0], [1.0, 1.0]),
            ([1.0, -2.0], [1.0, 1.0]),
            ([1.0, 2.0], [1.0]),
        ]:
            with pytest.raises(InputError):
                rule.step(g, loss)

    def test_settings_rebuild_it(self, name):
        rule = make_balancer(name, 2)
        given = {k: v for k, v in rule.settings().items() if k != "n_tasks"}
        assert dict(make_balancer(name, 2, given).settings()) == dict(rule.settings())


@pytest.mark.parametrize(
    ("name", "settings_"),
    [
        ("gaba", {"beta": 1.0}),
        ("gaba", {"betta": 0.9}),
        ("gradnorm", {"lr": 0.0}),
        ("gradnorm", {"alpha": -1.0}),
        ("gradnorm", {"variant": "chen"}),
        ("gradnorm", {"speed": 2}),
        ("dwa", {"temperature": float("nan")}),
        ("dwa", {"epoch_steps": 0}),
        ("uncertainty", {"lr": "fast"}),
        ("fixed", {"weights": [0.5, 0.3, 0.2]}),
        ("nothing", {}),
        ("nowhere.at:all", {}),
    ],
)
def test_bad_settings_are_refused_in_one_line(name, settings_):
    with pytest.raises(InputError) as caught:
        make_balancer(name, 2, settings_)
    assert "\n" not in str(caught.value)


def my_rule(grad_norms):
    return np.array([0.9, 0.1])


def test_a_user_rule_by_name_and_by_hand():
    loaded = balancers.load_user(f"{__name__}:my_rule")
    assert loaded.step([1.0, 1.0]).tolist() == [0.9, 0.1]

    class Mine:
        def __init__(self):
            self.count = 0

        def reset(self):
            self.count = 0

        def step(self, grad_norms, losses):
            self.count += 1
            return np.array([self.count, losses[0]])

    rule = balancers.UserBalancer(Mine())
    assert rule.step([1.0, 1.0], [7.0, 1.0]).tolist() == [1.0, 7.0]
    rule.reset()
    assert rule.step([1.0, 1.0], [7.0, 1.0]).tolist() == [1.0, 7.0]
    with pytest.raises(InputError, match="shape"):
        balancers.UserBalancer(lambda g: [1.0]).step([1.0, 1.0])


class TestTorch:
    """The same weights as ours and torchjd's modules on the same gradients, in float64."""

    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch")

    def model(self, k: int = 2):
        """K losses g_i * (shared parameter) whose gradient norms are what we choose."""
        return self.torch.zeros(1, dtype=self.torch.float64, requires_grad=True)

    @pytest.mark.parametrize("variant", ["chen2018", "textbook"])
    @pytest.mark.parametrize("create_graph", [True, False])
    @pytest.mark.parametrize("lr", [0.001, 0.05])
    def test_gradnorm(self, variant, create_graph, lr):
        from gabactl.nn import GradNormLoss

        rng = np.random.default_rng(2)
        torch = self.torch
        shared = self.model()
        loss_fn = GradNormLoss(variant, lr=lr, n_tasks=3, create_graph=create_graph).double()
        rule = GradNorm(variant, lr=lr, n_tasks=3)
        negative = 0
        for _ in range(60):
            g, losses = rng.lognormal(0, 2, 3), rng.lognormal(0, 0.3, 3)
            applied = loss_fn.task_weights.clone()
            terms = [
                shared.sum() * float(a) + torch.tensor(float(b), dtype=torch.float64)
                for a, b in zip(g, losses, strict=True)
            ]
            loss_fn.forward_k(terms, [shared])
            weights = rule.step(g, losses)
            negative += int((weights < 0).any())
            np.testing.assert_allclose(weights, applied.numpy(), rtol=1e-6, atol=1e-9)
        # The coarse step must have gone through zero, or the sign rule was never tried.
        assert negative or lr == 0.001

    def test_gaba(self):
        from gabactl.nn import GABALoss

        rng = np.random.default_rng(3)
        shared = self.model()
        loss_fn = GABALoss(beta=0.9, warmup_steps=3, n_tasks=3).double()
        rule = Gaba(GabaSpec(n_tasks=3, beta=0.9, warmup=3, guard="none"))
        for _ in range(40):
            g = rng.lognormal(0, 2, 3)
            ones = [shared.sum() * float(a) + 1.0 for a in g]
            total = loss_fn.forward_k(ones, [shared])
            total.backward()
            weights = rule.step(g)
            # The gradient of the weighted sum is what the weights made of the norms.
            np.testing.assert_allclose(float(shared.grad), weights @ g, rtol=1e-6)
            shared.grad = None
            np.testing.assert_allclose(
                loss_fn.ema_weights.numpy(), rule.controller.ema_weights, rtol=1e-6
            )

    def test_uncertainty(self):
        scalarization = pytest.importorskip("torchjd.scalarization")
        torch = self.torch
        module = scalarization.UW(3).double()
        optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
        rule = Uncertainty(lr=0.05, n_tasks=3)
        rng = np.random.default_rng(4)
        for _ in range(50):
            losses = rng.lognormal(0, 1, 3)
            values = torch.tensor(losses, requires_grad=True)
            optimiser.zero_grad()
            module(values).backward()
            np.testing.assert_allclose(rule.step(None, losses), values.grad.numpy(), rtol=1e-12)
            optimiser.step()

    def test_dwa(self):
        scalarization = pytest.importorskip("torchjd.scalarization")
        torch = self.torch
        module = scalarization.DWA(temperature=1.5)
        rule = Dwa(temperature=1.5, epoch_steps=4, n_tasks=3)
        rng = np.random.default_rng(4)
        for n in range(24):
            losses = rng.lognormal(0, 1, 3)
            values = torch.tensor(losses, requires_grad=True)
            module(values).backward()
            np.testing.assert_allclose(rule.step(None, losses), values.grad.numpy(), rtol=1e-12)
            if n % 4 == 3:
                module.step()

    @pytest.mark.parametrize("method", list(balancers.DIRECTION_METHODS))
    def test_directions(self, method):
        aggregation = pytest.importorskip("torchjd.aggregation")
        torch = self.torch
        name, arguments = balancers.DIRECTION_METHODS[method]
        try:
            weighting = getattr(aggregation, name)(**arguments)
        except ImportError as error:
            with pytest.raises(InputError, match="pip install"):
                make_balancer(method, 3)
            pytest.skip(str(error))
        rule = make_balancer(method, 3)
        rng = np.random.default_rng(6)
        torch.manual_seed(0)
        for n in range(4):
            jacobian = rng.standard_normal((3, 6))
            if n == 0:
                tensor = torch.tensor(jacobian)
                expected = weighting(tensor @ tensor.T).numpy()
                np.testing.assert_allclose(rule.step(jacobian), expected, rtol=1e-6, atol=1e-9)
            else:
                assert np.isfinite(rule.step(jacobian)).all()

    def test_directions_draw_from_their_own_seed(self):
        pytest.importorskip("torchjd")
        jacobian = np.random.default_rng(0).standard_normal((5, 3))
        rule = make_balancer("pcgrad", 5)
        first = [rule.step(jacobian) for _ in range(5)]
        state = self.torch.random.get_rng_state()
        rule.reset()
        np.testing.assert_array_equal(first, [rule.step(jacobian) for _ in range(5)])
        assert self.torch.equal(state, self.torch.random.get_rng_state())
