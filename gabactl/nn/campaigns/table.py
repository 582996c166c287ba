"""The results of a campaign: one row per planned run, in Parquet."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gabactl.base.errors import InputError
from gabactl.base.files import whole_file
from gabactl.base.results import Result, to_jsonable
from gabactl.nn.campaigns import files
from gabactl.nn.campaigns.plan import PlannedRun

__all__ = ["CampaignResults", "collect_results", "load_results"]

#: Known of every planned run, begun or not.
_GIVEN = ("run", "subset", "method", "seed", "balancer", "status")
_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class CampaignResults(Result):
    """What a campaign found.

    Attributes
    ----------
    table : dict of str to list
        The columns of :data:`gabactl.nn.campaigns.COLUMNS`, one entry per planned run; ``settings`` is JSON
        text, ``trace`` a path relative to the table. What is not known is None.
    source : Path or None
        The table or folder.
    """

    table: dict[str, list[Any]]
    source: Path | None = None
    title = "Campaign results"

    def __len__(self) -> int:
        return len(self.table["run"])

    def records(self) -> list[dict[str, Any]]:
        """The table as one mapping per run.

        Returns
        -------
        list of dict
            In the order of the plan, with the keys of :data:`gabactl.nn.campaigns.COLUMNS`.
        """
        return [
            dict(zip(self.table, cells, strict=True))
            for cells in zip(*self.table.values(), strict=True)
        ]

    def _groups(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for record in self.records():
            groups.setdefault((record["subset"], record["method"]), []).append(record)
        return groups

    def summary(self) -> list[dict[str, Any]]:
        """Mean and standard deviation over the seeds, per subset and method.

        Runs with a test score count, whether finished or stopped early. The standard deviation
        (n - 1) is None for fewer than two.

        Returns
        -------
        list of dict
            Keys ``subset``, ``method``, ``runs`` (that count), ``planned``, and ``rmse_capped`` (cycles),
            ``nasa_capped`` and ``accuracy`` (0 to 1), each with its ``_sd``.
        """
        found = []
        for (subset, method), runs in self._groups().items():
            scored = [r for r in runs if r["rmse_capped"] is not None]
            row: dict[str, Any] = {"subset": subset, "method": method}
            row |= {"runs": len(scored), "planned": len(runs)}
            for name in ("rmse_capped", "nasa_capped", "accuracy"):
                values = np.array([r[name] for r in scored], dtype=np.float64)
                # A run that diverged may score 1e200, whose square is no float.
                with np.errstate(over="ignore", invalid="ignore"):
                    row[name] = _finite(float(values.mean())) if len(values) else None
                    spread = float(values.std(ddof=1)) if len(values) > 1 else None
                row[f"{name}_sd"] = _finite(spread)
            found.append(row)
        return found

    def rows(self) -> list[tuple[str, ...]]:
        """Mean and standard deviation over the seeds, and how many runs there are."""
        rows = [
            (
                entry["subset"],
                entry["method"],
                f"{entry['runs']} of {entry['planned']}",
                _spread(entry, "rmse_capped", 2),
                _spread(entry, "nasa_capped", 1),
                _spread(entry, "accuracy", 1, 100.0, " %"),
            )
            for entry in self.summary()
        ]
        counts = Counter(self.table["status"])
        head = ("subset", "method", "runs", "RMSE", "NASA score", "health accuracy")
        return [head, *rows, ("all", ", ".join(f"{n} {word}" for word, n in counts.items()))]

    def facts(self) -> dict[str, Any]:
        """Keys ``table`` and ``summary``."""
        return {"table": self.table, "summary": self.summary()}

    def plot(self, ax: Any | None = None) -> Any:
        """RMSE of every run and the mean, by method and subset.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on.
        """
        from gabactl.base.plots import PALETTE, axes, style

        with style():
            ax = axes(ax)
            methods = list(dict.fromkeys(self.table["method"]))
            subsets = list(dict.fromkeys(self.table["subset"]))
            colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(subsets)}
            for (subset, method), runs in self._groups().items():
                values = [r["rmse_capped"] for r in runs if r["rmse_capped"] is not None]
                shift = 0.16 * (subsets.index(subset) - (len(subsets) - 1) / 2)
                y, colour = methods.index(method) + shift, colours[subset]
                ax.plot(values, [y] * len(values), "o", color=colour, alpha=0.5, ms=4)
                if values:
                    ax.plot(np.mean(values), y, "|", color=colour, ms=14, mew=2)
            for subset, colour in colours.items():
                ax.plot([], [], "o", color=colour, label=subset)
            ax.set_yticks(range(len(methods)), methods)
            ax.invert_yaxis()
            ax.set_xlabel("test RMSE, targets capped at 125 (cycles)")
            ax.legend()
        return ax


def _spread(
    entry: Mapping[str, Any], name: str, digits: int, scale: float = 1.0, unit: str = ""
) -> str:
    mean, sd = entry[name], entry[f"{name}_sd"]
    if mean is None:
        return "-"
    text = f"{scale * mean:.{digits}f}"
    return (f"{text} ± {scale * sd:.{digits}f}" if sd is not None else text) + unit


def collect_results(folder: str | Path, relative_to: str | Path | None = None) -> CampaignResults:
    """The results of a campaign's folder as they are now.

    Parameters
    ----------
    folder : path
        As given to :func:`gabactl.nn.campaigns.run_campaign`.
    relative_to : path, optional
        Folder that the trace paths start from; default ``folder``.

    Returns
    -------
    CampaignResults
        One row per planned run, begun or not.

    Raises
    ------
    InputError
        No campaign, or a damaged record.

    Examples
    --------
    >>> import tempfile
    >>> from gabactl.nn.campaigns.files import PLAN
    >>> from gabactl.loops.scenarios import find_description
    >>> plan = find_description("cmapss_campaign_reduced", "campaign").read_text(encoding="utf-8")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / PLAN).write_text(plan, encoding="utf-8")
    ...     results = collect_results(folder)
    >>> results.table["run"][0], results.table["status"][0]
    ('FD001-fixed-seed42', 'not_run')
    """
    place = Path(folder)
    campaign = files.open_plan(place)
    start = Path(relative_to) if relative_to is not None else place
    rows = [_row(place, run, start) for run in campaign.runs]
    return CampaignResults({name: [row[name] for row in rows] for name in files.COLUMNS}, place)


def _row(folder: Path, run: PlannedRun, start: Path) -> dict[str, Any]:
    place = files.run_folder(folder, run.name)
    record, trace = files.read_record(place), files.trace_of(place)
    if record is None:
        told = ("not_run", "planned, not started")
        if (place / files.CHECKPOINT).is_file():
            told = ("interrupted", "running, or killed: resume goes on")
        record = {"status": told[0], "reason": told[1], "settings": run.settings.to_dict()}
    row = {
        **record,
        "run": run.name,
        "subset": run.settings.subset,
        "method": run.method,
        "seed": run.settings.seed,
        "balancer": run.settings.balancer,
        "settings": json.dumps(to_jsonable(record["settings"]), allow_nan=False),
        "trace": None if trace is None else Path(os.path.relpath(trace, start)).as_posix(),
    }
    return {name: _finite(row.get(name)) for name in files.COLUMNS}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_results(results: CampaignResults, path: str | Path) -> Path:
    """Write the table as Parquet, whole or not at all.

    Parameters
    ----------
    results : CampaignResults
        What to write.
    path : path
        Ending in ``.parquet``; its folder must exist.

    Raises
    ------
    InputError
        Another ending, or the place cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> table = {name: [None] for name in files.COLUMNS} | {
    ...     "run": ["FD001-gaba-seed1"], "subset": ["FD001"], "method": ["gaba"], "seed": [1],
    ...     "balancer": ["gaba"], "status": ["finished"], "rmse_capped": [12.5],
    ... }
    >>> file = save_results(CampaignResults(table), Path(tempfile.mkdtemp()) / "results.parquet")
    >>> load_results(file).table["rmse_capped"]
    [12.5]
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = Path(path)
    if file.suffix != ".parquet":
        raise InputError(f"{file}: the table is written as .parquet: choose that ending")
    with whole_file(file, "choose another place") as stream:
        pq.write_table(pa.table(results.table, schema=_schema()), stream, compression="zstd")
    return file


def _schema() -> Any:
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return pa.schema([(name, kinds[kind]) for name, kind in files.COLUMNS.items()])


def load_results(path: str | Path) -> CampaignResults:
    """Read a table of results, or collect that of a campaign's folder.

    Parameters
    ----------
    path : path
        ``results.parquet``, or a folder with it, or the folder of a campaign.

    Raises
    ------
    InputError
        Absent, damaged, too large, or with other columns.

    Examples
    --------
    >>> load_results("nowhere.parquet")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: nowhere.parquet: no such table: give results.parquet, or the folder of a campaign
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = Path(path)
    if file.is_dir():
        if (file / "runs").is_dir():
            return collect_results(file)
        file = file / "results.parquet"
    if not file.is_file():
        raise InputError(
            f"{path}: no such table: give results.parquet, or the folder of a campaign"
        )
    if file.stat().st_size > _MAX_BYTES:
        raise InputError(f"{file}: larger than {_MAX_BYTES >> 20} MiB, which no table is")
    anew = "with `gabactl cmapss campaign table DIR -o results.parquet`"
    try:
        found = pq.ParquetFile(
            file, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 20
        )
        if found.metadata.num_rows > 100_000:
            raise InputError(f"{file}: {found.metadata.num_rows} rows, which no campaign has")
        columns = found.read(use_threads=False)
        columns.validate(full=True)
    except (OSError, MemoryError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(
            f"{file}: not a readable table ({str(error)[:80]}): make it anew {anew}"
        ) from None
    table: dict[str, list[Any]] = {}
    for field in _schema():
        name = field.name
        if columns.column_names.count(name) != 1 or columns.schema.field(name).type != field.type:
            raise InputError(
                f"{file}: column {name!r} is missing or not {files.COLUMNS[name].__name__}, or there "
                f"twice: make the table {anew}"
            )
        table[name] = columns.column(name).to_pylist()
        wrong = [value for value in table[name] if not _is_cell(name, value)]
        if wrong:
            held = str(wrong[0])[:40]
            raise InputError(f"{file}: column {name!r} holds {held!r}: make the table {anew}")
    return CampaignResults(table, file)


def _is_cell(name: str, value: Any) -> bool:
    """Whether :func:`save_results` could have written it."""
    if value is None:
        return name not in _GIVEN
    return not isinstance(value, float) or math.isfinite(value)
