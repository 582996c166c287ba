"""What the dashboard is given from outside."""

from __future__ import annotations

import random
from typing import Any

from hostile import mutate
from hostile.readers.base import Reader


class DashboardAddress(Reader):
    """The query in the address of the dashboard."""

    name = "dashboard-address"
    modules = ("gabactl.app.state",)
    needs = ("panel",)

    def good(self) -> list[bytes]:
        return [
            b"tab=sensor&without=heads,trunk",
            b"beta=0.9&floor=0.01&warmup=10&law=inverse&guard=none&interval=3&step=50",
            b"source=fd001-equal&ratio=500&rho=-0.5&lag=3&delay=2&alpha=0.12&theme=dark",
            b"progress_1=0.5&progress_2=1.5&variant=textbook&floor_mode=affine",
        ]

    def bad(self, rng: random.Random) -> bytes:
        return mutate.words_of(rng, *self.two(rng)).replace(
            b" ", b"%20" if rng.random() < 0.5 else b"+"
        )

    def read(self, data: bytes) -> Any:
        from urllib.parse import parse_qs

        from gabactl.app.state import LIMITS, View

        try:
            query = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True)
            raw = parse_qs(data, keep_blank_values=True)
        except ValueError:  # too many fields: the server's own parser says no
            return None
        view, problems = View().updated_by(query)
        View().updated_by({k.decode("latin-1"): v for k, v in raw.items()})
        if len(problems) > 4 or any(len(p) > 1300 for p in problems):
            raise AssertionError("too much is said")
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(view, name) <= high:
                raise AssertionError(f"{name} = {getattr(view, name)}")
        again, said = View().updated_by(parse_qs(view.to_query()[1:], keep_blank_values=True))
        if again != view or said:
            raise AssertionError("the address of the view is another view")
        return view
