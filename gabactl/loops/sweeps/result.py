"""What a sweep leaves on disk, and how to read and draw it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.errors import InputError
from gabactl.base.files import read_json
from gabactl.base.results import Result
from gabactl.loops.batch import COLUMNS, LOOP_PARAMETERS
from gabactl.loops.sweeps.description import FORMAT, stretch

__all__ = ["SweepResult", "open_sweep"]

#: Largest manifest, and largest header of a part, that is handed to a parser.
_MAX_BYTES = 64 << 20


def open_sweep(folder: str | Path) -> SweepResult:
    """The result of a finished sweep.

    Parameters
    ----------
    folder : path
        Where it was written.

    Raises
    ------
    InputError
        No sweep is there, or it is not finished.

    Examples
    --------
    >>> open_sweep("nowhere")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: nowhere: holds no sweep (no manifest.json): check the folder
    """
    place = Path(folder)
    manifest = read_manifest(place)
    if manifest is None:
        raise InputError(f"{place}: holds no sweep (no manifest.json): check the folder")
    missing = missing_parts(place, manifest["chunks"])
    if missing:
        raise InputError(
            f"{place}: {len(missing)} of {manifest['chunks']} chunks are missing: run gabactl "
            "sweep with --resume first"
        )
    return SweepResult(place, manifest)


@dataclass(frozen=True, eq=False)
class SweepResult(Result):
    """A finished sweep on disk.

    Attributes
    ----------
    folder : path
        With ``manifest.json`` and ``parts/``, a Parquet data set.
    manifest : mapping
        What was run.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def title(self) -> str:  # type: ignore[override]
        """Title and size."""
        return f"{self.manifest['title']}: {self.manifest['loops']:,} loops in {self.folder}"

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """All loops as a ``pyarrow.Table``, in the order of their numbers.

        Parameters
        ----------
        columns : sequence of str, optional
            Which; default all.

        Returns
        -------
        pyarrow.Table
            One row per loop.
        """
        import pyarrow as pa

        parts = [self._part(n, columns) for n in range(self.manifest["chunks"])]
        return pa.concat_tables(parts)

    def _part(self, chunk: int, columns: Sequence[str] | None) -> Any:
        """One part, held against what the manifest says of it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = part_file(self.folder, chunk)
        rows = min(self.manifest["chunk"], self.manifest["loops"] - chunk * self.manifest["chunk"])
        wanted = ["loop", *self.manifest["axes"], *COLUMNS] if columns is None else list(columns)
        try:
            with pq.ParquetFile(
                file, thrift_string_size_limit=_MAX_BYTES, thrift_container_size_limit=1 << 20
            ) as source:
                flat = all(_is_number(source.schema_arrow.field(name).type) for name in wanted)
                if source.metadata.num_rows != rows or not flat:
                    raise ValueError(f"it does not hold {rows} loops of the columns")
                table = source.read(columns=wanted, use_threads=False).select(wanted)
            table.validate(full=True)
            if table.num_rows != rows:
                raise ValueError(f"it holds {table.num_rows} loops of {rows}")
        except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
            raise InputError(
                f"{file}: is damaged ({error}): delete it and run gabactl sweep with --resume"
            ) from None
        return table

    def facts(self) -> dict[str, Any]:
        """Manifest and a summary of every column."""
        return {
            "folder": str(self.folder),
            "manifest": {k: v for k, v in self.manifest.items() if k != "axes"},
            "axes": {name: _span(values) for name, values in self.manifest["axes"].items()},
            "columns": self.summary(),
        }

    def summary(self) -> dict[str, dict[str, float | None]]:
        """Least, mean and largest finite value of every column.

        Returns
        -------
        dict of str to dict
            By column, with "least", "mean" and "largest"; None where no value is finite.
        """
        out: dict[str, dict[str, float | None]] = {}
        for name in COLUMNS:
            values = self.table([name])[name].to_numpy().astype(float)
            values = values[np.isfinite(values)]
            figures: dict[str, Any] = {"least": np.min, "mean": np.mean, "largest": np.max}
            out[name] = {k: float(f(values)) if values.size else None for k, f in figures.items()}
        return out

    def rows(self) -> Sequence[Sequence[str]]:
        """Axes and columns."""
        table: list[tuple[str, ...]] = []
        for name, values in self.manifest["axes"].items():
            span = _span(values)
            table.append((name, f"{span['from']:g} to {span['to']:g}", f"{span['values']} values"))
        table.append(("column", "least", "mean", "largest"))
        for name, entry in self.summary().items():
            table.append((name, *("-" if v is None else f"{v:.4g}" for v in entry.values())))
        return table

    def grid(
        self, x: str, y: str, value: str, bins: int = 48
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean of a column over two axes (and over everything else).

        Parameters
        ----------
        x, y : str
            Axes of the sweep.
        value : str
            A column; settling times of -1 (never) do not count.
        bins : int
            Cells per axis for Sobol samples; a grid keeps its own points.

        Returns
        -------
        x_values, y_values : arrays
            Points, or middles of the cells.
        means : array, shape (len(y_values), len(x_values))
            NaN where there is no loop.

        Raises
        ------
        InputError
            No axis, or no column, of the sweep.
        """
        for axis in (x, y):
            if axis not in self.manifest["axes"]:
                known = ", ".join(self.manifest["axes"])
                raise InputError(f"{axis!r} is no axis of this sweep: choose from {known}")
        if value not in COLUMNS:
            raise InputError(f"{value!r} is no column: choose from {', '.join(COLUMNS)}")
        table = self.table([x, y, value])
        data = {name: table[name].to_numpy().astype(float) for name in (x, y, value)}
        keep = np.isfinite(data[value])
        if value.startswith("settling"):
            keep &= data[value] >= 0
        edges, middles = [], []
        for axis in (x, y):
            ends = np.asarray(self.manifest["axes"][axis], dtype=float)
            scale = self.manifest["scales"][axis]
            if self.manifest["method"] == "grid":
                values = np.unique(ends)
                inner = (values[1:] + values[:-1]) / 2
                edges.append(np.concatenate([[-np.inf], inner, [np.inf]]))
                middles.append(values)
            else:
                cuts = stretch(np.linspace(0, 1, bins + 1), ends.min(), ends.max(), scale)
                edges.append(np.concatenate([[-np.inf], cuts[1:-1], [np.inf]]))
                middles.append((cuts[1:] + cuts[:-1]) / 2)
        places = data[y][keep], data[x][keep], edges[::-1]
        total = np.histogram2d(*places, weights=data[value][keep])[0]
        count = np.histogram2d(*places)[0]
        means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return middles[0], middles[1], means

    def plot(
        self,
        ax: Any | None = None,
        x: str | None = None,
        y: str | None = None,
        value: str = "settling_contributions",
    ) -> Any:
        """A heat map of one column, with the boundary of stability from the linear analysis.

        The boundary is the line on which the largest closed-loop pole of
        :func:`gabactl.control.linear.open_loop` has modulus 1 (two tasks, at balance).

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        x, y : str, optional
            Axes; default the first two.
        value : str
            A column.

        Raises
        ------
        InputError
            A sweep with one axis, or no axis or column of it.
        """
        from gabactl.base import plots

        names = list(self.manifest["axes"])
        if len(names) < 2:
            raise InputError("this sweep has one axis: a map needs two")
        x = x or names[0]
        y = y or next(name for name in names if name != x)
        xs, ys, means = self.grid(x, y, value)
        with plots.style():
            ax = plots.axes(ax)
            shown = np.ma.masked_invalid(means)
            mesh = ax.pcolormesh(xs, ys, shown, shading="nearest", cmap="viridis", rasterized=True)
            ax.figure.colorbar(mesh, ax=ax, label=value.replace("_", " "))
            radius = self._radius(x, y, xs, ys)
            if radius is not None and radius.min() < 1 < radius.max():
                ax.contour(xs, ys, radius, levels=[1.0], colors="white", linewidths=2.5)
                ax.contour(xs, ys, radius, levels=[1.0], colors="#D55E00", linewidths=1.4)
                ax.plot([], [], color="#D55E00", label="stability boundary (analysis)")
                ax.legend(loc="best", frameon=True)
            for axis, name in ((ax.xaxis, x), (ax.yaxis, y)):
                if self.manifest["scales"][name] == "log":
                    axis.axes.set(**{f"{'x' if axis is ax.xaxis else 'y'}scale": "log"})
            ax.set(xlabel=x, ylabel=y, title=self.manifest["title"])
            ax.grid(False)
        return ax

    def _radius(
        self, x: str, y: str, xs: NDArray[np.float64], ys: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Largest closed-loop pole over the map; None where no axis of it moves one."""
        from gabactl.control.linear import open_loop
        from gabactl.law.spec import GabaSpec
        from gabactl.plants import LogRatio

        moving = {"beta", "interval", "rho", "a"}
        hidden = (moving & set(self.manifest["axes"])) - {x, y}
        if self.manifest["tasks"] != 2 or hidden or not {x, y} & moving:
            return None
        base = {**LOOP_PARAMETERS, **self.manifest["fixed"]}
        radius = np.empty((len(ys), len(xs)))
        for i, v in enumerate(ys):
            for j, u in enumerate(xs):
                point = {**base, x: float(u), y: float(v)}
                spec = GabaSpec(beta=point["beta"], interval=round(point["interval"]), floor=0.0)
                plant = LogRatio(point["rho"], point["a"], self.manifest["common"]["delay"])
                radius[i, j] = open_loop(spec, plant).closed.radius
        return radius


def part_file(place: Path, chunk: int) -> Path:
    """Where a chunk is written.

    Parameters
    ----------
    place : path
        Folder of the sweep.
    chunk : int
        From 0.

    Examples
    --------
    >>> part_file(Path("out"), 3).name
    'chunk-00000003.parquet'
    """
    return place / "parts" / f"chunk-{chunk:08d}.parquet"


def missing_parts(place: Path, chunks: int) -> list[int]:
    """Which chunks of a sweep are not there.

    Parameters
    ----------
    place : path
        The folder.
    chunks : int
        How many there are.

    Raises
    ------
    InputError
        The folder of the parts is gone.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> (place / "parts").mkdir()
    >>> missing_parts(place, 2)
    [0, 1]
    """
    try:
        there = {entry.name for entry in os.scandir(place / "parts")}
    except OSError as error:
        raise InputError(
            f"{place}: the folder of its parts is gone ({error.strerror}): run the sweep anew"
        ) from None
    return [n for n in range(chunks) if part_file(place, n).name not in there]


def read_manifest(place: Path) -> dict[str, Any] | None:
    """The description of the sweep in a folder; None where there is none.

    Parameters
    ----------
    place : path
        Folder of the sweep.

    Returns
    -------
    dict or None
        None where there is no sweep.

    Raises
    ------
    InputError
        It cannot be read, or is of another version.

    Examples
    --------
    >>> read_manifest(Path("nowhere")) is None
    True
    """
    file = place / "manifest.json"
    if not file.exists():
        return None
    manifest = read_json(file, _MAX_BYTES)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{file}: is of another version of gabactl: start in a new folder")
    if not _is_manifest(manifest):
        raise InputError(f"{file}: is damaged: remove the folder, start anew")
    return manifest


def _is_manifest(manifest: Mapping[str, Any]) -> bool:
    """Whether it has what is read of it, in the types that are written."""
    axes, scales = manifest.get("axes"), manifest.get("scales")
    counts = [manifest.get(key) for key in ("chunks", "chunk", "loops", "points", "repeats")]
    if not isinstance(axes, dict) or not isinstance(scales, dict) or not axes:
        return False
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in counts):
        return False
    chunks, chunk, loops = counts[:3]
    return (
        chunks == -(-loops // chunk)  # type: ignore[operator]
        and all(name in LOOP_PARAMETERS and _are_numbers(values) for name, values in axes.items())
        and all(scales.get(name) in ("linear", "log", "log1m") for name in axes)
        and manifest.get("method") in ("grid", "sobol")
        and isinstance(manifest.get("title"), str)
        and isinstance(manifest.get("tasks"), int)
        and all(isinstance(manifest.get(key), dict) for key in ("fixed", "common", "options"))
        and all(_are_numbers([value]) for value in manifest["fixed"].values())
    )


def _are_numbers(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and np.isfinite(v)
            for v in values
        )
    )


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    )


def _span(values: Sequence[float]) -> dict[str, Any]:
    return {"from": min(values), "to": max(values), "values": len(values)}
