"""What runs of a campaign leave."""

from __future__ import annotations

import random
from typing import Any

from hostile import mutate
from hostile.readers.base import Reader


class CampaignRecord(Reader):
    """What a run of a campaign says of itself."""

    name = "campaign-record"
    modules = ("gabactl.campaign.folder",)
    needs = ("torch",)

    def good(self) -> list[bytes]:
        from gabactl.nn.settings import TrainingSettings
        from gabactl.results import to_jsonable

        self.tree = {
            "status": "finished", "reason": None, "steps": 40, "epochs": 4, "best_epoch": 2, "validation_rmse": 20.5,
            "rmse_capped": 18.0, "nasa_capped": 900.0, "accuracy": 0.9, "parameters": 1000, "seconds": 3.5,
            "device": "cpu", "precision": "fp32", "torch": "2", "settings": to_jsonable(TrainingSettings().to_dict()),
        }  # fmt: skip
        return [mutate.to_json(self.tree)]

    def bad(self, rng: random.Random) -> bytes:
        if rng.random() < 0.7:
            return mutate.to_json(mutate.tree_of(rng, self.tree, tuple(self.tree)))
        return mutate.words_of(rng, *self.two(rng))

    def read(self, data: bytes) -> Any:
        from gabactl.campaign.folder import read_record

        self.put("result.json", data)
        record = read_record(self.folder)
        f"{record}".encode()
        return record
