"""Does the kit fit into its time, most important first, and does a bad part leave the others whole?"""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from gpu.plan import GRACE, KEPT_BACK, Bench, Part, deadlines, in_process, run_plan
from gpu_kit import PARTS


class FakeClock:
    """Time that passes only where a part takes it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def planned(seconds: float, takes: dict[str, float], parts: tuple[Part, ...] = PARTS):
    """What becomes of a plan whose parts take so long, or all they are given, on a fake clock."""
    clock, outcomes, ran = FakeClock(), {}, []

    def runner(part: Part, deadline: float, grace: float, send: Any) -> str:
        given = deadline - clock.now
        ran.append((part.name, given))
        clock.now += takes.get(part.name, given)
        return "done"

    def keep(name: str, message: tuple[str, str, Any]) -> None:
        outcomes[name] = message[2]

    run_plan(parts, seconds, 1000.0, keep, runner, clock)
    return outcomes, dict(ran), clock.now - 1000.0


def test_the_shares_are_the_whole() -> None:
    assert math.fsum(part.share for part in PARTS) == pytest.approx(1.0)


def test_parts_that_use_all_their_time_fit() -> None:
    outcomes, given, spent = planned(540.0, {})
    assert [entry["status"] for entry in outcomes.values()] == ["done"] * len(PARTS)
    assert spent == pytest.approx(540.0 * (1 - KEPT_BACK))
    # Even if the last one overruns, and is killed at its grace.
    assert spent + GRACE * 540.0 <= 540.0
    for part in PARTS:
        assert given[part.name] >= part.least


def test_what_an_early_part_leaves_goes_to_later_ones() -> None:
    _, quick, _ = planned(540.0, {"checks": 1.0})
    _, slow, _ = planned(540.0, {})
    assert quick["steps"] == pytest.approx(slow["steps"] + slow["checks"] - 1.0)
    assert quick["recordings"] == pytest.approx(slow["recordings"])


def test_with_little_time_the_most_important_run_and_the_others_say_why_not() -> None:
    outcomes, given, spent = planned(60.0, {})
    # What comes next does not fit into the 26 s that are left; a shorter one after it does.
    assert given["checks"] == 30.0
    assert set(given) == {"checks", "batches"}
    assert spent <= 60.0
    assert outcomes["steps"]["status"] == "left out"
    assert outcomes["steps"]["reason"] == "26 s were left, it takes 30"
    outcomes, given, spent = planned(25.0, {})
    assert "checks" not in given
    assert spent <= 25.0


def test_a_part_that_overruns_takes_from_the_others_only() -> None:
    parts = tuple(Part(name, "", 0.25, 10.0, print) for name in "abcd")
    outcomes, given, spent = planned(100.0, {"b": 65.0}, parts)
    assert given["a"] == pytest.approx(23.5)
    assert outcomes["c"]["status"] == "left out"
    assert spent <= 100.0
    assert deadlines(parts, 3, 1093.0, 1000.0, 100.0)[0] <= 1094.0


# -- real processes ---------------------------------------------------------------------------------


def good(bench: Bench) -> None:
    bench.item("measured", lambda: {"value": 1})


def raises(bench: Bench) -> None:
    good(bench)
    raise RuntimeError("planted")


def dies(bench: Bench) -> None:
    good(bench)
    os._exit(9)


def hangs(bench: Bench) -> None:
    good(bench)
    time.sleep(600)


def run(parts: list[Part], seconds: float, tmp_path: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    states, items = {}, {}

    def keep(name: str, message: tuple[str, str, Any]) -> None:
        kind, label, content = message
        (states if kind == "part" else items.setdefault(name, {}))[label] = content

    def make(deadline: float, send: Any) -> Bench:
        return Bench("cpu", True, tmp_path, tmp_path, frozenset(), deadline, send)

    run_plan(parts, seconds, time.monotonic(), keep, in_process(make))
    return states, items


@pytest.mark.parametrize("bad", range(3))
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [(raises, "died with exit code 1"), (dies, "died with exit code 9"), (hangs, "cut off")],
    ids=["raises", "dies", "hangs"],
)
def test_a_bad_part_leaves_the_others_whole(fault, outcome, bad, tmp_path) -> None:
    parts = [Part(name, "", 1 / 3, 0.1, good) for name in "abc"]
    parts[bad] = replace(parts[bad], run=fault)
    # Time for three forks; a hanging part takes its share of it.
    states, items = run(parts, 6.0, tmp_path)
    for i, part in enumerate(parts):
        assert states[part.name]["status"] == (outcome if i == bad else "done")
        # What a bad one had measured before is kept, too.
        assert items[part.name]["measured"]["status"] == "ok"
        assert items[part.name]["measured"]["value"] == 1
    if fault is raises:
        planted = items[parts[bad].name]["the part itself"]
        assert planted["status"] == "failed"
        assert planted["reason"].startswith("RuntimeError: planted (test_gpu_plan.py:")


def test_an_item_is_sent_whatever_becomes_of_it(tmp_path) -> None:
    sent: list[Any] = []
    clock = FakeClock()
    bench = Bench("cpu", True, tmp_path, tmp_path, frozenset(), 1010.0, sent.append, clock)
    assert bench.item("good", lambda: {"value": 2}) == {"value": 2}
    assert bench.item("bad", lambda: 1 / 0) is None
    assert bench.item("cuda", dict, cuda=True) is None
    assert bench.item("long", dict, least=11.0) is None
    clock.now = 1011.0
    assert bench.item("late", dict) is None
    states = {label: content["status"] for _, label, content in sent}
    assert states == {
        "good": "ok",
        "bad": "failed",
        "cuda": "left out",
        "long": "left out",
        "late": "left out",
    }
    assert sent[1][2]["reason"].startswith("ZeroDivisionError: division by zero")
