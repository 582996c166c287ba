"""Every tab without a browser: what is drawn is what the analysis functions say."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("panel", reason="panel is not installed: pip install 'gabactl[app]'")

from gabactl.app import dashboard
from gabactl.app.crossing import CrossingTab
from gabactl.app.diagram import DiagramTab
from gabactl.app.frequency import FrequencyTab, locus_points, stable_rho
from gabactl.app.gradnorm import GradNormTab
from gabactl.app.live import LiveTab
from gabactl.app.sensor import SensorTab, groups_of
from gabactl.app.session import Session
from gabactl.app.state import TABS
from gabactl.app.trace import MAX_UPLOAD_MB, TraceTab, python_source, read_upload
from gabactl.balancers import GradNorm
from gabactl.base.errors import InputError
from gabactl.control.margins import margins
from gabactl.identification.verdict import loop_radius
from gabactl.law.authority import residual_ratio, weight_bounds
from gabactl.law.spec import GabaSpec
from gabactl.runs.run import Run
from gabactl.traces import Trace, load_bundled, write_parquet


@pytest.fixture
def session() -> Session:
    return Session()


def test_every_tab_opens_and_follows_every_control():
    page = dashboard("fd001-gaba")
    for key in TABS:
        assert page.session.change(tab=key)
        for change in ({"beta": 0.9}, {"floor": 0.0}, {"ratio": 500.0}, {"step": 50}):
            assert page.session.change(**change)
            assert not page._message.visible, page._message.object
    page.__panel__().get_root()


def test_the_live_loop_draws_the_replay_and_the_true_bounds(session):
    session.change(beta=0.95, floor=0.02, warmup=300)
    tab = LiveTab(session)
    tab.update()
    trace, run = session.trace, Run(session.trace, session.spec).replay
    drawn = tab._applied[0].source.data
    rows = np.searchsorted(trace.step, drawn["x"])
    np.testing.assert_array_equal(drawn["y"], run.weights[rows, 0])
    bounds = weight_bounds(session.spec)
    assert (tab._low.location, tab._high.location) == (bounds.lower, bounds.upper)
    assert tab._bands[0].right == 300
    loss = tab._loss.source.data
    rows = np.searchsorted(trace.step, loss["x"])
    expected = (run.weights * trace.losses).sum(axis=1)[rows]
    np.testing.assert_allclose(loss["y"], expected)


def test_a_run_of_many_tasks_is_drawn_too():
    rng = np.random.default_rng(0)
    page = dashboard(Trace.from_arrays(np.exp(rng.normal(size=(400, 8)))))
    page.session.change(floor=0.01)
    for key in TABS:
        page.session.change(tab=key)
        assert not page._message.visible, (key, page._message.object)


def test_a_run_without_any_reading_is_drawn_too():
    page = dashboard(Trace.from_arrays(np.full((50, 2), np.nan)))
    for key in TABS:
        page.session.change(tab=key)
        assert not page._message.visible, (key, page._message.object)


def test_the_curves_cross_at_the_raw_weight(session):
    session.change(ratio=500.0)
    tab = CrossingTab(session)
    tab.update()
    assert tab._cross.source.data["x"][0] == pytest.approx(1 / 501)
    left = tab._here.source.data
    assert left["y"][0] == pytest.approx(float(residual_ratio(GabaSpec(), 500.0)))
    bounds = weight_bounds(session.pair_spec)
    assert tab._bands[0].right == bounds.lower


def test_the_diagram_names_its_tasks_without_trusting_them():
    trace = Trace.from_arrays([[250.0, 0.5]] * 200, tasks=("<b>x", "y"))
    session = Session(trace)
    tab = DiagramTab(session)
    tab.update()
    assert "<b>x" not in tab.picture.object
    assert "&lt;b&gt;x" in tab.picture.object
    assert "0.998004" in tab.picture.object


@pytest.mark.parametrize("variant", ["chen2018", "textbook"])
@pytest.mark.parametrize("k", [2, 3])
def test_gradnorm_over_a_record_equals_its_steps(variant, k):
    rng = np.random.default_rng(k)
    norms, losses = np.exp(rng.normal(size=(300, k))), np.exp(0.1 * rng.normal(size=(300, k)))
    norms[[0, 7]] = np.nan
    stepped = GradNorm(variant, n_tasks=k)
    rows = [
        stepped.step(None if np.isnan(g).all() else g, loss if not np.isnan(g).all() else None)
        for g, loss in zip(norms, losses, strict=True)
    ]
    np.testing.assert_array_equal(GradNorm(variant, n_tasks=k).run(norms, losses), rows)


def test_gradnorm_bars_are_the_published_comparison(session):
    """Section 19.1 at 500x: (10, 1) of (20, 2) gives 0.001996, (5, 1.5) 0.000385, (10, 0.5) 0.005625."""
    tab = GradNormTab(session)
    for progress, expected in (
        ((0.5, 0.5), 0.001996),
        ((0.25, 0.75), 0.000385),
        ((0.5, 0.25), 0.005625),
    ):
        session.change(ratio=500.0, progress_1=progress[0], progress_2=progress[1])
        tab.update()
        assert tab._source.data["top"][2] == pytest.approx(expected, abs=6e-7)
        assert tab._source.data["top"][0] == pytest.approx(0.001996, abs=6e-7)


def test_the_sensor_counts_the_ticked_parameters():
    session = Session(load_bundled("fd001-parameters"))
    tab = SensorTab(session)
    groups = groups_of(session.trace)
    heads = [name for name in groups if name.endswith("_head")]
    assert len(heads) == 2
    session.change(without=tuple(heads))
    tab.update()
    # Without the heads it is the sensor of the recorded controller.
    measured = session.trace.measured
    shared = [name for group in groups if group not in heads for name in groups[group]]
    np.testing.assert_allclose(
        session.trace.norms_over(shared)[measured], session.trace.grad_norms[measured], rtol=1e-5
    )
    drawn = tab._ticked_ratio.source.data
    recorded = session.trace.grad_norms[np.searchsorted(session.trace.step, drawn["x"])]
    np.testing.assert_allclose(drawn["y"], recorded[:, 0] / recorded[:, 1], rtol=1e-4)


def test_norms_over_unknown_parameters_are_refused():
    trace = load_bundled("fd001-parameters")
    with pytest.raises(InputError, match="no parameter 'nothing'"):
        trace.norms_over(["nothing"])
    with pytest.raises(InputError, match="record with"):
        load_bundled("fd001-gaba").norms_over(["a"])


@pytest.mark.parametrize(("lag", "delay", "interval"), [(0.0, 0, 1), (10.0, 2, 1), (5.0, 1, 4)])
def test_the_stability_map_ends_where_a_pole_reaches_the_circle(lag, delay, interval):
    from gabactl.app.frequency import pole_of

    spec, a = GabaSpec(beta=0.95, interval=interval), pole_of(lag)
    low, high = stable_rho(spec, (0.95,), a, delay)[0]
    for edge in (low, high):
        assert np.isfinite(edge)
        assert loop_radius(spec, edge * 0.999, a, delay) < 1
        assert loop_radius(spec, edge * 1.001, a, delay) > 1


@pytest.mark.parametrize("ratio", [1.0, 200.0])
@pytest.mark.parametrize("mode", ["renormalise", "affine", "project"])
@pytest.mark.parametrize(
    ("lag", "delay", "interval"), [(0.0, 0, 1), (10.0, 3, 1), (300.0, 50, 1), (5.0, 1, 20)]
)
def test_the_stability_map_is_that_of_the_margins(lag, delay, interval, mode, ratio):
    from gabactl.app.frequency import pole_of
    from gabactl.control.linear import open_loop
    from gabactl.control.margins import stabilising_gains
    from gabactl.plants import LogRatio

    spec, a, betas = GabaSpec(floor_mode=mode, interval=interval), pole_of(lag), (0.0, 0.9, 0.9999)
    for beta, limits in zip(betas, stable_rho(spec, betas, a, delay, ratio), strict=True):
        for rho, limit in zip((-1.0, 1.0), limits, strict=True):
            loop = open_loop(spec.replace(beta=beta), LogRatio(rho, a, delay), ratio)
            reach = stabilising_gains(loop)[0][1]
            assert limit == pytest.approx(rho * reach, rel=1e-8)


@pytest.mark.parametrize(("lag", "delay", "interval"), [(0.0, 0, 1), (10.0, 3, 1), (5.0, 20, 4)])
def test_the_root_locus_is_that_of_the_closed_loops(lag, delay, interval):
    from gabactl.app.frequency import pole_of
    from gabactl.control.linear import open_loop
    from gabactl.plants import LogRatio

    spec, a = GabaSpec(interval=interval), pole_of(lag)
    values, poles = locus_points(spec, a, delay, 1.0)
    for rho in np.unique(values)[::7]:
        drawn = poles[values == rho]
        found = open_loop(spec, LogRatio(float(rho), a, delay)).closed.poles
        if rho != 0.0:  # there all but two poles are at 0, where rounding scatters them
            assert drawn.size == found.size
            assert max(np.abs(drawn - pole).min() for pole in found) < 1e-6


def test_margins_of_the_page_are_those_of_the_analysis(session):
    from gabactl.control.linear import open_loop
    from gabactl.plants import LogRatio

    session.change(rho=0.5, lag=0.0, delay=1)
    tab = FrequencyTab(session)
    tab.update()
    assert "STABLE" in tab.note.object
    for row in margins(open_loop(session.pair_spec, LogRatio(0.5, 0.0, 1))).rows():
        assert row[1] in tab.readout.object
    session.change(rho=1.5)
    tab.update()
    assert "UNSTABLE" in tab.note.object


def test_an_upload_is_read_checked_and_not_kept(tmp_path):
    file = write_parquet(load_bundled("fd001-equal"), tmp_path / "mine.parquet")
    tab = TraceTab(Session())
    assert tab.load("../../mine.parquet", file.read_bytes())
    assert tab.session.trace.source == "mine.parquet"
    assert "2,440" in tab.message.object


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("run.csv", b"", "empty"),
        ("run.csv", b"grad_norm_a,grad_norm_b\n1,2\n1,-2\n", "&gt;= 0"),
        ("run.parquet", b"PAR1 but no more", "run.parquet"),
        ("run.exe", b"\x00\x01\x02\xff" * 50, "no trace"),
        ("<script>.csv", b"a,b\n1,2\n", "_script_.csv"),
        ("", b"x", "upload"),
    ],
)
def test_a_malformed_upload_is_refused_in_one_line(name, content, says):
    tab = TraceTab(Session())
    assert not tab.load(name, content)
    assert "Not loaded." in tab.message.object
    assert says in tab.message.object
    assert "/tmp" not in tab.message.object
    assert "<script" not in tab.message.object
    assert tab.session.trace.source == "fd001-gaba"


def test_an_upload_beyond_the_limit_is_refused_unread():
    with pytest.raises(InputError, match=f"more than the {MAX_UPLOAD_MB} MB"):
        read_upload("big.csv", bytes((MAX_UPLOAD_MB << 20) + 1))


def test_a_thinned_log_has_one_saturated_share(session):
    """Units said 0 %, or nan, beside 90 %."""
    rows = session.trace.rows(slice(None, None, 20))
    log = Trace.from_arrays(rows.grad_norms, tasks=rows.tasks, step=rows.step, source="log.csv")
    assert session.take(log)
    tab = TraceTab(session)
    tab.update()
    assert "89.74%" in tab.findings.object  # saturation
    assert "89.7% / 0.0%" in tab.findings.object  # units
    assert "an estimate" in tab.findings.object


def test_the_end_of_a_run_has_one_saturated_share(session):
    assert session.take(session.trace.rows(slice(-500, None)))
    tab = TraceTab(session)
    tab.update()
    assert "100.00% of 500" in tab.findings.object
    assert "100.0% / 0.0%" in tab.findings.object


def test_recommended_settings_come_from_the_tuner_and_can_be_used():
    from gabactl.synthesis import tune, workload_of

    session = Session()
    tab = TraceTab(session)
    tab.recommend()
    expected = tune(workload_of(session.trace)).spec
    assert tab._advice == expected
    tab._use(None)
    assert session.spec == expected


def test_exports_give_the_settings_back(tmp_path):
    spec = GabaSpec(n_tasks=3, beta=0.1 + 0.2, floor=1e-5, law="inverse", floor_mode="affine")
    names: dict[str, object] = {}
    exec(python_source(spec), names)
    assert names["spec"] == spec
    file = tmp_path / "gaba.toml"
    file.write_text(spec.to_toml())
    assert GabaSpec.from_toml(file) == spec
