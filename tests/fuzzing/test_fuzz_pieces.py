"""Cases, corpus, targets, properties, strategies and shrinking, each by itself."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gabactl.base.errors import InputError
from gabactl.fuzzing import Case, Segment, corpus, fuzz, resolve, step_function, strategies
from gabactl.fuzzing.coverage import Coverage
from gabactl.fuzzing.properties import PROPERTIES, make_property, resolve_bound, ulps
from gabactl.fuzzing.search import CaseMaker
from gabactl.fuzzing.shrink import shrink
from gabactl.fuzzing.target import run_case
from gabactl.fuzzing.targets import from_factory
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec

#: A busy machine draws slowly; that is no failure.
QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "max_examples": 30}

ANY = {"allow_nan": True, "allow_infinity": True, "largest": 1e300, "smallest": 1e-300}


@given(strategies.cases(3, max_steps=50, **ANY))
@settings(**QUIET)
def test_a_case_survives_json(case):
    text = json.dumps(case.to_dict(), allow_nan=False)
    again = Case.from_dict(json.loads(text))
    assert np.array_equal(again.readings(), case.readings(), equal_nan=True)
    assert again.n_steps == case.n_steps


@given(strategies.cases(2, max_steps=50, **ANY))
@settings(**QUIET)
def test_the_expression_is_the_case(case):
    rows = eval(case.expression(), {"nan": math.nan, "inf": math.inf})
    assert np.array_equal(np.array(rows), case.readings(), equal_nan=True)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"segments": []},
        {"segments": [{"reading": [1.0], "repeat": 1}]},
        {"segments": [{"reading": [1.0, -1.0], "repeat": 1}]},
        {"segments": [{"reading": [1.0, "no"], "repeat": 1}]},
        {"segments": [{"reading": [1.0, 1.0], "repeat": 0}]},
        {"segments": [{"reading": [1.0, 1.0], "repeat": 10**9}]},
        {"segments": [{"reading": [1.0, 1.0], "repeat": 600_000}] * 2},
        {"segments": [{"reading": [1, 1], "repeat": 1}, {"reading": [1, 1, 1], "repeat": 1}]},
        {"segments": [{"reading": [1, 1], "repeat": 1}], "permutation": [0, 0]},
        {"segments": [{"reading": [1, 1], "repeat": 1}], "exponent": 10**6},
        {"segments": [{"reading": [1, 1], "repeat": 1}], "save_after": "x"},
        {"segments": [{"reading": [1, 1], "repeat": True}]},
        {"segments": 3},
    ],
)
def test_what_is_no_case_is_refused_in_one_line(values):
    with pytest.raises(InputError, match="not a fuzz case") as error:
        Case.from_dict(values)
    assert "\n" not in str(error.value)


def test_a_failing_case_is_kept_and_replayed_first(tmp_path):
    spec = GabaSpec(warmup=0, beta=0.5)
    options = {"spec": spec, "bound": "published", "steps": 5000, "corpus": tmp_path}
    first = fuzz("gaba", "bounds", **options).results[0]
    assert first.violated
    assert not first.from_corpus
    assert len(list(tmp_path.glob("*.json"))) == 1
    second = fuzz("gaba", "bounds", **options).results[0]
    assert second.from_corpus
    assert second.witness == first.witness
    assert second.steps == first.witness.n_steps
    # With another bound the case is harmless, and the search goes on.
    third = fuzz("gaba", "bounds", spec=spec, steps=5000, corpus=tmp_path).results[0]
    assert not third.violated
    assert third.steps >= 5000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": "gabactl-fuzz-case", "version": 2}',
        '{"format": "x"}',
        "nan",
        "[" * 10**5,
    ],
)
def test_a_damaged_corpus_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json") as error:
        corpus.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_corpus_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(InputError, match="4 MiB"):
        corpus.load(tmp_path)


def test_a_corpus_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        corpus.save(tmp_path / "file", "gaba", "bounds", Case.from_readings([[1.0, 1.0]]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "is unknown: choose from gaba"),
        ("no.such.module:x", "cannot be imported"),
        ("math:nothing", "has no 'nothing'"),
        ("math:pi", "not callable"),
    ],
)
def test_bad_targets_are_refused(name, words):
    with pytest.raises(InputError, match=words):
        resolve(name)


def test_a_step_function_of_the_wrong_shape_is_refused():
    rule = step_function(lambda: lambda g: [1.0])
    with pytest.raises(InputError, match=r"shape \(1,\) for 2 tasks"):
        run_case(rule, Case.from_readings([[1.0, 1.0]]))


def test_a_factory_may_take_the_number_of_tasks():
    target = from_factory(lambda n_tasks: lambda g: np.full(n_tasks, 1 / n_tasks), GabaSpec(), "u")
    assert target.with_tasks(5).n_tasks == 5
    fixed = from_factory(lambda: lambda g: g, GabaSpec(), "u")
    assert fixed.with_tasks(3) is None


@pytest.mark.parametrize("bound", ["loose", (0.9, 0.1)])
def test_bad_bounds_are_refused(bound):
    with pytest.raises(InputError, match="bound"):
        resolve_bound(resolve("gaba"), bound)


def test_published_needs_a_floor():
    with pytest.raises(InputError, match="states no floor"):
        resolve_bound(resolve("fixed"), "published")


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"time_limit": 0.0}, {"seed": -1}, {"workers": 0}]
)
def test_bad_budgets_are_refused(options):
    with pytest.raises(InputError, match="|".join([*options, "time"])):
        fuzz("gaba", "bounds", **options)


def test_ulps_are_those_of_numpy():
    for x in (1.0, 0.3, 0.047619, 123.4):
        assert ulps(x) == np.spacing(x)
        assert ulps(x, 2.0**-23) == np.spacing(np.float32(x))


#: One rule per property that breaks it, and the property it breaks.
BROKEN = {
    "bounds": lambda g: np.array([-0.1, 1.1]) if g[0] > 1e20 else np.array([0.5, 0.5]),
    "simplex": lambda g: np.array([0.5, 0.5 + 1e-9]) if g[0] == g[1] else np.array([0.5, 0.5]),
    "finite": lambda g: np.array([0.5, 0.5]) / (0.0 if np.isinf(g).any() else 1.0),
    "equivariance": lambda g: np.array([0.6, 0.4]),
    "scale": lambda g: np.array([0.6, 0.4]) if g.sum() < 1 else np.array([0.4, 0.6]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_property_can_fail(name):
    rule = step_function(lambda: BROKEN[name])
    with np.errstate(all="ignore"):
        result = fuzz(rule, name, steps=5000).results[0]
    assert result.violated
    assert result.witness.n_steps == 1
    assert make_property(name, rule).check(rule, result.witness).violated


def test_relations_that_do_not_apply_are_skipped_with_a_reason():
    report = fuzz(step_function(lambda: lambda g: np.full(2, 0.5)), "all", steps=300)
    skipped = {r.property_name: r.message for r in report.results if r.verdict == "skipped"}
    assert set(skipped) == {"checkpoint", "reference"}
    assert all(skipped.values())
    assert set(PROPERTIES) == {r.property_name for r in report.results}


def test_cases_are_admissible_and_varied():
    target = resolve("gaba")
    for name in PROPERTIES:
        prop = make_property(name, target)
        maker = CaseMaker(target, prop, np.random.default_rng(0))
        made = [maker.fresh() for _ in range(80)]
        made += [maker.bred(case) for case in made[:30]]
        assert np.mean([prop.admits(target, case) for case in made]) > 0.9
        coverage = Coverage()
        for case in made:
            coverage.count_readings(case.readings())
        assert coverage.decades_visited > 60
        assert coverage.zero > 0
        assert coverage.decades[:17].sum() > 0 or name == "scale"  # subnormals
        assert (coverage.nan > 0) == (name == "finite")
        equal = [s for c in made for s in c.segments if 0 < s.reading[0] == s.reading[1]]
        assert len(equal) > 10


def test_shrinking_keeps_what_matters():
    """Two segments in order, one exact number, the checkpoint: nothing else survives."""
    noisy = Case(tuple(Segment((1.0 + i / 7, 0.123 * i), 3 + i) for i in range(12)), save_after=20)
    exact = noisy.segments[5].reading[0]

    def fails(case):
        rows = case.readings()
        hits = np.flatnonzero(rows[:, 0] == exact)
        later = np.flatnonzero(rows[:, 1] > 1.0)
        return len(hits) > 0 and len(later) > 0 and later[-1] > hits[0]

    small = shrink(noisy, fails)
    assert fails(small)
    assert small.n_steps == 2
    assert small.distinct <= 3
    assert small.save_after == 0


def test_shrinking_goes_to_fewer_tasks():
    noisy = Case((Segment((5.0, 1.0, 3.0, 2.0), 7),))
    small = shrink(noisy, lambda c: max(c.segments[0].reading) > 4, n_tasks_min=2)
    assert small.n_tasks == 2


def test_shrinking_stops_in_time():
    noisy = Case(tuple(Segment((1.0 + i / 7, 0.123 * i), 3 + i) for i in range(50)))
    assert shrink(noisy, lambda c: len(c.segments) > 20, time_limit=0.0) == noisy


@given(strategies.specs())
@settings(**QUIET)
def test_specs_are_valid_and_the_reference_runs_on_them(spec):
    controller = Controller(spec)
    with np.errstate(all="ignore"):
        weights = controller.observe(np.ones(spec.n_tasks))
    assert weights.sum() == pytest.approx(1.0)


@given(st.data())
@settings(**QUIET)
def test_grad_norms_stay_in_what_was_asked_for(data):
    plain = strategies.grad_norms(
        3, smallest=1e-3, largest=1e3, allow_zero=False, allow_subnormal=False
    )
    assert all(1e-3 <= x <= 1e3 for x in data.draw(plain))


def test_strategies_refuse_nonsense():
    with pytest.raises(InputError, match="n_tasks"):
        strategies.grad_norms(1)
    with pytest.raises(InputError, match="smallest"):
        strategies.grad_norms(2, smallest=2.0, largest=1.0)


def test_a_snippet_of_a_factory_names_the_factory():
    def make_rule():
        return lambda g: np.array([-0.5, 1.5])

    result = fuzz(make_rule, "bounds", steps=50).results[0]
    for snippet in (result.python, result.pytest):
        scope = {"make_rule": make_rule}
        exec(snippet, scope)
    with pytest.raises(AssertionError, match="outside"):
        scope["test_bounds_of_make_rule"]()
