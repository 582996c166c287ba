"""``gabactl cmapss``: the data set, a training run on it, and many of them."""

from __future__ import annotations

from gabactl.cli._help import family
from gabactl.cli.cmapss import campaign, data, train

cmapss = family(
    "The C-MAPSS data, a recorded training run, campaigns of them.",
    data=data.data,
    train=train.train,
    campaign=campaign.campaign,
)
