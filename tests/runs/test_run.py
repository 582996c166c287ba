"""What a recording means, whatever is missing of it: one run, one set of figures everywhere."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

from gabactl import GabaSpec, InputError
from gabactl.cli import main
from gabactl.identification import identify
from gabactl.reports import report as make_report
from gabactl.reports import write_html
from gabactl.runs.comparison import compare_on_run
from gabactl.runs.replay import Replayer, replay
from gabactl.runs.run import Run
from gabactl.runs.saturation import saturation
from gabactl.runs.units import unit_advice
from gabactl.synthesis import workload_of
from gabactl.traces import Trace, load_bundled, read_trace, write_csv, write_parquet
from gabactl.validation.check import check
from gabactl.validation.prediction import predict

STEPS = 100_000


@pytest.fixture(scope="module")
def gaba() -> Trace:
    return load_bundled("fd001-gaba")


def every(trace: Trace, n: int, first: int = 0) -> Trace:
    """Only every n-th row, and of it only what any log has: norms at steps."""
    rows = trace.rows(slice(first, None, n))
    norms = Trace.from_arrays(rows.grad_norms, tasks=rows.tasks, step=rows.step, source="log.csv")
    return norms.replace(measured=rows.measured)


def loop(k: int, steps: int = 3000, ratio: float = 300.0, seed: int = 0) -> Trace:
    """A run of K tasks under GABA, the first task loud, recorded at every step."""
    rng = np.random.default_rng(seed)
    level = np.ones(k)
    level[0] = ratio
    walk = np.cumsum(0.02 * rng.standard_normal((steps, k)), axis=0)
    norms = level * np.exp(walk + 0.4 * rng.standard_normal((steps, k)))
    spec = GabaSpec(n_tasks=k, floor=0.05)
    done = replay(spec, norms)
    return Trace.from_arrays(
        norms, raw=done.raw, ema=done.ema, weights=done.weights,
        metadata={"balancer": "gaba", "spec": spec.to_dict()},
    )  # fmt: skip


# -- logs with gaps ------------------------------------------------------------------------------


def ends(run: Run) -> float:
    """What "gaba on these norms" ends at."""
    return float(compare_on_run({"gaba": run.spec}, run).results["gaba"].contribution_ratios[-1])


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("n", [10, 20, 50])
def test_a_log_of_every_nth_step_says_what_the_run_says(gaba: Trace, n: int, first: int) -> None:
    whole = Run(gaba)
    truth = whole.replay.saturated_fraction
    assert truth == pytest.approx(0.902, abs=5e-4)
    run = Run(every(gaba, n, first))
    assert (run.estimated, whole.estimated) == (True, False)
    for said in (
        run.replay.saturated_fraction,
        saturation(run).pinned_fraction,
        unit_advice(run).saturated_fraction,
        check(run).saturated_fraction,
    ):
        assert said == run.replay.saturated_fraction == pytest.approx(truth, abs=0.025)
    compared = compare_on_run({"gaba": run.spec}, run).results["gaba"]
    assert compared.saturated_fraction == pytest.approx(truth, abs=0.025)
    # The contributions at the last row, as the whole run has them there.
    last = int(np.searchsorted(gaba.step, run.trace.step[-1]))
    left = gaba.grad_norms[last] * whole.replay.weights[last]
    assert ends(run) == pytest.approx(left.max() / left.min(), rel=0.02)


def test_the_log_of_every_20th_step_of_the_bundled_run(gaba: Trace, tmp_path, capsys) -> None:
    file = write_csv(every(gaba, 20), tmp_path / "log.csv")
    page = str(tmp_path / "page.html")
    assert main(["report", str(file), "--json", "--fuzz-steps", str(STEPS), "-o", page]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["saturation"]["pinned_fraction"] == pytest.approx(0.897, abs=0.005)
    assert found["units"]["saturated_fraction"] == found["saturation"]["pinned_fraction"]
    assert found["replay"]["saturated_fraction"] == found["saturation"]["pinned_fraction"]
    assert found["units"]["saturated_fraction_after"] == 0.0
    assert found["trace"]["spec_from"] == "assumed"
    assert found["trace"]["unrecorded_readings"] > 2000
    assert "were not logged" in str(make_report(file, fuzz_steps=STEPS))
    # As the whole run has it there, at step 2,421; it ends 27.5 to 1 at step 2,440.
    assert ends(Run.of(file)) == pytest.approx(25.75, abs=0.05)
    assert ends(Run(gaba)) == pytest.approx(27.49, abs=0.01)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_gaps_of_any_kind_keep_the_figures(k: int) -> None:
    trace = loop(k)
    truth = Run(trace).replay
    rng = np.random.default_rng(1)
    for keep in (
        np.arange(4, len(trace), 7),
        np.arange(0, len(trace), 30),
        np.flatnonzero(rng.random(len(trace)) < 0.15),
        np.setdiff1d(np.arange(len(trace)), np.arange(900, 1400)),
    ):
        part = trace.rows(keep)
        bare = Trace.from_arrays(part.grad_norms, step=part.step)
        run = Run(bare, trace.spec)
        assert run.replay.saturated_fraction == pytest.approx(truth.saturated_fraction, abs=0.03)
        late = part.step > 1600
        np.testing.assert_allclose(run.replay.weights[late], truth.weights[keep][late], atol=0.03)


@pytest.mark.parametrize("k", [2, 3])
def test_rows_without_a_reading_are_gaps_where_gaba_did_not_weight_them(k: int) -> None:
    """Losses at every step and norms at every 20th, as people log: not steps without gradients."""
    trace = loop(k)
    norms = trace.grad_norms.copy()
    norms[np.arange(len(norms)) % 20 != 0] = np.nan
    log = Run(Trace.from_arrays(norms), trace.spec)
    truth = Run(trace).replay
    assert log.replay.unrecorded_readings > 2000
    assert log.replay.saturated_fraction == pytest.approx(truth.saturated_fraction, abs=0.02)
    # GABA's own recording of the same: it had no reading there, and applied uniform weights.
    own = Run(Trace.from_arrays(norms, metadata={"balancer": "gaba"}), trace.spec)
    assert own.replay.untaken_readings > 2000
    assert (own.replay.weights[101] == 1 / k).all()
    assert not own.estimated


def test_with_gaps_the_filter_is_not_judged(gaba: Trace) -> None:
    """Averages 20 steps apart are no neighbours: they gave a time constant of a 20th."""
    found = predict(gaba.rows(slice(None, None, 20)))
    assert "fall on steps that were not recorded" in found.comparison("controller").reason


# -- parts of a run ------------------------------------------------------------------------------


def test_the_last_500_steps_are_one_number(gaba: Trace, tmp_path, capsys) -> None:
    page = str(tmp_path / "page.html")
    words = ["report", "fd001-gaba", "--last", "500", "--json", "-o", page]
    assert main([*words, "--fuzz-steps", str(STEPS)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["saturation"]["pinned_fraction"] == 1.0
    assert found["units"]["saturated_fraction"] == 1.0
    assert found["replay"]["saturated_fraction"] == 1.0
    assert found["replay"]["ok"] is True
    balanced = found["comparison"]["balancers"]["gaba"]
    assert balanced["figures"]["saturated_fraction"]["mean"] == 1.0
    assert balanced["first_seed"]["largest_weight"] == pytest.approx(20 / 21, abs=1e-3)
    assert found["trace"]["first_step"] == gaba.step[-500]


@pytest.mark.parametrize("rows", [1, 37, 500])
@pytest.mark.parametrize("kind", ["with averages", "without", "every 5th", "what-if"])
def test_a_window_keeps_the_average_before_it(gaba: Trace, tmp_path, rows: int, kind: str) -> None:
    trace, spec = gaba, None
    if kind == "without":
        trace = every(gaba, 1)
    if kind == "every 5th":
        trace = every(gaba, 5)
    if kind == "what-if":
        spec = GabaSpec(beta=0.999, floor=0.2)
    file = write_parquet(trace, tmp_path / "run.parquet")
    whole = Run.of(file, spec).replay
    for window in (Run.of(file, spec, last=rows), Run(read_trace(file), spec).last(rows)):
        np.testing.assert_array_equal(window.replay.step, whole.step[-rows:])
        np.testing.assert_array_equal(window.replay.ema, whole.ema[-rows:])
        np.testing.assert_array_equal(window.replay.weights, whole.weights[-rows:])
        assert window.start_known
        assert window.last(1).replay.ema.tolist() == whole.ema[-1:].tolist()
    with pytest.raises(InputError, match="last = 0 is below 1"):
        Run(trace).last(0)


def test_a_log_that_begins_in_the_middle_counts_its_own_steps(gaba: Trace) -> None:
    """Without an average: the first reading stands for those before it, which is an estimate."""
    part = gaba.rows(slice(-500, None))
    bare = Run(every(gaba, 1).rows(slice(-500, None)))
    assert Run(part).replay.saturated_fraction == bare.replay.saturated_fraction == 1.0
    assert (bare.estimated, bare.start_known) == (True, False)
    assert bare.replay.unrecorded_readings == part.step[0] - 101
    assert "no ema to continue from" in check(bare).reason
    # From its recorded average there is nothing to estimate.
    assert not Run(part).estimated
    np.testing.assert_allclose(Run(part).replay.ema, Run(gaba).replay.ema[-500:], atol=1e-6)


# -- readings that no controller can act on --------------------------------------------------------


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_one_reading_that_is_not_finite_is_held(gaba: Trace, tmp_path, capsys, bad: float) -> None:
    norms = gaba.grad_norms.copy()
    norms[1000, 0] = bad
    file = write_parquet(gaba.replace(grad_norms=norms), tmp_path / "run.parquet")
    page = str(tmp_path / "page.html")
    words = ["report", str(file), "--guard", "hold", "--json", "-o", page]
    assert main([*words, "--fuzz-steps", str(STEPS)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trace"]["held_readings"] == 1
    assert found["saturation"]["pinned_fraction"] == pytest.approx(0.902, abs=5e-4)
    gaba_there = compare_on_run({"gaba": GabaSpec()}, file).results["gaba"]
    assert (gaba_there.ema[1000] == gaba_there.ema[999]).all()
    assert np.isfinite(gaba_there.contributions).all()
    assert "1 of them not usable (held)" in str(make_report(file, GabaSpec(), fuzz_steps=STEPS))


def test_a_published_run_that_one_reading_poisoned_is_reported_as_it_was(tmp_path) -> None:
    """Without the guard: averages and weights are NaN from there on, and the page says so."""
    trace = loop(2, 1000)
    norms = trace.grad_norms.copy()
    norms[700, 1] = np.inf
    spec = GabaSpec.published()
    report = make_report(Run(Trace.from_arrays(norms), spec), fuzz_steps=STEPS)
    assert np.isnan(report.run.replay.weights[700:]).all()
    assert report.run.replay.held_readings == 0
    assert report.saturation.undefined_from == 701
    assert "no weights from step 701 on" in str(report)
    json.loads(report.to_json(), parse_constant=pytest.fail)
    assert write_html(report, tmp_path / "page.html").exists()


def test_refusals_name_the_file(tmp_path) -> None:
    (tmp_path / "none.csv").write_text("step,grad_norm_a,grad_norm_b\n1,0,1\n2,inf,1\n")
    file = tmp_path / "none.csv"
    for ask in (unit_advice, workload_of, saturation):
        with pytest.raises(InputError, match=r"none\.csv"):
            ask(file)
    (tmp_path / "minus.csv").write_text("step,grad_norm_a,grad_norm_b\n1,2,1\n7,-2,1\n")
    with pytest.raises(InputError, match=r"minus\.csv: .*grad_norm_a.* -2"):
        Run.of(tmp_path / "minus.csv")
    with pytest.raises(InputError, match=r"none\.csv: 2 tasks \(a, b\), but n_tasks = 3"):
        Run.of(file, GabaSpec(n_tasks=3))
    with pytest.raises(InputError, match="list is no run"):
        Run.of([[1.0, 2.0]])  # type: ignore[arg-type]


# -- whose weights they were -----------------------------------------------------------------------


def test_equal_weights_are_described_as_they_were() -> None:
    report = make_report("fd001-equal", fuzz_steps=STEPS)
    judged = report.saturation
    assert judged.trained_weights == {"rul": 0.5, "health": 0.5}
    trace = report.run.trace
    ratio = trace.grad_norms[100:].max(axis=1) / trace.grad_norms[100:].min(axis=1)
    assert judged.trained_ratio_median == pytest.approx(np.median(ratio))
    rows = dict(report.rows())
    assert rows["weights as trained"].startswith("rul 0.5, health 0.5 in the mean (fixed)")
    assert "had GABA set the weights" in rows["floor saturated?"]
    assert "weights are the floor's constants" not in str(report)


@pytest.mark.parametrize(
    ("spec", "metadata", "came_from", "as_trained"),
    [
        (None, {}, "assumed", False),
        (GabaSpec(), {}, "given", False),
        (None, {"balancer": "gaba", "spec": GabaSpec().to_dict()}, "recorded", True),
        (GabaSpec(), {"balancer": "gaba", "spec": GabaSpec().to_dict()}, "recorded", True),
        (GabaSpec(floor=0.2), {"balancer": "gaba", "spec": GabaSpec().to_dict()}, "what-if", False),
        (None, {"balancer": "gradnorm"}, "assumed", False),
        (None, {"balancer": "gaba"}, "assumed", True),
    ],
)
def test_where_the_settings_come_from(spec, metadata, came_from, as_trained) -> None:
    run = Run(Trace.from_arrays(np.ones((200, 2)), metadata=metadata), spec)
    assert (run.spec_from, run.as_trained) == (came_from, as_trained)
    assert saturation(run).as_trained is as_trained


def test_a_what_if_is_said_to_be_one_and_fails_no_check(gaba: Trace) -> None:
    report = make_report(gaba, GabaSpec(floor=0.2), fuzz_steps=STEPS)
    assert report.run.spec_from == "what-if"
    assert report.replay.spec == gaba.spec
    assert report.replay.ok is True
    assert report.saturation.spec.floor == 0.2
    found = saturation(gaba, GabaSpec(floor=0.2))
    assert "had GABA set the weights with these settings" in found.verdict
    assert found.trained == (
        f"rul {found.trained_weights['rul']:.4g}, health {found.trained_weights['health']:.4g} "
        f"in the mean; contributions {found.trained_ratio_median:.3g} to 1 apart"
    )


@pytest.mark.parametrize(
    "ask", [saturation, unit_advice, compare_on_run, check, predict, workload_of, make_report,
            identify]
)  # fmt: skip
def test_every_analysis_of_a_recording_takes_a_run_not_its_norms(ask) -> None:
    names = set(inspect.signature(ask).parameters)
    assert "run" in names
    assert not names & {"grad_norms", "norms", "step", "first_step", "measured"}


# -- one replay ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "replays"), [(None, 2), (300, 3)])
def test_a_report_replays_a_run_once(monkeypatch, tmp_path, last: int | None, replays: int) -> None:
    """And once what the advised factor would have made of it; a window, what came before it."""
    seen = []
    rows = Replayer.rows

    def counted(self, norms, *rest):
        seen.append(norms)
        return rows(self, norms, *rest)

    monkeypatch.setattr(Replayer, "rows", counted)
    run = Run.of("fd001-gaba", last=last)
    report = make_report(run, fuzz_steps=STEPS)
    write_html(report, tmp_path / "page.html")
    assert len(seen) == replays
    assert sum(np.array_equal(norms, run.trace.grad_norms, equal_nan=True) for norms in seen) == 1
