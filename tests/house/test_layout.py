"""The house: imports go down one list, none goes round, and no package hides a name at the door."""

from __future__ import annotations

import importlib.util
import pkgutil
from pathlib import Path

import pytest

import gabactl

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "house.py"


@pytest.fixture(scope="module")
def house():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("house", SCRIPT)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def test_imports_go_down_and_none_goes_round(house) -> None:  # type: ignore[no-untyped-def]
    found = house.measure(house.read(None))
    for figure in (
        "rooms outside the order",
        "imports that go up",
        "circles of modules",
        "circles of rooms",
    ):
        assert found[figure] == [], figure


def test_every_room_has_a_place_and_a_package(house) -> None:  # type: ignore[no-untyped-def]
    there = {name for _, name, package in pkgutil.iter_modules(gabactl.__path__) if package}
    assert there == set(house.ORDER)


def test_no_package_hides_a_name_at_the_door(house) -> None:  # type: ignore[no-untyped-def]
    """Importing gabactl.X sets the attribute X of gabactl: a function of that name would be gone."""
    assert not set(house.ORDER) & set(gabactl.__all__)
