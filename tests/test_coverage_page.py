"""The page on tests says what is recorded, and the tools behind it do what they say."""

from __future__ import annotations

import ast
import json
import sys
import types

import coverage_table
import mutants
import mutate_modules


def test_the_page_is_made_of_the_record():
    record = json.loads(coverage_table.RECORD.read_text(encoding="utf-8"))
    text = coverage_table.PAGE.read_text(encoding="utf-8")
    assert coverage_table.page(text, record) == text
    assert set(record["areas"]) <= set(coverage_table.AREAS)


def test_every_branch_not_taken_has_a_reason_and_no_reason_is_idle():
    record = json.loads(coverage_table.RECORD.read_text(encoding="utf-8"))
    assert coverage_table.judged(record)[1] == []


_SOURCE = '''
LIMIT = 2

def small(x, most=1):
    """Doc."""
    return x < LIMIT and "yes" or f"no: {x + 1}"

class Box:
    size = 3
    def __init__(self, n=4):
        self.n = n
    @property
    def twice(self):
        return self.n * 2
    @classmethod
    def empty(cls):
        return cls(0)
'''


def test_a_mutant_acts_in_functions_that_were_imported_before(tmp_path, monkeypatch):
    file = tmp_path / "sample.py"
    file.write_text(_SOURCE)
    module = types.ModuleType("sample_to_break")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(_SOURCE, str(file), "exec"), module.__dict__)
    small, box, made = module.small, module.Box, module.Box()

    def outcome():
        return small(1), small(2), made.twice, box.empty().n, box().n, box.size, module.LIMIT

    original = outcome()
    found = mutants.mutants_of(ast.parse(_SOURCE))
    # LIMIT; most; <, and/or twice each with parts, the two texts, x + 1; size, n, *, 2, 0.
    assert {m.where for m in found} == {
        *("module", "small", "Box", "Box.__init__", "Box.twice", "Box.empty")
    }
    unseen = []
    for mutant in found:
        tree = ast.parse(_SOURCE)
        mutant.apply(tree)
        mutants.put_in_place(module, tree)
        if outcome() == original:
            unseen.append(mutant.change)
        mutants.put_in_place(module, ast.parse(_SOURCE))
        assert outcome() == original
    assert unseen == ["1 -> 2"]  # ``most``, which nothing reads


def test_what_was_caught_stays_caught_and_what_survived_is_tried_again(tmp_path):
    file = tmp_path / "mutants.jsonl"
    rows = [
        {"module": "m", "source": "a", "tests": "t", "name": "one", "outcome": "caught"},
        {"module": "m", "source": "a", "tests": "t", "name": "two", "outcome": "survived"},
        {"module": "m", "source": "old", "tests": "t", "name": "three", "outcome": "caught"},
        {"module": "n", "source": "a", "tests": "t", "name": "four", "outcome": "caught"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = mutate_modules._known
    assert known(file, "m", "a", "t") == {"one": "caught", "two": "survived"}
    assert known(file, "m", "a", "other") == {"one": "caught"}
    assert known(None, "m", "a", "t") == known(tmp_path / "none", "m", "a", "t") == {}
