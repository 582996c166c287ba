"""The life of a torch loss as a state machine: whatever a training script may do to it, in any order.

Hypothesis draws steps, steps without shared parameters, evaluation, checkpoints, changes of
precision, device and of the parameters, unusable readings and exceptions in the middle of a step,
and shrinks a life that breaks something to the shortest one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray
from torch import Tensor, nn

from gabactl.fuzzing import strategies
from gabactl.fuzzing._torch_targets import TorchRun, applied, call_loss, module, task_losses
from gabactl.fuzzing.properties import Bound, resolve_bound, rounding_slack, ulps
from gabactl.law.controller import Controller

__all__ = ["loss_life"]

Array = NDArray[np.float64]

#: Norms whose squares stay in the range of single precision.
_SMALLEST, _LARGEST = 1e-15, 1e15


class _Broken(torch.autograd.Function):
    """A loss whose gradient cannot be computed: the exception in the middle of a step."""

    @staticmethod
    def forward(ctx: Any, shared: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("planted failure of a backward pass")


def loss_life(
    make_loss: Callable[[], nn.Module], n_tasks: int = 2, bound: Bound = "tight"
) -> type[RuleBasedStateMachine]:
    """A state machine over the life of a loss.

    Parameters
    ----------
    make_loss : callable
        Makes a fresh loss, as a training script would.
    n_tasks : int
        Number of tasks, where the loss does not state it.
    bound : "tight", "published" or (low, high)
        Range of the weights, as in :func:`gabactl.fuzzing.fuzz`.

    Returns
    -------
    type
        A :class:`hypothesis.stateful.RuleBasedStateMachine`; its ``TestCase`` is what pytest
        collects, and :func:`hypothesis.stateful.run_state_machine_as_test` runs it.

    Notes
    -----
    Every loss is held to: finite weights in their range, a checkpoint that continues as the
    original does, and a stored average that neither an evaluation nor a failed step moves. One
    that claims to be GABA (see :func:`gabactl.fuzzing.resolve`) is also compared with
    :class:`gabactl.Controller` at every step, and with ``guard="hold"`` it must survive NaN,
    infinity and zeros.

    Examples
    --------
    >>> from gabactl.nn import GABALoss
    >>> Life = loss_life(lambda: GABALoss(warmup_steps=2))
    >>> issubclass(Life, RuleBasedStateMachine)
    True
    """
    target = module(lambda _: make_loss(), n_tasks, "loss")
    k, spec = target.n_tasks, target.spec
    low, high = resolve_bound(target, bound)
    slack = rounding_slack(target, bound) * target.resolution
    low -= max(8 * ulps(low, target.resolution), slack)
    high += max(8 * ulps(high, target.resolution), slack)
    total = target.total
    norms = strategies.grad_norms(k, smallest=_SMALLEST, largest=_LARGEST, allow_subnormal=False)
    bad = strategies.grad_norms(
        k, allow_nan=True, allow_infinity=True, allow_subnormal=True, largest=1e300
    )
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

    class LossLife(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.loss = make_loss()
            self.dtype = torch.float32
            self.device = "cpu"
            self.weights: Array | None = None
            self.model = None if spec is None else Controller(spec)

        @initialize(steps=st.integers(0, 3))
        def begin(self, steps: int) -> None:
            """Past the warm-up, or still in it."""
            warmup = 0 if spec is None else spec.warmup
            for _ in range(max(0, warmup - 1 + steps)):
                self._step((1.0,) * k)

        def _tensors(self, reading: tuple[float, ...]) -> Any:
            losses, shared, probes = task_losses(np.array(reading), np.ones(k), self.dtype)
            if self.device == "cpu":
                return losses, shared, probes
            # The same graph on the device: a copy of every loss there.
            return [loss.to(self.device) for loss in losses], shared, probes

        def _apply(
            self, loss: nn.Module, reading: tuple[float, ...], with_shared: bool = True
        ) -> Array:
            losses, shared, probes = self._tensors(reading)
            combined = call_loss(loss, losses, [shared] if with_shared else None)
            return applied(combined, probes)

        def _step(self, reading: tuple[float, ...]) -> None:
            self.weights = self._apply(self.loss, reading)
            if self.model is not None:
                seen = np.array(reading, dtype=np.float32).astype(np.float64)
                self._compare(self.model.observe(seen))

        def _compare(self, expected: Array) -> None:
            assert self.weights is not None
            gap = float(np.abs(self.weights - target.scale * expected).max())
            assert gap <= target.slack, (
                f"weights {self.weights.tolist()} differ from the reference "
                f"{(target.scale * expected).tolist()} by {gap:.3g}"
            )

        def _average(self) -> Array | None:
            return TorchRun(self.loss, k).average()

        def _unmoved(self, before: Array | None, what: str) -> None:
            after = self._average()
            if before is not None and after is not None:
                same = np.array_equal(before, after, equal_nan=True)
                assert same, f"{what} moved the average from {before.tolist()} to {after.tolist()}"
            count = getattr(self.loss, "step_count", None)
            if self.model is not None and isinstance(count, Tensor):
                # The published class counts evaluations and failed steps; ours does not.
                ahead = int(count) - self.model.step_count
                assert ahead in (0, 1), f"{what} moved step_count by {ahead}"
                self.model.step_count += ahead

        @rule(reading=norms)
        def step(self, reading: tuple[float, ...]) -> None:
            """An ordinary training step."""
            self._step(reading)

        @rule(reading=norms, times=st.integers(2, 30))
        def steps(self, reading: tuple[float, ...], times: int) -> None:
            """The same reading for a while."""
            for _ in range(times):
                self._step(reading)

        @rule()
        def step_without_shared_params(self) -> None:
            """A step with nothing to measure on: uniform weights where a reading was due."""
            before = self._average()
            self.weights = self._apply(self.loss, (1.0,) * k, with_shared=False)
            if self.model is not None:
                self._compare(self.model.observe(None))
            self._unmoved(before, "a step without shared_params")

        @rule(reading=bad)
        def unusable_reading(self, reading: tuple[float, ...]) -> None:
            """NaN, infinity, overflow, vanishing norms; only a guarded loss promises to cope."""
            if spec is None or spec.guard != "hold" or self.model is None:
                return
            with np.errstate(over="ignore"):
                squares = np.square(np.array(reading, dtype=np.float32))
            if np.isfinite(squares).all() and (squares >= 1e-30).all():
                self._step(reading)
                return
            # What single precision makes of such a norm is the sensor's affair: take its word.
            self.weights = self._apply(self.loss, reading)
            average = self._average()
            assert average is not None
            self.model.step_count += 1
            self.model.ema_weights = average

        @rule()
        def evaluate(self) -> None:
            """A validation batch: eval mode, no gradients."""
            before = self._average()
            self.loss.eval()
            with torch.no_grad():
                losses, shared, _ = self._tensors((1.0,) * k)
                combined = float(call_loss(self.loss, losses, [shared]))
            self.loss.train()
            assert np.isfinite(combined), f"the combined loss in evaluation is {combined}"
            self._unmoved(before, "an evaluation")

        @rule()
        def failing_step(self) -> None:
            """An exception while the gradients are taken (out of memory, a bug in the model)."""
            before = self._average()
            losses, shared, _ = self._tensors((1.0,) * k)
            losses[-1] = _Broken.apply(shared, losses[-1].detach())  # type: ignore[no-untyped-call]
            failure = ""
            try:
                call_loss(self.loss, losses, [shared])
            except RuntimeError as error:
                failure = str(error)
            if failure:
                assert "planted failure" in failure, f"another error came out: {failure}"
                self._unmoved(before, "a failed step")
            elif self.model is not None:
                # Nothing was measured: an ordinary step for the average.
                self.model.observe(None)

        @rule(reading=norms)
        def checkpoint(self, reading: tuple[float, ...]) -> None:
            """Save, restore into a fresh loss, and go on with that one."""
            run = TorchRun(self.loss, k)
            restored = make_loss()
            restored.to(next((b.dtype for b in self.loss.buffers() if b.is_floating_point()), None))
            TorchRun(restored, k).load(run.save())
            restored.to(self.device)
            original, self.loss = self.loss, restored
            expected = self._apply(original, reading)
            self._step(reading)
            assert self.weights is not None
            assert np.array_equal(self.weights, expected), (
                f"after the checkpoint weights {self.weights.tolist()}, without it "
                f"{expected.tolist()}"
            )

        @rule(dtype=st.sampled_from([torch.float32, torch.float64]))
        def change_precision(self, dtype: torch.dtype) -> None:
            """``.to(dtype)`` of the model and of the loss."""
            before = self._average()
            self.loss.to(dtype)
            self.dtype = dtype
            after = self._average()
            if before is not None and after is not None:
                assert np.allclose(before, after, rtol=1e-6), (
                    "a change of precision moved the average"
                )

        @rule(device=st.sampled_from(devices))
        def move(self, device: str) -> None:
            """``.to(device)`` of the model and of the loss."""
            self.loss.to(device)
            self.device = device

        @rule(reading=norms, parts=st.integers(1, 4))
        def change_shared_params(self, reading: tuple[float, ...], parts: int) -> None:
            """Another batch, another list of parameters: the norm comes in several pieces."""
            shared = [torch.zeros(2, dtype=self.dtype, requires_grad=True) for _ in range(parts)]
            unused = torch.zeros(3, dtype=self.dtype, requires_grad=True)
            probes = [torch.zeros((), dtype=self.dtype, requires_grad=True) for _ in range(k)]
            losses = []
            for norm, probe in zip(reading, probes, strict=True):
                slope = norm / np.sqrt(2 * parts)
                losses.append(sum((slope * p.sum() for p in shared), probe + 1.0))
            moved: Any = [loss.to(self.device) for loss in losses]
            combined = call_loss(self.loss, moved, [*shared, unused])
            self.weights = applied(combined, probes)
            if self.model is not None:
                self._compare(self.model.observe(np.array(reading)))

        @invariant()
        def weights_are_in_range(self) -> None:
            """Finite, in the range, and of the right sum."""
            if self.weights is None:
                return
            values = self.weights.tolist()
            assert np.isfinite(self.weights).all(), f"weights {values} are not finite"
            inside = (self.weights >= low).all() and (self.weights <= high).all()
            assert inside, f"weights {values} are outside [{low:.9g}, {high:.9g}]"
            if total is not None:
                off = abs(float(self.weights.sum()) - total)
                assert off <= 8 * k * target.resolution * total, (
                    f"weights {values} sum to {total + off}"
                )

    return LossLife
