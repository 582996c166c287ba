"""``gabactl fuzz``: look for inputs that break what a weighting rule guarantees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gabactl.base.errors import InputError
from gabactl.cli._complete import words
from gabactl.cli._options import SeedOption, time_option, workers_option
from gabactl.cli._output import JsonFlag, show
from gabactl.cli._spec import SpecOptions, spec_options

if TYPE_CHECKING:
    from gabactl.fuzzing.properties import Bound


@spec_options
def fuzz(
    target: Annotated[
        str,
        typer.Argument(
            metavar="[TARGET]",
            help="gaba, gaba-compiled, gaba-torch, gradnorm, gradnorm-torch, any balancer, "
            "package.module:factory (this runs that code), or readers (the trace readers).",
        ),
    ] = "gaba",
    property: Annotated[
        str,
        typer.Option(
            "--property",
            metavar="NAME",
            help="bounds, simplex, finite, equivariance, scale, checkpoint, reference or all.",
            autocompletion=words(
                "bounds",
                "simplex",
                "finite",
                "equivariance",
                "scale",
                "checkpoint",
                "reference",
                "all",
            ),
        ),
    ] = "bounds",
    bound: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="tight (what the rule can really reach), published ([m, 1-m]) or LOW:HIGH; "
            "widened by 4 ulp (more than two tasks: by the proved rounding).",
        ),
    ] = "tight",
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            help="Controller steps for each property, 1 or more.",
            show_default="3,000,000 for rules of ours, 50,000 for others",
        ),
    ] = None,
    corpus: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of failing cases: replayed first, and added to."),
    ] = Path(".gabactl/corpus"),
    no_corpus: Annotated[
        bool, typer.Option("--no-corpus", help="Neither replay nor save cases.")
    ] = False,
    seed: SeedOption = 0,
    workers: Annotated[int, workers_option("Threads of the search")] = 1,
    seconds: Annotated[
        float | None,
        time_option("Seconds for each property; alone, it decides in place of --steps."),
    ] = None,
    as_json: JsonFlag = False,
    *,
    spec: SpecOptions,
) -> None:
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
        raise typer.Exit(1 if result.violated else 0)
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
    if report.violated:
        raise typer.Exit(1)


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
