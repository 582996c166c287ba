"""What a result says as JSON it has as attributes, under the same names."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import gabactl

SPEC, PLANT = gabactl.GabaSpec(), gabactl.LogRatio(rho=-0.15, a=0.9)

RESULTS: dict[str, Callable[[], Any]] = {
    "authority": lambda: gabactl.authority(SPEC),
    "bounds": lambda: gabactl.weight_bounds(SPEC),
    "filter": lambda: gabactl.filter_facts(SPEC),
    "analysis": lambda: gabactl.analyze(SPEC, PLANT),
    "margins": lambda: gabactl.margins(SPEC, PLANT),
    "step": lambda: gabactl.step_response(SPEC, PLANT),
    "simulation": lambda: gabactl.simulate(SPEC, gabactl.published_disturbance()),
    "trace": lambda: gabactl.trace_info("fd001-gaba"),
    "saturation": lambda: gabactl.saturation("fd001-gaba"),
    "check": lambda: gabactl.check("fd001-gaba"),
    "claims": lambda: gabactl.settle_claims(["C08"]),
}


@pytest.mark.parametrize("name", RESULTS)
def test_every_key_is_an_attribute(name: str) -> None:
    result = RESULTS[name]()
    for key, value in result.to_dict().items():
        attribute = getattr(result, key)
        assert (attribute is None) == (value is None), key
        if isinstance(value, (bool, int, str)) and type(attribute) is type(value):
            assert attribute == value, key


def test_what_is_no_fact_is_no_attribute() -> None:
    found = gabactl.weight_bounds(SPEC)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = found.nothing
    assert pickle.loads(pickle.dumps(found)).facts() == copy.deepcopy(found).facts()
