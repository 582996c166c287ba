"""Checkpoints: written atomically, read without running any code that a file may hold."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from gabactl.errors import InputError
from gabactl.files import whole_file

__all__ = ["load_checkpoint", "save_checkpoint"]

_FORMAT = "gabactl-training-checkpoint"
_VERSION = 1
_MAX_BYTES = 4 << 30


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that, whatever happens, either the old or the new one is there.

    Parameters
    ----------
    path : path
        The file; its folder must exist.
    state : dict
        Tensors, numbers, strings, lists and dicts only.

    Raises
    ------
    InputError
        The place cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.ckpt"
    >>> save_checkpoint(file, {"step": 3})
    >>> load_checkpoint(file)["step"]
    3
    """
    file = Path(path)
    try:
        with whole_file(file) as stream:
            torch.save({"format": _FORMAT, "version": _VERSION, **state}, stream)
    except (OSError, RuntimeError) as error:
        # On a full disk torch fails once more while it closes the archive, and says only that.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise InputError(
            f"{file}: cannot be written ({cause.strerror}): choose another place"
        ) from None


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``: tensors and plain values, no pickled code.

    Parameters
    ----------
    path : path
        The file.
    device : device
        Where the tensors go.

    Raises
    ------
    InputError
        Absent, damaged, too large, of another version, or no checkpoint of ours.

    Examples
    --------
    >>> load_checkpoint("nowhere.ckpt")
    Traceback (most recent call last):
        ...
    gabactl.errors.InputError: nowhere.ckpt: no such checkpoint: leave --resume away to start afresh
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such checkpoint: leave --resume away to start afresh")
    if file.stat().st_size > _MAX_BYTES:
        raise InputError(f"{file}: larger than {_MAX_BYTES >> 30} GiB, which no checkpoint is")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch muses about the format of a damaged file
            state = torch.load(file, map_location=device, weights_only=True)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}): check the path") from None
    except Exception as error:
        # torch.load raises a dozen kinds for a damaged or hostile file; all mean the same here.
        raise InputError(
            f"{file}: not a readable checkpoint ({type(error).__name__}): delete it and start afresh"
        ) from None
    # A tensor in place of the text or the number would compare to a tensor.
    form = state.get("format") if isinstance(state, dict) else None
    if not isinstance(form, str) or form != _FORMAT:
        raise InputError(f"{file}: no checkpoint of `gabactl train`: give the file it wrote")
    version = state.get("version")
    if not isinstance(version, int) or version != _VERSION:
        raise InputError(
            f"{file}: checkpoint version {version!r} is unknown here (this release "
            f"reads {_VERSION}): use the gabactl that wrote it"
        )
    return state
