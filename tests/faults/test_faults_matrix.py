"""The fault matrix is full, its tests exist, and the documentation is what it says."""

from __future__ import annotations

import ast

import pytest

from faults.matrix import CELLS, FAULTS, PAGE, PARTS, ROOT, cell, page


def test_every_part_meets_every_fault_once() -> None:
    pairs = [(c.part, c.fault) for c in CELLS]
    assert sorted(pairs) == sorted((part, fault) for part in PARTS for fault in FAULTS)


@pytest.mark.parametrize("part", PARTS)
def test_the_tests_that_stage_it_are_there(part: str) -> None:
    staged = {name for fault in FAULTS for name in cell(part, fault).tests}
    for name in staged:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert function in names, name


def test_only_what_writes_nothing_is_not_staged() -> None:
    bare = {(c.part, c.fault) for c in CELLS if not c.tests}
    assert {part for part, _ in bare} == {"dashboard"}


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/faults/matrix.py"
