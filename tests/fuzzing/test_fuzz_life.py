"""The life of a torch loss: ours survives it, broken ones do not."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, Phase, settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402

from gabactl.fuzzing import loss_life  # noqa: E402
from gabactl.nn.losses.gaba import GABALoss  # noqa: E402
from gabactl.nn.losses.gradnorm import GradNormLoss  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def live(make_loss, lives=8, **options):
    run_state_machine_as_test(
        loss_life(make_loss, **options),
        settings=settings(
            max_examples=lives, stateful_step_count=12, deadline=None, database=None, phases=[Phase.generate],
            derandomize=True, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guard": "none"},
        {"floor_mode": "project", "n_tasks": 3},
        {"law": "inverse", "floor_mode": "clamp_state"},
        {"floor_mode": "affine", "normalise_to": "n_tasks"},
    ],
    ids=str,
)
def test_our_loss_survives(changes):
    live(lambda: GABALoss(beta=0.9, warmup_steps=2, **changes), lives=4)


@pytest.mark.slow
@pytest.mark.parametrize("guard", ["hold", "none"])
def test_our_loss_survives_long_lives(guard):
    live(lambda: GABALoss(beta=0.9, warmup_steps=2, guard=guard), lives=100)


class ForgetsItsAverage(GABALoss):
    """The average is no buffer, so a checkpoint does not have it."""

    def __init__(self):
        super().__init__(beta=0.9, warmup_steps=0)
        average = self.ema_weights
        del self._buffers["ema_weights"]
        self.ema_weights = average

    def _apply(self, fn, recurse=True):
        return torch.nn.Module._apply(self, fn, recurse)


class MovesInEvaluation(GABALoss):
    _frozen = property(lambda self: False)

    def forward_k(self, losses, shared_params=None):
        if not self.training:
            self.ema_weights.mul_(0.5).add_(torch.tensor([0.5, 0.0]))
            return sum(losses)
        return super().forward_k(losses, shared_params)


class MovesBeforeItMeasures(GABALoss):
    """The average moves before the gradients are there; an exception leaves it moved."""

    def forward_k(self, losses, shared_params=None):
        self.ema_weights.mul_(1.0 + 1e-3)
        return super().forward_k(losses, shared_params)


class HalvesItsAverage(GABALoss):
    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.ema_weights = self.ema_weights.half().float()
        return self


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (ForgetsItsAverage, "after the checkpoint|differ from the reference"),
        (lambda: MovesInEvaluation(warmup_steps=0), "an evaluation moved the average"),
        (lambda: MovesBeforeItMeasures(warmup_steps=0), "moved|differ"),
        (lambda: HalvesItsAverage(warmup_steps=0, beta=0.9), "differ|moved|checkpoint"),
    ],
)
def test_broken_losses_do_not(broken, words):
    with pytest.raises(AssertionError, match=words):
        live(broken, lives=40)


def test_gradnorm_breaks_down_within_a_few_lives():
    with pytest.raises(AssertionError, match=r"outside|not finite"):
        live(lambda: GradNormLoss(lr=1.0), lives=30)


def test_a_guardless_loss_that_claims_a_guard_is_caught():
    class Claims(GABALoss):
        def _take(self, norms):
            claimed, self.spec = self.spec, self.spec.replace(guard="none")
            try:
                return super()._take(norms)
            finally:
                self.spec = claimed

    with pytest.raises(AssertionError, match=r"not finite|differ|moved"):
        live(lambda: Claims(warmup_steps=0, beta=0.5), lives=60)
