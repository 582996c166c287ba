"""Does every engine that runs the law run the same law? Engines x settings x K x ranges of norms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles.engines import ENGINES, reference

from gabactl.base.errors import InputError
from gabactl.law.spec import CHOICES, GabaSpec

Array = NDArray[Any]

TASKS = (2, 3, 5, 8)
STEPS = 12
#: Every law, floor mode and guard, read at every step and at every third: 32.
SETTINGS = list(itertools.product(CHOICES["law"], CHOICES["floor_mode"], CHOICES["guard"], (1, 3)))


def _some(rng: np.random.Generator, k: int, low: float, high: float) -> Array:
    return 10.0 ** rng.uniform(low, high, size=(STEPS, k))


def _with(tasks: slice, value: float) -> Callable[[np.random.Generator, int], Array]:
    """Usual norms, but at steps 4 and 10, which are always read, some tasks have the value."""

    def norms(rng: np.random.Generator, k: int) -> Array:
        g = _some(rng, k, -1, 1)
        g[3::6, tasks] = value
        return g

    return norms


#: Norms, shape (STEPS, K), from random numbers.
RANGES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "usual": lambda rng, k: _some(rng, k, -2, 3),
    "far apart": lambda rng, k: _some(rng, k, -150, 150),
    "near the published 1e-12": lambda rng, k: _some(rng, k, -13, -10),
    "equal": lambda rng, k: np.full((STEPS, k), 3.0),
    "some zero": _with(slice(0, 1), 0.0),
    "all zero": _with(slice(None), 0.0),
    "lost": _with(slice(0, 1), np.nan),
    "infinite": _with(slice(0, 1), np.inf),
    "smallest normal": lambda rng, k: 3e-308 * (1 + rng.integers(1, 9, size=(STEPS, k))),
    "subnormal": lambda rng, k: 1e-310 * rng.integers(1, 9, size=(STEPS, k)),
    # The sum is finite, and K - 1 times the sum is not, from three tasks on.
    "largest": lambda rng, k: 1e307 * (17 / k - rng.uniform(0, 3, size=(STEPS, k)) / k),
    "sum beyond floats": _with(slice(0, 2), 1.7e308),
}

_NO_LOG = ("infinite", "subnormal")
_DOUBLE = ("far apart", "smallest normal", "subnormal", "largest", "sum beyond floats")
#: Ranges an engine refuses in every setting.
REFUSED: dict[str, tuple[str, ...]] = {
    "stages, fractions": ("lost", "infinite", "sum beyond floats"),
    "stages, torch float32": _DOUBLE,
    "GABALoss": _DOUBLE,
    "compiled loop": _NO_LOG,
    "batch float64": _NO_LOG,
    "batch float32": ("infinite", *_DOUBLE[:4]),
    "batch on a device": _NO_LOG,
}


def refuses(name: str, kind: str, spec: GabaSpec) -> bool:
    """Whether an engine must say that it does not take this."""
    if kind in REFUSED.get(name, ()):
        return True
    # The published denominator (K - 1) S overflows, which fractions do not and the batch avoids.
    overflows = spec.guard == "none" and kind == "largest" and spec.n_tasks > 2
    if name == "stages, fractions":
        return overflows and spec.law == "complement"
    beyond = spec.guard == "none" and kind == "sum beyond floats"
    return name.startswith("batch") and (overflows or beyond)


def cases() -> Iterator[tuple[str, Array, GabaSpec]]:
    for k, (name, draw) in itertools.product(TASKS, RANGES.items()):
        norms = draw(np.random.default_rng([k, len(name)]), k)
        for n, (law, mode, guard, interval) in enumerate(SETTINGS):
            beta, floor = (0.0, 0.9, 0.99)[n % 3], (0.05, 0.3, 0.9, 0.0)[(n + n // 4 + k) % 4] / k
            yield name, norms, GabaSpec(k, beta, floor, 0, law, mode, guard, interval)


def _figures(weights: Array) -> Array:
    """Last weight of task 0, and the extremes of those that are numbers."""
    low = np.fmin.reduce(weights, axis=None, initial=np.inf)
    return np.array([weights[-1, 0], low, np.fmax.reduce(weights, axis=None, initial=-np.inf)])


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_runs_the_law_or_refuses(name: str) -> None:
    engine = ENGINES[name]
    agreed = 0
    for kind, norms, spec in cases():
        said = f"{name}, {kind} norms: {spec} on {norms.tolist()}"
        with np.errstate(all="ignore"):
            if refuses(name, kind, spec):
                with pytest.raises(InputError):
                    engine.run(spec, norms)
                continue
            got, want = engine.run(spec, norms), reference(spec, norms)
        want = _figures(want) if engine.figures else want[-len(got) :]
        np.testing.assert_allclose(got, want, rtol=0, atol=engine.tolerance, err_msg=said)
        agreed += 1
    assert agreed >= len(TASKS) * len(SETTINGS) * 5


def test_the_cases_tell_laws_and_floors_apart() -> None:
    """Or agreement would mean nothing: each setting of words changes some weights."""
    found = dict.fromkeys(CHOICES, 0)
    for _, norms, spec in cases():
        if spec.n_tasks > 2:
            with np.errstate(all="ignore"):
                weights = reference(spec, norms)
                for name, allowed in CHOICES.items():
                    for other in set(allowed) - {getattr(spec, name)}:
                        changed = reference(spec.replace(**{name: other}), norms)
                        found[name] += not np.allclose(weights, changed, atol=1e-6, equal_nan=True)
    assert min(found.values()) > 100, found
