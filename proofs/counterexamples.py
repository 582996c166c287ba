"""The counterexamples of the other families, in every implementation."""

from gabactl.proving import Outcome, main, theorem, theorems
from gabactl.proving.symbolic import Derivation

#: Theorems refuted by readings that can be fed to a controller.
REFUTED = ("C09", "C13", "C14", "C15", "C21")


@theorem(
    "REPLAY",
    "The counterexamples of C09, C13, C14, C15 and C21 show in the stage functions, in "
    "Controller and, where torch is installed, in GABALoss.",
    given=["each is run anew in each implementation"],
    method="exact",
    source="gabactl.law.controller, gabactl.nn",
    budget=240.0,
    mutants={
        "C13 with the floor project": {"changes": {"C13": {"floor_mode": "project"}}},
        "C09 with the inverse law": {"changes": {"C09": {"law": "inverse"}}},
    },
)
def counterexamples_show_everywhere(changes=None):
    every = {item.id: item for group in theorems().values() for item in group}
    proof = Derivation()
    for name in REFUTED:
        found: Outcome = every[name].check(**{"module": True, **(changes or {}).get(name, {})})
        proof.exact(f"{name}: {found.verdict}", found.verdict == "refuted", {"theorem": name})
        proof.replayed(tuple(f"{name}: {line}" for line in found.replays))
    return proof.done()


if __name__ == "__main__":
    raise SystemExit(main(__file__))
