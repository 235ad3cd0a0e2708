"""An encoder of sentences, for the methods that use an inference network q(z | x)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lebm.models.encoders import GaussianEncoder
from lebm.models.text_vocabulary import PAD

__all__ = ["SentenceEncoder"]


class SentenceEncoder(GaussianEncoder):
    """A bidirectional GRU. A linear map of its two last states gives mean and log-variance.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        vocabulary_size: number of tokens, the special tokens included.
        max_length: largest number of tokens in a sentence.
        embedding: width of a word embedding.
        hidden: width of the state of each direction.

    Shapes: sentences are ``(B, T)`` of ``int64``, with T at most ``max_length``.

    Raises:
        ValueError: for a size below 1.

    Example:
        >>> import torch
        >>> from lebm.models import SentenceEncoder
        >>> encoder = SentenceEncoder(latent_dim=4, vocabulary_size=50, max_length=12)
        >>> encoder(torch.tensor([[5, 6, 3], [7, 3, 0]])).mean.shape
        torch.Size([2, 4])
    """

    def __init__(
        self, latent_dim: int, vocabulary_size: int, max_length: int, embedding: int = 128, hidden: int = 256
    ) -> None:
        super().__init__()
        if min(latent_dim, vocabulary_size, max_length, embedding, hidden) < 1:
            raise ValueError(
                "latent_dim, vocabulary_size, max_length, embedding and hidden must all be at least 1"
            )
        self.latent_dim = latent_dim
        self.in_shape = (max_length,)
        self.embedding = nn.Embedding(vocabulary_size, embedding, padding_idx=PAD)
        self.recurrent = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 2 * latent_dim)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lengths = (x != PAD).sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.embedding(x), lengths, batch_first=True, enforce_sorted=False)
        _, last = self.recurrent(packed)
        mean, log_variance = self.head(last.transpose(0, 1).flatten(1)).chunk(2, dim=1)
        return mean, log_variance
