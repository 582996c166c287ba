"""docs/json.md says what --json prints: the tops of the documents, and words that recur."""

from __future__ import annotations

import ast
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
SLOW = ("report", "identify", "claims", "sweep", "fuzz", "check", "cmapss")
#: Names that another name says already.
SYNONYMS = {
    "n_steps": "steps", "rows": "steps", "jobs": "workers", "processes": "workers",
    "rise_steps": "rise_time_steps", "timeout": "seconds", "minutes": "seconds",
    "name_of_trace": "source", "file": "source", "pvalue": "p_value", "p": "p_value",
    "threshold": "tolerance", "lambda_min": "floor", "warmup_step": "warmup",
    "worst_weight": "smallest_weight", "optimiser": "optimizer",
}  # fmt: skip


def slow(command: str) -> bool:
    name, *options = command.split()
    return "--saturation-only" not in options and (name in SLOW or "--balancers" in options)


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
    [pytest.param(command, marks=[pytest.mark.slow] * slow(command)) for command in TABLE],
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
    # A server; a run in progress.
    assert set(_COMMANDS) - named == {"dashboard", "watch"}


def shared_words() -> list[str]:
    """The words of the page's first table."""
    table = PAGE.partition("<!-- keys -->")[0]
    return re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", table, re.M)))


def test_the_words_are_those_of_the_code() -> None:
    """Each is a key of a document, or an attribute of a result, somewhere in the package."""
    known = set()
    for file in (ROOT / "gabactl").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                known |= {k.value for k in node.keys if isinstance(k, ast.Constant)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                known.add(node.target.id)
            elif isinstance(node, ast.Tuple | ast.List):
                known |= {e.value for e in node.elts if isinstance(e, ast.Constant)}
    assert set(shared_words()) <= known


def test_a_key_of_three_documents_is_explained() -> None:
    """The tops of the documents, which are held to the code above."""
    commands: dict[str, set[str]] = {}
    for command, top in TABLE.items():
        for key in re.findall(r"`(\w+)`", top):
            commands.setdefault(key, set()).add(command)
    often = {key for key, where in commands.items() if len(where) >= 3}
    assert len(often) > 5
    assert often <= set(shared_words())


def test_no_word_stands_twice() -> None:
    words = shared_words()
    twice = {w for w in words if words.count(w) > 1}
    assert not twice
