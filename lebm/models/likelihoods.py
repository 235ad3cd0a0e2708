"""Observation models: how a generator's output becomes a density of the data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from lebm.component import Component
from lebm.models.generators import Generator
from lebm.samplers.noise import RandomSource, normal

__all__ = ["GaussianLikelihood", "Likelihood"]


class Likelihood(nn.Module, Component, ABC):
    """``p(x | z)`` with a generator inside."""

    generator: nn.Module
    latent_dim: int

    @abstractmethod
    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Normalised ``log p(x | z)`` a sample, shape ``(B,)``."""

    @abstractmethod
    def mean(self, z: Tensor) -> Tensor:
        """The most likely or mean observation, shape ``(B, *x)``."""

    def given(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """:meth:`log_prob` of these observations as a function of ``z``, for chains: what ``z`` does not
        change is done once.
        """
        return lambda z: self.log_prob(x, z)

    def training_log_prob(self, x: Tensor, z: Tensor, generator: RandomSource = None) -> Tensor:
        """What training raises, shape ``(B,)``: :meth:`log_prob`, unless a likelihood is perturbed in
        training.
        """
        return self.log_prob(x, z)

    def draw(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        """What a sample of the model shows, shape ``(B, *x)``: the mean, unless a mean says nothing, as for
        sentences.
        """
        return self.mean(z)


class GaussianLikelihood(Likelihood):
    """``x = g(z) + N(0, sigma^2 I)``, images in [-1, 1] (Pang et al. 2020, eq. 5).

    Args:
        generator: the network ``g``, ``(B, d) -> (B, C, H, W)`` or ``(B, D)``.
        sigma: standard deviation of the observation noise, in the units of ``x``; positive. 0.3 in the
            released scripts.
    """

    def __init__(self, generator: Generator, sigma: float = 0.3) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, not {sigma}")
        self.generator = generator
        self.sigma = float(sigma)
        self.latent_dim = generator.latent_dim

    def mean(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return self.log_prob_around(x, self.generator(z))

    def log_prob_around(self, x: Tensor, mean: Tensor) -> Tensor:
        """``log p(x | z)`` where the generator's output ``mean = g(z)`` is known already, shape ``(B,)``."""
        error = (x - mean).flatten(1).square().sum(dim=1)
        return -error / (2 * self.sigma**2) - self.log_normaliser(x[0].numel())

    def log_normaliser(self, size: int) -> float:
        """``D/2 log(2 pi sigma^2)`` for observations of ``size`` numbers."""
        return 0.5 * size * math.log(2 * math.pi * self.sigma**2)

    def squared_error(self, nll: Tensor, size: int) -> Tensor:
        """What a negative log-likelihood of ``size`` numbers stands for: ``|x - g(z)|^2``, without scale and
        constant.
        """
        return (nll - self.log_normaliser(size)) * (2 * self.sigma**2)

    def sample(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        """A draw from ``p(x | z)``, noise included."""
        mean = self.generator(z)
        return mean + self.sigma * normal(generator, mean.shape, dtype=mean.dtype, device=mean.device)
