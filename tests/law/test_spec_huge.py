"""Settings of GABA that no float or 64-bit count holds."""

from __future__ import annotations

from typing import Any

import pytest

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec


@pytest.mark.parametrize("name", ["beta", "floor", "warmup", "n_tasks", "interval"])
@pytest.mark.parametrize("digits", [400, 6000])
def test_numbers_beyond_all_floats_are_one_line(name: str, digits: int) -> None:
    settings: dict[str, Any] = {name: 10**digits}
    with pytest.raises(InputError, match=name):
        GabaSpec(**settings)
