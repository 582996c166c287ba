"""The networks: sizes, heads, and that they can learn from the first step."""

from __future__ import annotations

import pytest
import torch

from gabactl.base.errors import InputError
from gabactl.nn import compute_task_grad_norm, get_shared_params
from gabactl.nn.training.models import CnnBiLstmAttention, SmallCnnBiLstmAttention, build_model

# Textbook "Gradient-Aware Multi-Task Learning for Predictive Maintenance": backbone and heads,
# 14 inputs.
PUBLISHED_PARAMETERS = 3_496_900


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_published_size() -> None:
    model = CnnBiLstmAttention(14)
    assert count(model) == PUBLISHED_PARAMETERS
    heads = count(model.rul_head) + count(model.health_head)
    assert heads == 4_737 + 1_635
    assert sum(p.numel() for p in get_shared_params(model)) == PUBLISHED_PARAMETERS - heads
    # Three more channels enter the first convolution alone.
    assert count(CnnBiLstmAttention(17)) == PUBLISHED_PARAMETERS + 3 * 3 * 64


def test_the_small_size() -> None:
    assert count(SmallCnnBiLstmAttention(14)) == 76_709
    assert sum(p.numel() for p in get_shared_params(SmallCnnBiLstmAttention(14))) == 70_337


@pytest.mark.parametrize("size", ["small", "paper"])
@pytest.mark.parametrize("channels", [14, 17])
def test_shapes_and_gradients_reach_every_parameter(size: str, channels: int) -> None:
    torch.manual_seed(0)
    model = build_model(size, channels)
    rul, health = model(torch.randn(4, 30, channels))
    assert rul.shape == (4,)
    assert health.shape == (4, 3)
    assert (rul >= 0).all()
    ((rul - 80).square().mean() + health.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_no_start_is_dead() -> None:
    # With a final ReLU and a plain start, the RUL output is off for every window in about half
    # of all seeds, and then has no gradient for ever.
    inputs = torch.randn(64, 30, 14, generator=torch.Generator().manual_seed(0))
    for seed in range(10):
        torch.manual_seed(seed)
        model = build_model("small")
        rul, _ = model(inputs)
        assert (rul > 0).float().mean() > 0.9
        norm = compute_task_grad_norm((rul - 80).square().mean(), get_shared_params(model))
        assert norm > 1


def test_dropout_is_published_by_subset() -> None:
    def rates(model: torch.nn.Module) -> set[float]:
        return {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}

    assert rates(build_model("paper", subset="FD001")) == {0.3}
    assert rates(build_model("paper", subset="FD002")) == {0.2}
    assert rates(build_model("paper", subset="FD003")) == {0.3}
    assert rates(build_model("paper", subset="FD004")) == {0.2}
    assert rates(build_model("paper", dropout=0.1)) == {0.1}


def test_only_the_last_cycle_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Attending with the last cycle alone equals attending with all and keeping the last.
    torch.manual_seed(0)
    model = CnnBiLstmAttention(14).eval()
    inputs = torch.randn(2, 30, 14)
    x = model.conv(inputs.transpose(1, 2)).transpose(1, 2)
    x, _ = model.lstm(x)
    attended, _ = model.attention(x, x, x, need_weights=False)
    expected = model.reduce(model.norm(x + attended)[:, -1])
    assert torch.allclose(model.features(inputs), expected, atol=1e-6)


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="model = 'large' is unknown"):
        build_model("large")
    for dropout in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="dropout"):
            build_model("small", dropout=dropout)
    with pytest.raises(InputError, match="channels = 0"):
        build_model("small", channels=0)
