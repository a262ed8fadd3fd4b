"""The built-in models. Shapes: B batch, T tokens, F features of a token, H hidden, K classes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def activation_named(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function of that name in ``torch.nn.functional``.

    Raises:
        MtfError: there is no such function.
    """
    found = getattr(functional, name.lower(), None)
    if not callable(found) or name.startswith("_"):
        known = ("relu", "gelu", "silu", "elu", "tanh", "leaky_relu", "selu", "mish", "softplus")
        near = did_you_mean(name, known)
        raise MtfError(f"model.activation: unknown name {name!r}. {near}")
    function: Callable[[torch.Tensor], torch.Tensor] = found
    return function


class MLP(nn.Module):
    """A multilayer perceptron over the flattened input."""

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        hidden_size: int = 512,
        num_layers: int = 6,
        dropout: float = 0.1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        sizes = [math.prod(input_shape), *[hidden_size] * num_layers]
        self.hidden = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, num_classes)
        self._activate = activation_named(activation)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits [B, K] of inputs [B, ...]."""
        x_bh = inputs.flatten(1)
        for layer in self.hidden:
            x_bh = self.dropout(self._activate(layer(x_bh)))
        logits_bk: torch.Tensor = self.head(x_bh)
        return logits_bk


class Transformer(nn.Module):
    """A transformer encoder that classifies the mean over the tokens.

    Its input is [B, F] (each feature is a token), [B, T, F], or images [B, C, height, width] (each
    row is a token). With ``vocab_size``, it is token ids, int64 [B, T].
    """

    def __init__(  # noqa: PLR0913 -- each is a key of the section `model`
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        hidden_size: int = 512,
        num_layers: int = 6,
        dropout: float = 0.1,
        activation: str = "relu",
        num_heads: int | None = None,
        feedforward_size: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        heads = num_heads or next(n for n in (8, 4, 2, 1) if hidden_size % n == 0)
        if hidden_size % heads:
            raise MtfError(f"model.num_heads: {heads} does not divide hidden_size, {hidden_size}")
        self._has_ids = vocab_size is not None
        tokens, features = (input_shape[0], 1) if self._has_ids else _tokens(input_shape)
        self.embed: nn.Module = (
            nn.Linear(features, hidden_size)
            if vocab_size is None
            else nn.Embedding(vocab_size, hidden_size)
        )
        self.positions = nn.Parameter(torch.randn(tokens, hidden_size) * 0.02)
        layer = nn.TransformerEncoderLayer(
            hidden_size,
            heads,
            feedforward_size or 4 * hidden_size,
            dropout,
            activation_named(activation),
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits [B, K] of inputs, see the class."""
        x_btf = inputs if self._has_ids else _as_tokens(inputs)
        x_bth = self.embed(x_btf)
        x_bth = self.encoder(x_bth + self.positions[: x_bth.shape[1]])
        logits_bk: torch.Tensor = self.head(self.norm(x_bth.mean(dim=1)))
        return logits_bk


def _tokens(shape: Sequence[int]) -> tuple[int, int]:
    """Return T and F for the shape of one input."""
    match tuple(shape):
        case (features,):
            return features, 1
        case (tokens, features):
            return tokens, features
        case (channels, height, width):
            return height, channels * width
        case other:
            raise MtfError(f"model.type: transformer does not take inputs of shape {other}")


def _as_tokens(inputs: torch.Tensor) -> torch.Tensor:
    if inputs.dim() == 2:
        return inputs.unsqueeze(2)
    if inputs.dim() == 4:  # B, channels, height, width
        return inputs.transpose(1, 2).flatten(2)
    return inputs
