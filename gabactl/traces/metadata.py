"""The metadata of a trace: one JSON object, its documented keys, and the checks on them."""

from __future__ import annotations

import json
import platform
import sys
import zlib
from collections.abc import Mapping
from importlib import metadata as _distributions
from typing import Any

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec

SCHEMA_VERSION = 1
#: The Arrow schema metadata key that holds the one JSON object.
METADATA_KEY = b"gabactl"
MAX_TASKS = 1000
#: Largest header (Arrow message metadata, Parquet footer) that is handed to a parser.
MAX_HEADER_BYTES = 16 << 20

#: Keys that had another name in earlier releases.
_FORMER = {"optimizer": "optimiser"}
#: Last key of the object: the checksum of the rest, absent from older files.
_CRC = "crc32"

_KNOWN_KEYS: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "tasks": list,
    "spec": dict,
    "balancer": str,
    "sensor": dict,
    "normalise_to": (int, float, str),
    "model": (str, dict),
    "data": (str, dict),
    "optimizer": (str, dict),
    "seed": int,
    "device": str,
    "versions": dict,
    "command": str,
    "started": str,
    "complete": bool,
    "param_names": list,
}


def describe_environment() -> dict[str, Any]:
    """Metadata about the machine's software: library versions, platform, start time (UTC).

    Returns
    -------
    dict
        With "versions" (of the packages that are installed, by name) and "started".

    Examples
    --------
    >>> sorted(describe_environment())
    ['started', 'versions']
    """
    from datetime import UTC, datetime

    versions = {"python": platform.python_version(), "platform": sys.platform}
    for package in ("gabactl", "numpy", "torch", "pyarrow"):
        try:
            versions[package] = _distributions.version(package)
        except _distributions.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def dump_metadata(metadata: Mapping[str, Any], source: str) -> bytes:
    """Check the metadata and write it as the one JSON object of the schema.

    Parameters
    ----------
    metadata : mapping
        As :func:`check_metadata` wants it.
    source : str
        The trace's name, for messages.

    Raises
    ------
    InputError
        Metadata that is not plain JSON, or more than 8 MiB of it.

    Examples
    --------
    >>> dump_metadata({"schema_version": 1, "tasks": ["a", "b"]}, "run")
    b'{"schema_version":1,"tasks":["a","b"],"crc32":751534270}'
    """
    check_metadata(metadata, source)
    value = {key: item for key, item in metadata.items() if key != _CRC}
    try:
        value[_CRC] = _checksum(value)
        text = _compact(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{source}: the metadata is not plain JSON ({error}): use strings, finite numbers, "
            "lists and dicts"
        ) from None
    data = text.encode()
    if len(data) > MAX_HEADER_BYTES // 2:
        raise InputError(f"{source}: {len(data)} bytes of metadata: keep it under 8 MiB")
    return data


def parse_metadata(data: bytes | None, source: str) -> dict[str, Any]:
    """Read and check the JSON object stored under the schema key ``gabactl``.

    Parameters
    ----------
    data : bytes or None
        The JSON, UTF-8; None where a file has none.
    source : str
        The file's name, for messages.

    Returns
    -------
    dict
        Checked by :func:`check_metadata`.

    Raises
    ------
    InputError
        There is none, it is no JSON object, has another schema version or a value of a wrong type.

    Examples
    --------
    >>> parse_metadata(b'{"schema_version": 9, "tasks": ["a", "b"]}', "run.parquet")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: run.parquet: trace schema version 9 is unknown here (this release reads 1): read it with the gabactl that wrote it, or a newer one
    """
    if data is None:
        raise InputError(
            f"{source}: no gabactl trace (the schema metadata lacks the key 'gabactl'): record it "
            "with TraceRecorder, or save the columns as CSV"
        )
    if len(data) > MAX_HEADER_BYTES:
        raise InputError(f"{source}: {len(data)} bytes of metadata, which no trace has: damaged")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{source}: the trace metadata is not valid JSON ({error}): the file is damaged"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{source}: the trace metadata is no JSON object: the file is damaged")
    try:
        differs = _CRC in value and value.pop(_CRC) != _checksum(value)
    except (ValueError, RecursionError):  # halves of characters, numbers beyond all floats
        differs = True
    if differs:
        raise InputError(
            f"{source}: the checksum of the trace metadata differs: the file is damaged; copy it "
            "again (or, if the metadata was changed on purpose, leave crc32 out of it)"
        )
    for name, former in _FORMER.items():
        if former in value:
            value.setdefault(name, value.pop(former))
    check_metadata(value, source)
    return value


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _checksum(value: Mapping[str, Any]) -> int:
    """Of what it says, not of how it is spaced: another tool may have written it again."""
    return zlib.crc32(_compact(value).encode())


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def check_metadata(metadata: Mapping[str, Any], source: str) -> None:
    """Refuse an unknown version, a documented key of the wrong type, or unusable task names.

    Parameters
    ----------
    metadata : mapping
        With ``schema_version`` and ``tasks``; keys that are not documented are let be.
    source : str
        The trace's name, for messages.

    Raises
    ------
    InputError
        The first of these that is found.

    Examples
    --------
    >>> check_metadata({"schema_version": 1, "tasks": ["a", "a"]}, "run")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: run: tasks = ['a', 'a'] must be two or more different names
    """
    version = metadata.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InputError(
            f"{source}: trace schema version {version!r} is unknown here (this release reads "
            f"{SCHEMA_VERSION}): read it with the gabactl that wrote it, or a newer one"
        )
    for key, kind in _KNOWN_KEYS.items():
        value = metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            names = kind.__name__ if isinstance(kind, type) else "/".join(k.__name__ for k in kind)
            raise InputError(
                f"{source}: metadata {key!r} is a {type(value).__name__}, not a {names}: "
                "the file is damaged, or not a gabactl trace"
            )
    tasks = metadata.get("tasks") or []
    good = all(isinstance(name, str) and name.strip() and "\n" not in name for name in tasks)
    if not good or len(tasks) < 2 or len(set(tasks)) != len(tasks) or len(tasks) > MAX_TASKS:
        shown = str(tasks) if len(str(tasks)) < 80 else f"{len(tasks)} names"
        raise InputError(f"{source}: tasks = {shown} must be two or more different names")
    settings = metadata.get("spec")
    if settings is not None:
        try:
            spec = GabaSpec.from_dict(settings, "spec")
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        if spec.n_tasks != len(tasks):
            raise InputError(
                f"{source}: the spec says n_tasks = {spec.n_tasks}, but there are {len(tasks)} "
                "tasks: the metadata contradicts itself"
            )
    if metadata.get("sensor") is not None:
        _check_sensor(metadata["sensor"], settings, source)
    parameters = metadata.get("param_names")
    if parameters is not None and not all(isinstance(name, str) for name in parameters):
        raise InputError(f"{source}: metadata 'param_names' must be a list of strings")


def _check_sensor(sensor: Mapping[str, Any], settings: Any, source: str) -> None:
    """Refuse what a replay could not act on; keys that it does not look at may be anything."""
    name, coasts = sensor.get("name"), sensor.get("coasts", False)
    interval, budget = sensor.get("interval"), sensor.get("budget")
    whole = isinstance(interval, int) and not isinstance(interval, bool)
    real = isinstance(budget, (int, float)) and not isinstance(budget, bool)
    for key, value, good, allowed in (
        ("name", name, isinstance(name, str) and bool(name.strip()), "a name, such as 'full'"),
        ("coasts", coasts, isinstance(coasts, bool), "true or false"),
        ("interval", interval, interval is None or (whole and interval >= 1), "an integer >= 1"),
        ("budget", budget, budget is None or (real and 0 < budget <= 1), "a number in (0, 1]"),
    ):
        if not good:
            raise InputError(
                f"{source}: sensor {key} = {value!r} must be {allowed}: the file is damaged, or not "
                "a gabactl trace"
            )
    if settings is None:
        return
    stated = settings.get("interval", 1)
    if interval not in (None, stated) or (coasts and stated != 1):
        what = f"interval = {interval}" if interval not in (None, stated) else "coasts"
        raise InputError(
            f"{source}: the sensor {what}, the spec says interval = {stated}: the metadata "
            "contradicts itself"
        )
