"""What every kind of inference answers: where the latents of data come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.models.encoders import DiagonalGaussian, GaussianEncoder
from lebm.samplers.noise import RandomSource

__all__ = ["Inference", "Inferred", "PosteriorChain"]


@dataclass(frozen=True)
class PosteriorChain:
    """The posterior chains of one batch of B rows.

    Attributes:
        run: the ends of the chains, ``(B, latent_dim)``, detached. It takes the latents ``(B, latent_dim)``
            where they start, or ``None`` for draws of the reference, and a source of randomness.
        reference: draws of the reference ``(B, latent_dim)`` from a source of randomness.

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
        z: ``(B, latent_dim)``. Gradients flow through it to the encoder if there is ``q``. Otherwise it is
            detached.
        q: the density that ``z`` is a draw of. The loss then compares it with the prior. Otherwise ``None``.
        teaching: a scalar loss that only the encoder learns from, or ``None``.

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
        """The same values, of whose gradient only the part ``weight`` in [0, 1] goes on to the encoder."""
        if self.q is None or weight >= 1:
            return self
        q = DiagonalGaussian(_weighted(self.q.mean, weight), _weighted(self.q.log_scale, weight))
        return replace(self, z=_weighted(self.z, weight), q=q)


def _weighted(value: Tensor, weight: float) -> Tensor:
    return weight * value + (1 - weight) * value.detach()


class Inference(nn.Module, Component, ABC):
    """Where the latents of data come from, in training and in every answer of a model.

    A model hands over its posterior chain, and so one part serves every method. A derived class writes
    :meth:`infer`; a part with an encoder calls ``super().__init__(encoder)``.

    Args:
        encoder: ``q(z | x)``; ``None`` for a part without one.

    Attributes:
        runs_chain: whether the latents are ends of the model's posterior chain.
        needs_encoder: whether a model must make an encoder for it where none is given.

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
        """Latents of a training batch.

        Args:
            x: ``(B, *event)``.
            index: numbers of the rows in the training data, ``(B,)``; ``None`` if the batch has none.
            posterior: runs chains of the model's posterior given ``x``.
            noise: source of randomness of these draws.
        """

    def start(self, x: Tensor, noise: RandomSource) -> Tensor | None:
        """Latents ``(B, latent_dim)`` where the answers' chains start: draws of the encoder, detached, or
        ``None`` for the reference.
        """
        if self.encoder is None:
            return None
        with torch.no_grad():
            return self.encoder(x).rsample(noise)
