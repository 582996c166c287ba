"""What theorem files declare."""

from __future__ import annotations

import json
import random
from typing import Any

from hostile import mutate
from hostile.readers.base import Reader, show


class Theorems(Reader):
    """What a theorem file declares: the file is the user's own code, its statements are data."""

    name = "theorem-declarations"
    modules = ("gabactl.proving.theorem", "gabactl.proving.library")

    def good(self) -> list[bytes]:
        self.trees = [
            {
                "id": "ODD",
                "statement": "2 n + 1 is odd",
                "given": ["n is whole"],
                "method": "exact",
                "expect": "proved",
                "mutants": {"even": {"shift": 0}},
                "source": "arithmetic",
                "budget": 5.0,
            },
            {"id": "C-1", "statement": "w > 0", "mutants": {"a": {}, "b": {"x": 1}}},
        ]
        return [mutate.to_json(tree) for tree in self.trees]

    def bad(self, rng: random.Random) -> bytes:
        return mutate.to_json(mutate.tree_of(rng, rng.choice(self.trees), tuple(self.trees[0])))

    def read(self, data: bytes) -> Any:
        from gabactl.base.errors import InputError
        from gabactl.proving.engine import ProofResult, ProofTable
        from gabactl.proving.library import Selection
        from gabactl.proving.theorem import Outcome, theorem

        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            raise InputError("no declaration") from None
        if not isinstance(given, dict) or any(k not in self.trees[0] for k in given):
            raise InputError("no declaration")
        if not {"id", "statement", "mutants"} <= set(given):
            raise InputError("no declaration")  # Python itself refuses the call
        item = theorem(**given)(lambda shift=1: Outcome("proved" if shift else "refuted"))
        show(Selection(((self.folder, item),)))
        results = tuple(ProofResult(item, item.prove(m), 0.0, m) for m in (None, *item.mutants))
        show(ProofTable(results, 0.0, 1), *results)
        if not 0 < item.budget < 1e9:
            raise AssertionError(f"a budget of {item.budget} s")
        return item


class ProofAnswer(Reader):
    """What a proving process answers; a theorem file may print what it likes between."""

    name = "proof-answer"
    modules = ("gabactl.proving.engine", "gabactl.proving.theorem")

    def good(self) -> list[bytes]:
        from gabactl.proving.theorem import Outcome

        self.trees = [
            Outcome("proved", derivation=("a = b", "b = c")).to_dict(),
            Outcome(
                "refuted", counterexample={"n": "1/2"}, replays=("weights 0.5, 0.5",)
            ).to_dict(),
            Outcome("unknown", reason="no time").to_dict(),
        ]
        return [mutate.to_json(tree) for tree in self.trees]

    def bad(self, rng: random.Random) -> bytes:
        if rng.random() < 0.7:
            return mutate.to_json(mutate.tree_of(rng, rng.choice(self.trees), tuple(self.trees[0])))
        return mutate.words_of(rng, *self.two(rng))

    def read(self, data: bytes) -> Any:
        import io
        import types

        from gabactl.proving.engine import ProofResult, ProofTable, _Task, _Worker
        from gabactl.proving.theorem import Outcome, theorem

        item = theorem("ODD", "2 n + 1 is odd", mutants={"even": {"shift": 0}})(
            lambda shift=1: Outcome("proved" if shift else "refuted")
        )
        worker = _Worker()
        worker._process = types.SimpleNamespace(  # type: ignore[assignment]
            stdin=io.StringIO(), kill=lambda: None, wait=lambda: None
        )
        worker._answers.put(data.decode("utf-8", "replace"))
        outcome = worker.ask(_Task(0, self.folder, item, None), 1.0)
        result = ProofResult(item, outcome, 0.0, None)
        show(ProofTable((result,), 0.0, 1), result)
        return outcome
