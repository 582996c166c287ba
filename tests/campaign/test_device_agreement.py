"""CPU and GPU agree: the controllers on the same norms, and the beginning of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gabactl import cmapss  # noqa: E402
from gabactl.law.spec import GabaSpec  # noqa: E402
from gabactl.nn import GABALoss, GradNormLoss  # noqa: E402
from gabactl.nn.losses.base import BalancedLoss  # noqa: E402
from gabactl.nn.training.loop import train  # noqa: E402
from gabactl.nn.training.settings import TrainingSettings  # noqa: E402
from gabactl.traces import load_bundled, read_trace  # noqa: E402

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def weights_on(device: str, make: type[BalancedLoss], norms: np.ndarray, **options: object):
    """Weights of a balancer that is fed with given norms: task i has the gradient norms[i]."""
    loss_fn = make(**options).to(device)  # type: ignore[arg-type]
    shared = torch.ones(2, device=device, requires_grad=True)
    found = []
    for row in torch.tensor(norms, dtype=torch.float32, device=device):
        loss_fn.forward_k([row[0] * shared[0], row[1] * shared[1]], [shared])
        found.append(loss_fn.applied_weights.cpu().numpy())
    return np.array(found)


def disagreement(device: str, make: type[BalancedLoss], **options: object) -> float:
    norms = load_bundled("fd001-gaba").grad_norms
    norms = norms[np.isfinite(norms).all(axis=1)][:400]
    a, b = (weights_on(d, make, norms, **options) for d in ("cpu", device))
    assert len(a) > 300
    assert np.ptp(a[:, 0]) > 0.1
    return float(np.abs(a - b).max())


@cuda
@pytest.mark.parametrize(
    "options",
    [{}, {"floor_mode": "project"}, {"min_weight": 1e-4}, {"law": "inverse"}],
    ids=["published", "project", "floor 1e-4", "inverse"],
)
def test_gaba_decides_alike_on_both_devices(options: dict[str, object]) -> None:
    assert disagreement("cuda", GABALoss, **options) <= 5e-6


@cuda
def test_gradnorm_decides_alike_on_both_devices() -> None:
    # The closed form on both: the same rule, and the one that CUDA needs.
    found = disagreement("cuda", GradNormLoss, variant="textbook", lr=1e-3, create_graph=False)
    assert found <= 5e-6


def test_the_comparison_itself_can_fail() -> None:
    assert disagreement("cpu", GABALoss) == 0.0
    norms = np.full((300, 2), 1.0)
    a = weights_on("cpu", GABALoss, norms)
    b = weights_on("cpu", GABALoss, norms * [1.0, 1.01])
    assert np.abs(a - b).max() > 5e-6


@cuda
@pytest.mark.parametrize("model", ["small", "paper"])
@pytest.mark.parametrize("balancer", ["gaba", "fixed", "gradnorm"])
def test_training_begins_alike_on_both_devices(
    tiny_cmapss: Path, tmp_path: Path, model: str, balancer: str
) -> None:
    data = cmapss.load(tiny_cmapss)
    settings = TrainingSettings(
        model=model,
        balancer=balancer,
        dropout=0.0,
        steps=20,
        epochs=4,
        batch_size=30,
        spec=GabaSpec(warmup=4, beta=0.9),
        gradnorm_lr=1e-3,
    )
    recorded = {}
    for device in ("cpu", "cuda"):
        file = tmp_path / f"{device}.parquet"
        train(data, replace(settings, device=device), record=file)
        recorded[device] = read_trace(file)
    a, b = recorded["cpu"], recorded["cuda"]
    assert len(a) == len(b) == 20
    for column in ("losses", "grad_norms", "weights"):
        x, y = getattr(a, column), getattr(b, column)
        np.testing.assert_allclose(y, x, rtol=1e-3, err_msg=column)
