"""What a campaign runs: a TOML file as a list of runs, each with complete settings.

.. code-block:: toml

    [campaign]
    name = "cmapss"
    subsets = ["FD001", "FD002"]
    seeds = [42, 123]
    epochs = 15                    # and any other setting of a training run, for all methods

    [[method]]
    name = "gaba"                  # letters, digits, dots and dashes
    balancer = "gaba"

    [[method]]
    name = "gaba-authority"
    balancer = "gaba"
    spec = {floor = 1e-4}          # settings of GABA
    epochs = 20                    # a method may differ in anything
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gabactl.base.errors import InputError
from gabactl.base.files import check_keys, read_toml
from gabactl.base.settings import sub_table, where, whole_number
from gabactl.cmapss.files import SUBSETS
from gabactl.law.spec import GabaSpec
from gabactl.loops.scenarios import find_description
from gabactl.nn.excitation import Excitation
from gabactl.nn.training.settings import TrainingSettings

__all__ = ["load_campaign"]

_OWN = ("name", "subsets", "seeds", "threads", "checkpoint_every")
_SETTINGS = tuple(f.name for f in fields(TrainingSettings) if f.name not in ("subset", "seed"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,59}")
_MAX_RUNS = 10_000


@dataclass(frozen=True)
class PlannedRun:
    """One training run of a campaign.

    Attributes
    ----------
    name : str
        ``<subset>-<method>-seed<seed>``; also its folder.
    method : str
        Name of the method.
    settings : TrainingSettings
        Everything that decides it.
    """

    name: str
    method: str
    settings: TrainingSettings


@dataclass(frozen=True)
class Campaign:
    """A plan of runs.

    Attributes
    ----------
    name : str
        Of the campaign.
    runs : tuple of PlannedRun
        In the order in which they are started: all methods and subsets with the first seed first.
    threads : int
        CPU threads per run.
    checkpoint_every : int
        Steps between checkpoints.
    source : str
        The file's name, for messages.
    """

    name: str
    runs: tuple[PlannedRun, ...]
    threads: int
    checkpoint_every: int
    source: str

    @property
    def subsets(self) -> tuple[str, ...]:
        """The subsets, in the order of the file."""
        return tuple(dict.fromkeys(run.settings.subset for run in self.runs))

    def run(self, name: str) -> PlannedRun:
        """The run of that name.

        Parameters
        ----------
        name : str
            As in :attr:`PlannedRun.name`.

        Raises
        ------
        InputError
            There is none.
        """
        for run in self.runs:
            if run.name == name:
                return run
        raise InputError(
            f"{self.source}: no run {name!r}: the first of {len(self.runs)} is {self.runs[0].name}"
        )


def load_campaign(path: str | Path) -> Campaign:
    """Read a campaign file, checking every setting of every run.

    Parameters
    ----------
    path : path or str
        TOML, at most 1 MiB; or the name of one that comes with the package, such as
        ``cmapss_campaign_reduced``.

    Raises
    ------
    InputError
        One line with the file, the key and the remedy.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "small.toml"
    >>> _ = file.write_text(
    ...     '[campaign]\\nname = "small"\\nsubsets = ["FD001"]\\nseeds = [42]\\nepochs = 2\\n'
    ...     '[[method]]\\nname = "fixed"\\nbalancer = "fixed"\\n'
    ... )
    >>> [run.name for run in load_campaign(file).runs]
    ['FD001-fixed-seed42']
    """
    file = find_description(path, "campaign")
    table = read_toml(file)
    check_keys(file, "the file", table, ("campaign", "method"))
    common = sub_table(file, "campaign", table.get("campaign"))
    check_keys(file, "[campaign]", common, (*_OWN, *_SETTINGS))
    methods = table.get("method")
    if not isinstance(methods, list) or not methods:
        raise InputError(f"{file}: there is no method: add [[method]] with name and balancer")
    shared = {key: value for key, value in common.items() if key not in _OWN}
    among, numbers = f"out of {', '.join(SUBSETS)}", "of whole numbers, as in [42, 123]"
    subsets = _list(file, "subsets", common, SUBSETS.__contains__, among)
    seeds = _list(file, "seeds", common, lambda s: type(s) is int and s >= 0, numbers)
    choices = [_method(file, entry, shared) for entry in methods]
    names = [name for name, _ in choices]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{file}: method {name!r} is there twice: give each its own name")
    if len(subsets) * len(seeds) * len(choices) > _MAX_RUNS:
        raise InputError(f"{file}: more than {_MAX_RUNS} runs: split the campaign")
    runs = []
    for seed, (name, settings), subset in itertools.product(seeds, choices, subsets):
        with where(file, f"method {name!r}"):
            made = TrainingSettings(**{**settings, "subset": subset, "seed": seed})
        runs.append(PlannedRun(f"{subset}-{name}-seed{seed}", name, made))
    return Campaign(
        name=_name(file, "campaign.name", common.get("name")),
        runs=tuple(runs),
        threads=whole_number(file, "campaign.threads", common.get("threads", 1)),
        checkpoint_every=whole_number(
            file, "campaign.checkpoint_every", common.get("checkpoint_every", 200)
        ),
        source=file.name,
    )


def _method(file: Path, entry: Any, shared: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and settings of a method, those of the whole campaign included."""
    if not isinstance(entry, dict):
        raise InputError(f"{file}: method is not a table: write [[method]]")
    name = _name(file, "method.name", entry.get("name"))
    own = {key: value for key, value in entry.items() if key != "name"}
    check_keys(file, f"method {name!r}", own, _SETTINGS)
    if "balancer" not in own and "balancer" not in shared:
        raise InputError(
            f'{file}: method {name!r} has no balancer: add for example balancer = "gaba"'
        )
    settings = {**shared, **own}
    with where(file, f"method {name!r}"):
        if "spec" in settings:
            if not isinstance(settings["spec"], dict):
                raise InputError("spec is not a table: write spec = {floor = 1e-4}")
            settings["spec"] = GabaSpec.from_dict(settings["spec"])
        if "weights" in settings:
            settings["weights"] = tuple(settings["weights"])
        if "excite" in settings:
            settings["excite"] = Excitation.parse(settings["excite"])
    return name, settings


def _name(file: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InputError(
            f"{file}: {key} = {value!r}: give a name of letters, digits, dots and dashes"
        )
    return value


def _list(
    file: Path, key: str, table: Mapping[str, Any], fits: Callable[[Any], bool], remedy: str
) -> Any:
    value = table.get(key)
    if not isinstance(value, list) or not value or not all(map(fits, value)):
        raise InputError(f"{file}: campaign.{key} = {value!r}: give a list {remedy}")
    return tuple(dict.fromkeys(value))
