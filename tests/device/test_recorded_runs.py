"""Bundled runs of the published controller, a GPU's with those of a CPU, against its theory.

The gain that is identified from bundled twins is held in tests/identification, for these, too.
"""

from __future__ import annotations

import numpy as np
import pytest

from gabactl.traces import bundled, load_bundled
from gabactl.validation.check import check
from gabactl.validation.prediction import Prediction, predict

RUNS = [name for name in bundled() if name.endswith("-gaba")]


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest) -> tuple[str, Prediction]:
    return request.param, predict(load_bundled(request.param))


def test_it_follows_from_its_own_norms(run) -> None:
    found = check(load_bundled(run[0]))
    assert found.precision == "float32"
    assert found.tolerance == 5e-6
    assert found.ok is True


def test_the_step_response_is_the_filters(run) -> None:
    found = run[1].comparison("time_constant")
    assert found.measured == pytest.approx(found.predicted, rel=1e-3)
    assert run[1].comparison("rise_time").agrees is True


def test_it_rests_where_the_floor_says(run) -> None:
    trace = load_bundled(run[0])
    assert trace.spec is not None
    assert trace.ema is not None
    active = trace.step > trace.spec.warmup
    low = (trace.ema[active] < trace.spec.floor).any(axis=1).mean()
    found = run[1].comparison("saturated_fraction")
    assert found.measured == pytest.approx(low, abs=1e-9)
    assert found.predicted == pytest.approx(low, abs=0.02)
    settled = run[1].comparison("settled_weight")
    assert settled.measured == pytest.approx(settled.predicted, abs=1e-4)


def test_the_average_is_as_quiet_as_the_norms_let_it_be(run) -> None:
    # Between white noise and drift that was not removed: of the same size, not the same.
    found = run[1].comparison("noise_gain")
    assert found.measured is not None
    assert found.predicted is not None
    assert 0.2 < found.measured / found.predicted < 5.0
    assert np.isfinite(found.measured_interval).all()
