"""The folder of a campaign: where its files are, and what each run says of itself."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError
from gabactl.base.files import read_json, write_text
from gabactl.base.results import to_jsonable
from gabactl.nn.campaigns.plan import Campaign, PlannedRun, load_campaign
from gabactl.nn.training.settings import TrainingSettings
from gabactl.traces.metadata import describe_environment

PLAN, TABLE = "campaign.toml", "results.parquet"
TRACE, CHECKPOINT, RECORD, LOG = "trace.parquet", "run.ckpt", "result.json", "log.txt"

#: How a run ends for good; any other is taken up again.
ENDED = ("finished", "stopped early", "diverged")
_STATUSES = (*ENDED, "interrupted", "failed")
#: Settings that do not change what was trained.
_IMMATERIAL = ("device",)

#: Columns of the table and their types; every cell but those of the plan may be null.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("run", "subset", "method"), str),
    "seed": int,
    **dict.fromkeys(("balancer", "status", "reason"), str),
    **dict.fromkeys(("steps", "epochs", "best_epoch"), int),
    **dict.fromkeys(("validation_rmse", "rmse_capped", "nasa_capped"), float),
    **dict.fromkeys(("rmse_uncapped", "nasa_uncapped", "accuracy"), float),
    **dict.fromkeys(("rmse_all_windows", "rmse_test_selected"), float),
    "parameters": int,
    "seconds": float,
    **dict.fromkeys(("device", "precision", "torch", "gabactl", "commit", "platform"), str),
    **dict.fromkeys(("command", "started", "settings", "trace"), str),
}
#: What is known of the plan, or kept beside the record; of the rest the record speaks.
_PLANNED = ("run", "subset", "method", "seed", "balancer", "settings", "trace")


def run_folder(folder: Path, name: str) -> Path:
    """The folder of one run.

    Parameters
    ----------
    folder : path
        Of the campaign.
    name : str
        Of the run.

    Examples
    --------
    >>> run_folder(Path("out"), "FD001-gaba-seed1").as_posix()
    'out/runs/FD001-gaba-seed1'
    """
    return folder / "runs" / name


def open_plan(folder: str | Path) -> Campaign:
    """The plan of a campaign that was begun.

    Parameters
    ----------
    folder : path
        Its folder.

    Raises
    ------
    InputError
        No campaign is there.

    Examples
    --------
    >>> open_plan("nowhere")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: nowhere: no campaign there (campaign.toml is missing): give the folder that `gabactl cmapss campaign run -o` made
    """
    file = Path(folder) / PLAN
    if not file.is_file():
        raise InputError(
            f"{folder}: no campaign there ({PLAN} is missing): give the folder that "
            "`gabactl cmapss campaign run -o` made"
        )
    return load_campaign(file)


def write_record(place: Path, record: Mapping[str, Any]) -> None:
    """Write what a run says of itself, whole or not at all.

    Parameters
    ----------
    place : path
        Folder of the run, which exists.
    record : mapping
        Plain values; an infinity or NaN becomes null.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_record(Path(place), {"status": "finished", "settings": {"lr": 0.001}})
    ...     read_record(Path(place))
    {'status': 'finished', 'settings': {'lr': 0.001}}
    """
    text = json.dumps(to_jsonable(dict(record)), indent=1, allow_nan=False)
    write_text(place / RECORD, text + "\n")


def read_record(place: Path) -> dict[str, Any] | None:
    """What a run says of itself, checked; None where it says nothing yet.

    Parameters
    ----------
    place : path
        Folder of the run.

    Returns
    -------
    dict or None
        As :func:`write_record` was given it; None where there is no record.

    Raises
    ------
    InputError
        Damaged, too large, or no such record.

    Examples
    --------
    >>> read_record(Path("nowhere")) is None
    True
    """
    file = place / RECORD
    if not file.is_file():
        return None
    record = read_json(file)
    try:
        if not isinstance(record, dict) or record["status"] not in _STATUSES:
            raise TypeError("no status")
        for name, kind in COLUMNS.items():
            value = None if name in _PLANNED else record.get(name)
            kinds = (int, float) if kind is float else kind
            if value is not None and (not isinstance(value, kinds) or value is True):
                raise TypeError(f"{name} = {value!r}")
        if not isinstance(record["settings"], dict):
            raise TypeError("settings")
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file}: damaged ({str(error)[:80]}): delete it, and resume the campaign"
        ) from None
    found: dict[str, Any] = record
    return found


def ended(run: PlannedRun, record: Mapping[str, Any] | None, source: str) -> bool:
    """Whether a run is over as planned, so that nothing is left to do.

    Parameters
    ----------
    run : PlannedRun
        The plan.
    record : mapping or None
        As of :func:`read_record`.
    source : str
        For the message.

    Raises
    ------
    InputError
        The run was begun with other settings than those of the plan.

    Examples
    --------
    >>> run = load_campaign("cmapss_campaign_reduced").runs[0]
    >>> record = {"status": "interrupted", "settings": run.settings.to_dict()}
    >>> ended(run, None, "out"), ended(run, record, "out")
    (False, False)
    >>> ended(run, {**record, "status": "finished"}, "out")
    True
    """
    if record is None:
        return False
    before = dict(record["settings"])
    run.settings.refuse_other(before, f"{source}: run {run.name}")
    now = to_jsonable(run.settings.to_dict())
    same = all(before.get(k, now[k]) == now[k] for k in now if k not in _IMMATERIAL)
    return record["status"] in ENDED and same


def trace_of(place: Path) -> Path | None:
    """The recording of a run: finished, or as far as it got.

    Parameters
    ----------
    place : path
        Folder of the run.

    Examples
    --------
    >>> trace_of(Path("nowhere")) is None
    True
    """
    whole = place / TRACE
    for file in (whole, whole.with_suffix(".arrows")):
        if file.is_file():
            return file
    return None


def origin_of(settings: TrainingSettings, command: str | None) -> dict[str, Any]:
    """What trains a run, for its record: settings, command, versions, platform and commit.

    Parameters
    ----------
    settings : TrainingSettings
        Of the run.
    command : str or None
        That began the campaign.

    Returns
    -------
    dict
        None for what is not known, such as the commit of an installed package.

    Examples
    --------
    >>> sorted(origin_of(TrainingSettings(), None))
    ['command', 'commit', 'gabactl', 'platform', 'precision', 'settings', 'torch']
    """
    versions = describe_environment()["versions"]
    return {
        **{package: versions.get(package) for package in ("gabactl", "torch")},
        "platform": platform.platform(),
        "commit": _commit(),
        "precision": settings.precision,
        "command": command,
        "settings": settings.to_dict(),
    }


def _commit() -> str | None:
    """The commit of the source tree in use, with a plus where it was changed; None elsewhere."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "gabactl")
    return commit and commit + ("+" if changed else "")
