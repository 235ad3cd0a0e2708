"""Encoders: networks from data to a diagonal Gaussian over the latents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lebm.component import Component
from lebm.models.layers import activation_layer, check_square, initialize, mlp
from lebm.models.text_likelihood import PAD
from lebm.samplers.noise import RandomSource, normal


@dataclass(frozen=True)
class DiagonalGaussian:
    """The normalised density ``N(mean, diag(exp(log_scale))^2)``, one Gaussian per row.

    Attributes:
        mean: means, ``(B, d)``.
        log_scale: logarithms of the standard deviations, ``(B, d)``.

    Example:
        >>> import torch
        >>> from lebm.models import DiagonalGaussian
        >>> q = DiagonalGaussian(mean=torch.ones(1, 2), log_scale=torch.zeros(1, 2))
        >>> q.divergences(DiagonalGaussian(torch.zeros(1, 2), torch.zeros(1, 2)))  # from N(0, I)
        tensor([[0.5000, 0.5000]])
        >>> q.rsample(torch.Generator().manual_seed(0)).shape
        torch.Size([1, 2])
    """

    mean: Tensor
    log_scale: Tensor

    def rsample(self, generator: RandomSource = None) -> Tensor:
        """Draw one reparameterised sample per row, ``(B, d)``: gradients reach mean and scale."""
        noise = normal(generator, self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + self.log_scale.exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density of ``z: (B, d)`` in nats, ``(B,)``."""
        error = (z - self.mean) * (-self.log_scale).exp()
        return (-0.5 * error.square() - self.log_scale - 0.5 * math.log(2 * math.pi)).sum(dim=1)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, ``(B,)``."""
        return (self.log_scale + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=1)

    def divergences(self, other: DiagonalGaussian) -> Tensor:
        """Return ``KL(self || other)`` of each coordinate in nats, in closed form, ``(B, d)``."""
        gap = other.log_scale - self.log_scale
        shift = (self.mean - other.mean) * (-other.log_scale).exp()
        return gap + 0.5 * ((-2 * gap).exp() + shift.square() - 1)


class GaussianEncoder(nn.Module, Component, ABC):
    """Base class of the encoders: ``encoder(x: (B, *in_shape))`` is a :class:`DiagonalGaussian`.

    The Gaussian has the shape ``(B, latent_dim)``. A subclass sets ``latent_dim`` and ``in_shape`` and
    implements :meth:`features`.

    Example:
        >>> import torch
        >>> from lebm.models import GaussianEncoder
        >>> class Half(GaussianEncoder):
        ...     latent_dim, in_shape = 2, (2,)
        ...     def features(self, x):
        ...         return 0.5 * x, torch.zeros_like(x)
        >>> Half()(torch.ones(1, 2)).mean
        tensor([[0.5000, 0.5000]])
    """

    latent_dim: int
    in_shape: tuple[int, ...]

    @abstractmethod
    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the latents of ``x``, each ``(B, latent_dim)``."""

    def forward(self, x: Tensor) -> DiagonalGaussian:
        return self._posterior(*self.features(x))

    def _posterior(self, mean: Tensor, log_variance: Tensor) -> DiagonalGaussian:
        """Return the Gaussian, under autocast in single precision, which the readers of latents expect."""
        half = mean.dtype in (torch.bfloat16, torch.float16)
        if half and torch.is_autocast_enabled(mean.device.type):
            mean, log_variance = mean.float(), log_variance.float()
        return DiagonalGaussian(mean, 0.5 * log_variance)


class MLPEncoder(GaussianEncoder):
    """A fully connected encoder, the mirror of :class:`~lebm.models.MLPGenerator`.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        in_shape: shape of one observation, for example ``[1, 28, 28]``.
        hidden: widths of the hidden layers.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.

    Raises:
        ValueError: for a width below 1 or an unknown activation.

    Example:
        >>> import torch
        >>> from lebm.models import MLPEncoder
        >>> encoder = MLPEncoder(latent_dim=16, in_shape=[1, 28, 28], hidden=[64])
        >>> encoder(torch.zeros(5, 1, 28, 28)).mean.shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        latent_dim: int,
        in_shape: Sequence[int],
        hidden: Sequence[int] = (400, 400),
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.in_shape = tuple(in_shape)
        self.net = mlp([math.prod(in_shape), *hidden, 2 * latent_dim], activation)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x.flatten(1)).chunk(2, dim=1)


class ConvEncoder(GaussianEncoder):
    """A convolutional encoder without normalisation (Cui and Han, NeurIPS 2023, released networks).

    It is the mirror of :class:`~lebm.models.ConvGenerator`. Every layer halves the size (kernel 4, stride 2),
    down to ``end``. The first layer keeps the size (kernel 3) if the other layers are enough to reach
    ``end``. Two convolutions over the whole remaining image give mean and log-variance. The recipes of
    ``dual_mcmc`` have the released sizes.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        in_shape: channels, height and width of an image; height and width must be equal.
        channels: output channels of the layers before the two last convolutions.
        end: height and width of the input of the two last convolutions.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.
        bias: whether the convolutions of the body have biases (the released ones do not).
        head_bias: whether the two last convolutions have biases (the released ones do); ``bias`` if ``None``.
        initialization: ``"xavier_conv"``, Xavier-normal weights of the convolutions (released), or
            ``"default"`` (PyTorch's).

    Raises:
        ValueError: if the layers do not lead from the size of the image to ``end``, for a width below 1, or
            for an unknown name.

    Example:
        >>> import torch
        >>> from lebm.models import ConvEncoder
        >>> encoder = ConvEncoder(latent_dim=16, in_shape=[3, 32, 32], channels=[8, 16, 32], end=4)
        >>> encoder(torch.zeros(5, 3, 32, 32)).log_scale.shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        latent_dim: int,
        in_shape: Sequence[int],
        channels: Sequence[int],
        end: int = 4,
        activation: str = "leaky_relu",
        bias: bool = False,
        head_bias: bool | None = None,
        initialization: str = "xavier_conv",
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.in_shape = tuple(in_shape)
        halving = check_square("in_shape", in_shape, channels, latent_dim, "end", end) == 2
        self.net = nn.Sequential()
        for position, (before, after) in enumerate(pairwise([in_shape[0], *channels])):
            shape = (4, 2, 1) if position or halving else (3, 1, 1)
            self.net.append(nn.Conv2d(before, after, *shape, bias=bias))
            self.net.append(activation_layer(activation, inplace=True))
        head_bias = bias if head_bias is None else head_bias
        self.mean = nn.Conv2d(channels[-1], latent_dim, end, bias=head_bias)
        self.log_variance = nn.Conv2d(channels[-1], latent_dim, end, bias=head_bias)
        initialize(self, initialization)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.net(x.contiguous(memory_format=torch.channels_last))
        return self.mean(seen).flatten(1), self.log_variance(seen).flatten(1)


class SentenceEncoder(GaussianEncoder):
    """A bidirectional GRU whose two last states give mean and log-variance by a linear map.

    Args:
        latent_dim: number of latent coordinates, at least 1.
        vocabulary_size: number of tokens, the special tokens included.
        max_length: largest number of tokens in a sentence.
        embedding: width of the word embeddings.
        hidden: width of the recurrent state in each direction.

    Sentences have the shape ``(B, T)``, ``int64``, with T at most ``max_length``.

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
        self.latent_dim = latent_dim
        self.in_shape = (max_length,)
        self.embedding = nn.Embedding(vocabulary_size, embedding, padding_idx=PAD)
        self.recurrent = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 2 * latent_dim)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lengths = (x != PAD).sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.embedding(x), lengths, batch_first=True, enforce_sorted=False)
        _, last = self.recurrent(packed)
        return self.head(last.transpose(0, 1).flatten(1)).chunk(2, dim=1)
