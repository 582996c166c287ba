"""The pictures of the page docs/what-we-found.md, each drawn from a campaign's figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from campaign_claims import CampaignFigures, applied_weights
from matplotlib.figure import Figure

from gabactl.base import plots

__all__ = ["PICTURES", "PUBLISHED", "USUAL"]

#: As printed: method, mean and spread of RMSE, of the NASA score.
PUBLISHED = {
    "FD002": {
        "gaba": (7.53, 0.65, 224.2, 22.4),
        "gradnorm": (8.19, 0.78, 260.9, 36.1),
        "grace": (7.72, 0.66, 223.4, 26.5),
    },
    "FD004": {
        "gradnorm": (7.74, 0.59, 222.9, 18.6),
        "gaba": (8.25, 1.10, 247.2, 60.3),
        "grace": (8.12, 0.70, 242.0, 25.6),
    },
}
#: RMSE that CNN-LSTM work reports for the last window of each engine, targets capped at 125.
USUAL = {"FD001": (11.0, 14.0), "FD002": (14.0, 20.0)}


def _smooth(values: np.ndarray, width: int = 25) -> np.ndarray:
    """Running median, NaN left out."""
    padded = np.pad(values, (width // 2, width // 2), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    known = ~np.isnan(windows).all(axis=1)
    found = np.full(len(values), np.nan)
    found[known] = np.nanmedian(windows[known], axis=1)
    return found


def _epochs(found: CampaignFigures, run: str) -> np.ndarray:
    trace = found.traces[run]
    per_epoch = int((trace.metadata.get("data") or {}).get("steps_per_epoch") or 100)
    return np.asarray(trace.step) / per_epoch


def _lines(
    found: CampaignFigures, ax: Any, subset: str, methods: tuple[str, ...], values: Any
) -> None:
    for i, method in enumerate(methods):
        for j, run in enumerate(r for r in found.figures(method) if r.subset == subset):
            y = _smooth(values(found.traces[run.run]))
            label = method if j == 0 else None
            colour = plots.PALETTE[i % len(plots.PALETTE)]
            style = ("-", "--", ":", "-.")[j % 4]
            ax.plot(_epochs(found, run.run), y, style, color=colour, lw=1.1, label=label)


def _panels(found: CampaignFigures, height: float = 3.6) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2 * len(found.subsets), height), layout="constrained")
    return figure, figure.subplots(1, len(found.subsets), squeeze=False, sharey=True)[0]


def draw_ratio(found: CampaignFigures) -> Figure:
    """g_RUL/g_health over training, with what the literature states."""
    figure, axes = _panels(found)

    def ratio(trace: Any) -> np.ndarray:
        norms = np.where(trace.grad_norms > 0, trace.grad_norms, np.nan)
        return norms[:, 0] / norms[:, 1]

    for ax, subset in zip(axes, found.subsets, strict=True):
        _lines(found, ax, subset, ("fixed", "gaba", "targets-125"), ratio)
        for value, words in ((50, "start, 50x"), (2400, "peak, 2,400x")):
            ax.axhline(value, color="0.35", lw=0.9, ls=(0, (1, 2)))
            ax.annotate(words, (1.0, value), (-3, 2), color="0.3", fontsize=8, ha="right",
                        xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
        ax.axhspan(500, 1000, color="0.5", alpha=0.2, lw=0)
        ax.annotate("end, 500x to 1,000x", (1.0, 500), (-3, -10), color="0.3", fontsize=8,
                    ha="right", xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
        ax.set(yscale="log", xlabel="epoch", title=f"{subset}: as stated (grey) and measured")
    axes[0].set_ylabel("gradient norm, RUL over health")
    axes[0].legend(loc="center right", fontsize=8, bbox_to_anchor=(1.0, 0.4))
    return figure


def draw_weights(found: CampaignFigures) -> Figure:
    """The RUL weight over training, against the stated bound and the true one."""
    figure, axes = _panels(found)
    for ax, subset in zip(axes, found.subsets, strict=True):
        _lines(
            found,
            ax,
            subset,
            ("constant-saturated", "gaba-project", "gaba-authority", "gaba"),
            lambda trace: applied_weights(trace)[:, 0],
        )
        ax.axhline(0.05, color="0.3", lw=0.8, ls="--", label="stated bound 0.05")
        ax.axhline(1 / 21, color="0.3", lw=0.8, ls=":", label="true bound 0.05/1.05")
        ax.set(yscale="log", xlabel="epoch", title=subset)
    axes[0].set_ylabel("weight of the RUL loss")
    axes[0].legend(loc="lower left", fontsize=8)
    return figure


def draw_contributions(found: CampaignFigures) -> Figure:
    """|w_RUL| g_RUL over |w_health| g_health: 1 is what balancing promises."""
    figure, axes = _panels(found)

    def apart(trace: Any) -> np.ndarray:
        c = np.abs(applied_weights(trace)) * np.where(
            trace.grad_norms > 0, trace.grad_norms, np.nan
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(c[:, 0] / c[:, 1])

    for ax, subset in zip(axes, found.subsets, strict=True):
        _lines(
            found, ax, subset, ("fixed", "gaba", "gaba-authority", "gradnorm", "targets-125"), apart
        )
        ax.axhline(1.0, color="0.3", lw=0.9)
        ax.set(yscale="log", xlabel="epoch", title=subset)
    axes[0].set_ylabel("contributions, RUL over health")
    axes[0].legend(fontsize=8)
    return figure


#: Metric, words, place in PUBLISHED, and the end of the axis.
_SCORES = (("rmse_capped", "RMSE, cycles", 0, 20.0), ("nasa_capped", "NASA score", 2, 3000.0))


def draw_scores(found: CampaignFigures) -> Figure:
    """RMSE and NASA score per method and seed, and the mean."""
    figure = Figure(figsize=(5.2 * len(found.subsets), 6.2), layout="constrained")
    axes = figure.subplots(2, len(found.subsets), squeeze=False, sharey=True)
    names = list(found.methods)
    for row, (metric, words, index, end) in zip(axes, _SCORES, strict=True):
        for ax, subset in zip(row, found.subsets, strict=True):
            for y, method in enumerate(names):
                values = list(found.values(metric, method, subset).values())
                if not values or min(values) > end:
                    text = f"beyond the axis: {np.mean(values):,.0f}" if values else "no score"
                    ax.annotate(text, (0.98, y), fontsize=8, color="0.3", ha="right", va="center",
                                xycoords=("axes fraction", "data"))  # fmt: skip
                    continue
                ax.plot([min(values), max(values)], [y, y], color=plots.PALETTE[0], lw=2, alpha=0.5)
                ax.plot(values, [y] * len(values), "o", color=plots.PALETTE[0], ms=4)
                ax.plot(np.mean(values), y, "|", color="k", ms=12, mew=2)
            for method, stated in PUBLISHED.get(subset, {}).items():
                if method in names:
                    ax.errorbar(stated[index], names.index(method), xerr=stated[index + 1],
                                fmt="x", color=plots.PALETTE[1],
                                label="published" if method == "gaba" else None)  # fmt: skip
            if subset in PUBLISHED:
                ax.legend(fontsize=8, loc="lower right")
            if metric == "rmse_capped":
                if subset in USUAL:
                    ax.axvspan(*USUAL[subset], color="0.5", alpha=0.15, lw=0)
                ax.set_xlim(6.0, end)
            else:
                ax.set(xscale="log", xlim=(150.0, end))
                ax.set_xticks([200, 500, 1000, 2000], ["200", "500", "1,000", "2,000"])
                ax.xaxis.set_minor_formatter("")
            ax.set(xlabel=words, title=subset)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    return figure


def draw_differences(found: CampaignFigures) -> Figure:
    """Each method less GABA over the same subsets and seeds, with Student's intervals."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [m for m in found.methods if m != "gaba"]
    for ax, metric, logarithm, words in (
        (left, "rmse_capped", False, "RMSE less that of GABA, cycles"),
        (right, "nasa_capped", True, "NASA score over that of GABA"),
    ):
        for y, method in enumerate(names):
            difference = found.versus(metric, method, "gaba", logarithm=logarithm)
            if difference is None:
                continue
            s = difference.student
            if abs(s.mean) > (2.0 if logarithm else 10.0):
                ax.annotate(
                    f"beyond the axis: {math.exp(s.mean):,.0f}x"
                    if logarithm
                    else f"beyond the axis: {s.mean:+.1f}",
                    (0.98, y), xycoords=("axes fraction", "data"), ha="right", va="center",
                    fontsize=8,
                )  # fmt: skip
                continue
            show = np.exp if logarithm else np.asarray
            ax.plot(show([s.low, s.high]), [y, y], color=plots.PALETTE[0], lw=2)
            ax.plot(show(s.mean), y, "o", color=plots.PALETTE[0])
        ax.axvline(1.0 if logarithm else 0.0, color="0.3", lw=0.9)
        ax.set_xlabel(words)
        if logarithm:
            ax.set_xscale("log")
            low, high = ax.get_xlim()
            ticks = [t for t in (0.2, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0) if low <= t <= high]
            ax.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
            ax.xaxis.set_minor_formatter("")
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    return figure


PICTURES = {
    "ratio": draw_ratio,
    "weights": draw_weights,
    "contributions": draw_contributions,
    "scores": draw_scores,
    "differences": draw_differences,
}
