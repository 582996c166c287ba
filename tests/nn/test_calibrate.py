"""``calibrate``: bias, correlation and verdict of a cheap sensor."""

import json
import math

import numpy as np
import pytest
import torch
from oracles.toys import t1008

from gabactl.base.errors import InputError
from gabactl.nn import LastLayerSensor, RepresentationSensor
from gabactl.nn.sensors.calibration import _compare, calibrate


def batches(n=6):
    rng = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(32, 14, generator=rng),
            torch.rand(32, 1, generator=rng) * 125,
            torch.randint(0, 3, (32,), generator=rng),
        )
        for _ in range(n)
    ]


def losses_of(model, batch):
    return model.losses(*batch)


@pytest.mark.parametrize("kind", ["representation", "last_layer"])
def test_on_a_model(kind):
    model, _ = t1008()
    sensor = (
        RepresentationSensor(model.backbone)
        if kind == "representation"
        else LastLayerSensor(model.backbone[2].parameters())
    )
    before = [p.clone() for p in model.parameters()]
    found = calibrate(model, batches(), losses_of, sensor)
    assert found.batches == 6
    assert found.verdict in ("use", "recalibrate")
    assert found.corrected_weight_error <= found.weight_error + 1e-6
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert json.loads(found.to_json())["sensor"] == type(sensor).__name__
    assert "verdict" in str(found)


def rows(log_ratio):
    return np.stack([np.exp(log_ratio), np.ones_like(log_ratio)], axis=1)


def test_verdicts():
    rng = np.random.default_rng(0)
    exact = rng.normal(0, 0.5, 4000)
    good = _compare("x", rows(exact + rng.normal(0, 0.05, 4000)), rows(exact), 0)
    assert good.verdict == "use"
    biased = _compare("x", rows(exact + 0.67), rows(exact), 0)
    assert biased.verdict == "recalibrate"
    assert biased.bias == pytest.approx([0.67])
    assert biased.correlation == pytest.approx([1.0])
    # The error depends on the ratio, so no constant takes it out.
    bent = _compare("x", rows(np.where(exact > 0, 6 * exact, exact)), rows(exact), 0)
    assert bent.verdict == "refuse"


def test_constant_readings_have_no_correlation():
    same = _compare("x", rows(np.zeros(5)), rows(np.zeros(5)), 0)
    assert math.isnan(same.correlation[0])
    assert json.loads(same.to_json())["correlation"] == [None]


def test_too_little():
    model, _ = t1008()
    with pytest.raises(InputError, match="only 1 of 1 batches"):
        calibrate(model, batches(1), losses_of, RepresentationSensor(model.backbone))
    with pytest.raises(InputError, match="max_batches"):
        calibrate(model, [], losses_of, RepresentationSensor(model.backbone), max_batches=1)
