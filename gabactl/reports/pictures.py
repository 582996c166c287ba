"""The report's pictures."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base import plots
from gabactl.reports.build import Report

#: The pictures in the order of the page, and what each shows.
_TEXTS = {
    "norms": "Gradient norms of the run, and their ratio against the imbalance that the floor allows",
    "weights": "Averaged and applied weights over the run, with the true bounds",
    "step_response": "Weights and contributions under steps of the imbalance from 50 to 2,400 to 500",
    "comparison": "Weights and contributions of GABA, GradNorm and equal weights on the run's gradient "
    "norms",
}


def pictures(report: Report, narrow: bool = False) -> dict[str, tuple[Any, str]]:
    """Every picture by name, with the text that says what it shows.

    Parameters
    ----------
    report : Report
        What to draw.
    narrow : bool
        For a phone: the same at half the width, so that the writing can be read there.

    Returns
    -------
    dict of str to (matplotlib.figure.Figure, str)
        In the order of the page.

    Examples
    --------
    >>> from gabactl.reports import report
    >>> from gabactl.traces import load_bundled
    >>> drawn = pictures(report(load_bundled("fd001-gaba")))  # doctest: +SKIP
    >>> list(drawn)[:3]  # doctest: +SKIP
    ['norms', 'weights', 'step_response']
    """
    drawn = (_norms, _weights, _step_response, _comparison)
    with plots.style():
        return {
            name: (draw(report, narrow), text)
            for (name, text), draw in zip(_TEXTS.items(), drawn, strict=True)
        }


def data_uri(figure: Any) -> str:
    """A figure as an SVG data URI: self-contained, and its ids its own.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to embed.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> data_uri(Figure())[:26]
    'data:image/svg+xml;base64,'
    """
    buffer = io.BytesIO()
    with plots.style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(rows: int, height: float, narrow: bool) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 if narrow else 8.0, height), layout="constrained")
    return figure, figure.subplots(rows, sharex=True)


def _norms(report: Report, narrow: bool) -> Any:
    trace = report.run.trace
    figure, (top, bottom) = _figure(2, 5.0, narrow)
    positive = np.where(trace.grad_norms > 0, trace.grad_norms, np.nan)
    for i, name in enumerate(trace.tasks):
        _line(top, trace.step, positive[:, i], label=name, linewidth=0.8)
    top.set(yscale="log", ylabel="gradient norm")
    top.legend()
    loud = trace.tasks.index(report.units.loud)
    quiet = trace.tasks.index(report.units.quiet)
    name = f"{trace.tasks[loud]} / {trace.tasks[quiet]}"
    _line(
        bottom,
        trace.step,
        positive[:, loud] / positive[:, quiet],
        color=plots.PALETTE[2],
        linewidth=0.8,
        label=name,
    )
    if np.isfinite(report.saturation.saturation_ratio):
        bottom.axhline(
            report.saturation.saturation_ratio,
            color=plots.PALETTE[1],
            linestyle="--",
            label=f"floor reached at {report.saturation.saturation_ratio:.3g}x",
        )
    bottom.set(yscale="log", ylabel="ratio of the norms", xlabel="step")
    bottom.legend()
    return figure


def _weights(report: Report, narrow: bool) -> Any:
    trace, spec, replay = report.run.trace, report.run.spec, report.run.replay
    figure, ax = _figure(1, 3.6, narrow)
    for i, name in enumerate(trace.tasks):
        color = plots.PALETTE[i % len(plots.PALETTE)]
        _line(ax, trace.step, replay.weights[:, i], color=color, label=f"{name}: applied")
        _line(
            ax, trace.step, replay.ema[:, i], color=color, linestyle=":", label=f"{name}: average"
        )
    for value in (report.bounds.lower, report.bounds.upper):
        ax.axhline(value, color="0.4", linewidth=0.8, linestyle="--")
    ax.axhline(np.nan, color="0.4", linewidth=0.8, linestyle="--", label="true bounds")
    if spec.warmup and trace.step[0] <= spec.warmup:
        ax.axvspan(
            trace.step[0],
            min(spec.warmup, trace.step[-1]),
            color="0.5",
            alpha=0.15,
            linewidth=0,
            label="warm-up",
        )
    ax.set(ylabel="weight under these settings", xlabel="step", ylim=(-0.02, 1.02))
    _legend_below(ax, 2 if narrow else 3)
    return figure


def _step_response(report: Report, narrow: bool) -> Any:
    figure, (top, bottom) = _figure(2, 5.0, narrow)
    report.step_response.plot(top, "weights")
    report.step_response.plot(bottom, "contributions")
    top.set_xlabel("")
    for text, name in zip(top.get_legend().get_texts(), report.run.tasks, strict=False):
        text.set_text(name)
    bottom.get_legend().remove()
    return figure


def _comparison(report: Report, narrow: bool) -> Any:
    figure, (top, bottom) = _figure(2, 6.0, narrow)
    report.comparison.plot(top, "weights", task=report.run.tasks.index(report.units.loud))
    report.comparison.plot(bottom, "contributions")
    top.set(xlabel="", ylabel=f"share of {report.units.loud}")
    top.get_legend().remove()
    _legend_below(bottom, 2 if narrow else 4)
    return figure


def _legend_below(ax: Any, columns: int) -> None:
    """Where no line can run through its words."""
    ax.legend(ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.18))


def _line(ax: Any, x: NDArray[Any], y: NDArray[Any], **style: Any) -> None:
    ax.plot(*plots.thin(x, y), **style)
