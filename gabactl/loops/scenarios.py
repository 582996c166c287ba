"""Scenarios: TOML files that say what disturbs the loop, what answers, and who balances.

.. code-block:: toml

    title = "The published disturbance"
    tasks = 2                      # number of tasks

    [disturbance]
    kind = "levels"                # levels, ramp, prbs, trace, none
    ratios = [50, 2400, 500]       # task 0 over the others; or lists of norms
    holds = [600, 600, 800]        # steps

    [[disturbance.spikes]]
    factor = 100.0
    at = 700

    [[disturbance.dropouts]]
    at = 900
    width = 20
    kind = "lost"                  # or "zero"

    [losses]                       # optional; default equal progress
    initial = [20.0, 2.0]
    final = [10.0, 1.0]
    time_constant = 500.0

    [plant]                        # optional; default nothing answers
    kind = "log-ratio"
    rho = 0.5

    [balancers.gaba]               # one table per balancer
    beta = 0.99

    [balancers.other_name]
    method = "gradnorm"
    lr = 0.05

    [run]
    noise = 0.3
    seeds = 8                      # how many (0, 1, ...), or a list
    tolerance = 0.02
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gabactl.balancers import Balancer, make_balancer
from gabactl.base.errors import InputError
from gabactl.base.files import check_keys, read_toml
from gabactl.base.settings import sub_table, where, whole_number
from gabactl.loops import profiles
from gabactl.loops.profiles import Profile
from gabactl.plants import LogRatio, Plant, QuadraticBowls

__all__ = ["bundled_scenarios", "load_scenario"]

#: What a bundled TOML file describes.
Kind = Literal["scenario", "sweep", "campaign"]

_MAX_SEEDS = 100_000

_TOP = ("title", "description", "tasks", "disturbance", "losses", "plant", "balancers", "run")
_DISTURBANCES: dict[str, tuple[str, ...]] = {
    "levels": ("ratios", "holds", "quiet_norm"),
    "ramp": ("start", "stop", "steps", "before", "after", "quiet_norm"),
    "prbs": ("low", "high", "block", "blocks", "seed", "quiet_norm"),
    "trace": ("path",),
    "none": ("steps",),
}
_BUILDERS: dict[str, Callable[..., Profile]] = {
    "levels": profiles.levels,
    "ramp": profiles.ramp,
    "prbs": profiles.prbs,
    "none": profiles.undisturbed,
}
_PLANTS: dict[str, tuple[str, ...]] = {
    "log-ratio": ("rho", "a", "delay"),
    "bowls": ("curvatures", "minimisers", "noise", "step_size", "start_at"),
}


@dataclass(frozen=True, eq=False)
class Scenario:
    """A scenario, read and checked.

    Attributes
    ----------
    title, description : str
        What it is, and what to see in it.
    profile : Profile
        The disturbance.
    plant : Plant or None
        What answers to the weights.
    balancers : mapping name -> Balancer
        Who balances.
    noise : float
        Standard deviation of the noise on each log reading.
    seeds : tuple of int
        Seeds.
    tolerance : float
        Band of the settling times.
    source : str
        The file.
    """

    title: str
    profile: Profile
    plant: Plant | None = None
    balancers: Mapping[str, Balancer] = field(default_factory=dict)
    noise: float = 0.0
    seeds: tuple[int, ...] = (0,)
    tolerance: float = 0.02
    description: str = ""
    source: str = ""

    def choose(self, names: str) -> dict[str, Balancer]:
        """The named balancers (separated by commas), from the scenario or by their method.

        Parameters
        ----------
        names : str
            For example ``gaba,gradnorm,fixed``.

        Raises
        ------
        InputError
            No name, or one that is no balancer.

        Examples
        --------
        >>> scenario = load_scenario("published")
        >>> list(scenario.choose("gaba,dwa"))
        ['gaba', 'dwa']
        """
        chosen: dict[str, Balancer] = {}
        for name in filter(None, (part.strip() for part in names.split(","))):
            if name in self.balancers:
                chosen[name] = self.balancers[name]
            else:
                chosen[name] = make_balancer(name, self.profile.n_tasks)
        if not chosen:
            raise InputError("no balancers were named: give for example gaba,gradnorm,fixed")
        return chosen


def bundled_scenarios() -> dict[str, Path]:
    """The scenarios that come with the package, by name.

    Returns
    -------
    dict of str to path

    Examples
    --------
    >>> "published" in bundled_scenarios()
    True
    """
    return _bundled("scenario")


def _bundled(kind: Kind) -> dict[str, Path]:
    return {file.stem: file for file in simulation_files() if _kind(file.stem) == kind}


def _kind(name: str) -> Kind:
    if name.startswith("sweep"):
        return "sweep"
    return "campaign" if "campaign" in name else "scenario"


def simulation_files() -> list[Path]:
    """The TOML files that come with the package, in a wheel or a checkout, sorted.

    Examples
    --------
    >>> any(file.stem == "sweep_stability" for file in simulation_files())
    True
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_simulations", package.parent / "simulations"):
        if folder.is_dir():
            return sorted(folder.glob("*.toml"))
    return []


def find_description(name: str | Path, kind: Kind) -> Path:
    """The file of a scenario, a sweep or a campaign: a path, or the name of a bundled one.

    Parameters
    ----------
    name : str or path
        Where to look.
    kind : "scenario", "sweep" or "campaign"
        What it describes.

    Raises
    ------
    InputError
        Neither; the message has the names.

    Examples
    --------
    >>> find_description("published", "scenario").name
    'published.toml'
    >>> find_description("cmapss_campaign", "campaign").name
    'cmapss_campaign.toml'
    """
    file = Path(name)
    known = _bundled(kind)
    if file.suffix != ".toml" and str(name) in known:
        return known[str(name)]
    if file.suffix != ".toml" and not file.exists():
        raise InputError(
            f"{kind} {str(name)!r} is neither a file nor one of: {', '.join(known)}; "
            "give one of these names, or a .toml file"
        )
    return file


def load_scenario(name: str | Path) -> Scenario:
    """Read and check a scenario.

    Parameters
    ----------
    name : str or path
        A TOML file, or the name of a bundled scenario.

    Raises
    ------
    InputError
        One line: the file, the key, what is wrong with it and what to do.

    Examples
    --------
    >>> load_scenario("published").profile.events
    (0, 600, 1200)
    """
    file = find_description(name, "scenario")
    table = read_toml(file)
    check_keys(file, "the top level", table, _TOP)
    tasks = whole_number(file, "tasks", table.get("tasks", 2), 2, 4096)
    profile = build_profile(file, table, tasks)
    plant = _plant(file, table.get("plant"), tasks)
    run = sub_table(file, "run", table.get("run", {}))
    check_keys(file, "[run]", run, ("noise", "seeds", "tolerance"))
    balancers = {
        str(key): _balancer(file, str(key), settings, tasks)
        for key, settings in sub_table(
            file, "balancers", table.get("balancers", {"gaba": {}})
        ).items()
    }
    with where(file, "run.noise"):
        noise = profiles.non_negative("noise", run.get("noise", 0.0))
    tolerance = run.get("tolerance", 0.02)
    if not isinstance(tolerance, float) or not 0 < tolerance < 1:
        raise InputError(f"{file}: run.tolerance = {tolerance!r} is not in (0, 1): such as 0.02")
    return Scenario(
        title=str(table.get("title", file.stem)),
        description=str(table.get("description", "")),
        profile=profile,
        plant=plant,
        balancers=balancers,
        noise=noise,
        seeds=_seeds(file, run.get("seeds", 1)),
        tolerance=tolerance,
        source=str(file),
    )


def build_profile(file: Path, table: Mapping[str, Any], tasks: int) -> Profile:
    """The disturbance (and losses) of a scenario or a sweep.

    Parameters
    ----------
    file : path
        For messages, and for relative paths of traces.
    table : mapping
        The file's content: keys ``disturbance`` and ``losses`` are looked at.
    tasks : int
        Number of tasks K.

    Raises
    ------
    InputError
        An unknown kind or key, or a value out of range; with the file and the key.

    Examples
    --------
    >>> build_profile(Path("x.toml"), {"disturbance": {"kind": "none", "steps": 5}}, 3).n_tasks
    3
    """
    settings = dict(sub_table(file, "disturbance", table.get("disturbance")))
    kind = settings.pop("kind", "levels")
    spikes, dropouts = settings.pop("spikes", []), settings.pop("dropouts", [])
    if not isinstance(kind, str) or kind not in _DISTURBANCES:
        raise InputError(
            f"{file}: disturbance.kind = {kind!r} is unknown: choose from {', '.join(_DISTURBANCES)}"
        )
    check_keys(file, "[disturbance]", settings, _DISTURBANCES[kind])
    with where(file, "disturbance"):
        profile = _disturbance(file, kind, settings, tasks)
    for name, entries, allowed in (
        ("spikes", spikes, ("factor", "at", "width", "task")),
        ("dropouts", dropouts, ("at", "width", "kind", "task")),
    ):
        if not isinstance(entries, list):
            raise InputError(f"{file}: write each of them as a table [[disturbance.{name}]]")
        for entry in entries:
            check_keys(file, f"[[disturbance.{name}]]", sub_table(file, name, entry), allowed)
            with where(file, f"disturbance.{name}"):
                call = profile.with_spike if name == "spikes" else profile.with_dropout
                profile = call(**entry)
    if "losses" in table:
        losses = sub_table(file, "losses", table["losses"])
        check_keys(file, "[losses]", losses, ("initial", "final", "time_constant"))
        with where(file, "losses"):
            profile = profile.with_losses(**losses)
    return profile


def _disturbance(file: Path, kind: str, settings: dict[str, Any], tasks: int) -> Profile:
    if kind in _BUILDERS:
        return _BUILDERS[kind](n_tasks=tasks, **settings)
    from gabactl.traces import bundled, load_bundled, read_trace

    given = str(settings["path"]) if "path" in settings else ""
    if not given:
        raise InputError("path is missing: give a trace file or the name of a bundled one")
    trace = load_bundled(given) if given in bundled() else read_trace(file.parent / given)
    profile = profiles.from_trace(trace, title=given)
    if profile.n_tasks != tasks:
        raise InputError(f"the trace has {profile.n_tasks} tasks: set tasks = {profile.n_tasks}")
    return profile


def _plant(file: Path, given: Any, tasks: int) -> Plant | None:
    if given is None:
        return None
    settings = dict(sub_table(file, "plant", given))
    kind = settings.pop("kind", "log-ratio")
    if not isinstance(kind, str) or kind not in _PLANTS:
        raise InputError(
            f"{file}: plant.kind = {kind!r} is unknown: choose from {', '.join(_PLANTS)}"
        )
    check_keys(file, "[plant]", settings, _PLANTS[kind])
    with where(file, "plant"):
        if kind == "log-ratio":
            return LogRatio(n_tasks=tasks, **settings)
        plant = QuadraticBowls(**settings)
        if plant.n_tasks != tasks:
            raise InputError(f"has {plant.n_tasks} tasks: set tasks = {plant.n_tasks}")
        return plant


def _balancer(file: Path, name: str, given: Any, tasks: int) -> Balancer:
    settings = dict(sub_table(file, f"balancers.{name}", given))
    method = settings.pop("method", name)
    with where(file, f"balancers.{name}"):
        if not isinstance(method, str):
            raise InputError(f"method = {method!r} is not a name: such as gaba")
        if ":" in method:
            # A scenario is data; code runs only where the user names it on the command line.
            raise InputError(f"method = {method!r}: name code with --balancers, not in a file")
        return make_balancer(method, tasks, settings)


def _seeds(file: Path, given: Any) -> tuple[int, ...]:
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= _MAX_SEEDS:
        return tuple(range(given))
    good = isinstance(given, list) and 1 <= len(given) <= _MAX_SEEDS
    if not good or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in given):
        raise InputError(
            f"{file}: run.seeds = {given!r}: give how many, from 1 to {_MAX_SEEDS}, or a list of "
            "whole numbers >= 0"
        )
    return tuple(given)
