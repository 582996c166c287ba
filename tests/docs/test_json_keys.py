"""docs/json.md says what --json prints: the tops of the documents, and words that recur."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gabactl.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
#: command -> keys at the top, as the page has them.
TABLE = dict(
    re.findall(r"^\| `gabactl ([^`]+)` \| (.+) \|$", PAGE.partition("<!-- keys -->")[2], re.M)
)
#: Those that take more than about a second.
SLOW = ("report", "identify", "claims", "compare", "sweep", "fuzz", "validate", "train", "campaign")
#: Names that another name says already.
SYNONYMS = {
    "n_steps": "steps", "rows": "steps", "jobs": "workers", "processes": "workers",
    "rise_steps": "rise_time_steps", "timeout": "seconds", "minutes": "seconds",
    "name_of_trace": "source", "file": "source", "pvalue": "p_value", "p": "p_value",
    "threshold": "tolerance", "lambda_min": "floor", "warmup_step": "warmup",
}  # fmt: skip


def document(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    words = [word.replace("OUT", str(folder / "out")) for word in command.split()]
    assert main([*words, "--json"]) in (0, 1)
    return json.loads(capsys.readouterr().out)


def top(found: Any) -> str:
    if isinstance(found, list):
        return f"[{top(found[0])}]"
    return ", ".join(f"`{key}`" for key in found)


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from keys(each)
    elif isinstance(value, list):
        for each in value:
            yield from keys(each)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] * (command.split()[0] in SLOW))
        for command in TABLE
    ],
)
def test_the_top_is_as_the_page_says(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(ROOT)
    found = document(command, tmp_path, capsys)
    assert top(found) == TABLE[command]
    assert not set(keys(found)) & set(SYNONYMS)


def test_the_page_has_every_command_that_can_be_run_here() -> None:
    from gabactl.cli import _COMMANDS

    named = {command.split()[0] for command in TABLE}
    # A server; drawings of one result; the network; data and minutes; a run in progress.
    assert set(_COMMANDS) - named == {"dashboard", "nichols", "nyquist", "data", "train", "watch"}


def test_no_word_stands_twice() -> None:
    words = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", PAGE, re.M)))
    words = [w for w in words if w != "gabactl"]
    twice = {w for w in words if words.count(w) > 1}
    assert not twice
