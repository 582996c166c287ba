"""What a campaign of training runs says of the claims: figures per run, scores, and records."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.errors import InputError
from gabactl.replay import replay_trace
from gabactl.saturation import saturation
from gabactl.spec import GabaSpec
from gabactl.statistics import (
    Friedman,
    Interval,
    Nemenyi,
    PairedDifference,
    bootstrap_mean,
    friedman,
    nemenyi,
    paired_difference,
)
from gabactl.traces import Trace, read_trace

__all__ = [
    "METRICS",
    "CampaignFigures",
    "RunFigures",
    "applied_weights",
    "campaign_records",
    "read_campaign",
    "run_figures",
]

Array = NDArray[np.float64]

#: Columns compared, and how they are called.
METRICS: dict[str, str] = {
    "rmse_capped": "RMSE, targets capped at 125",
    "nasa_capped": "NASA score, targets capped at 125",
    "rmse_uncapped": "RMSE, true RUL",
    "nasa_uncapped": "NASA score, true RUL",
    "rmse_all_windows": "RMSE, every test window",
    "rmse_test_selected": "RMSE, epoch chosen on the test engines",
}
_NEEDED = ("run", "subset", "method", "seed", "balancer", "status", "trace", *METRICS)
_MAX_BYTES = 1 << 26
#: Two subsets and five seeds.
_ENOUGH_BLOCKS = 10
_PROVENANCE = ("device", "torch", "gabactl", "platform", "started", "commit", "command")


@dataclass(frozen=True)
class RunFigures:
    """What one recorded run shows of the loop.

    Attributes
    ----------
    run, subset, method, seed
        Which.
    steps : int
        Rows of the trace.
    ratio_median, ratio_low, ratio_high : float
        g_RUL/g_health over the steps: median, 2.5 and 97.5 %.
    ratio_start : float
        Median of the first five readings.
    ratio_peak, peak_epoch : float, int
        Highest median of an epoch, and which.
    ratio_end : float
        Median of the last quarter.
    ema_health : float
        Settled stored average of the health task (median of the last quarter); NaN without one.
    weight_rul : float
        Settled applied weight of the RUL task.
    saturated_fraction : float
        Share of active steps with some average below the floor; NaN for other balancers.
    first_saturated_step : int or None
        When that began.
    contributions : float
        Median of |w_RUL| g_RUL/(|w_health| g_health) over the last half.
    least_weight : float
        Smallest weight that was applied.
    """

    run: str
    subset: str
    method: str
    seed: int
    steps: int
    ratio_median: float
    ratio_low: float
    ratio_high: float
    ratio_start: float
    ratio_peak: float
    peak_epoch: int
    ratio_end: float
    ema_health: float
    weight_rul: float
    saturated_fraction: float
    first_saturated_step: int | None
    contributions: float
    least_weight: float


@dataclass(frozen=True)
class CampaignFigures:
    """A campaign's table, its traces, and what they show.

    Attributes
    ----------
    rows : tuple of dict
        The table, one row per run.
    traces : dict of str to Trace
        By run, where there is one.
    runs : tuple of RunFigures
        Of the runs with a trace.
    digest : str
        SHA-256 of the table and the traces, to tell whether what was made of them is current.
    """

    rows: tuple[dict[str, Any], ...]
    traces: dict[str, Trace]
    runs: tuple[RunFigures, ...]
    digest: str

    @property
    def methods(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(dict.fromkeys(str(row["method"]) for row in self.rows))

    @property
    def subsets(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted({str(row["subset"]) for row in self.rows}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Sorted."""
        return tuple(sorted({int(row["seed"]) for row in self.rows}))

    def values(self, metric: str, method: str, subset: str | None = None) -> dict[Any, float]:
        """Finite figures of a method by (subset, seed).

        Parameters
        ----------
        metric : str
            A column, as in :data:`METRICS`.
        method : str
            Which.
        subset : str, optional
            Only this one.
        """
        return {
            (row["subset"], row["seed"]): float(row[metric])
            for row in self.rows
            if row["method"] == method
            and subset in (None, row["subset"])
            and row[metric] is not None
            and math.isfinite(row[metric])
        }

    def mean(self, metric: str, method: str, subset: str) -> Interval | None:
        """Mean over seeds with its bootstrap interval; None without a finished run."""
        found = list(self.values(metric, method, subset).values())
        return bootstrap_mean(found) if found else None

    def versus(
        self, metric: str, first: str, second: str, *, logarithm: bool = False
    ) -> PairedDifference | None:
        """First less second over the subsets and seeds both have; None with fewer than two.

        Parameters
        ----------
        metric, first, second : str
            Column, and the two methods.
        logarithm : bool
            Of the logarithms, so that the exponential is a ratio: for the NASA score, whose size
            differs tenfold between subsets.
        """
        one, two = self.values(metric, first), self.values(metric, second)
        both = sorted(set(one) & set(two))
        if len(both) < 2:
            return None
        change: Callable[[Any], Any] = np.log if logarithm else np.asarray
        return paired_difference(
            change([one[key] for key in both]), change([two[key] for key in both])
        )

    def complete(self, metric: str, methods: Sequence[str]) -> tuple[Array, tuple[Any, ...]]:
        """Table (blocks, methods) of the (subset, seed) that every method finished, and these."""
        found = [self.values(metric, method) for method in methods]
        blocks = sorted(set.intersection(*map(set, found))) if found else []
        table = np.array([[values[block] for values in found] for block in blocks])
        return table.reshape(len(blocks), len(methods)), tuple(blocks)

    def ranking(self, metric: str, methods: Sequence[str]) -> tuple[Friedman, Nemenyi] | None:
        """Friedman's and Nemenyi's tests; None with fewer than two blocks or three methods."""
        table, blocks = self.complete(metric, methods)
        if len(blocks) < 2 or len(methods) < 3:
            return None
        return friedman(table, methods), nemenyi(table, methods)

    def figures(self, method: str) -> tuple[RunFigures, ...]:
        """Of one method's runs."""
        return tuple(run for run in self.runs if run.method == method)


def read_campaign(folder: str | Path) -> CampaignFigures:
    """Read ``results.parquet`` and the traces beside it.

    Parameters
    ----------
    folder : path
        Of the results: ``results.parquet``, and traces as its column ``trace`` names them or under
        ``traces/``.

    Raises
    ------
    InputError
        No table there, a column is missing, or a trace is damaged.

    Examples
    --------
    >>> read_campaign("nowhere")
    Traceback (most recent call last):
        ...
    gabactl.errors.InputError: nowhere: no results.parquet there: run `gabactl campaign run` first
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = Path(folder)
    file = place / "results.parquet"
    if not file.is_file():
        raise InputError(f"{folder}: no results.parquet there: run `gabactl campaign run` first")
    if file.stat().st_size > _MAX_BYTES:
        raise InputError(f"{file}: larger than 64 MiB, which no table of runs is")
    try:
        rows = pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: cannot be read ({str(error)[:80]}): make it again") from None
    for name in _NEEDED:
        if any(name not in row for row in rows):
            raise InputError(f"{file}: no column {name!r}: it is not the table of a campaign")
    rows.sort(key=lambda row: (row["subset"], row["seed"]))
    digest = hashlib.sha256(file.read_bytes())
    traces: dict[str, Trace] = {}
    for row in sorted(rows, key=lambda row: str(row["run"])):
        path = _trace_of(place, row)
        if path is not None:
            digest.update(path.read_bytes())
            traces[row["run"]] = read_trace(path).replace(source=str(row["run"]))
    order = list(dict.fromkeys(row["method"] for row in rows))
    rows.sort(key=lambda row: (row["subset"], order.index(row["method"]), row["seed"]))
    runs = tuple(
        run_figures(
            traces[row["run"]],
            run=row["run"],
            subset=row["subset"],
            method=row["method"],
            seed=row["seed"],
        )
        for row in rows
        if row["run"] in traces
    )
    return CampaignFigures(tuple(rows), traces, runs, digest.hexdigest())


def _trace_of(place: Path, row: dict[str, Any]) -> Path | None:
    name = str(row["run"])
    said = row["trace"]
    for path in (
        *((place / said,) if said and not Path(said).is_absolute() else ()),
        place / "traces" / f"{name}.parquet",
    ):
        if path.is_file() and path.resolve().is_relative_to(place.resolve()):
            return path
    return None


def applied_weights(trace: Trace) -> Array:
    """Weights at every row: recorded, or, between the rows that have them, replayed or held.

    Parameters
    ----------
    trace : Trace
        Its other columns may be thinned out.

    Examples
    --------
    >>> trace = Trace.from_arrays(np.ones((3, 2)), weights=[[0.2, 0.8], [np.nan, np.nan], [0.3, 0.7]])
    >>> applied_weights(trace)[:, 0].tolist()
    [0.2, 0.2, 0.3]
    """
    k = len(trace.tasks)
    known = trace.weights
    if known is not None and np.isfinite(known).all():
        return np.asarray(known)
    if trace.balancer == "gaba" and trace.spec is not None:
        return replay_trace(trace, trace.spec).weights
    if known is None:
        raise InputError(f"{trace.source}: no weights, and no settings to replay them with")
    rows = np.where(np.isfinite(known).all(axis=1), np.arange(len(known)), -1)
    last = np.maximum.accumulate(rows)
    return np.where((last >= 0)[:, None], known[np.maximum(last, 0)], 1.0 / k)


def run_figures(trace: Trace, *, run: str, subset: str, method: str, seed: int) -> RunFigures:
    """What one trace of two tasks (RUL, health) shows.

    Parameters
    ----------
    trace : Trace
        With norms at every step.
    run, subset, method, seed
        Which run it is.

    Examples
    --------
    >>> trace = Trace.from_arrays(np.tile([500.0, 1.0], (400, 1)), weights=np.full((400, 2), 0.5))
    >>> found = run_figures(trace, run="a", subset="FD001", method="fixed", seed=1)
    >>> found.ratio_median, found.contributions, found.weight_rul
    (500.0, 500.0, 0.5)
    """
    norms = np.asarray(trace.grad_norms, dtype=np.float64)
    usable = np.isfinite(norms).all(axis=1) & (norms > 0).all(axis=1)
    if usable.sum() < 20:
        raise InputError(
            f"{trace.source}: fewer than 20 readings with a positive norm of each task"
        )
    ratio = norms[usable, 0] / norms[usable, 1]
    step = trace.step[usable]
    per_epoch = int((trace.metadata.get("data") or {}).get("steps_per_epoch") or 100)
    epoch = (step - 1) // per_epoch
    numbers, counts = np.unique(epoch, return_counts=True)
    whole = numbers[counts >= per_epoch // 2]
    medians = [float(np.median(ratio[epoch == e])) for e in whole]
    peak = int(np.argmax(medians)) if medians else 0
    weights = applied_weights(trace)
    contribution = np.abs(weights[usable]) * norms[usable]
    half = len(ratio) // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = contribution[half:, 0] / contribution[half:, 1]
    quarter = max(len(trace) // 4, 1)
    gaba = trace.balancer == "gaba" and trace.spec is not None
    judged = saturation(trace) if gaba else None
    ema = replay_trace(trace, trace.spec or GabaSpec()).ema if gaba else None
    return RunFigures(
        run=run,
        subset=subset,
        method=method,
        seed=seed,
        steps=len(trace),
        ratio_median=float(np.median(ratio)),
        ratio_low=float(np.quantile(ratio, 0.025)),
        ratio_high=float(np.quantile(ratio, 0.975)),
        ratio_start=float(np.median(ratio[:5])),
        ratio_peak=max(medians, default=math.nan),
        peak_epoch=int(whole[peak]) + 1 if medians else 0,
        ratio_end=float(np.median(ratio[-max(len(ratio) // 4, 1) :])),
        ema_health=float(np.median(ema[-quarter:, 1])) if ema is not None else math.nan,
        weight_rul=float(np.median(weights[-quarter:, 0])),
        saturated_fraction=judged.pinned_fraction if judged else math.nan,
        first_saturated_step=judged.first_pinned_step if judged else None,
        contributions=float(np.median(left)),
        least_weight=float(weights.min()),
    )


def campaign_records(found: CampaignFigures, toys: dict[str, Any] | None) -> dict[str, Any]:
    """Records for the ledger, by file name.

    Parameters
    ----------
    found : CampaignFigures
        Of the campaign.
    toys : dict or None
        ``simulations/results/gradnorm_divergence.json``, for C38.

    Returns
    -------
    dict of str to dict
        Each with claim, values, provenance and note, as the ledger reads them.
    """
    note = (
        f"{_models(found)}, {found.rows[0].get('epochs')} epochs, "
        f"{', '.join(found.subsets)}, seeds {', '.join(map(str, found.seeds))}"
    )
    provenance = _provenance(found)

    def record(claim: str, values: dict[str, float], reason: str = "") -> dict[str, Any]:
        finite = {key: float(v) for key, v in values.items() if math.isfinite(v)}
        made: dict[str, Any] = {"claim": claim, "values": finite}
        if reason:
            made |= {"decides": False, "reason": reason}
        return {**made, "note": note, "provenance": provenance}

    gaba, fixed = found.figures("gaba"), found.figures("fixed")
    records: dict[str, dict[str, Any]] = {}
    if gaba:
        settled = [run.weight_rul for run in gaba]
        records["C24"] = record("C24", _range("stored_health_weight", [r.ema_health for r in gaba]))
        records["C25"] = record(
            "C25",
            {
                **_range("residual_contribution_ratio", [r.contributions for r in gaba]),
                **_range(
                    "residual_with_floor_1e-4",
                    [r.contributions for r in found.figures("gaba-authority")],
                ),
            },
        )
        records["C26"] = record(
            "C26",
            {
                "spread_of_settled_weight": max(settled) - min(settled),
                **_range("settled_rul_weight", settled),
                **_range("saturated_fraction", [r.saturated_fraction for r in gaba]),
                **_range(
                    "first_saturated_step",
                    [r.first_saturated_step or math.nan for r in gaba],
                ),
            },
        )
        subsets = {s: [r.weight_rul for r in gaba if r.subset == s] for s in found.subsets}
        middle = [float(np.median(v)) for v in subsets.values() if v]
        records["C43"] = record(
            "C43",
            {
                "spread_over_subsets": max(middle) - min(middle),
                **{f"settled_rul_weight_{s}": float(np.median(v)) for s, v in subsets.items() if v},
            },
        )
    if fixed:
        records["C27"] = record(
            "C27",
            {
                **_range("median_ratio", [r.ratio_median for r in fixed]),
                **_range(
                    "median_ratio_targets_over_125",
                    [r.ratio_median for r in found.figures("targets-125")],
                ),
            },
        )
        both = [*fixed, *gaba]
        records["C28"] = record(
            "C28",
            {
                **_range("start", [r.ratio_start for r in fixed]),
                **_range("peak", [r.ratio_peak for r in both]),
                **_range("peak_epoch", [float(r.peak_epoch) for r in both]),
                **_range("end", [r.ratio_end for r in both]),
            },
        )
    records["C38"] = record("C38", _diverged(found, toys))
    published = ("gaba", "gradnorm", "grace")
    for claim, subset in (("C40", "FD002"), ("C41", "FD004")):
        values: dict[str, float] = {}
        for method in (*published, "fixed"):
            for metric, short in (
                ("rmse_capped", "rmse"),
                ("nasa_capped", "nasa"),
                ("rmse_all_windows", "rmse_all_windows"),
                ("rmse_test_selected", "rmse_test_selected"),
            ):
                mean = found.mean(metric, method, subset)
                if mean is not None:
                    values[f"{method}_{short}"] = mean.mean
        why = (
            f"the published network (3.5 million parameters, up to 500 epochs, five seeds) was not "
            f"trained; the figures are of a reduced campaign: {note}"
            if values
            else f"{subset} was not trained: it takes a GPU (simulations/cmapss_campaign.toml)"
        )
        if values:
            compared, said = _controls(found)
            values |= compared
            why += said
        if not _is_published_protocol(found, subset):
            records[claim] = record(claim, values, why)
        else:
            records[claim] = record(claim, values)
    records["C42"] = _significance(found, record)
    return records


def _controls(found: CampaignFigures) -> tuple[dict[str, float], str]:
    """GABA against the controls, over all subsets: figures, and whether it beats them."""
    values: dict[str, float] = {}
    said = []
    for control, words in (
        ("constant-saturated", "the constant 0.0476/0.9524"),
        ("targets-125", "equal weights on targets/125"),
        ("fixed", "equal weights"),
    ):
        difference = found.versus("rmse_capped", "gaba", control)
        if difference is None:
            continue
        student = difference.student
        name = f"gaba_less_{control.replace('-', '_')}_rmse"
        values |= {name: student.mean, f"{name}_low": student.low, f"{name}_high": student.high}
        beats = "beats" if difference.decided and student.mean < 0 else "is not shown to beat"
        said.append(
            f"GABA {beats} {words} (RMSE {student.mean:+.2f} [{student.low:+.2f}, "
            f"{student.high:+.2f}], lower in {difference.wins} of {difference.difference.n} pairs)"
        )
    return values, "".join(f"; {text}" for text in said)


def _models(found: CampaignFigures) -> str:
    sizes = sorted({int(row["parameters"]) for row in found.rows if row.get("parameters")})
    return " and ".join(f"a network of {size:,} parameters" for size in sizes) or "unknown network"


def _is_published_protocol(found: CampaignFigures, subset: str) -> bool:
    """Whether the subset was trained with the full network and at least five seeds."""
    rows = [row for row in found.rows if row["subset"] == subset and row.get("parameters")]
    seeds = {row["seed"] for row in rows if int(row["parameters"]) > 3_000_000}
    return len(seeds) >= 5


def _provenance(found: CampaignFigures) -> dict[str, str]:
    said = {
        key: sorted({str(row[key]) for row in found.rows if row.get(key)}) for key in _PROVENANCE
    }
    versions = [f"{k} {' and '.join(said[k])}" for k in ("gabactl", "torch") if said[k]]
    return {
        "command": "gabactl campaign run simulations/cmapss_campaign_reduced.toml, "
        "then python simulations/what_we_found.py",
        "date": said["started"][0][:10] if said["started"] else "unknown",
        "device": " and ".join(said["device"]) or "unknown",
        "versions": ", ".join(versions) or "unknown",
        "platform": " and ".join(said["platform"]) or "unknown",
        "commit": " and ".join(said["commit"]) or "unknown",
    }


def _range(name: str, values: Sequence[float]) -> dict[str, float]:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return {}
    return {f"{name}_lowest": min(finite), f"{name}_highest": max(finite)}


def _diverged(found: CampaignFigures, toys: dict[str, Any] | None) -> dict[str, float]:
    def of(method: str) -> tuple[int, int]:
        rows = [r for r in found.rows if r["method"] == method and r["status"] != "not_run"]
        return sum(row["status"] == "diverged" for row in rows), len(rows)

    gradnorm, gaba = of("gradnorm"), of("gaba")
    scores = list(found.values("rmse_capped", "gradnorm").values())
    values: dict[str, float] = {
        "campaign_gradnorm_diverged": gradnorm[0],
        "campaign_gradnorm_runs": gradnorm[1],
        "campaign_gaba_diverged": gaba[0],
        "campaign_gaba_runs": gaba[1],
        "campaign_gradnorm_runs_with_a_negative_weight": sum(
            run.least_weight < 0 for run in found.figures("gradnorm")
        ),
    }
    if scores:
        values["campaign_gradnorm_least_rmse"] = min(scores)
    for row in (toys or {}).get("rows", ()):
        name = "gaba" if row["method"] == "gaba" else row["method"].split()[0]
        if name in ("gaba", "gradnorm"):
            for key, count in (("diverged", row["not_finite"]), ("runs", row["runs"])):
                values[f"toy_{name}_{key}"] = values.get(f"toy_{name}_{key}", 0) + count
    for name in ("gradnorm", "gaba"):
        values[f"{name}_diverged_runs"] = values[f"campaign_{name}_diverged"] + values.get(
            f"toy_{name}_diverged", 0
        )
    return values


def _significance(found: CampaignFigures, record: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """C42. Few blocks decide nothing: they cannot show that a difference is absent."""
    methods = [m for m in ("fixed", "gaba", "gradnorm", "grace") if found.values("rmse_capped", m)]
    values: dict[str, float] = {}
    blocks = 0
    for chosen, words in ((methods, ""), ([m for m in methods if m != "gradnorm"], "_no_gradnorm")):
        for metric, short in (("rmse_capped", "rmse"), ("nasa_capped", "nasa")):
            ranking = found.ranking(metric, chosen)
            if ranking is None:
                continue
            values[f"friedman_p_{short}{words}"] = ranking[0].permutation_p_value
            values[f"friedman_chi2_p_{short}{words}"] = ranking[0].p_value
            if not words:
                blocks = ranking[0].blocks
    if not blocks:
        return record("C42", {}, "too few finished runs for a Friedman test")
    values |= {"blocks": blocks, "methods": len(methods)}
    if blocks >= _ENOUGH_BLOCKS:
        return record("C42", values)
    return record(
        "C42",
        values,
        f"not the published protocol, and {blocks} blocks (subset and seed) are few. Of "
        f"{', '.join(methods)} the test gives p = {values['friedman_p_rmse']:.2g} for RMSE and "
        f"{values['friedman_p_nasa']:.2g} for NASA; without GradNorm "
        f"{values.get('friedman_p_rmse_no_gradnorm', math.nan):.2g} and "
        f"{values.get('friedman_p_nasa_no_gradnorm', math.nan):.2g}",
    )
