"""The CNN-BiLSTM-attention network for C-MAPSS, in its published size and a small one.

The shared backbone ends in 32 features; ``rul_head`` and ``health_head`` are the two task heads,
named so that :func:`gabactl.nn.get_shared_params` leaves them out.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from gabactl.base.checks import check_choice, check_int
from gabactl.base.errors import InputError, packages_for

with packages_for(__name__):
    import torch
    from torch import Tensor, nn


ModelSize = Literal["small", "paper"]

_FEATURES = 32
_CLASSES = 3


class _TwoHeads(nn.Module):
    """The two heads on 32 shared features."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Linear(16, 1)
        self.rul_head = nn.Sequential(
            *_layer(_FEATURES, 64), *_layer(64, 32), *_layer(32, 16), last, nn.ReLU()
        )
        self.health_head = nn.Sequential(
            *_layer(_FEATURES, 32), *_layer(32, 16), nn.Linear(16, _CLASSES)
        )
        # The features of all windows are nearly alike at first, so the final ReLU would be off for
        # all of them, and without gradient for good, in about half of all random starts.
        nn.init.constant_(last.bias, 1.0)

    def features(self, inputs: Tensor) -> Tensor:
        """The shared features, shape (batch, 32)."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Parameters
        ----------
        inputs : tensor, shape (batch, cycles, channels)
            Normalised windows.

        Returns
        -------
        rul : tensor, shape (batch,)
            Remaining useful life, >= 0, in units of the training target.
        health : tensor, shape (batch, 3)
            Logits of normal, degrading, critical.
        """
        shared = self.features(inputs)
        return self.rul_head(shared).squeeze(-1), self.health_head(shared)


class CnnBiLstmAttention(_TwoHeads):
    """The published network: 3,496,900 parameters with 14 input channels.

    Convolutions 64, 128, 64 (kernel 3, batch norm, ReLU, dropout), a two-layer bidirectional LSTM
    of 256 units, eight-head self-attention with residual and layer norm, the last cycle, then
    512 - 256 - 64 - 32.

    Parameters
    ----------
    channels : int
        Input channels: 14 (sensors) or 17 (and settings).
    dropout : float in [0, 1)
        Published: 0.2, and 0.3 on FD001 and FD003.

    Examples
    --------
    >>> model = CnnBiLstmAttention(14)
    >>> sum(p.numel() for p in model.parameters())
    3496900
    """

    def __init__(self, channels: int = 14, dropout: float = 0.2) -> None:
        super().__init__()
        _check(channels, dropout)
        self.conv = nn.Sequential(
            *_convolution(channels, 64, 3, dropout=dropout),
            *_convolution(64, 128, 3, dropout=dropout),
            *_convolution(128, 64, 3, dropout=dropout),
        )
        self.lstm = nn.LSTM(64, 256, num_layers=2, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(512, num_heads=8, batch_first=True)
        self.norm = nn.LayerNorm(512)
        self.reduce = nn.Sequential(
            *_layer(512, 256), nn.Dropout(dropout), *_layer(256, 64), *_layer(64, _FEATURES)
        )

    def features(self, inputs: Tensor) -> Tensor:
        """The shared features.

        Parameters
        ----------
        inputs : Tensor, shape (batch, cycles, channels)
            Normalised windows; the published ones have 30 cycles, the present one last.

        Returns
        -------
        Tensor, shape (batch, 32)
        """
        x = self.conv(inputs.transpose(1, 2)).transpose(1, 2)
        x, _ = self.lstm(x)
        # Only the last cycle is kept, so only its query is needed.
        last = x[:, -1:]
        attended, _ = self.attention(last, x, x, need_weights=False)
        return self.reduce(self.norm(last + attended).squeeze(1))


class SmallCnnBiLstmAttention(_TwoHeads):
    """A network of the same kind for a CPU: 76,709 parameters with 14 input channels.

    Convolutions 32 (kernel 5) and 64 (kernel 3), both of stride 2, a bidirectional LSTM of 48
    units, additive attention over the remaining cycles, then 96 - 64 - 32.

    Parameters
    ----------
    channels : int
        Input channels: 14 (sensors) or 17 (and settings).
    dropout : float in [0, 1)
        After the convolutions and the attention.

    Examples
    --------
    >>> model = SmallCnnBiLstmAttention(14)
    >>> sum(p.numel() for p in model.parameters())
    76709
    """

    def __init__(self, channels: int = 14, dropout: float = 0.2) -> None:
        super().__init__()
        _check(channels, dropout)
        self.conv = nn.Sequential(
            *_convolution(channels, 32, 5, stride=2),
            *_convolution(32, 64, 3, stride=2, dropout=dropout),
        )
        self.lstm = nn.LSTM(64, 48, batch_first=True, bidirectional=True)
        self.attention = nn.Sequential(nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 1))
        self.norm = nn.LayerNorm(96)
        self.reduce = nn.Sequential(*_layer(96, 64), nn.Dropout(dropout), *_layer(64, _FEATURES))

    def features(self, inputs: Tensor) -> Tensor:
        """The shared features.

        Parameters
        ----------
        inputs : Tensor, shape (batch, cycles, channels)
            Normalised windows; the published ones have 30 cycles, the present one last.

        Returns
        -------
        Tensor, shape (batch, 32)
        """
        x = self.conv(inputs.transpose(1, 2)).transpose(1, 2)
        x, _ = self.lstm(x)
        pooled = (torch.softmax(self.attention(x), dim=1) * x).sum(dim=1)
        return self.reduce(self.norm(pooled))


def build_model(
    size: ModelSize, channels: int = 14, dropout: float | None = None, subset: str = "FD002"
) -> CnnBiLstmAttention | SmallCnnBiLstmAttention:
    """A network by name.

    Parameters
    ----------
    size : {"small", "paper"}
        ``small`` for a CPU, ``paper`` the published one.
    channels : int
        Input channels.
    dropout : float, optional
        Default: as published, 0.3 on FD001 and FD003 and 0.2 elsewhere.
    subset : str
        For the default dropout.

    Raises
    ------
    InputError
        Unknown size, or a dropout outside [0, 1).

    Examples
    --------
    >>> build_model("small", subset="FD001").reduce[2].p
    0.3
    """
    check_choice("model", size, get_args(ModelSize))
    if dropout is None:
        dropout = 0.3 if subset in ("FD001", "FD003") else 0.2
    kind: Any = CnnBiLstmAttention if size == "paper" else SmallCnnBiLstmAttention
    return kind(channels, dropout)


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.ReLU()]


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dropout: float = 0.0
) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv1d(inputs, outputs, kernel, stride, padding=kernel // 2),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
    ]
    return [*layers, nn.Dropout(dropout)] if dropout else layers


def _check(channels: int, dropout: float) -> None:
    check_int("channels", channels, 1, "use 14 or 17 for C-MAPSS")
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"dropout = {dropout} is not in [0, 1): choose for example 0.2")
