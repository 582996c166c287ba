"""What every result does: one line, a table, a picture in a notebook, JSON, a data frame."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import numpy as np
import pytest

from gabactl import GabaSpec, InputError, LogRatio
from gabactl.base import plots
from gabactl.base.results import Result
from gabactl.control import (
    analysis,
    certificates,
    describing,
    frequency,
    linear,
    margins,
    noise,
    nonlinear,
    responses,
    sampling,
)
from gabactl.loops.profiles import constant
from gabactl.loops.simulate import simulate

SPEC, PLANT = GabaSpec(), LogRatio(rho=-2.0, delay=2)
MAKE = {
    "open_loop": lambda: linear.open_loop(SPEC, PLANT),
    "vector_loop": lambda: linear.vector_loop(GabaSpec(n_tasks=3), LogRatio(-0.5, n_tasks=3)),
    "margins": lambda: margins.margins(SPEC, PLANT),
    "margins of an unstable loop": lambda: margins.margins(SPEC, LogRatio(1.1)),
    "frequency_response": lambda: frequency.frequency_response(SPEC, PLANT),
    "root_locus": lambda: frequency.root_locus(SPEC, PLANT, values=[-3, -1, 0]),
    "step_response": lambda: responses.step_response(SPEC, PLANT),
    "ramp_response": lambda: responses.ramp_response(SPEC, PLANT),
    "noise_report": lambda: noise.noise_report(SPEC, PLANT),
    "jensen_bias": lambda: noise.jensen_bias(2.0, 0.5),
    "equilibria": lambda: nonlinear.equilibria(SPEC, LogRatio(1.1)),
    "region_of_attraction": lambda: nonlinear.region_of_attraction(
        GabaSpec(beta=0.9), LogRatio(1.1), n_starts=9
    ),
    "small_gain": lambda: nonlinear.small_gain(SPEC, PLANT),
    "limit_cycles": lambda: describing.limit_cycles(SPEC, LogRatio(-40.0, delay=5)),
    "circle": lambda: certificates.circle(SPEC, PLANT),
    "lyapunov": lambda: certificates.lyapunov(GabaSpec(beta=0.9), LogRatio(-3.0)),
    "sampling_trade": lambda: sampling.sampling_trade(SPEC),
    "analyze": lambda: analysis.analyze(SPEC, PLANT),
    "simulate": lambda: simulate(SPEC, constant(500.0, 50)),
}


@pytest.fixture(scope="module", params=MAKE)
def result(request: pytest.FixtureRequest) -> Any:
    return MAKE[request.param]()


def test_it_says_itself_in_a_line(result: Result) -> None:
    said = repr(result)
    assert said.startswith(result.title)
    assert len(said) < 250
    assert "\n" not in said
    assert "array" not in said
    assert len(str(result)) > len(said) - 60


def test_a_key_is_an_attribute(result: Result) -> None:
    """But for figures in decibels, and for `analyze`, which joins the facts of its parts."""
    if isinstance(result, (analysis.Analysis, type(simulate(SPEC, constant(2.0, 5))))):
        pytest.skip("joined from parts")
    for key in result.to_dict():
        assert hasattr(result, key) or key.endswith("_db"), key


def test_series_come_on_request(result: Result) -> None:
    plain, full = result.to_dict(), result.to_dict(series=True)
    assert set(full) == {*plain, "series"}
    arrays = {
        field.name
        for field in dataclasses.fields(result)  # type: ignore[arg-type]
        if isinstance(getattr(result, field.name), np.ndarray)
    } - {"response"}
    assert arrays <= {*full["series"], *plain}
    read = json.loads(result.to_json(series=True))
    assert {name: len(values) for name, values in full["series"].items()} == {
        name: len(values) for name, values in read["series"].items()
    }


def test_it_becomes_a_data_frame(result: Result) -> None:
    frame = result.to_pandas()
    assert len(frame) >= 1
    assert len(frame.columns) >= 2


def test_a_row_per_step_and_a_column_per_task() -> None:
    frame = MAKE["simulate"]().to_pandas()
    assert len(frame) == 50
    assert {"grad_norms_1", "grad_norms_2", "ema_1", "weights_2"} <= set(frame.columns)
    response = MAKE["step_response"]()
    assert response.to_pandas()["log_ratio"].to_list() == response.log_ratio.tolist()
    assert MAKE["sampling_trade"]().to_pandas()["interval"].to_list() == [1, 2, 5, 10, 20, 50]
    (one,) = MAKE["noise_report"]().to_pandas().to_dict("records")
    assert one["jensen.noise_std"] == one["noise_std"] == 0.5


def test_pandas_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        MAKE["noise_report"]().to_pandas()


def displayed(value: object) -> dict[str, Any]:
    """What a notebook is sent to show, as IPython decides it, with no magic and no pyplot."""
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    data, _ = formatter.format(value)
    return dict(data)


def test_a_notebook_draws_its_plot(result: Result) -> None:
    with plots.style(dark=True):
        drawn = displayed(result.plot())
    assert drawn["image/png"].startswith(b"\x89PNG")
    assert len(drawn["image/png"]) > 5000


def test_a_notebook_draws_panels_and_figures_too() -> None:
    response = MAKE["frequency_response"]()
    for value in (response.plot_bode(), response.plot_nichols(), MAKE["simulate"]().figure()):
        assert displayed(value)["image/png"].startswith(b"\x89PNG")


def test_a_notebook_shows_the_table_of_a_result(result: Result) -> None:
    assert displayed(result)["text/html"].startswith(("<table>", "<pre>"))


def test_axes_of_another_figure_are_left_to_it() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert MAKE["margins"]().plot(ax) is ax
    assert "image/png" not in displayed(ax)
