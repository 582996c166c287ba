"""Each rule in the life of a loss by itself, on losses that claim to be GABA and on others."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gabactl.base.errors import InputError  # noqa: E402
from gabactl.fuzzing import guarantees, loss_life  # noqa: E402
from gabactl.fuzzing._torch_targets import module  # noqa: E402
from gabactl.nn import FixedLoss, GABALoss  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def ours(**changes):
    return loss_life(lambda: GABALoss(**{"beta": 0.5, "warmup_steps": 0, **changes}))()


def other():
    """A loss that claims nothing, and has no average."""
    return loss_life(lambda: FixedLoss([0.3, 0.7]), bound=(0.0, 1.0))()


def test_the_parameters_may_change_and_the_norm_stays():
    life = ours()
    for parts in (1, 4):
        life.change_shared_params((3.0, 1.0), parts)
        life.weights_are_in_range()
    # raw 1/4: 1/2, 3/8, 5/16.
    assert life.weights == pytest.approx([0.3125, 0.6875], abs=1e-6)
    life = other()
    life.change_shared_params((3.0, 1.0), 2)
    assert life.weights == pytest.approx([0.3, 0.7])


def test_a_loss_that_claims_nothing_is_held_to_its_range_only():
    life = other()
    life.weights_are_in_range()
    life.begin(2)
    life.step_without_shared_params()
    life.change_precision(torch.float64)
    life.unusable_reading((float("nan"), 1.0))
    life.failing_step()
    life.checkpoint((2.0, 1.0))
    life.evaluate()
    life.weights_are_in_range()
    assert life.weights == pytest.approx([0.3, 0.7])
    life.weights = np.array([-0.1, 1.1])
    with pytest.raises(AssertionError, match="are outside"):
        life.weights_are_in_range()


def test_a_step_that_measures_nothing_cannot_fail():
    life = ours(warmup_steps=5)
    life.failing_step()  # in the warm-up no gradient is taken
    assert life.model.step_count == 1
    life.begin(0)
    life.step((3.0, 1.0))
    life.failing_step()
    assert life.loss.step_count == life.model.step_count


def test_losses_are_copied_to_the_device_of_the_loss():
    life = ours()
    life.move("cpu:0")  # another name than that of the parameters
    life.step((3.0, 1.0))
    assert life.weights == pytest.approx([0.375, 0.625], abs=1e-6)


def test_a_factory_may_take_the_number_of_tasks_of_a_life():
    @guarantees(
        lambda n_tasks: GABALoss(beta=0.5, warmup_steps=0, n_tasks=n_tasks),
        n_tasks=3, steps=50, lives=1, properties=["life"],
    )  # fmt: skip
    def run(guarantee):
        seen.append(guarantee)

    seen: list[str] = []
    run.hypothesis = None
    run(guarantee="life")
    assert seen == ["life"]


def test_what_a_loss_must_be():
    with pytest.raises(InputError, match=r"^mine: the factory returned no torch module$"):
        module(lambda k: 3, 2, "mine")

    class Open(torch.nn.Module):
        def forward(self, *losses, shared_params=None):
            return sum(losses) / len(losses)

    # Any number of losses: as many as asked for.
    assert module(lambda k: Open(), 5, "mine").n_tasks == 5
