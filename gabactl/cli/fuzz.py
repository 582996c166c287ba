"""``gabactl fuzz``: look for inputs that break what a weighting rule guarantees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gabactl.base.errors import InputError
from gabactl.cli._fields import Argument, Row
from gabactl.cli._options import options, time_row, workers_row
from gabactl.cli._output import show
from gabactl.cli._spec import SpecOptions, spec_options

if TYPE_CHECKING:
    from gabactl.fuzzing.properties import Bound

_PROPERTIES = (
    *("bounds", "simplex", "finite", "equivariance"),
    *("scale", "checkpoint", "reference", "all"),
)


@spec_options
@options(
    target=Argument(
        "[TARGET]",
        "gaba, gaba-compiled, gaba-torch, gradnorm, gradnorm-torch, any balancer, "
        "package.module:factory (this runs that code), or readers (the trace readers).",
    ),
    property=Row("NAME", "{}.", offer=_PROPERTIES),
    bound=Row(
        "NAME",
        "tight (what the rule can really reach), published ([m, 1-m]) or LOW:HIGH; widened by 4 ulp "
        "(more than two tasks: by the proved rounding).",
    ),
    steps=Row(
        "STEPS",
        "Controller steps for each property, 1 or more.",
        "3,000,000 for rules of ours, 50,000 for others",
    ),
    corpus=Row("DIR", "Folder of failing cases: replayed first, and added to."),
    no_corpus=Row("", "Neither replay nor save cases."),
    workers=workers_row("Threads of the search"),
    seconds=time_row("Seconds for each property; alone, it decides in place of --steps."),
)
def fuzz(
    target: str = "gaba",
    property: str = "bounds",
    bound: str = "tight",
    steps: int | None = None,
    corpus: Path = Path(".gabactl/corpus"),
    no_corpus: bool = False,
    seed: int = 0,
    workers: int = 1,
    seconds: float | None = None,
    as_json: bool = False,
    *,
    spec: SpecOptions,
) -> int:
    """Fuzz a weighting rule, and shrink what breaks a guarantee.

    A target package.module:factory is imported and called: only name code you trust. Exit code 1:
    a violation was found.
    """
    if target == "readers":
        from gabactl.fuzzing.readers import fuzz_readers

        result = fuzz_readers(time_limit=seconds or 60.0, seed=seed, corpus=corpus)
        # The same shape as of the other targets.
        whole = {"violated": result.violated, "results": [result.to_dict()]}
        show(whole if as_json else result, as_json)
        return int(result.violated)
    from gabactl.fuzzing.engine import fuzz as run

    # With a time and no number of steps, the time decides.
    unlimited = steps is None and seconds is not None
    report = run(
        target,
        property,
        spec=spec.resolve(),
        bound=_bound(bound),
        steps=2**62 if unlimited else steps,
        time_limit=seconds,
        seed=seed,
        workers=workers,
        corpus=None if no_corpus else corpus,
    )
    show(report, as_json)
    return int(report.violated)


def _bound(text: str) -> Bound:
    if text == "tight" or text == "published":
        return "tight" if text == "tight" else "published"
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise InputError(
            f"--bound {text}: choose tight, published or LOW:HIGH, such as 0.05:0.95"
        ) from None
