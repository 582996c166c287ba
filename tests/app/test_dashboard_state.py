"""The dashboard's view, its address, and what a visitor's session makes of both."""

from __future__ import annotations

from urllib.parse import parse_qs

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("panel", reason="panel is not installed: pip install 'gabactl[app]'")

from gabactl.app.controls import CONTROLS
from gabactl.app.session import Session
from gabactl.app.state import LIMITS, SPEC_FIELDS, TABS, View
from gabactl.base.errors import InputError
from gabactl.law.controller import Controller
from gabactl.law.spec import CHOICES, GabaSpec
from gabactl.traces import Trace, load_bundled


def test_the_default_view_is_the_published_setting_with_the_guard():
    assert View().spec() == GabaSpec()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "beta": st.floats(0, 0.9999),
            "floor": st.floats(0, 0.4999),
            "warmup": st.integers(0, 100_000),
            "rho": st.floats(-300, 3),
            "tab": st.sampled_from(list(TABS)),
            "floor_mode": st.sampled_from(CHOICES["floor_mode"]),
            "without": st.lists(
                st.text(
                    st.characters(exclude_characters=",", exclude_categories=["Cs"]), min_size=1
                ),
                max_size=4,
            ).map(tuple),
        },
    )
)
def test_an_address_restores_its_view_exactly(changes):
    view = View().changed(**changes)
    query = parse_qs(view.to_query().lstrip("?"), keep_blank_values=True)
    assert View().updated_by(query) == (view, [])


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from([*View.__dataclass_fields__, "x"]), st.lists(st.text())))
def test_any_address_gives_a_valid_view_and_readable_problems(query):
    view, problems = View().updated_by(query)
    view.changed(**{name: getattr(view, name) for name in View.__dataclass_fields__})
    assert len(problems) <= 4
    assert all(len(problem) < 500 for problem in problems)
    if view.floor < 0.5:
        view.spec()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("beta", "1"),
        ("beta", "nan"),
        ("beta", "-inf"),
        ("floor", "1e999"),
        ("floor", "0.5"),
        ("warmup", "1.5"),
        ("step", "-1"),
        ("tab", "nothing"),
        ("source", "/etc/passwd"),
        ("theme", "dark\r\nSet-Cookie: a=b"),
        ("without", "x" * 3000),
    ],
)
def test_what_is_not_allowed_is_left_out_and_named(name, text):
    view, problems = View().updated_by({name: [text.encode()]})
    assert view == View()
    assert len(problems) == 1
    assert name in problems[0]
    assert problems[0].endswith("left out")


def test_a_refused_change_leaves_everything_as_it_was():
    session = Session()
    before = session.view
    assert not session.change(floor=0.7)
    assert "0.4999" in session.message
    assert session.view == before
    assert session.change(floor=0.2)
    assert session.message == ""


def test_a_floor_too_high_for_the_number_of_tasks_is_refused():
    trace = Trace.from_arrays(np.ones((10, 4)))
    session = Session(trace)
    assert not session.change(floor=0.3)
    assert "1/n_tasks" in session.message
    session.restore({"floor": ["0.3"], "beta": ["0.5"]})
    assert session.view.floor == 0.05
    assert "left out" in session.message


def test_the_replay_is_the_reference_controller_step_by_step():
    session = Session()
    session.change(beta=0.97, floor=0.01, warmup=120, floor_mode="project")
    controller = Controller(session.spec)
    trace = session.trace
    for row in range(400):
        norms = trace.grad_norms[row] if trace.measured[row] else None
        weights = controller.observe(norms)
    session.change(step=int(trace.step[399]))
    np.testing.assert_allclose(session.stages().weights, weights, rtol=1e-12)
    np.testing.assert_allclose(session.stages().ema, controller.ema_weights, rtol=1e-12)


def test_a_preset_is_the_settled_loop():
    """500x under the published setting: w_1 = m/(m + R/(1+R)) = 0.04771, left over m (1 + R)."""
    session = Session()
    session.change(ratio=500.0)
    now = session.stages()
    assert now.weights[0] == pytest.approx(0.05 / (0.05 + 500 / 501))
    assert now.contributions[0] / now.contributions[1] == pytest.approx(25.05)
    assert now.share[0] + now.error[0] == pytest.approx(0.5)


def test_another_run_brings_its_own_settings_and_the_address_says_so():
    session = Session()
    session.change(source="fd002-gaba", beta=0.9)
    assert session.view.guard == "none"
    copy = Session()
    copy.restore(parse_qs(session.to_query().lstrip("?")))
    assert copy.view == session.view
    assert copy.trace.source == "fd002-gaba"


def test_an_address_of_somebody_elses_own_run_says_what_is_missing():
    session = Session()
    session.restore({"source": ["given"], "beta": ["0.9"]})
    assert session.view.source == "fd001-gaba"
    assert session.view.beta == 0.9
    assert "upload yours" in session.message


def test_an_uploaded_run_with_wild_settings_is_refused_in_words():
    trace = load_bundled("fd001-gaba")
    spec = GabaSpec(beta=0.99999).to_dict()
    session = Session()
    assert not session.take(trace.replace(metadata={**trace.metadata, "spec": spec}))
    assert "beta = 0.99999" in session.message
    assert session.view.source == "fd001-gaba"


@pytest.mark.parametrize("name", list(CONTROLS))
def test_sliders_reach_only_what_the_view_takes(name):
    scale = CONTROLS[name]
    low, high = LIMITS[name]
    for position in np.linspace(scale.low, scale.high, 57):
        value = scale.value(float(position))
        assert low <= value <= high
        if name not in ("interval", "delay", "warmup", "step"):
            again = scale.value(scale.position(value))
            assert again == pytest.approx(value, rel=0.03, abs=0.03)


@given(st.floats(0, 4))
def test_the_smoothing_slider_gives_poles_within_the_resolution_of_its_label(position):
    beta = CONTROLS["beta"].value(position)
    assert 0 <= beta <= 0.9999
    assert 1 - beta == pytest.approx(10.0**-position, rel=0.06, abs=1e-9)


def test_every_setting_of_the_spec_is_in_the_view():
    assert set(SPEC_FIELDS) | {"n_tasks"} == set(GabaSpec().to_dict())


def test_an_unknown_field_is_a_bug_of_ours():
    with pytest.raises((KeyError, InputError, TypeError)):
        View().changed(nothing=1)
