"""What a campaign of training runs says of the claims: figures per run, scores, and records."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from campaign_values import (
    controls,
    diverged,
    extremes,
    is_published_protocol,
    models_of,
    provenance_of,
    significance,
)
from numpy.typing import NDArray
from run_statistics import (
    Friedman,
    Interval,
    Nemenyi,
    PairedDifference,
    bootstrap_mean,
    friedman,
    nemenyi,
    paired_difference,
)

from gabactl.base.errors import InputError
from gabactl.runs.run import Run
from gabactl.runs.saturation import saturation
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
_MOST_RUNS = 100_000


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

        Returns
        -------
        dict of (str, int) to float
            By subset and seed, in the order of the table.
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
        """Mean over seeds with its bootstrap interval.

        Parameters
        ----------
        metric : str
            A column, as in :data:`METRICS`.
        method, subset : str
            Which runs.

        Returns
        -------
        Interval or None
            In the unit of the metric; None without a finished run.
        """
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
        """What every method finished.

        Parameters
        ----------
        metric : str
            A column, as in :data:`METRICS`.
        methods : sequence of str
            Which, in the order of the columns.

        Returns
        -------
        table : array, shape (blocks, methods)
            Figures of the runs that all these methods finished.
        blocks : tuple of (str, int)
            Their subsets and seeds, sorted.
        """
        found = [self.values(metric, method) for method in methods]
        blocks = sorted(set.intersection(*map(set, found))) if found else []
        table = np.array([[values[block] for values in found] for block in blocks])
        return table.reshape(len(blocks), len(methods)), tuple(blocks)

    def ranking(self, metric: str, methods: Sequence[str]) -> tuple[Friedman, Nemenyi] | None:
        """Friedman's and Nemenyi's tests over what every method finished.

        Parameters
        ----------
        metric : str
            A column, as in :data:`METRICS`.
        methods : sequence of str
            Which to rank.

        Returns
        -------
        (Friedman, Nemenyi) or None
            None with fewer than two blocks or three methods.
        """
        table, blocks = self.complete(metric, methods)
        if len(blocks) < 2 or len(methods) < 3:
            return None
        return friedman(table, methods), nemenyi(table, methods)

    def figures(self, method: str) -> tuple[RunFigures, ...]:
        """Of one method's runs.

        Parameters
        ----------
        method : str
            Which; of an unknown one there are none.
        """
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
    gabactl.base.errors.InputError: nowhere: no results.parquet there: run `gabactl cmapss campaign run` first
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = Path(folder)
    file = place / "results.parquet"
    if not file.is_file():
        raise InputError(
            f"{folder}: no results.parquet there: run `gabactl cmapss campaign run` first"
        )
    if file.stat().st_size > _MAX_BYTES:
        raise InputError(f"{file}: larger than 64 MiB, which no table of runs is")
    try:
        source = pq.ParquetFile(
            file, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 20
        )
        if source.metadata.num_rows > _MOST_RUNS:
            raise InputError(f"{file}: {source.metadata.num_rows} rows, which no campaign has")
        table = source.read(use_threads=False)
        table.validate(full=True)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({str(error)[:80]}): make it again") from None
    for name in _NEEDED:
        if name not in table.column_names:
            raise InputError(f"{file}: no column {name!r}: it is not the table of a campaign")
        wrong = [row[name] for row in rows if not _is_cell(name, row[name])]
        if wrong:
            raise InputError(f"{file}: column {name!r} holds {str(wrong[0])[:40]!r}: make it again")
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


def _is_cell(name: str, value: Any) -> bool:
    if name in METRICS:
        return value is None or (isinstance(value, (int, float)) and math.isfinite(value))
    if name == "seed":
        return isinstance(value, int)
    return isinstance(value, str) or (name == "trace" and value is None)


def _trace_of(place: Path, row: dict[str, Any]) -> Path | None:
    name = str(row["run"])
    said = row["trace"]
    for path in (
        *((place / said,) if said and not Path(said).is_absolute() else ()),
        place / "traces" / f"{name}.parquet",
    ):
        try:
            if path.is_file() and path.resolve().is_relative_to(place.resolve()):
                return path
        except (OSError, ValueError):  # a name that no file can have
            continue
    return None


def applied_weights(trace: Trace) -> Array:
    """Weights at every row: recorded, or, between the rows that have them, replayed or held.

    Parameters
    ----------
    trace : Trace
        Its other columns may be thinned out.

    Returns
    -------
    array, shape (steps, K)

    Raises
    ------
    InputError
        No weights, and no settings to replay them with.

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
        return Run(trace).replay.weights
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

    Raises
    ------
    InputError
        Fewer than 20 readings with a positive norm of each task.

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
    ema = Run(trace).replay.ema if gaba else None
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

    Examples
    --------
    >>> row = {"subset": "FD001", "method": "gradnorm", "seed": 42, "status": "diverged"}
    >>> found = CampaignFigures(({**row, **dict.fromkeys(METRICS)},), {}, (), "")
    >>> campaign_records(found, None)["C38"]["values"]["campaign_gradnorm_diverged"]
    1.0
    """
    note = (
        f"{models_of(found)}, {found.rows[0].get('epochs')} epochs, "
        f"{', '.join(found.subsets)}, seeds {', '.join(map(str, found.seeds))}"
    )
    provenance = provenance_of(found)

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
        records["C24"] = record(
            "C24", extremes("stored_health_weight", [r.ema_health for r in gaba])
        )
        records["C25"] = record(
            "C25",
            {
                **extremes("residual_contribution_ratio", [r.contributions for r in gaba]),
                **extremes(
                    "residual_with_floor_1e-4",
                    [r.contributions for r in found.figures("gaba-authority")],
                ),
            },
        )
        records["C26"] = record(
            "C26",
            {
                "spread_of_settled_weight": max(settled) - min(settled),
                **extremes("settled_rul_weight", settled),
                **extremes("saturated_fraction", [r.saturated_fraction for r in gaba]),
                **extremes(
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
                **extremes("median_ratio", [r.ratio_median for r in fixed]),
                **extremes(
                    "median_ratio_targets_over_125",
                    [r.ratio_median for r in found.figures("targets-125")],
                ),
            },
        )
        both = [*fixed, *gaba]
        records["C28"] = record(
            "C28",
            {
                **extremes("start", [r.ratio_start for r in fixed]),
                **extremes("peak", [r.ratio_peak for r in both]),
                **extremes("peak_epoch", [float(r.peak_epoch) for r in both]),
                **extremes("end", [r.ratio_end for r in both]),
            },
        )
    records["C38"] = record("C38", diverged(found, toys))
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
            compared, said = controls(found)
            values |= compared
            why += said
        records[claim] = record(claim, values, "" if is_published_protocol(found, subset) else why)
    records["C42"] = significance(found, record)
    return records
