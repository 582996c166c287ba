"""A campaign of seconds: the smallest plan that still has epochs, checkpoints and a resume."""

from __future__ import annotations

_HEAD = """
[campaign]
name = "tiny"
subsets = ["FD001"]
seeds = [1]
epochs = {epochs}
batch_size = 30
lr_warmup_epochs = 1
checkpoint_every = 3
device = "cpu"
"""


def tiny_plan(methods: str, epochs: int) -> str:
    """The text of a plan with these methods."""
    return _HEAD.format(epochs=epochs) + methods
