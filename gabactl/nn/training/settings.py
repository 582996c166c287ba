"""Everything that decides a training run on C-MAPSS: the frozen ``TrainingSettings``. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gabactl.base.checks import check_choice, check_int
from gabactl.base.errors import InputError
from gabactl.cmapss.files import Subset
from gabactl.law.spec import GabaSpec
from gabactl.nn.excitation import Excitation

__all__ = ["TrainingSettings"]

BalancerName = Literal["gaba", "gradnorm", "fixed", "uncertainty", "dwa", "pcgrad", "cagrad"]
SampleWeights = Literal["none", "amnl"]
Precision = Literal["float32", "tf32", "bf16"]

#: Choices that may differ between the first run and its resumption.
_EXTENDABLE = ("epochs", "steps", "patience", "device")
#: Smallest whole number, and range of numbers; None is allowed where it is the default.
_LEAST = {
    **dict.fromkeys(("epochs", "steps", "patience"), 1),
    "batch_size": 2,
    **dict.fromkeys(("measure_every", "lr_warmup_epochs", "seed"), 0),
}
_RANGES = {
    **dict.fromkeys(("lr", "target_scale", "gradnorm_lr", "clip"), "(0, inf)"),
    **dict.fromkeys(("weight_decay", "gradnorm_alpha"), "[0, inf)"),
    **dict.fromkeys(("momentum", "cagrad_c", "average", "dropout"), "[0, 1)"),
}


@dataclass(frozen=True)
class TrainingSettings:
    """A training run, completely.

    The defaults are the published protocol where it is known (AdamW, linear warm-up of the
    learning rate from a tenth over 10 epochs, halving on a plateau of 30, averaged weights), and
    batch 256 and a validation split of 10 % of the engines, which are our choice.

    Parameters
    ----------
    subset : {"FD001", "FD002", "FD003", "FD004"}
        Which data.
    channels : {14, 17}
        14 sensors, or these and the settings.
    model : {"small", "paper"}
        See :mod:`gabactl.nn.training.models`.
    dropout : float in [0, 1), optional
        Default: as published, by subset.
    balancer : {"gaba", "gradnorm", "fixed", "uncertainty", "dwa", "pcgrad", "cagrad"}
        What weighs the two losses. The last four need the extra ``peers``.
    spec : GabaSpec
        Settings of ``gaba``.
    normalise_to : 1 or "n_tasks"
        What the weights of ``gaba`` sum to.
    weights : tuple of 2 floats
        Weights of ``fixed`` (RUL, health).
    measure_every : int, at least 0
        With ``fixed``, ``uncertainty`` and ``dwa``: steps between measurements of the gradient
        norms, for the record only.
    gradnorm_variant : {"chen2018", "textbook"}
        See :class:`gabactl.nn.GradNormLoss`.
    gradnorm_alpha, gradnorm_lr : float
        Restoring force and step size of ``gradnorm``.
    cagrad_c : float in [0, 1)
        How far ``cagrad`` may leave the average gradient.
    sample_weights : {"none", "amnl"}
        ``amnl``: the RUL loss is the mean of w (prediction - y)^2 with
        w = 1 + clip(1 - y / 125, 0, 1), y in cycles. With ``gaba`` this is GRACE.
    epochs : int, at least 1
        At most so many epochs.
    steps : int, optional
        Stop after so many steps, if that comes first.
    batch_size : int, at least 2
        Windows per step; an epoch drops the last, incomplete batch.
    optimizer : {"adamw", "sgd"}
        What rate ``sgd`` bears depends on the units: with targets in cycles the RUL loss starts
        in the thousands, so begin at 1e-4, or clip.
    lr : float, positive
        Base learning rate.
    weight_decay : float, at least 0
        For both optimisers.
    momentum : float in [0, 1)
        Of ``sgd``.
    lr_warmup_epochs : int, at least 0
        Epochs over which the learning rate rises linearly from a tenth; 0 starts at the base rate.
    clip : float, optional
        Scale the gradient of the combined loss down to this norm. Not part of the published
        protocol: the recorded norms are those before it.
    average : float in [0, 1)
        Decay of the averaged weights, which validation and test use; 0 uses the last ones. Young
        averages are shorter (decay at most (1 + t) / (10 + t)), so that short runs do not keep
        their random start.
    patience : int, optional
        Stop after so many epochs without a better validation RMSE.
    target_scale : float, positive
        The RUL target is divided by this: 1 is cycles (published), 125 gives targets in [0, 1].
        Nothing else changes the ratio of the gradients as much.
    precision : {"float32", "tf32", "bf16"}
        ``tf32`` lets CUDA round the factors of matrix products to 10 bits, ``bf16`` runs the
        network under autocast; ``float32`` forbids both. Losses, norms and weights are float32.
    excite : Excitation, optional
        A known perturbation of the weights.
    seed : int, at least 0
        Of the split, the initial weights, the order of batches and the dropout.
    device : str
        ``auto`` (CUDA, else MPS, else CPU), or a torch device.

    Raises
    ------
    InputError
        A value out of range, naming the value, the range and the remedy.

    Examples
    --------
    >>> TrainingSettings(batch_size=1)
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: batch_size = 1 is not a whole number >= 2: choose for example 256
    """

    subset: Subset = "FD001"
    channels: int = 14
    model: Literal["small", "paper"] = "small"
    dropout: float | None = None
    balancer: BalancerName = "gaba"
    spec: GabaSpec = field(default_factory=GabaSpec)
    normalise_to: int | str = 1
    weights: tuple[float, ...] = (0.5, 0.5)
    measure_every: int = 1
    gradnorm_variant: Literal["chen2018", "textbook"] = "chen2018"
    gradnorm_alpha: float = 1.5
    gradnorm_lr: float = 0.025
    cagrad_c: float = 0.4
    sample_weights: SampleWeights = "none"
    epochs: int = 30
    steps: int | None = None
    batch_size: int = 256
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    lr_warmup_epochs: int = 10
    clip: float | None = None
    average: float = 0.999
    patience: int | None = None
    target_scale: float = 1.0
    precision: Precision = "float32"
    excite: Excitation | None = None
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(TrainingSettings).items():
            if get_origin(hint) is Literal:
                check_choice(name, getattr(self, name), get_args(hint))
        check_choice("channels", self.channels, (14, 17))
        check_choice("normalise_to", self.normalise_to, (1, "n_tasks"))
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None and f.default is None:
                continue
            if f.name in _LEAST:
                example = 100 if f.default is None else f.default
                plain = check_int(f.name, value, _LEAST[f.name], f"choose for example {example}")
                object.__setattr__(self, f.name, plain)
            if f.name in _RANGES:
                _check_range(f.name, value, _RANGES[f.name], f.default)
        if self.excite is not None and self.balancer == "uncertainty":
            raise InputError(
                "excite with balancer = 'uncertainty': its log-variances would get no gradient; "
                "excite another balancer"
            )
        if self.spec.n_tasks != 2:
            raise InputError(
                f"n_tasks = {self.spec.n_tasks}: training on C-MAPSS has two tasks, RUL and health"
            )
        if len(self.weights) != 2 or not all(math.isfinite(w) and w >= 0 for w in self.weights):
            raise InputError(
                f"weights = {list(self.weights)}: give two finite numbers >= 0, as in 0.5,0.5"
            )
        if not sum(self.weights):
            raise InputError("weights = [0, 0]: at least one must be positive")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the fields.

        Examples
        --------
        >>> TrainingSettings().to_dict()["lr"]
        0.001
        """
        return {**asdict(self), "weights": list(self.weights)}

    def refuse_other(self, before: Mapping[str, Any], source: str) -> None:
        """Check that a run begun with the settings ``before`` can go on with these.

        Only how long to train, and on which device, may change.

        Parameters
        ----------
        before : mapping
            :meth:`to_dict` of the run to be resumed.
        source : str
            Its checkpoint, for the message.

        Raises
        ------
        InputError
            A setting differs that decides what is trained.

        Examples
        --------
        >>> TrainingSettings(seed=1).refuse_other(TrainingSettings().to_dict(), "run.ckpt")
        Traceback (most recent call last):
            ...
        gabactl.base.errors.InputError: run.ckpt: was trained with seed = 0, not 1: resume with the same settings, or start afresh under another name
        """
        # A checkpoint of an earlier release lacks what came later, and was trained with defaults.
        defaults = TrainingSettings().to_dict()
        for name, value in self.to_dict().items():
            then = before.get(name, defaults[name])
            if name not in _EXTENDABLE and then != value:
                raise InputError(
                    f"{source}: was trained with {name} = {then!r}, not {value!r}: "
                    "resume with the same settings, or start afresh under another name"
                )


def _check_range(name: str, value: Any, within: str, default: Any) -> None:
    low, high = (float(bound) for bound in within[1:-1].split(","))
    inside = isinstance(value, (int, float)) and (low <= value if within[0] == "[" else low < value)
    if not inside or not value < high:
        remedy = f": the default is {default:g}" if isinstance(default, float) else ""
        raise InputError(f"{name} = {value!r} is not in {within}{remedy}")
