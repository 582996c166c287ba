"""Several balancers on a recorded run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gabactl import GabaSpec, InputError
from gabactl.balancers import GradNorm
from gabactl.runs import comparison
from gabactl.runs.comparison import compare_on_run
from gabactl.runs.run import Run
from gabactl.traces import Trace


def test_recorded_norms_drive_every_method():
    rng = np.random.default_rng(1)
    norms = rng.lognormal([3, 0], 0.5, size=(400, 2))
    norms[:50] = np.nan
    norms[100] = np.nan
    losses = np.linspace([20, 2], [10, 1], 400)
    trace = Trace.from_arrays(norms, losses=losses)
    result = compare_on_run({"gaba": GabaSpec(warmup=50), "gradnorm": "gradnorm"}, trace)
    assert result.filled == 51
    rule = GradNorm()
    # Leading gaps take the first reading, later ones the last before them.
    filled = norms.copy()
    filled[:50], filled[100] = norms[50], norms[99]
    # Readings pass through logarithms, which costs a few last places, and GradNorm's relay
    # switches on them; compare before it can chatter.
    expected = [rule.step(g, l) for g, l in zip(filled[:20], losses[:20], strict=True)]  # noqa: E741
    np.testing.assert_allclose(result.results["gradnorm"].weights[:20], expected, rtol=1e-6)
    assert "51 steps had no reading" in str(result)
    with pytest.raises(InputError, match="no reading has a finite norm"):
        compare_on_run(["gaba"], Trace.from_arrays([[np.nan, np.nan]]))


def test_gaba_is_the_run_s_own_replay():
    norms = np.random.default_rng(2).lognormal([5, 0], 0.5, size=(900, 2))
    spec = GabaSpec(beta=0.98)
    run = Run(Trace.from_arrays(norms), spec).last(300)
    result = compare_on_run({"gaba": spec, "other": GabaSpec(floor=0.2), "equal": "fixed"}, run)
    gaba = result.results["gaba"]
    assert gaba.weights is run.replay.weights
    assert gaba.step.tolist() == list(range(601, 901))
    assert gaba.saturated_fraction == run.replay.saturated_fraction == 1.0
    assert result.results["other"].weights.min() == pytest.approx(0.2 / 1.2, abs=2e-3)
    for line in result.plot().lines:
        assert line.get_xdata()[[0, -1]].tolist() == [601, 900]


@pytest.mark.parametrize("floor_mode", ["renormalise", "affine", "project", "clamp_state"])
@pytest.mark.parametrize("law", ["complement", "inverse"])
@pytest.mark.parametrize("k", [2, 3])
def test_what_gaba_settles_at_is_where_the_last_reading_holds_it(k, law, floor_mode):
    """Against holding the last reading for 3,000 steps."""
    spec = GabaSpec(k, 0.95, 0.1, 5, law, floor_mode)
    norms = np.random.default_rng(k).lognormal(1.0, 1.0, size=(50, k))
    found = compare_on_run({"gaba": spec}, Trace.from_arrays(norms)).results["gaba"].responses[0]
    held = Trace.from_arrays(np.vstack([norms, np.tile(norms[-1], (3000, 1))]))
    weights = Run(held, spec).replay.weights[-1]
    np.testing.assert_allclose(found.settled_weights, weights, atol=1e-12)
    left = weights * norms[-1]
    assert found.settled_contribution_ratio == pytest.approx(left.max() / left.min(), rel=1e-9)


def test_of_a_span_too_long_to_go_through_the_end_is_taken(monkeypatch):
    monkeypatch.setattr(comparison, "MOST_STEPS", 1000)
    norms = np.random.default_rng(3).lognormal([5, 0], 0.3, size=(200, 2))
    run = Run(Trace.from_arrays(norms, step=range(1, 10_000, 50)))
    result = compare_on_run(["gaba", "fixed"], run)
    gaba = result.results["gaba"]
    assert (gaba.step[0], gaba.step[-1], gaba.steps) == (9001, 9951, 951)
    np.testing.assert_allclose(gaba.weights[::50], run.replay.weights[-20:], rtol=1e-12)
    assert json.loads(result.to_json(), parse_constant=pytest.fail)["filled_steps"] == 951 - 20
