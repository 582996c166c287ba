"""Do `report` and `analyze` still say the numbers that they said before the house was put in order?"""

import json
import math
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from gabactl.cli import main

ORACLES = Path(__file__).parents[1] / "oracles"
BEFORE = json.loads((ORACLES / "numbers_before.json").read_text())
NOW = tomllib.loads((ORACLES / "numbers_now.toml").read_text())


def leaves(value, path=""):
    """Path -> number, truth value, null, or word."""
    if not isinstance(value, dict | list):
        return {path: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        p: leaf for key, x in pairs for p, leaf in leaves(x, f"{path}/{key}".strip("/")).items()
    }


def entry(table, path):
    """The longest key of the table that ``path`` lies under, and what fits its stars and its end."""
    found = []
    for key in table:
        pattern = "([^/]+)".join(map(re.escape, key.split("*"))) + "(/.*)?"
        if match := re.fullmatch(pattern, path):
            found.append((key, [part or "" for part in match.groups()]))
    return max(found, key=lambda each: each[0].count("/"), default=(None, []))


def moved(table, path):
    key, parts = entry(table, path)
    if key is None:
        return path
    return re.sub(r"\*", lambda _: parts.pop(0), table[key]) + parts[-1]


def same(old, new):
    if None in (old, new) or isinstance(new, str):
        return old is new
    return math.isclose(old, new, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=pytest.mark.slow if c in list(BEFORE)[1:3] else [])  # two reports
        for c in BEFORE
    ],
)
def test_every_number_that_was_right_is_the_same(command, tmp_path, capsys):
    name = command.split()[0]
    arguments = shlex.split(NOW["commands"].get(command, command))
    page = ["-o", str(tmp_path / "page.html")] if name == "report" else []
    assert main([*arguments, *page, "--json"]) == 0
    now = leaves(json.loads(capsys.readouterr().out))
    mended = NOW["mended"].get(command, {})
    wrong = []
    for path, old in leaves(BEFORE[command]).items():
        target = moved(NOW[name]["moved"], path)
        if entry(NOW[name]["gone"], path)[0]:
            if target in now:
                wrong.append(f"{path}: said to be gone, but is there")
        elif target not in now:
            wrong.append(f"{path}: was {old}, and there is no {target}")
        elif same(old, now[target]) is bool(entry(mended, path)[0]):
            claim = "said to be mended, but was" if same(old, now[target]) else "was"
            wrong.append(f"{path}: {claim} {old}, is {now[target]}")
    assert not wrong, "\n".join(wrong)


def test_every_entry_of_the_table_is_used():
    paths = {command: list(leaves(BEFORE[command])) for command in BEFORE}
    for name in ("report", "analyze"):
        said = [p for command in BEFORE if command.split()[0] == name for p in paths[command]]
        for kind in ("moved", "gone"):
            assert set(NOW[name][kind]) == {entry(NOW[name][kind], p)[0] for p in said} - {None}
    for command, keys in NOW["mended"].items():
        assert set(keys) == {entry(keys, p)[0] for p in paths[command]} - {None}
    assert set(NOW["commands"]) <= set(BEFORE)


def test_a_key_that_moved_takes_what_lies_under_it_along():
    table = {"a": "z", "a/*/b": "c/*/d"}
    assert moved(table, "a/x/b") == "c/x/d"
    assert moved(table, "a/x/b/0") == "c/x/d/0"
    assert moved(table, "a/x") == "z/x"
    assert moved(table, "ab") == "ab"
