"""The trace schema, version 1: column names, limits, and the ``Trace`` they make.

One vocabulary for Parquet, the Arrow stream and CSV; the page "The trace format" of the
documentation states it for readers in other languages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.traces.metadata import SCHEMA_VERSION, check_metadata

__all__ = ["Trace"]

#: Column prefix of each group, and the attribute of :class:`Trace` it fills.
GROUPS: dict[str, str] = {
    "grad_norm": "grad_norms",
    "raw": "raw",
    "ema": "ema",
    "weight": "weights",
    "loss": "losses",
}
#: Columns of one number a step, under the names of their attributes.
SINGLE = ("wall_time", "excitation")
#: Most numbers (rows times columns) that are read into memory: 2 GiB of float64.
MAX_CELLS = 1 << 28

Precision = Literal["float32", "float64", "unknown"]
Array = NDArray[np.float64]
#: Column name to its values (float64, or int64 for ``step``) and the mask of the non-null ones.
Columns = dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]


@dataclass(frozen=True, eq=False)
class Trace:
    """One recorded training run.

    Attributes
    ----------
    tasks : tuple of K str
        Task names, in the order of the columns.
    step : array of int64, shape (steps,)
        Optimisation steps, counted from 1, strictly increasing.
    grad_norms : array, shape (steps, K)
        Gradient norms, >= 0; NaN rows where nothing was measured.
    measured : array of bool, shape (steps,)
        Where a reading was taken. A reading can hold NaN: a gradient that was not finite.
    raw, ema, weights, losses : array, shape (steps, K), or None
        The three stages and the losses, where the file has them; NaN where it has null.
        ``weights`` are those before any ``normalise_to`` scaling.
    wall_time : array, shape (steps,), or None
        Seconds since the start of the run.
    excitation : array, shape (steps,), or None
        Log disturbance put on the weights for identification.
    param_norms : dict of str to array, shape (steps, P), or None
        Per task, the gradient norm of each of the P parameters named in
        ``metadata["param_names"]``.
    present : dict of str to array of bool, shape (steps,)
        Per attribute, the rows where the file has a value; elsewhere it has null, and the arrays
        NaN. A NaN that was recorded is present.
    metadata : dict
        The documented keys, and any others the file had.
    precision : {"float32", "float64", "unknown"}
        What the averages were computed in; CSV does not say.
    truncated : bool
        The recording was not closed: the run was killed, or is still going.
    source : str
        The file, for messages.

    Examples
    --------
    >>> trace = Trace.from_arrays([[250.0, 0.5], [300.0, 0.4]], tasks=("rul", "health"))
    >>> trace.step.tolist(), trace.measured.tolist(), trace.spec
    ([1, 2], [True, True], None)
    """

    tasks: tuple[str, ...]
    step: NDArray[np.int64]
    grad_norms: Array
    measured: NDArray[np.bool_]
    raw: Array | None = None
    ema: Array | None = None
    weights: Array | None = None
    losses: Array | None = None
    wall_time: Array | None = None
    excitation: Array | None = None
    param_norms: dict[str, Array] | None = None
    present: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "unknown"
    truncated: bool = False
    source: str = "trace"

    def __len__(self) -> int:
        return len(self.step)

    def __repr__(self) -> str:
        span = f"{self.step[0]}..{self.step[-1]}" if len(self) else "none"
        return (
            f"Trace({self.source!r}, tasks={self.tasks}, {len(self)} rows, steps {span}, "
            f"{int(self.measured.sum())} measured{', truncated' if self.truncated else ''})"
        )

    @property
    def spec(self) -> GabaSpec | None:
        """The recorded GABA settings, or None where the file has none (CSV, for one)."""
        settings = self.metadata.get("spec")
        return None if settings is None else GabaSpec.from_dict(settings, f"{self.source}: spec")

    @property
    def balancer(self) -> str | None:
        """Which balancer made the weights: "gaba", "gradnorm", "fixed", or None if not said."""
        return self.metadata.get("balancer")

    @property
    def sensor(self) -> dict[str, Any] | None:
        """Name and settings of what measured the norms, or None if not said."""
        return self.metadata.get("sensor")

    @property
    def coasts(self) -> bool:
        """Whether the average went on following the last raw weights between readings."""
        return bool((self.sensor or {}).get("coasts", False))

    def norms_over(self, parameters: Iterable[str]) -> Array:
        """Gradient norms as a sensor would have read them that counts these parameters only.

        Parameters
        ----------
        parameters : iterable of str
            Any of ``metadata["param_names"]``.

        Returns
        -------
        array, shape (steps, K)
            Square root of the sum of squares over them; 0 without parameters, NaN where nothing
            was measured.

        Raises
        ------
        InputError
            The trace was recorded without per-parameter norms, or has no such parameter.

        Examples
        --------
        >>> trace = Trace.from_arrays([[5.0, 1.0]], metadata={"param_names": ["a", "b"]}).replace(
        ...     param_norms={"task_0": np.array([[3.0, 4.0]]), "task_1": np.array([[1.0, 0.0]])})
        >>> trace.norms_over(["a", "b"]).tolist(), trace.norms_over(["b"]).tolist()
        ([[5.0, 1.0]], [[4.0, 0.0]])
        """
        if self.param_norms is None:
            raise InputError(
                f"{self.source}: has no norms per parameter: record with "
                "TraceRecorder(..., param_norms=model.named_parameters())"
            )
        names = list(self.metadata.get("param_names") or [])
        wanted = list(dict.fromkeys(parameters))
        for name in wanted:
            if name not in names:
                raise InputError(f"{self.source}: has no parameter {name!r}: see param_names")
        columns = [names.index(name) for name in wanted]
        norms = np.stack([self.param_norms[task] for task in self.tasks], axis=-1)
        # A running hypotenuse: squares of norms may overflow where the norms do not.
        total = np.hypot.reduce(norms[:, columns], axis=1, initial=0.0)
        total[np.isnan(norms).all(axis=(1, 2))] = np.nan
        return np.asarray(total)

    def replace(self, **changes: Any) -> Trace:
        """A copy with some attributes changed.

        Parameters
        ----------
        **changes
            New values of attributes, by name.

        Examples
        --------
        >>> Trace.from_arrays([[1.0, 2.0]]).replace(source="mine").source
        'mine'
        """
        return replace(self, **changes)

    def rows(self, which: slice | NDArray[np.intp]) -> Trace:
        """Some of the rows.

        Parameters
        ----------
        which : slice, or array of int
            Rows, counted from 0.

        Examples
        --------
        >>> Trace.from_arrays([[1.0, 2.0], [3.0, 4.0]]).rows(slice(1, None)).step.tolist()
        [2]
        """
        return self.replace(**_each_row([self], lambda parts: parts[0][which]))

    def every_step(self) -> Trace:
        """With a row for every step from the first to the last, without norms per parameter.

        Each row stands for the steps left out before it, as everywhere in a log with gaps.

        Raises
        ------
        InputError
            More than :data:`MAX_CELLS` numbers.

        Examples
        --------
        >>> trace = Trace.from_arrays([[1.0, 2.0], [3.0, 4.0]], step=[5, 8]).every_step()
        >>> trace.step.tolist(), trace.grad_norms[:, 0].tolist()
        ([5, 6, 7, 8], [1.0, 3.0, 3.0, 3.0])
        """
        span = int(self.step[-1]) - int(self.step[0]) + 1 if len(self) else 0
        if span == len(self):
            return self
        whole = self.replace(param_norms=None)
        if span * len(self.tasks) > MAX_CELLS:
            raise InputError(
                f"{self.source}: steps {self.step[0]} to {self.step[-1]} are too many to go through "
                "one by one: take fewer of its rows"
            )
        steps = np.arange(self.step[0], self.step[-1] + 1)
        return whole.rows(np.searchsorted(self.step, steps)).replace(step=steps)

    @classmethod
    def from_arrays(
        cls,
        grad_norms: ArrayLike,
        *,
        tasks: Sequence[str] | None = None,
        step: ArrayLike | None = None,
        measured: ArrayLike | None = None,
        metadata: Mapping[str, Any] | None = None,
        precision: Precision = "float64",
        source: str = "arrays",
        **groups: ArrayLike | None,
    ) -> Trace:
        """A trace from arrays in memory, checked as a file would be.

        Parameters
        ----------
        grad_norms : array, shape (steps, K)
            Gradient norms; NaN rows mean "nothing measured" unless ``measured`` says otherwise.
        tasks : sequence of K str, optional
            Default ``task_0``, ``task_1``, ...
        step : array of int, shape (steps,), optional
            Default 1, 2, ...
        measured : array of bool, shape (steps,), optional
            Where a reading was taken; default: rows that are not all NaN.
        metadata : mapping, optional
            Documented keys; ``schema_version`` and ``tasks`` are filled in.
        precision : {"float64", "float32", "unknown"}
            What the averages were computed in.
        source : str
            Name for messages.
        **groups : array, shape (steps, K) or (steps,)
            ``raw``, ``ema``, ``weights``, ``losses``, ``wall_time``, ``excitation``.

        Raises
        ------
        InputError
            Shapes that do not agree, steps that do not increase, a negative norm.

        Examples
        --------
        >>> Trace.from_arrays([[1.0, -2.0]])
        Traceback (most recent call last):
            ...
        gabactl.base.errors.InputError: arrays: grad_norm_task_1 at step 1 is -2.0: gradient norms are >= 0
        """
        norms = np.array(grad_norms, dtype=np.float64)
        if norms.ndim != 2 or norms.shape[1] < 2:
            raise InputError(
                f"{source}: grad_norms has shape {norms.shape}: give (steps, K) with K >= 2"
            )
        n, k = norms.shape
        names = [f"task_{i}" for i in range(k)] if tasks is None else list(tasks)
        header = {"schema_version": SCHEMA_VERSION, **(metadata or {}), "tasks": names}
        check_metadata(header, source)
        if len(names) != k:
            raise InputError(f"{source}: {len(names)} task names for {k} columns of grad_norms")
        rows = np.ones(n, dtype=bool)
        steps = np.arange(1, n + 1) if step is None else np.asarray(step)
        seen: NDArray[np.bool_] = np.asarray(
            ~np.isnan(norms).all(axis=1) if measured is None else measured, dtype=bool
        )
        columns: Columns = {"step": (steps.astype(np.int64), rows)}
        prefixes = {attribute: prefix for prefix, attribute in GROUPS.items()}
        for attribute, values in {"grad_norms": norms, **groups}.items():
            if values is None:
                continue
            array = np.array(values, dtype=np.float64)
            if attribute in SINGLE:
                columns[attribute] = (array, ~np.isnan(array))
                continue
            if attribute not in prefixes or array.shape != (n, k):
                raise InputError(
                    f"{source}: {attribute} of shape {array.shape} does not fit grad_norms "
                    f"{norms.shape}: give raw, ema, weights or losses of the same shape"
                )
            for i, name in enumerate(names):
                known = ~np.isnan(array[:, i])
                valid = seen if attribute == "grad_norms" else known
                columns[f"{prefixes[attribute]}_{name}"] = (array[:, i], valid)
        for name, (values, valid) in columns.items():
            if values.shape != (n,) or valid.shape != (n,):
                raise InputError(f"{source}: {name} has shape {values.shape}: give ({n},)")
        return trace_from_columns(columns, header, source=source, precision=precision)


def joined(pieces: Sequence[Trace]) -> Trace:
    """Consecutive pieces of one trace as one; the last says whether it was closed.

    Parameters
    ----------
    pieces : sequence of Trace, at least one
        As :func:`gabactl.traces.iter_trace` hands them out.

    Examples
    --------
    >>> first = Trace.from_arrays([[1.0, 2.0]])
    >>> joined([first, Trace.from_arrays([[3.0, 4.0]], step=[2])]).grad_norms.tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    last = pieces[-1]
    return last if len(pieces) == 1 else last.replace(**_each_row(pieces, np.concatenate))


def _each_row(traces: Sequence[Trace], change: Callable[[list[Any]], Any]) -> dict[str, Any]:
    """Attributes with a value or row for each step, made of those of the traces."""
    names = ("step", "measured", *GROUPS.values(), *SINGLE)
    tables = {
        name: {key: change([getattr(t, name)[key] for t in traces]) for key in table}
        for name in ("present", "param_norms")
        if (table := getattr(traces[-1], name)) is not None
    }
    known = [name for name in names if getattr(traces[-1], name) is not None]
    return tables | {name: change([getattr(t, name) for t in traces]) for name in known}


def column_names(
    tasks: Sequence[str],
    groups: Sequence[str] = tuple(GROUPS),
    *,
    excitation: bool = False,
    param_norms: bool = False,
) -> list[str]:
    """Names of the columns, in the order they are written.

    Parameters
    ----------
    tasks : sequence of str
        Task names.
    groups : sequence of str
        Which of ``grad_norm``, ``raw``, ``ema``, ``weight``, ``loss``.
    excitation, param_norms : bool
        Whether the optional columns are there.

    Examples
    --------
    >>> column_names(["a", "b"], ["grad_norm", "ema"])
    ['step', 'wall_time', 'grad_norm_a', 'grad_norm_b', 'ema_a', 'ema_b']
    """
    names = ["step", "wall_time", *(f"{group}_{task}" for group in groups for task in tasks)]
    if excitation:
        names.append("excitation")
    if param_norms:
        names += [f"param_norms_{task}" for task in tasks]
    return names


def trace_from_columns(
    columns: Columns,
    metadata: dict[str, Any],
    *,
    source: str,
    precision: Precision,
    truncated: bool = False,
    param_norms: dict[str, Array] | None = None,
    after_step: int = 0,
    rows_before: int = 0,
) -> Trace:
    """Assemble and check a trace: the one place where rows are judged, whatever the format.

    Parameters
    ----------
    columns : dict of str to (values, valid)
        As named by the schema; ``step`` must be there.
    metadata : dict
        Checked already.
    source : str
        File name, for messages.
    precision : {"float32", "float64", "unknown"}
        See :class:`Trace`.
    truncated : bool
        See :class:`Trace`.
    param_norms : dict of str to array, shape (steps, P), optional
        See :class:`Trace`.
    after_step : int
        The first step must be larger (the last one of the chunk before).
    rows_before : int
        Rows of the chunks before, for messages.

    Raises
    ------
    InputError
        Steps that do not increase, a negative norm, a reading of some tasks only.

    Examples
    --------
    >>> ones = np.ones(2, bool)
    >>> trace_from_columns({"step": (np.array([2, 2]), ones), "grad_norm_a": (np.ones(2), ones),
    ...                     "grad_norm_b": (np.ones(2), ones)},
    ...                    {"schema_version": 1, "tasks": ["a", "b"]},
    ...                    source="run.csv", precision="unknown")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: run.csv: step 2 follows step 2 (row 2): steps must increase; sort the file and drop repeated rows
    """
    tasks = tuple(metadata["tasks"])
    step, valid_step = columns["step"]
    _check_steps(step, valid_step, source, after_step, rows_before)
    groups: dict[str, Any] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    for prefix, attribute in GROUPS.items():
        found = [columns.get(f"{prefix}_{task}") for task in tasks]
        if all(item is None for item in found):
            continue
        for task, item in zip(tasks, found, strict=True):
            if item is None:
                raise InputError(
                    f"{source}: column {prefix}_{task} is missing while other tasks have theirs: "
                    f"give {prefix}_ of every task, or of none"
                )
        pairs = [item for item in found if item is not None]
        values = np.stack([np.where(v, x, np.nan) for x, v in pairs], axis=1)
        valid = np.stack([v for _, v in pairs], axis=1)
        present[attribute] = np.asarray(valid.all(axis=1), dtype=bool)
        if prefix == "grad_norm":
            _check_norms(values, valid, step, tasks, source)
        groups[attribute] = values.astype(np.float64, copy=False)
    if "grad_norms" not in groups:
        raise InputError(
            f"{source}: no column grad_norm_{tasks[0]}: a trace needs grad_norm_ of every task"
        )
    for name in SINGLE:
        if name in columns:
            values, valid = columns[name]
            groups[name] = np.where(valid, values, np.nan)
            present[name] = valid
    return Trace(
        tasks=tasks,
        step=step.astype(np.int64, copy=False),
        # A reading may hold NaN, so the mask decides what was measured, not the value.
        measured=present["grad_norms"],
        present=present,
        metadata=metadata,
        precision=precision,
        truncated=truncated,
        source=source,
        param_norms=param_norms,
        **groups,
    )


def _check_steps(
    step: NDArray[Any], valid: NDArray[np.bool_], source: str, after_step: int, rows: int
) -> None:
    if not valid.all():
        row = rows + int(np.argmin(valid)) + 1
        raise InputError(f"{source}: row {row} has no step: give every row its step")
    if len(step) == 0:
        return
    if step[0] < 1 and after_step == 0:
        raise InputError(
            f"{source}: the first step is {step[0]}: steps are counted from 1; add "
            f"{1 - int(step[0])} to the column"
        )
    before = np.concatenate([[after_step], step[:-1]])
    wrong = np.asarray(step <= before, dtype=bool)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{source}: step {step[row]} follows step {before[row]} (row {rows + row + 1}): steps must "
            "increase; sort the file and drop repeated rows"
        )


def _check_norms(
    norms: Array,
    valid: NDArray[np.bool_],
    step: NDArray[Any],
    tasks: tuple[str, ...],
    source: str,
) -> None:
    partly = valid.any(axis=1) & ~valid.all(axis=1)
    if partly.any():
        row = int(np.argmax(partly))
        task = tasks[int(np.argmin(valid[row]))]
        raise InputError(
            f"{source}: grad_norm_{task} is missing at step {step[row]} while another task has "
            "one: give the norms of every task, or of none"
        )
    negative: NDArray[np.bool_] = np.asarray(norms < 0, dtype=bool)
    if negative.any():
        row, column = (int(i) for i in np.argwhere(negative)[0])
        raise InputError(
            f"{source}: grad_norm_{tasks[column]} at step {step[row]} is "
            f"{norms[row, column]}: gradient norms are >= 0"
        )


def short_name(path: str | Path) -> str:
    """A path as it is shown in messages: as the user gave it, control characters escaped."""
    text = str(path)
    return text if text.isprintable() else repr(text)
