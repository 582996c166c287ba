"""The replay check: what it compares, what it refuses to compare, what it tells."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gabactl import GabaSpec, InputError
from gabactl.runs.replay import replay
from gabactl.traces import Trace
from gabactl.validation.check import check, default_tolerance

SPEC = GabaSpec(warmup=5, beta=0.9)


@pytest.fixture
def norms():
    return np.exp(np.random.default_rng(0).normal(0, 2, (60, 2)))


def trace_of(norms, spec=SPEC, balancer="gaba", **changes):
    done = replay(spec, norms)
    stages = {"raw": done.raw, "ema": done.ema, "weights": done.weights, **changes}
    metadata = {"spec": spec.to_dict(), "balancer": balancer}
    return Trace.from_arrays(norms, metadata=metadata, **stages)


def test_a_faithful_record_agrees(norms):
    found = check(trace_of(norms))
    assert found.ok is True
    assert found.max_abs_error_ema == found.max_abs_error_weights == found.max_abs_error_raw == 0
    assert (found.steps, found.active_steps, found.readings) == (60, 55, 55)
    assert found.tolerance == 1e-12
    assert found.first_difference is None
    assert "agrees" in str(found)


@pytest.mark.parametrize("stage", ["raw", "ema", "weights"])
def test_each_stage_is_compared(norms, stage):
    done = replay(SPEC, norms)
    wrong = getattr(done, stage).copy()
    wrong[40, 1] += 1e-9
    found = check(trace_of(norms, **{stage: wrong}))
    assert found.ok is False
    assert getattr(found, f"max_abs_error_{stage}") == pytest.approx(1e-9, rel=1e-6)
    if stage != "raw":
        assert found.first_difference == 41
    assert found.rows()[0][0] == "verdict"
    assert found.rows()[0][1].startswith("DIFFERS")
    assert ("from step 41 on" in found.rows()[0][1]) == (stage != "raw")
    assert check(trace_of(norms, **{stage: wrong}), tolerance=1e-8).ok is True


def test_nan_on_one_side_is_an_infinite_error(norms):
    trace = trace_of(norms)
    ema = trace.ema.copy()
    ema[50:] = np.nan
    found = check(trace.replace(ema=ema))
    assert found.ok is False
    assert found.first_difference == 51
    said = json.loads(found.to_json())
    assert said["max_abs_error_ema"] is None
    assert said["max_abs_error_ema_reason"] == "NaN on one side only"


def test_a_poisoned_average_agrees_with_its_replay(norms):
    spec = GabaSpec.published(warmup=5)
    norms[20, 0] = np.nan
    done = replay(spec, norms)
    present = np.ones(60, bool)
    trace = trace_of(norms, spec).replace(ema=done.ema, weights=done.weights)
    trace = trace.replace(present={**trace.present, "ema": present, "weights": present})
    assert check(trace).ok is True
    # The guard would have held: not the same run.
    assert check(trace, spec.replace(guard="hold")).ok is False


def test_rows_without_a_value_are_not_compared(norms):
    done = replay(SPEC, norms)
    ema = done.ema.copy()
    ema[::2] = np.nan
    assert check(trace_of(norms, ema=ema)).ok is True


def test_stages_the_trace_has_not_are_null(norms):
    found = check(trace_of(norms, raw=None, weights=None))
    assert found.ok is True
    assert found.max_abs_error_weights is None
    assert "no raw and no weights" in found.reason
    nothing = check(Trace.from_arrays(norms), SPEC)
    assert nothing.ok is None
    assert json.loads(nothing.to_json())["max_abs_error_ema"] is None


@pytest.mark.parametrize("balancer", ["fixed", "gradnorm"])
def test_other_balancers_are_replayed_not_compared(norms, balancer):
    found = check(trace_of(norms, balancer=balancer, weights=np.full((60, 2), 0.5)))
    assert found.ok is None
    assert balancer in found.reason
    assert found.saturated_fraction == replay(SPEC, norms).saturated_fraction


def test_a_record_with_gaps_is_not_compared(norms):
    done = replay(SPEC, norms)
    keep = np.arange(0, 60, 7)
    trace = Trace.from_arrays(norms[keep], step=keep + 1, ema=done.ema[keep])
    found = check(trace, SPEC)
    assert found.ok is None
    assert "readings fall on steps that were not recorded" in found.reason


def test_a_late_start_needs_an_average(norms):
    done = replay(SPEC, norms)
    late = Trace.from_arrays(norms[30:], step=range(31, 61), weights=done.weights[30:])
    assert "starts at step 31" in check(late, SPEC).reason
    late = Trace.from_arrays(
        norms[30:], step=range(31, 61), weights=done.weights[30:], ema=done.ema[30:]
    )
    assert check(late, SPEC).ok is True


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_tolerance_is_checked(norms, tolerance):
    with pytest.raises(InputError, match="tolerance"):
        check(trace_of(norms), tolerance=tolerance)


def test_tasks_must_fit(norms):
    with pytest.raises(InputError, match=r"2 tasks \(task_0, task_1\), but n_tasks = 3"):
        check(trace_of(norms), GabaSpec(n_tasks=3))


def test_tolerances():
    assert default_tolerance("float64", SPEC) == 1e-12
    for precision in ("float32", "unknown"):
        assert default_tolerance(precision, GabaSpec()) == pytest.approx(5e-6, rel=1e-9)
        assert default_tolerance(precision, GabaSpec(interval=10)) == pytest.approx(5e-6)


def test_plot(norms):
    axes = check(trace_of(norms)).plot()
    assert axes.get_xlabel() == "step"
    assert len(axes.lines) == 2
