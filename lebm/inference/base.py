"""The interface of all kinds of inference of latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.models.encoders import DiagonalGaussian, GaussianEncoder
from lebm.samplers.noise import RandomSource


@dataclass(frozen=True)
class PosteriorChain:
    """The posterior chains of one batch of B rows.

    Attributes:
        run: function that returns the ends of the chains, ``(B, latent_dim)``, detached, given their starts
            ``(B, latent_dim)``, or ``None`` for samples of the reference, and a source of randomness.
        reference: function that draws samples of the reference, ``(B, latent_dim)``, given a source of
            randomness.

    Example:
        >>> import torch
        >>> from lebm.inference import PosteriorChain
        >>> reference = lambda noise: torch.zeros(4, 2)
        >>> run = lambda start, noise: (reference(noise) if start is None else start) + 1
        >>> PosteriorChain(run, reference).run(None, None).shape
        torch.Size([4, 2])
    """

    run: Callable[[Tensor | None, RandomSource], Tensor]
    reference: Callable[[RandomSource], Tensor]


@dataclass(frozen=True)
class Inferred:
    """Latents of a batch of data.

    Attributes:
        z: latents ``(B, latent_dim)``, detached unless there is a ``q``, whose encoder receives their
            gradients.
        q: density of ``z``, which the loss compares with the prior, or ``None``.
        teaching: scalar loss of the encoder alone, or ``None``.

    Example:
        >>> import torch
        >>> from lebm.inference import Inferred
        >>> Inferred(torch.zeros(2, 3)).q is None
        True
    """

    z: Tensor
    q: DiagonalGaussian | None = None
    teaching: Tensor | None = None

    def weighted(self, weight: float) -> Inferred:
        """Return the same values, with gradients to the encoder scaled by ``weight`` in [0, 1]."""
        if self.q is None or weight >= 1:
            return self
        q = DiagonalGaussian(_weighted(self.q.mean, weight), _weighted(self.q.log_scale, weight))
        return replace(self, z=_weighted(self.z, weight), q=q)


def _weighted(value: Tensor, weight: float) -> Tensor:
    return weight * value + (1 - weight) * value.detach()


class Inference(nn.Module, Component, ABC):
    """Base class of the inference of latents of data, in training and in queries.

    The model passes its posterior chain, so an inference works with every method. A subclass implements
    :meth:`infer`; with an encoder it calls ``super().__init__(encoder)``.

    Args:
        encoder: encoder ``q(z | x)``; ``None`` for an inference without an encoder.

    Attributes:
        runs_chain: whether latents are ends of the model's posterior chain.
        needs_encoder: whether a model makes an encoder for the inference if ``encoder`` is ``None``.

    Example:
        >>> from lebm.inference import Inference, Inferred
        >>> class FromReference(Inference):
        ...     def infer(self, x, index, posterior, noise):
        ...         return Inferred(posterior.run(None, noise))
        >>> FromReference().runs_chain
        True
    """

    encoder: GaussianEncoder | None
    runs_chain = True
    needs_encoder = False

    def __init__(self, encoder: GaussianEncoder | nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder  # type: ignore[assignment]  # a model adapts a plain module

    @abstractmethod
    def infer(
        self, x: Tensor, index: Tensor | None, posterior: PosteriorChain, noise: RandomSource
    ) -> Inferred:
        """Infer the latents of a training batch.

        Args:
            x: observations ``(B, *event)``.
            index: numbers of the rows in the training data, ``(B,)``; ``None`` if the batch has none.
            posterior: chains of the model's posterior given ``x``.
            noise: source of randomness.
        """

    def start(self, x: Tensor, noise: RandomSource) -> Tensor | None:
        """Draw starts ``(B, latent_dim)`` of chains from the encoder, detached; ``None`` without encoder."""
        if self.encoder is None:
            return None
        with torch.no_grad():
            return self.encoder(x).rsample(noise)
