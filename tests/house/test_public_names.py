"""What is public: the door, `gabactl.nn`, and the one page that lists every public name.

The signatures at the door are frozen in `public_names.txt`. After a change that is meant:

    python tests/house/test_public_names.py > tests/house/public_names.txt
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest

import gabactl
import gabactl.nn
from gabactl.base.results import Result

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference.md"
FROZEN = Path(__file__).parent / "public_names.txt"
#: More than this is more than a page.
MOST = 200


def names_on_the_page() -> list[str]:
    """Full names, in their order."""
    found, module = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   [A-Za-z_.]+", line):
            found.append(f"{module}.{line.strip()}")
    return found


def resolve(name: str) -> Any:
    """The object of a full name: the longest module in it, then attributes."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("gabactl"):
                pytest.skip(f"{error.name} is not installed")
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise LookupError(name)


def signatures() -> list[str]:
    """A line a name at the door: what it is, and what it takes."""
    lines = []
    for name in sorted(set(gabactl.__all__) - {"__version__"}):
        found = getattr(gabactl, name)
        kind = "class " if inspect.isclass(found) else ""
        lines.append(f"{kind}{name}{inspect.signature(found)}")
    return lines


def test_the_page_is_short_and_says_nothing_twice() -> None:
    names = names_on_the_page()
    assert len(names) == len(set(names)) <= MOST


def test_every_name_at_the_doors_is_on_the_page() -> None:
    names = set(names_on_the_page())
    door = {f"gabactl.{name}" for name in gabactl.__all__} - {"gabactl.__version__"}
    torch = {f"gabactl.nn.{name}" for name in gabactl.nn.__all__}
    assert door | torch <= names


def test_the_page_names_no_more_doors_than_there_are() -> None:
    """`gabactl.x` on the page is at the door, or in a package."""
    short = {name for name in names_on_the_page() if name.count(".") == 1}
    assert short <= {f"gabactl.{name}" for name in gabactl.__all__}


@pytest.mark.parametrize("name", names_on_the_page())
def test_every_name_on_the_page_is_there_and_shows_its_use(name: str) -> None:
    found = resolve(name)
    assert not isinstance(found, types.ModuleType)
    text = inspect.getdoc(found) or ""
    assert text.split("\n")[0].endswith((".", ":", "]"))
    if (inspect.isclass(found) and issubclass(found, Result)) or name in SHOWN_ELSEWHERE:
        assert re.search("^(Attributes|Parameters)\n---", text, re.M) or name in SHOWN_ELSEWHERE
    else:
        assert ">>>" in text, f"{name}: show how it is used, in a doctest"


#: What is not made by hand has its example where it is made; a base, in what is built on it.
SHOWN_ELSEWHERE = {
    "gabactl.balancers.Balancer",
    "gabactl.base.results.Result",
    "gabactl.fuzzing.Target",
    "gabactl.nn.BalancedLoss",
    "gabactl.nn.integrations.transformers.BalancedTrainerMixin",
    "gabactl.plants.Plant",
    "gabactl.proving.Outcome",
    "gabactl.runs.replay.Replay",
}


def test_the_signatures_at_the_door_are_as_frozen() -> None:
    assert signatures() == FROZEN.read_text(encoding="utf-8").splitlines()


def test_the_door_is_typed_as_it_is_loaded() -> None:
    """The imports that type checkers read are those that happen."""
    source = Path(gabactl.__file__).read_text(encoding="utf-8")
    typed = re.findall(r"^    from (\S+) import (\w+) as (\w+)$", source, re.M)
    assert {name: module for module, name, _ in typed} == gabactl._LAZY
    assert all(name == same for _, name, same in typed)


if __name__ == "__main__":
    print("\n".join(signatures()))
