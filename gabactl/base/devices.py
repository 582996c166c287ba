"""Where a run computes, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gabactl.base.errors import InputError


def choose_device(name: str) -> torch.device:
    """The torch device of a name.

    Parameters
    ----------
    name : str
        ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto``: CUDA where it is, else MPS, else the CPU.

    Raises
    ------
    InputError
        No such device here.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device = {name!r} is unknown: choose auto, cpu, cuda or mps") from None
    there = {"cpu": True, "mps": mps, "cuda": torch.cuda.is_available()}.get(device.type, False)
    if device.type == "cuda" and there and (device.index or 0) >= torch.cuda.device_count():
        there = False
    if not there:
        raise InputError(f"device = {name!r} is not available here: choose auto or cpu")
    return device


@contextmanager
def use_precision(name: str, device: torch.device) -> Iterator[None]:
    """Whether CUDA may round the factors of float32 products: its own default differs by operation.

    Parameters
    ----------
    name : {"float32", "tf32", "bf16"}
        Only ``tf32`` lets it.
    device : torch.device
        Elsewhere than on CUDA nothing is changed.

    Examples
    --------
    >>> with use_precision("float32", torch.device("cpu")):
    ...     pass
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
