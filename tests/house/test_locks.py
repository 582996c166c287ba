"""`make` installs the same versions on every day: the lock files are complete, and current."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCKS = {file.stem: file.read_text("utf-8") for file in (ROOT / "locks").glob("3.*.txt")}
HERE = f"3.{sys.version_info.minor}"
REMEDY = "run `make locks`"


def pins(version: str) -> dict[str, str]:
    """Names and versions of a lock file, each line of which is one."""
    lines = [line for line in LOCKS[version].splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([a-z0-9-]+)==(\d[\w.]*)", line) for line in lines]
    assert all(found), lines[found.index(None)]
    assert lines == sorted(set(lines), key=lambda line: line.partition("==")[0])
    return dict(match.groups() for match in found)


def asked(version: str) -> list[Requirement]:
    """What pyproject.toml asks for on that Python: the package, its extras, the build backend."""
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    everything = [*PROJECT["dependencies"], *extras, *PYPROJECT["build-system"]["requires"]]
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    python = {"python_version": version, "python_full_version": f"{version}.0"}
    requirements = [Requirement(line) for line in everything]
    return [
        one
        for one in requirements
        if one.name != "gabactl" and (not one.marker or one.marker.evaluate({**linux, **python}))
    ]


def test_every_python_that_the_package_names_has_a_lock() -> None:
    named = [re.fullmatch(r".*:: (3\.\d+)", line) for line in PROJECT["classifiers"]]
    assert sorted(match[1] for match in named if match) == sorted(LOCKS)
    assert PROJECT["requires-python"] == f">={min(LOCKS, key=Version)}"


@pytest.mark.parametrize("version", sorted(LOCKS))
def test_every_requirement_is_pinned_to_a_version_that_it_allows(version: str) -> None:
    pinned = pins(version)
    for requirement in asked(version):
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement} is not in locks/{version}.txt: {REMEDY}"
        assert requirement.specifier.contains(pin, prereleases=True), f"{requirement}: {REMEDY}"


def installed() -> dict[str, str]:
    """Versions of what these requirements brought here, and what those brought."""
    found: dict[str, str] = {}
    waiting, seen = asked(HERE), set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), ("", *sorted(requirement.extras))
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = Version(metadata.version(name)).public
        except metadata.PackageNotFoundError:
            continue
        if name == "torch":
            continue  # its builds for a GPU name the versions of what they bring
        for line in metadata.requires(name) or []:
            new = Requirement(line)
            if not new.marker or any(new.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(new)
    return found


@pytest.mark.skipif(HERE not in LOCKS or sys.platform != "linux", reason="no lock for this")
def test_everything_that_is_installed_is_in_the_lock() -> None:
    pinned, here = pins(HERE), installed()
    assert len(here) > 60
    assert sorted(set(here) - set(pinned)) == [], REMEDY
    if (Path(sys.prefix) / ".dev").exists():  # an environment of `make`
        other = {name: (here[name], pinned[name]) for name in here if here[name] != pinned[name]}
        assert other == {}, "installed, and in the lock: `make test` mends it"
