"""The decorator for a user's own test file, and torch losses as targets."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gabactl.base.errors import InputError  # noqa: E402
from gabactl.fuzzing import Case, fuzz, guarantees, resolve  # noqa: E402
from gabactl.fuzzing.target import run_case  # noqa: E402
from gabactl.fuzzing.targets import from_factory  # noqa: E402
from gabactl.law.spec import GabaSpec  # noqa: E402
from gabactl.nn.losses.gaba import GABALoss  # noqa: E402

pytest_plugins = ["pytester"]


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@guarantees(lambda: GABALoss(beta=0.5, warmup_steps=2), steps=300, lives=3)
def test_our_loss(guarantee):
    assert guarantee


@guarantees(lambda: lambda g: 1.0 / len(g) + 0.0 * g, properties=["equivariance", "checkpoint"])
class TestOfAClass:
    def test_something_else(self):
        assert True


def test_a_violation_fails_with_the_smallest_case(pytester):
    pytester.makepyfile(
        test_mine="""
        import gabactl.fuzzing

        @gabactl.fuzzing.guarantees(lambda: (lambda g: g / g.sum()), steps=300,
                                 properties=["bounds", "finite", "checkpoint", "life"])
        def test_rule(): pass
        """
    )
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly")
    # 0/0 is NaN: outside any bound and not finite; it has no checkpoint and is not torch.
    done.assert_outcomes(failed=2, skipped=2)
    done.stdout.fnmatch_lines(["*smallest*0.0, 0.0*"])


def test_an_unknown_property_is_refused():
    with pytest.raises(InputError, match="'bound' is unknown"):
        guarantees(GABALoss, properties=["bound"])


@pytest.mark.parametrize(
    "spec",
    [
        GabaSpec(beta=0.9, warmup=1),
        GabaSpec(n_tasks=3, beta=0.9, warmup=0, law="inverse", floor_mode="project"),
        GabaSpec(beta=0.5, warmup=0, interval=2, floor_mode="clamp_state"),
    ],
    ids=str,
)
def test_everything_holds_for_our_torch_loss(spec):
    report = fuzz("gaba-torch", "all", spec=spec, steps=100)
    assert [r.message for r in report.results if r.violated] == []


def test_the_published_torch_loss_is_poisoned_by_one_overflow():
    result = fuzz("gaba-torch", "finite", spec=GabaSpec.published(warmup=0), steps=3000).results[0]
    assert result.violated
    assert result.witness.n_steps <= 2


def test_gradnorm_in_torch_has_negative_weights_and_nan():
    for name in ("bounds", "finite"):
        assert fuzz("gradnorm-torch", name, steps=2000).results[0].violated


class Published(torch.nn.Module):
    """A loss with the published attributes, by hand: it states its own settings."""

    def __init__(self, beta=0.5, warmup_steps=1, min_weight=0.05, n_tasks=2):
        super().__init__()
        self.beta, self.warmup_steps = beta, warmup_steps
        self.min_weight, self.n_tasks = min_weight, n_tasks
        self.register_buffer("ema_weights", torch.full((n_tasks,), 1.0 / n_tasks))
        self.register_buffer("step_count", torch.tensor(0))

    def weights(self, norms):
        total = norms.sum() + 1e-12
        raw = (total - norms) / ((self.n_tasks - 1) * total)
        self.ema_weights = self.beta * self.ema_weights + (1 - self.beta) * raw
        return self.ema_weights.clamp_min(self.min_weight)

    def forward(self, first, second, shared_params=None, **_):
        self.step_count += 1
        if self.step_count <= self.warmup_steps:
            return (first + second) / 2
        norms = []
        for loss in (first, second):
            (gradient,) = torch.autograd.grad(loss, shared_params, retain_graph=True)
            norms.append(gradient.norm())
        weights = self.weights(torch.stack(norms).detach())
        weights = weights / weights.sum()
        return weights[0] * first + weights[1] * second


def test_a_users_copy_of_the_published_class_is_recognised():
    target = from_factory(Published, GabaSpec(), "mine")
    assert target.spec == GabaSpec.published(beta=0.5, warmup=1)
    assert not fuzz(target, "bounds", steps=400).violated
    assert not fuzz(target, "reference", steps=400).violated
    assert fuzz(target, "bounds", bound="published", steps=2000).violated


def test_a_users_bug_is_found():
    class Bug(Published):
        def weights(self, norms):
            total = norms.sum() + 1e-12
            raw = (total - norms) / (self.n_tasks * total)
            self.ema_weights = self.beta * self.ema_weights + (1 - self.beta) * raw
            return self.ema_weights.clamp_min(self.min_weight)

    result = fuzz(Bug, "reference", steps=1000).results[0]
    assert result.violated
    assert len(result.witness.segments) == 1


def test_the_readings_reach_the_sensor_as_they_are():
    target = resolve("gaba-torch", GabaSpec(warmup=0, beta=0.0))
    path = run_case(target, Case.from_readings([[3.0, 1.0]]))
    assert path.weights == pytest.approx(np.array([[0.25, 0.75]]), abs=1e-7)


@pytest.mark.parametrize(
    ("product", "words"),
    [(3, "returned a int"), (torch.nn.Linear(2, 2), "takes no shared_params")],
)
def test_a_factory_of_something_else_is_refused(product, words):
    with pytest.raises(InputError, match=words):
        from_factory(lambda: product, GabaSpec(), "mine")
