"""Three ways from a batch of data to latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lebm.models.encoders import DiagonalGaussian, GaussianEncoder
from lebm.samplers.base import Sampler
from lebm.samplers.noise import RandomSource

__all__ = ["Frozen", "Inference", "Inferred", "PosteriorDraw", "ShortRun", "Variational"]

PosteriorDraw = Callable[[Sampler, RandomSource], Tensor]
"""Ends of posterior chains of a batch, ``(B, d)``, detached: a given sampler starts at the reference."""


@dataclass(frozen=True)
class Inferred:
    """Latents of a batch of data.

    Attributes:
        z: ``(B, d)``. Gradients flow through it to the encoder if there is ``q``; otherwise it is detached.
        q: the density that ``z`` is a draw of, which the loss then compares with the prior; or ``None``.
    """

    z: Tensor
    q: DiagonalGaussian | None = None

    def weighted(self, weight: float) -> Inferred:
        """The same values, of whose gradient only the part ``weight`` in [0, 1] goes on to the encoder."""
        if self.q is None or weight >= 1:
            return self
        q = DiagonalGaussian(_weighted(self.q.mean, weight), _weighted(self.q.log_scale, weight))
        return replace(self, z=_weighted(self.z, weight), q=q)


def _weighted(value: Tensor, weight: float) -> Tensor:
    return weight * value + (1 - weight) * value.detach()


class Inference(ABC):
    """Where the latents of data come from in training."""

    @abstractmethod
    def infer(self, x: Tensor, posterior: PosteriorDraw, noise: RandomSource) -> Inferred:
        """Latents of a batch.

        Args:
            x: ``(B, *event)``.
            posterior: runs chains of the model's posterior given ``x``.
            noise: of these draws.
        """


class ShortRun(Inference):
    """The end of a short posterior chain that starts at the reference, detached (Pang et al. 2020, eq. 8).

    Args:
        sampler: the chain.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def infer(self, x: Tensor, posterior: PosteriorDraw, noise: RandomSource) -> Inferred:
        return Inferred(posterior(self.sampler, noise))


class Variational(Inference):
    """A reparameterised draw of an encoder (Kingma & Welling 2014), through which the encoder learns.

    Args:
        encoder: ``q(z | x)``.
    """

    def __init__(self, encoder: GaussianEncoder) -> None:
        self.encoder = encoder

    def infer(self, x: Tensor, posterior: PosteriorDraw, noise: RandomSource) -> Inferred:
        q = self.encoder(x)
        return Inferred(q.rsample(noise), q)


class Frozen(Inference):
    """A draw of an encoder that was trained before, detached.

    Args:
        encoder: ``q(z | x)``, or whatever answers a batch with an object that has ``rsample(generator)``.
    """

    def __init__(self, encoder: GaussianEncoder) -> None:
        self.encoder = encoder

    def infer(self, x: Tensor, posterior: PosteriorDraw, noise: RandomSource) -> Inferred:
        with torch.no_grad():
            return Inferred(self.encoder(x).rsample(noise))
