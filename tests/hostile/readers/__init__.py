"""Every reader of files, with good inputs to start from and a way to make bad ones that get far."""

from hostile.readers import (
    campaigns,
    checkpoints,
    cmapss,
    dashboard,
    folders,
    logs,
    proofs,
    recordings,
    settings,
    traces,
)
from hostile.readers.base import READERS, Reader, refusal

__all__ = [
    "READERS",
    "Reader",
    "campaigns",
    "checkpoints",
    "cmapss",
    "dashboard",
    "folders",
    "logs",
    "proofs",
    "recordings",
    "refusal",
    "settings",
    "traces",
]
