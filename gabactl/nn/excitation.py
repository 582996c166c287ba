"""Excitation: a known pseudo-random push on the weights, so that training can be identified.

From a run under its own controller one cannot tell how gradients answer to weights: the weights
follow the gradients. A perturbation that nothing in the run knows of breaks the circle.

:class:`Excitation` needs no torch; :class:`gabactl.nn.losses.excited.ExcitedLoss` applies it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.base.checks import check_int
from gabactl.base.errors import InputError

_EXAMPLE = "prbs:amplitude=0.5,period=50,seed=1"
_NUMBERS: dict[str, type] = {"amplitude": float, "period": int, "seed": int}


@dataclass(frozen=True)
class Excitation:
    """A pseudo-random binary sequence on the logit of the first task's weight.

    In each block of ``period`` steps, +amplitude or -amplitude (a fair coin) is added to
    log(w_1 / (1 - w_1)), after the floor. For K = 2 that is log(w_1 / w_2); for K > 2 the other
    tasks keep their proportions among each other.

    Parameters
    ----------
    amplitude : float, positive
        In logit units (nats); 0.5 changes a ratio of weights by a factor 1.65 either way.
    period : int, at least 1
        Steps per block. Choose some times the lag that is looked for.
    seed : int, at least 0
        Of the coin, apart from the seed of the training.
    inverted : bool
        The opposite sequence, for the twin of a paired experiment.

    Raises
    ------
    InputError
        An amplitude not in (0, 10] nats, a period below 1, or a negative seed.

    Examples
    --------
    >>> Excitation.parse("prbs:amplitude=0.5,period=2,seed=1").sequence(8).tolist()
    [0.5, 0.5, 0.5, 0.5, -0.5, -0.5, 0.5, 0.5]
    """

    amplitude: float = 0.5
    period: int = 50
    seed: int = 0
    inverted: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.amplitude) or not 0.0 < self.amplitude <= 10.0:
            raise InputError(
                f"excitation amplitude = {self.amplitude} is not in (0, 10] nats: try 0.5"
            )
        check_int("excitation period", self.period, 1, "try 50 steps")
        check_int("excitation seed", self.seed, 0, "give for example 1")

    @classmethod
    def parse(cls, text: str) -> Excitation:
        """From the form of the command line, ``prbs:amplitude=0.5,period=50,seed=1[,inverted]``.

        Parameters
        ----------
        text : str
            What is left out has its default.

        Raises
        ------
        InputError
            Unknown kind or key, or a value that is no number.

        Examples
        --------
        >>> str(Excitation.parse("prbs:period=20,inverted"))
        'prbs:amplitude=0.5,period=20,seed=0,inverted'
        """
        if not isinstance(text, str):
            raise InputError(f"excitation {text!r} is no text: give for example {_EXAMPLE!r}")
        kind, _, rest = text.strip().partition(":")
        if kind != "prbs":
            raise InputError(f"excitation {text!r}: the only kind is prbs, as in {_EXAMPLE}")
        given: dict[str, Any] = {}
        for item in filter(None, (part.strip() for part in rest.split(","))):
            key, _, value = item.partition("=")
            if item == "inverted":
                given["inverted"] = True
                continue
            if key not in _NUMBERS:
                raise InputError(
                    f"excitation {text!r}: unknown part {item!r}: write it as {_EXAMPLE}"
                    " and, for the twin, ,inverted"
                )
            try:
                given[key] = _NUMBERS[key](value)
            except ValueError:
                raise InputError(
                    f"excitation {text!r}: {key} = {value!r} is no number: write it as {_EXAMPLE}"
                ) from None
        return cls(**given)

    def __str__(self) -> str:
        end = ",inverted" if self.inverted else ""
        return f"prbs:amplitude={self.amplitude:g},period={self.period},seed={self.seed}{end}"

    def sequence(self, steps: int) -> NDArray[np.float64]:
        """What is added at steps 1 to ``steps``; a longer sequence begins with a shorter one.

        Parameters
        ----------
        steps : int, at least 0
            How many optimisation steps.

        Returns
        -------
        array, shape (steps,)
            Each +amplitude or -amplitude.

        Examples
        --------
        >>> twin = Excitation(inverted=True)
        >>> bool((twin.sequence(500) == -Excitation().sequence(500)).all())
        True
        """
        blocks = -(-steps // self.period)
        coin = np.random.default_rng(self.seed).random(blocks) < 0.5
        sign = np.where(coin != self.inverted, -self.amplitude, self.amplitude)
        return np.repeat(sign, self.period)[:steps]
