"""Every result draws itself, on any axes, light and dark, as vectors."""

from __future__ import annotations

import ast
import io
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest

import gabactl
from gabactl import GabaSpec
from gabactl.base import plots
from gabactl.plants import LogRatio
from gabactl.traces import load_bundled


def plot_methods():
    """Every ``plot`` of a subclass of Result, read from the source."""
    for file in Path(gabactl.__file__).parent.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            bases = [ast.unparse(b) for b in node.bases] if isinstance(node, ast.ClassDef) else []
            if "Result" in bases:
                own = [m for m in node.body if getattr(m, "name", "") == "plot"]
                yield f"{file.name}: {node.name}", own[0] if own else None


def test_every_result_plots_on_axes_it_is_given_or_makes():
    found = dict(plot_methods())
    assert len(found) >= 40
    for name, method in found.items():
        if method is not None:  # else it draws its table, as Result does
            assert method.args.args[1].arg == "ax", name
            assert ast.unparse(method.args.defaults[0]) == "None", name
            assert ast.get_docstring(method), name


def make(name):
    """One result of each kind that has a picture of its own, and some that draw their table."""
    from gabactl.control import linear, margins, noise, nonlinear, sampling
    from gabactl.law import authority, filter

    spec = GabaSpec()
    trace = load_bundled("fd001-gaba")
    loop = linear.open_loop(spec, LogRatio(rho=-20.0, delay=5))
    low = GabaSpec(floor=0.01, beta=0.9, warmup=0)
    bistable = nonlinear.equilibria(low, LogRatio(rho=1.1))
    if name == "table":
        return nonlinear.small_gain(spec, LogRatio(rho=-0.2))
    if name in ("saturation",):
        from gabactl.runs.saturation import saturation

        return saturation(trace)
    if name == "units":
        from gabactl.runs.units import unit_advice

        return unit_advice(trace, spec)
    if name == "validate":
        from gabactl.validation.check import check

        return check(trace)
    if name == "info":
        from gabactl.traces.info import trace_info

        return trace_info("fd001-gaba")
    if name == "watch":
        from gabactl.runs.watch import Watcher, _Sums

        sums = _Sums()
        sums.add(trace)
        assert Watcher
        return sums.state("run.arrows", True, 1.0, 500)
    if name == "analysis":
        from gabactl.control.analysis import analyze

        return analyze(spec, LogRatio(rho=-0.2, a=0.9))
    if name == "tune":
        from gabactl.synthesis import Workload, tune

        return tune(Workload(50.0, 2400.0, noise_std=0.5))
    if name == "nyquist":
        from gabactl.control.frequency import frequency_response

        return frequency_response(loop)
    if name == "rlocus":
        from gabactl.control.frequency import root_locus

        return root_locus(
            spec, LogRatio(rho=-2.0, delay=2), parameter="rho", values=np.linspace(-6, 0.9, 20)
        )
    if name == "response":
        from gabactl.control.responses import step_response

        return step_response(linear.open_loop(spec, LogRatio(rho=-2.0, delay=2)))
    return {
        "bounds": lambda: authority.weight_bounds(spec),
        "authority": lambda: authority.authority(spec),
        "filter": lambda: filter.filter_facts(spec),
        "filter-sampled": lambda: filter.filter_facts(GabaSpec(interval=10)),
        "loop": lambda: loop,
        "margins": lambda: margins.margins(loop),
        "margins-unstable": lambda: margins.margins(linear.open_loop(spec, LogRatio(rho=1.1))),
        "noise": lambda: noise.noise_report(
            linear.open_loop(spec, LogRatio(rho=-0.2)), noise_std=0.5
        ),
        "equilibria": lambda: bistable,
        "attraction": lambda: nonlinear.region_of_attraction(low, LogRatio(rho=1.1)),
        "sampling": lambda: sampling.sampling_trade(spec),
    }[name]()


#: With the axes' unit, where the x or y axis has one.
KINDS = {
    "table": "",
    "saturation": "imbalance",
    "units": "ratio",
    "bounds": "weight",
    "authority": "imbalance",
    "filter": "rad/step",
    "filter-sampled": "rad/step",
    "loop": "real part",
    "margins": "dB",
    "margins-unstable": "real part",
    "noise": "nats",
    "equilibria": "nats",
    "attraction": "average",
    "sampling": "step",
    "validate": "step",
    "info": "step",
    "watch": "step",
    "analysis": "step",
    "tune": "step",
    "nyquist": "Re L",
    "rlocus": "Re z",
    "response": "step",
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_has_labels_and_draws_in_both_themes(name, tmp_path):
    result = make(name)
    for dark in (False, True):
        with plots.style(dark=dark):
            given = plots.axes(None)
            ax = result.plot(given)
            assert ax is given
            figure = ax.figure
        labels = " ".join(a.get_xlabel() + " " + a.get_ylabel() for a in figure.axes)
        assert KINDS[name] in labels
        assert ax.get_title() or ax.get_title(loc="left") or name not in ("table", "units")
        if dark:  # drawing is what takes the time
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg")
            xml.etree.ElementTree.fromstring(buffer.getvalue())
            # A colour bar has more shades than matplotlib draws as vectors.
            assert (b"<image" in buffer.getvalue()) is (name == "rlocus")
        paper = figure.get_facecolor()[:3]
        assert (sum(paper) < 0.6) is dark
        texts = [t for a in figure.axes for t in a.texts] + [ax.xaxis.label, ax.title]
        for text in texts:
            if text.get_text():
                ink = np.mean(plots_rgb(text.get_color()))
                assert abs(ink - np.mean(paper)) > 0.3, text
    assert result.plot().figure is not None


def plots_rgb(color):
    from matplotlib.colors import to_rgb

    return to_rgb(color)


def test_the_theme_is_inherited_and_undone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with plots.style(dark=True), plots.style():
        assert mpl.rcParams["text.color"] == "#e6edf3"
        with plots.style(dark=False):
            assert mpl.rcParams["text.color"] == "black"
        assert mpl.rcParams["text.color"] == "#e6edf3"
    assert dict(mpl.rcParams) == before


def contrast(one, other):
    """Of two colours, as the Web Content Accessibility Guidelines 2.2 define it."""

    def luminance(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(plots_rgb(one)), luminance(plots_rgb(other))])
    return (high + 0.05) / (low + 0.05)


def test_the_colours_in_use_stand_out_on_dark():
    for color in plots.PALETTE[:6]:
        assert contrast(color, "#14181d") >= 3.0


def test_a_long_table_says_what_it_leaves_out():
    ax = plots.table("many", [(f"row {i}", "x" * 300) for i in range(100)])
    text = ax.texts[0].get_text()
    assert "61 more" in text
    assert max(map(len, text.splitlines())) <= 110


def test_thinned_lines_keep_their_extremes_and_their_ends():
    rng = np.random.default_rng(1)
    x, y = np.arange(50_000), rng.normal(size=50_000)
    y[1000:3000] = np.nan
    y[-5] = 9.0  # in the last stretch, which is a short one
    thin_x, thin_y = plots.thin(x, y)
    assert thin_x.size < 1300
    assert np.nanmax(thin_y) == np.nanmax(y)
    assert np.nanmin(thin_y) == np.nanmin(y)
    assert (thin_x[0], thin_x[-1]) == (0, 49_999)
    assert np.isnan(thin_y).any()
