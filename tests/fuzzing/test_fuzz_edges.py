"""Budgets, corpora, factories and results at their edges."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.fuzzing import (
    Case,
    Segment,
    corpus,
    engine,
    fuzz,
    lanes,
    reachable,
    resolve,
    step_function,
    targets,
)
from gabactl.fuzzing.properties import make_property
from gabactl.fuzzing.result import python_snippet
from gabactl.fuzzing.search import search
from gabactl.fuzzing.shrink import shrink
from gabactl.fuzzing.target import Target, run_case
from gabactl.fuzzing.targets import from_factory
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec

SPEC = GabaSpec(warmup=0, beta=0.5)


def half() -> Target:
    """Weights of 1/2 whatever is read."""
    return step_function(lambda: lambda g: np.full(2, 0.5))


# -- budgets ------------------------------------------------------------------------------------


def test_a_search_past_its_time_stops_after_a_round_and_tells_its_progress():
    told: list[int] = []
    result = fuzz(
        "gaba", "bounds", spec=SPEC, steps=100_000, time_limit=1e-12, progress=told.append
    ).results[0]
    assert result.verdict == "held"
    # One round of the lanes, then none of the general searcher's 4,000 steps past it.
    assert 0 < sum(told) <= result.steps < 100_000
    told.clear()
    found = fuzz(half(), "bounds", steps=10**9, time_limit=1e-12, progress=told.append).results[0]
    assert (found.verdict, found.steps, told) == ("held", 0, [])
    found = fuzz(half(), "bounds", steps=50, progress=told.append).results[0]
    assert sum(told) == found.steps


def test_a_search_that_goes_on_keeps_the_worst():
    rule = step_function(lambda: lambda g: g / max(g.sum(), 1.0) - 0.25)
    prop = make_property("bounds", rule, (0.0, 1.0))
    found = search(rule, prop, steps=600, stop_at_first=False)
    assert found.violations > 1
    assert found.outcome is not None
    assert found.case is not None
    assert found.outcome.score == prop.check(rule, found.case).score == pytest.approx(0.25)
    one = search(rule, prop, steps=600)
    assert (one.violations, one.first_violation_s) == (1, pytest.approx(one.first_violation_s))


def test_cases_that_a_property_does_not_mean_cost_a_step_and_are_not_run():
    rule = half()
    prop = make_property("bounds", rule)
    ran: list[Case] = []

    class Refuses(type(prop)):
        def admits(self, target, case):
            return False

        def check(self, target, case):
            ran.append(case)

    found = search(rule, Refuses(prop.low, prop.high, prop.slack), steps=30)
    assert (found.steps, found.cases, ran) == (30, 0, [])


# -- the two searchers ----------------------------------------------------------------------------


class _Run:
    """A rule from a function of the reading, with an average where it is given."""

    def __init__(self, rule, averages=()):
        self._rule, self._averages = rule, list(averages)

    def step(self, grad_norms, losses):
        return self._rule(grad_norms)

    def average(self):
        return self._averages.pop(0) if self._averages else None

    def save(self):
        raise NotImplementedError

    load = save


def test_a_rule_that_only_claims_to_be_ours_is_found_out_by_its_own_code():
    # The lanes compute what it claims and find nothing.
    wrong = replace(resolve("gaba", SPEC), start=lambda k: _Run(lambda g: np.array([-0.5, 1.5])))
    result = fuzz(wrong, "bounds", steps=3000).results[0]
    assert result.violated
    assert result.witness.n_steps == 1
    assert (result.worst_low, result.worst_high) == (-0.5, 1.5)
    assert result.first_violation_s > 0
    assert result.steps > 3000


def test_what_the_lanes_find_must_be_shown_by_the_rule_itself():
    # The lanes see the published bound broken; this rule never moves.
    still = replace(resolve("gaba", SPEC), start=lambda k: _Run(lambda g: np.full(2, 0.5)))
    result = fuzz(still, "bounds", bound="published", steps=3000).results[0]
    assert (result.verdict, result.witness) == ("held", None)


def test_a_time_limit_ends_the_lanes_between_two_blocks(monkeypatch):
    seen = lanes.survey(
        SPEC, lambda stats: np.stack([-stats[0]]) - 1.0, steps=10**8, readings=16, time_limit=1e-9,
    )  # fmt: skip
    assert 0 < seen.steps < 10**7


def test_an_average_that_is_missing_once_is_no_average():
    averages = [np.zeros(2), None, np.zeros(2)]
    rule = Target("mine", 2, lambda k: _Run(lambda g: g, averages))
    case = Case.from_readings([[1.0, 2.0]] * 3)
    assert run_case(rule, case).averages is None
    rule = Target("mine", 2, lambda k: _Run(lambda g: g, [np.full(2, i) for i in range(3)]))
    assert run_case(rule, case).averages.tolist() == [[0, 0], [1, 1], [2, 2]]


# -- cases and the corpus ---------------------------------------------------------------------------


def test_every_part_of_a_case_survives_json():
    case = Case((Segment((1.0, math.inf), 2, (0.5, math.nan)), Segment((2.0, 0.0))), (1, 0), -3, 2)
    values = json.loads(json.dumps(case.to_dict(), allow_nan=False))
    assert values["permutation"] == [1, 0]
    assert (values["exponent"], values["save_after"]) == (-3, 2)
    assert [s.get("losses") for s in values["segments"]] == [[0.5, "nan"], None]
    assert repr(Case.from_dict(values)) == repr(case)


def test_a_corpus_of_too_many_files_is_refused(tmp_path, monkeypatch):
    for i in range(2):
        corpus.save(tmp_path, "gaba", "bounds", Case.from_readings([[1.0, i]]))
    assert len(corpus.load(tmp_path)) == 2
    monkeypatch.setattr(corpus, "_MAX_FILES", 1)
    with pytest.raises(InputError, match="over 1 cases: move the old ones away"):
        corpus.load(tmp_path)


def test_cases_of_the_corpus_that_mean_another_rule_are_passed_over(tmp_path):
    def replayed(target, name="bounds", bound=(0.2, 0.8)):
        found = engine._replayed(target, name, bound, engine.Settings(corpus=tmp_path))
        return None if found is None else found.case.expression()

    rule = step_function(lambda: lambda g: np.array([0.1, 0.9]))
    assert replayed(rule) is None
    for prop, name, readings in [
        ("bounds", "another", [[1.0, 1.0]]),
        ("finite", rule.name, [[1.0, 1.0]]),
        ("bounds", rule.name, [[1.0, 1.0, 1.0]]),  # a range is one for its number of tasks
        ("bounds", rule.name, [[1.0, math.nan]]),  # bounds are promised of finite readings
    ]:
        corpus.save(tmp_path, name, prop, Case.from_readings(readings))
    assert replayed(rule) is None
    free = replace(rule, fixed_tasks=False)
    assert replayed(free) is None
    corpus.save(tmp_path, rule.name, "bounds", Case.from_readings([[1.0, 2.0]]))
    assert replayed(rule) == "[[1.0, 2.0]]"
    # Another rule of this name is within the range.
    assert replayed(replace(half(), name=rule.name)) is None


# -- shrinking ------------------------------------------------------------------------------------


def test_shrinking_goes_to_as_few_tasks_as_still_fail():
    noisy = Case((Segment((5.0, 1.0, 3.0, 2.0), 2),))
    small = shrink(noisy, lambda c: c.n_tasks >= 3, n_tasks_min=2)
    assert small.n_tasks == 3


def test_a_case_with_an_order_of_tasks_keeps_its_tasks():
    noisy = Case((Segment((5.0, 1.0, 3.0), 2),), permutation=(2, 0, 1))
    small = shrink(noisy, lambda c: max(c.segments[0].reading) > 4, n_tasks_min=2)
    assert (small.n_tasks, small.permutation, small.n_steps) == (3, (2, 0, 1), 1)


# -- what may be fuzzed ------------------------------------------------------------------------------


def test_a_user_names_a_target_or_a_factory_of_one_or_of_controllers(tmp_path, monkeypatch):
    (tmp_path / "my_rules_to_fuzz.py").write_text(
        "import numpy as np\n"
        "from gabactl import Controller, GabaSpec\n"
        "from gabactl.fuzzing import step_function\n"
        "def make(): return lambda g: np.full(2, 0.5)\n"
        "ready = step_function(make)\n"
        "def target(): return ready\n"
        "class Settings:\n"
        "    @staticmethod\n"
        "    def controller(n_tasks=2): return Controller(GabaSpec(n_tasks, beta=0.25, warmup=3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_rules_to_fuzz as mine

    assert resolve("my_rules_to_fuzz:ready") is mine.ready
    assert resolve("my_rules_to_fuzz:target") is mine.ready
    assert run_case(resolve("my_rules_to_fuzz:make"), Case.from_readings([[1, 2]])).weights[
        0
    ].tolist() == [0.5, 0.5]
    ours = resolve("my_rules_to_fuzz:Settings.controller")
    assert ours.spec == GabaSpec(beta=0.25, warmup=3)
    assert ours.with_tasks(3).spec.n_tasks == 3
    assert from_factory(lambda: Controller(SPEC), GabaSpec(), "u").with_tasks(3) is None


def test_an_unknown_property_is_refused():
    with pytest.raises(InputError, match=r"^property 'nothing' is unknown: choose from bounds, "):
        fuzz("gaba", "nothing")


# -- results -----------------------------------------------------------------------------------------


def test_what_is_skipped_is_told_with_its_reason_alone():
    result = fuzz(half(), "checkpoint", steps=10).results[0]
    assert result.rows() == [("skipped", result.message)]
    assert result.message
    with pytest.raises(ValueError, match="no witness"):
        python_snippet(result)


def test_a_report_is_a_row_a_property():
    report = fuzz(half(), "all", steps=20)
    assert [row[:2] for row in report.rows()] == [
        (r.property_name, r.verdict) for r in report.results
    ]
    told = report.to_dict()
    assert [r["property"] for r in told["results"]] == [r.property_name for r in report.results]
    assert str(report).count(report.results[0].title) == 1
    assert all(str(result) in str(report) for result in report.results)
    ends = reachable(SPEC, 5)
    assert [row[0] for row in ends.rows()]
    assert str(float(ends.low))[:4] in str(ends)


def test_a_factory_that_shows_no_signature_takes_no_tasks():
    # Some built-in functions have none.
    assert targets._parameters(map) == []
    assert targets._parameters(lambda n_tasks: None) == ["n_tasks"]


def test_the_picture_leaves_out_a_bound_that_is_infinite():
    rule = step_function(lambda: lambda g: np.array([-0.5, 1.5]))
    drawn = [
        len(fuzz(rule, "bounds", bound=bound, steps=20).results[0].plot().lines)
        for bound in [(0.0, 1.0), (0.0, math.inf)]
    ]
    assert drawn == [4, 3]  # two tasks, and one line an end
