"""Sequence generators: networks from a latent and the previous words to the features of the next word."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as _dropout

from lebm.component import Component
from lebm.errors import at_least
from lebm.models.layers import check_choice

NEVER_WRITTEN = 2
"""First token of the output layer, because 0 (``<pad>``) and 1 (``<bos>``) have no probability."""


class SequenceGenerator(nn.Module, Component, ABC):
    """Base class of the generators of sentences, ``p(x | z) = prod_t p(x_t | x_<t, z)``.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        vocabulary_size: number of tokens, the special tokens included.
        max_length: largest number of tokens in a sentence, ``<eos>`` included.
        width: number of features per position.
        dropout: probability of dropout on word embeddings and features in training, in [0, 1). Chains run
            without dropout.
        **sizes: other sizes of the network, each at least 1.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> import torch
        >>> from lebm.models import RecurrentGenerator, SequenceGenerator
        >>> generator: SequenceGenerator = RecurrentGenerator(4, vocabulary_size=50, max_length=12)
        >>> features, state = generator.step(torch.zeros(3, 4), torch.ones(3, dtype=torch.int64), None)
        >>> generator.output(features).shape
        torch.Size([3, 48])
    """

    def __init__(
        self, latent_dim: int, vocabulary_size: int, max_length: int, width: int, dropout: float, **sizes: int
    ) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim, max_length=max_length, width=width, **sizes)
        at_least(5, vocabulary_size=vocabulary_size)  # four special tokens and a word
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {dropout}")
        self.latent_dim = latent_dim
        self.vocabulary_size = vocabulary_size
        self.max_length = max_length
        self.dropout = dropout
        self.output = nn.Linear(width, vocabulary_size - NEVER_WRITTEN)

    @abstractmethod
    def features(self, z: Tensor, previous: Tensor, dropping: bool = False) -> Tensor:
        """Return the features of every position, given the words before it.

        Args:
            z: latents ``(B, latent_dim)``.
            previous: ``(B, T)``, the sentences moved right by one position, with ``<bos>`` first.
            dropping: whether dropout is applied, with the default generator of torch.

        Returns:
            ``(B, T, width)``. The layer ``output`` maps them to logits, one per token from ``NEVER_WRITTEN``
            on.
        """

    @abstractmethod
    def step(self, z: Tensor, previous: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return features ``(B, width)`` after the words ``previous`` ``(B,)``, and the next state.

        ``state`` is the state of the last step, and ``None`` at the first step.
        """


class RecurrentGenerator(SequenceGenerator):
    """A recurrent layer (Pang et al. 2020, text).

    The latent z is concatenated to the embedding of every word, and a linear map of z is the initial state.
    Initial weights are uniform in [-0.1, 0.1], as in the released code of the successors of the paper.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        vocabulary_size: number of tokens, the special tokens included.
        max_length: largest number of tokens in a sentence, ``<eos>`` included.
        embedding: width of the word embeddings.
        hidden: width of the recurrent state.
        cell: ``"lstm"`` (the paper) or ``"gru"``.
        dropout: probability of dropout on word embeddings and features in training, in [0, 1).

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> import torch
        >>> from lebm.models import RecurrentGenerator
        >>> generator = RecurrentGenerator(latent_dim=4, vocabulary_size=50, max_length=12, hidden=32)
        >>> generator.features(torch.zeros(3, 4), torch.ones(3, 12, dtype=torch.int64)).shape
        torch.Size([3, 12, 32])
    """

    def __init__(
        self,
        latent_dim: int,
        vocabulary_size: int,
        max_length: int,
        embedding: int = 128,
        hidden: int = 256,
        cell: Literal["lstm", "gru"] = "lstm",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(latent_dim, vocabulary_size, max_length, hidden, dropout, embedding=embedding)
        check_choice("cell", cell, ("lstm", "gru"))
        self.cell = cell
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.start = nn.Linear(latent_dim, hidden)
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.recurrent = kind(embedding + latent_dim, hidden, batch_first=True)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def train(self, mode: bool = True) -> RecurrentGenerator:
        """Set the mode, but leave the recurrent layer in training mode.

        The outputs of the layer are equal in both modes, but cuDNN gives no gradients in evaluation mode.
        """
        super().train(mode)
        self.recurrent.train()
        return self

    def _first(self, z: Tensor) -> Any:
        hidden = self.start(z).unsqueeze(0)
        return (hidden, torch.zeros_like(hidden)) if self.cell == "lstm" else hidden

    def features(self, z: Tensor, previous: Tensor, dropping: bool = False) -> Tensor:
        words = _dropout(self.embedding(previous), self.dropout, dropping)
        beside = z.unsqueeze(1).expand(-1, previous.shape[1], -1)
        seen, _ = self.recurrent(torch.cat([words, beside], dim=2), self._first(z))
        return _dropout(seen, self.dropout, dropping)

    def step(self, z: Tensor, previous: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = self._first(z) if state is None else state
        seen, state = self.recurrent(torch.cat([self.embedding(previous), z], dim=1).unsqueeze(1), state)
        return seen.squeeze(1), state


class TransformerGenerator(SequenceGenerator):
    """A small causal Transformer, with a linear map of z added to every position.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        vocabulary_size: number of tokens, the special tokens included.
        max_length: largest number of tokens in a sentence, ``<eos>`` included.
        width: number of features per position; ``heads`` must divide it.
        layers: number of layers, at least 1.
        heads: number of attention heads per layer.
        dropout: probability of dropout on word embeddings and features in training, in [0, 1).

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> import torch
        >>> from lebm.models import TransformerGenerator
        >>> generator = TransformerGenerator(latent_dim=4, vocabulary_size=50, max_length=12, width=32)
        >>> generator.features(torch.zeros(3, 4), torch.ones(3, 12, dtype=torch.int64)).shape
        torch.Size([3, 12, 32])
    """

    def __init__(
        self,
        latent_dim: int,
        vocabulary_size: int,
        max_length: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(latent_dim, vocabulary_size, max_length, width, dropout, layers=layers, heads=heads)
        if width % heads:
            raise ValueError(f"heads must divide width, but {heads} does not divide {width}")
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.position = nn.Embedding(max_length, width)
        self.latent = nn.Linear(latent_dim, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        for embedding in (self.embedding, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def features(self, z: Tensor, previous: Tensor, dropping: bool = False) -> Tensor:
        length = previous.shape[1]
        words = _dropout(self.embedding(previous) + self.position.weight[:length], self.dropout, dropping)
        ahead = torch.ones(length, length, dtype=torch.bool, device=z.device).triu(1)
        seen = self.body(words + self.latent(z).unsqueeze(1), mask=ahead, is_causal=True)
        return _dropout(seen, self.dropout, dropping)

    def step(self, z: Tensor, previous: Tensor, state: Any) -> tuple[Tensor, Any]:
        words = previous.unsqueeze(1) if state is None else torch.cat([state, previous.unsqueeze(1)], dim=1)
        return self.features(z, words)[:, -1], words
