"""What the shell offers after Tab, where an option or argument takes one of some words.

Nothing here is held against what a command accepts: a word that is not offered may be right (a
file, a module), and the command itself says what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

Completer = Callable[[str], list[str]]


def words(*names: str) -> Completer:
    """A completer that offers these.

    Parameters
    ----------
    *names : str
        Words.

    Examples
    --------
    >>> words("hold", "none")("h")
    ['hold']
    """
    return lambda incomplete: _beginning(names, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def trace_names(incomplete: str) -> list[str]:
    """Bundled traces; for anything else the shell offers files.

    Parameters
    ----------
    incomplete : str
        What is typed so far.

    Examples
    --------
    >>> trace_names("fd002")
    ['fd002-equal', 'fd002-gaba']
    """
    from gabactl.traces import bundled

    return _beginning(bundled(), incomplete)


def scenario_names(incomplete: str) -> list[str]:
    """Bundled scenarios.

    Parameters
    ----------
    incomplete : str
        What is typed so far.

    Examples
    --------
    >>> scenario_names("published_")
    ['published_noisy']
    """
    from gabactl.loops.scenarios import bundled_scenarios

    return _beginning(bundled_scenarios(), incomplete)


def theorem_families(incomplete: str) -> list[str]:
    """Families of theorems: the files they are in.

    Parameters
    ----------
    incomplete : str
        What is typed so far.

    Examples
    --------
    >>> theorem_families("floor_r")
    ['floor_ranges']
    """
    from gabactl.proving.library import proof_files

    return _beginning((file.stem for file in proof_files()), incomplete)


def claim_ids(incomplete: str) -> list[str]:
    """Claims of the literature.

    Parameters
    ----------
    incomplete : str
        What is typed so far.

    Examples
    --------
    >>> claim_ids("C1")[:3]
    ['C10', 'C11', 'C12']
    """
    from gabactl.claims.ledger import ledger

    return _beginning((claim.id for claim in ledger()), incomplete)
