"""Checkpoints: written atomically, read without running any code that a file may hold."""

from __future__ import annotations

import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gabactl.base.errors import InputError
from gabactl.base.files import whole_file

_FORMAT = "gabactl-training-checkpoint"
_VERSION = 1
_MAX_BYTES = 4 << 30
#: More than all names and settings of any model.
_MAX_PLAIN_BYTES = 64 << 20
#: torch searches its own refusal, which quotes the file, in time that grows with the square of this.
_MAX_TEXT = 8192


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

    Returns
    -------
    dict of str to Any
        With what :func:`save_checkpoint` was given.

    Raises
    ------
    InputError
        Absent, damaged, too large, of another version, or no checkpoint of ours.

    Examples
    --------
    >>> load_checkpoint("nowhere.ckpt")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: nowhere.ckpt: no such checkpoint: leave --resume away to start afresh
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such checkpoint: leave --resume away to start afresh")
    state = load_tensors(file, device)
    # A tensor in place of the text or the number would compare to a tensor.
    form = state.get("format") if isinstance(state, dict) else None
    if not isinstance(form, str) or form != _FORMAT:
        raise InputError(f"{file}: no checkpoint of `gabactl cmapss train`: give the file it wrote")
    version = state.get("version")
    if not isinstance(version, int) or version != _VERSION:
        raise InputError(
            f"{file}: checkpoint version {version!r} is unknown here (this release "
            f"reads {_VERSION}): use the gabactl that wrote it"
        )
    return state


def load_tensors(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """What ``torch.save`` wrote, where it is tensors and plain values alone.

    Parameters
    ----------
    path : path
        The file, which exists.
    device : device
        Where the tensors go.

    Returns
    -------
    Any
        Tensors, numbers and texts, in dicts, lists and tuples.

    Raises
    ------
    InputError
        Damaged, too large, or with anything else in it, which is not run.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "state.pt"
    >>> torch.save({"step_count": 3}, file)
    >>> load_tensors(file)
    {'step_count': 3}
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InputError(f"{file}: larger than {_MAX_BYTES >> 30} GiB, which no checkpoint is")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python and torch muse about what a damaged file says
            _check_archive(file)
            return torch.load(file, map_location=device, weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}): check the path") from None
    except Exception as error:
        # torch.load raises a dozen kinds for a damaged or hostile file; all mean the same here.
        raise InputError(
            f"{file}: not a readable checkpoint ({type(error).__name__}): delete it and start afresh"
        ) from None


def _check_archive(file: Path) -> None:
    """Refuse, before torch opens it, what would fill the memory or keep it busy for minutes."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("torch compresses nothing")
            if member.filename.endswith(".pkl"):
                if member.file_size > _MAX_PLAIN_BYTES:
                    raise ValueError("too many plain values")
                for _, value, _ in pickletools.genops(archive.read(member)):
                    if isinstance(value, (str, bytes)) and len(value) > _MAX_TEXT:
                        raise ValueError("too long a text")


def check_plain(saved: Any, now: Any) -> None:
    """Hold plain values of a checkpoint against those that they are to replace.

    Parameters
    ----------
    saved : value
        From a file.
    now : value
        Of the same place, in the object that takes it over: its kinds, keys and lengths hold.

    Raises
    ------
    TypeError
        Of another kind, with other keys, of another length, or a whole number beyond 64 bits.

    Examples
    --------
    >>> check_plain({"factor": 1, "min": [0.1]}, {"factor": 0.5, "min": [0.0]})
    >>> check_plain({"factor": "half"}, {"factor": 0.5})
    Traceback (most recent call last):
        ...
    TypeError: str for float
    """
    if isinstance(now, Mapping):
        if not isinstance(saved, Mapping) or set(saved) != set(now):
            raise TypeError("other keys")
        for key, value in now.items():
            check_plain(saved[key], value)
    elif isinstance(now, (list, tuple)):
        if not isinstance(saved, (list, tuple)) or len(saved) != len(now):
            raise TypeError("another length")
        for before, value in zip(saved, now, strict=True):
            check_plain(before, value)
    elif isinstance(now, (int, float)) and not isinstance(now, bool):
        number = isinstance(saved, (int, float)) and not isinstance(saved, bool)
        if not number or (isinstance(saved, int) and abs(saved) >= 1 << 63):
            raise TypeError(f"{type(saved).__name__} for {type(now).__name__}")
    elif not isinstance(saved, type(now)):
        raise TypeError(f"{type(saved).__name__} for {type(now).__name__}")


#: What the optimizers of `gabactl cmapss train` keep of a parameter: a number, or a tensor of its shape.
_KEPT: tuple[set[str], ...] = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}, set())


def check_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Hold the saved state of an optimizer against the parameters that it is for.

    torch takes over what it is given, and fails steps later.

    Parameters
    ----------
    saved : value
        What should be a state dict.
    optimizer : torch.optim.Optimizer
        AdamW or SGD with the parameters it is for.

    Returns
    -------
    dict
        The same state in tensors of its own: those of a file may share memory, or be one number
        that is repeated, into which nothing can be written.

    Raises
    ------
    TypeError, ValueError, KeyError, IndexError
        It is none of this optimizer.

    Examples
    --------
    >>> sgd = torch.optim.SGD([torch.zeros(2, requires_grad=True)], momentum=0.9)
    >>> check_optimizer(sgd.state_dict(), sgd)["state"]
    {}
    >>> wide = {"momentum_buffer": torch.zeros(3)}
    >>> check_optimizer({**sgd.state_dict(), "state": {0: wide}}, sgd)
    Traceback (most recent call last):
        ...
    ValueError: a state of another shape
    """
    if not isinstance(saved, Mapping):
        raise TypeError("no state dict")
    groups = []
    for before, group in zip(
        saved["param_groups"], optimizer.state_dict()["param_groups"], strict=True
    ):
        # An older torch knew fewer options: those that are not there are as now.
        if not {"params", "lr"} <= set(before) <= set(group):
            raise TypeError("other options")
        check_plain(before, {name: group[name] for name in before})
        # Plateau and warm-up lower the rate; torch fails steps later at one beyond float32.
        if not 0.0 <= before["lr"] <= optimizer.defaults["lr"]:
            raise ValueError("a rate above that of the start")
        # Of all of them only the rate changes in the course of a run.
        if any(_listed(before[name]) != _listed(group[name]) for name in set(before) - {"lr"}):
            raise ValueError("other options")
        groups.append({**group, **before})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    own: dict[int, dict[str, Tensor | None]] = {}
    for index, state in saved["state"].items():
        if type(index) is not int or index < 0 or set(state) not in _KEPT:
            raise TypeError("no state of a parameter")
        own[index] = dict(state)
        for name, value in state.items():
            if value is None and name == "momentum_buffer":
                continue  # of a parameter that has had no gradient
            if not isinstance(value, Tensor) or has_strange(value):
                raise TypeError(f"{name} is no tensor")
            if value.shape != (() if name == "step" else parameters[index].shape):
                raise ValueError("a state of another shape")
            own[index][name] = value.clone()
    return {"state": own, "param_groups": groups}


#: What changes of a plateau scheduler in the course of a run; the rest are its options.
_COURSE = {"best", "cooldown_counter", "last_epoch", "num_bad_epochs", "_last_lr"}


def check_schedule(saved: Any, plateau: torch.optim.lr_scheduler.ReduceLROnPlateau) -> None:
    """Hold the saved state of a plateau scheduler against the one that takes it over.

    Parameters
    ----------
    saved : value
        What should be a state dict.
    plateau : torch.optim.lr_scheduler.ReduceLROnPlateau
        Of the same options.

    Raises
    ------
    TypeError, ValueError
        It is none of a scheduler with these options.

    Examples
    --------
    >>> sgd = torch.optim.SGD([torch.zeros(2, requires_grad=True)])
    >>> plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd)
    >>> check_schedule({**plateau.state_dict(), "num_bad_epochs": 3}, plateau)
    >>> check_schedule({**plateau.state_dict(), "factor": 1e99}, plateau)
    Traceback (most recent call last):
        ...
    ValueError: other options
    """
    now = plateau.state_dict()
    check_plain(saved, now)
    if any(_listed(saved[name]) != _listed(now[name]) for name in set(now) - _COURSE):
        raise ValueError("other options")


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def has_strange(values: Any) -> bool:
    """Whether a tensor in it is of a kind that no state here is: complex, sparse, or without values.

    torch would drop half of a complex one with a warning, and fail later on the others.

    Parameters
    ----------
    values
        A tensor, or mappings, lists and tuples of what is searched, at any depth.

    Examples
    --------
    >>> has_strange({"model": [torch.zeros(2, dtype=torch.complex64)]})
    True
    >>> has_strange([torch.zeros(2), "text"])
    False
    """
    if isinstance(values, Tensor):
        return values.is_complex() or values.is_meta or values.layout != torch.strided
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, (list, tuple)):
        return False
    return any(map(has_strange, values))
