"""Comparisons: the same disturbance for all, intervals over seeds, recorded norms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.loops.compare import METRICS, compare, figures
from gabactl.loops.profiles import constant, published_disturbance
from gabactl.loops.simulate import simulate


def test_published_schemes_side_by_side():
    # At 500x: uniform 500, inverse square root 22.36, GABA with the floor 25.05, without it 1.
    result = compare(
        {
            "fixed": "fixed",
            "sqrt": "sqrt_inverse",
            "gaba": GabaSpec(),
            "no floor": GabaSpec(floor=0.0),
        },
        constant(500.0, 2000),
    )
    left = {n: e["final_contribution_ratio"].mean for n, e in result.estimates.items()}
    np.testing.assert_allclose(
        [left["fixed"], left["sqrt"], left["gaba"], left["no floor"]],
        [500, 22.36, 25.05, 1.0],
        rtol=1e-3,
    )


def test_every_balancer_sees_the_same_readings():
    result = compare(["gaba", "gradnorm", "fixed"], constant(4.0, 100), noise=0.3, seeds=[4, 5])
    readings = [run.readings for run in result.results.values()]
    # GABA's run is compiled, the others' is NumPy: the same draws, rounded alike to a few ulp.
    np.testing.assert_allclose(readings[0], readings[1], rtol=1e-14)
    np.testing.assert_array_equal(readings[1], readings[2])


def test_intervals_are_student_intervals_over_the_seeds():
    profile = published_disturbance((150, 150, 150))
    result = compare({"gaba": GabaSpec(warmup=0)}, profile, noise=0.4, seeds=range(6))
    values = [
        figures(simulate(GabaSpec(warmup=0), profile, noise=0.4, seed=s))["smallest_weight"]
        for s in range(6)
    ]
    estimate = result.estimates["gaba"]["smallest_weight"]
    assert estimate.mean == pytest.approx(np.mean(values))
    low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    one = compare(["fixed"], profile).estimates["fixed"]["smallest_weight"]
    assert (one.low, one.high) == (None, None)


def test_json_is_strict_and_has_every_metric():
    result = compare(
        ["gaba", "gradnorm"], published_disturbance((100, 100, 100)), noise=0.3, seeds=[0, 1]
    )
    record = json.loads(result.to_json(), parse_constant=pytest.fail)
    assert set(record["balancers"]["gaba"]["figures"]) == set(METRICS)
    assert record["seeds"] == [0, 1]


def test_pictures_have_a_line_per_balancer():
    result = compare(["gaba", "gradnorm", "fixed"], constant(50.0, 200))
    for what in ("contributions", "weights"):
        lines = [line.get_label() for line in result.plot(what=what).lines]
        assert [n for n in lines if not n.startswith("_")] == ["gaba", "gradnorm", "fixed"]
    with pytest.raises(InputError, match="contributions or weights"):
        result.plot(what="both")


@pytest.mark.parametrize(
    "call",
    [
        lambda: compare([], constant(4.0, 5)),
        lambda: compare(["gaba"], constant(4.0, 5), seeds=[]),
    ],
)
def test_bad_calls_are_refused(call):
    with pytest.raises(InputError):
        call()
