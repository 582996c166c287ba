"""What the fuzzer must find on the published algorithm and on GradNorm, and must not find."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gabactl.fuzzing import Case, check_case, fuzz, fuzz_bounds
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec


def test_the_published_bound_is_broken_within_seconds_and_shrunk():
    begun = time.process_time()
    result = fuzz_bounds(GabaSpec.published(), bound="published")
    # The claim is 5 s on a free machine.
    assert time.process_time() - begun < 15
    assert result.violated
    # The true range, 1/21 and 20/21, against the stated 0.05 and 0.95.
    assert result.worst_low == pytest.approx(1 / 21, abs=1e-6)
    assert result.worst_high == pytest.approx(20 / 21, abs=1e-6)
    witness = result.witness
    assert witness.n_tasks == 2
    assert witness.distinct <= 2
    assert len(witness.segments) == 1
    # 100 steps of warm-up, and 230 until 0.5 * 0.99^n < 0.05.
    assert witness.n_steps == 330


def test_the_tight_bound_holds_and_both_ends_are_reached():
    result = fuzz_bounds(GabaSpec(), steps=100_000)
    assert result.verdict == "held"
    assert result.worst_low - result.reach[0] < 1e-6
    assert result.reach[1] - result.worst_high < 1e-6


def test_a_range_tighter_than_the_true_one_is_broken():
    spec = GabaSpec(beta=0.9, warmup=2)
    assert fuzz_bounds(spec, bound=(1 / 21 + 1e-5, 1.0), steps=10_000).violated
    assert fuzz_bounds(spec, bound=(0.0, 20 / 21 - 1e-5), steps=10_000).violated
    assert not fuzz_bounds(spec, bound=(0.0, 1.0), steps=10_000).violated


@pytest.mark.parametrize("mode", ["project", "affine", "clamp_state"])
def test_the_other_floor_modes_keep_the_published_promise(mode):
    assert not fuzz_bounds(
        GabaSpec(beta=0.9, floor_mode=mode), bound="published", steps=20_000
    ).violated


@pytest.mark.parametrize("target", ["gaba", "gaba-compiled"])
def test_one_nan_poisons_the_published_average(target):
    result = fuzz(target, "finite", spec=GabaSpec.published(), steps=20_000).results[0]
    assert result.violated
    assert result.witness.expression() in ("[[0.0, nan]] * 101", "[[0.0, inf]] * 101")


def test_the_guard_keeps_every_weight_finite():
    assert not fuzz("gaba", "finite", spec=GabaSpec(beta=0.9), steps=40_000).violated


def test_near_zero_readings_leave_the_simplex_as_published():
    result = fuzz("gaba", "simplex", spec=GabaSpec.published(), steps=20_000).results[0]
    assert result.violated
    # One reading of nothing: raw weights 1 each, so 0.99 * 0.5 + 0.01 * 1.
    assert result.witness.expression() == "[[0.0, 0.0]] * 101"
    assert "0.505" in result.message


def test_the_guard_keeps_the_simplex():
    assert not fuzz("gaba", "simplex", spec=GabaSpec(beta=0.9), steps=40_000).violated


def test_the_published_epsilon_breaks_scale_invariance_and_the_guard_does_not():
    published = fuzz("gaba", "scale", spec=GabaSpec.published(), steps=10_000).results[0]
    assert published.violated
    assert max(max(s.reading) for s in published.witness.segments) < 1e-2
    assert not fuzz("gaba", "scale", steps=3000).violated


def test_gradnorm_has_a_negative_weight_and_a_nan():
    negative = fuzz("gradnorm", "bounds", steps=5000).results[0]
    assert negative.violated
    assert negative.worst_low < 0
    assert negative.witness.n_steps == 2
    nan = fuzz("gradnorm", "finite", steps=5000).results[0]
    assert nan.violated
    assert "nan" in nan.message


def test_fixed_weights_break_nothing():
    assert not fuzz("fixed", "all", steps=1500).violated


@pytest.mark.parametrize(
    "spec",
    [
        GabaSpec(n_tasks=3, beta=0.9, warmup=3, law="inverse", floor_mode="clamp_state"),
        GabaSpec(n_tasks=4, beta=0.5, warmup=3, interval=3),
    ],
    ids=str,
)
def test_everything_holds_for_our_controllers(spec):
    for target in ("gaba", "gaba-compiled"):
        report = fuzz(target, "all", spec=spec, steps=800)
        assert [r.message for r in report.results if r.violated] == []


def test_the_snippets_run_and_show_the_violation():
    result = fuzz_bounds(GabaSpec(warmup=2, beta=0.5), bound="published")
    scope = {}
    exec(result.python, scope)
    assert scope["weights"].min() < 0.05
    test = {}
    exec(result.pytest, test)
    with pytest.raises(AssertionError, match="outside"):
        test["test_bounds_of_gaba"]()


def test_a_snippet_with_nan_runs():
    result = fuzz("gradnorm", "finite", steps=5000).results[0]
    scope = {}
    with np.errstate(all="ignore"):
        exec(result.python, scope)
    assert not np.isfinite(scope["weights"]).all()
    test = {}
    exec(result.pytest, test)
    with pytest.raises(AssertionError, match="not finite"):
        test["test_finite_of_gradnorm"]()


def test_a_witness_violates_in_the_reference_itself():
    """The witness counts, not the report about it: apply it to a fresh controller."""
    result = fuzz_bounds(GabaSpec(n_tasks=3, beta=0.9, warmup=1), bound="published")
    controller = Controller(GabaSpec(n_tasks=result.witness.n_tasks, beta=0.9, warmup=1))
    weights = np.array([controller.observe(row) for row in result.witness.readings()])
    assert weights.min() < 0.05 - 1e-15 or weights.max() > 0.95 + 1e-15


def test_results_print_become_json_and_draw():
    found = fuzz_bounds(GabaSpec(warmup=0, beta=0.5), bound="published", steps=5000)
    held = fuzz_bounds(GabaSpec(beta=0.9), steps=20_000)
    for result in (found, held):
        values = result.to_dict()
        for key in (
            "property", "bound", "steps", "violations", "worst_low", "worst_high", "witness",
            "steps_per_second", "coverage", "seed",
        ):  # fmt: skip
            assert key in values
        assert result.to_json()
        assert result.title in str(result)
        assert result.plot().get_title() == result.title
    branches = held.coverage.to_dict()["branches"]
    assert all(n > 0 for n in branches["floor_on_by_task"])
    assert branches["warmup_steps"] > 0
    assert branches["held_steps"] > 0
    assert held.coverage.decades_visited > 50


def test_check_case_passes_where_nothing_is_wrong():
    check_case("gaba", "bounds", Case.from_readings([[0.0, 1.0]] * 330))
    with pytest.raises(AssertionError, match="step 330"):
        check_case("gaba", "bounds", Case.from_readings([[0.0, 1.0]] * 330), bound="published")
