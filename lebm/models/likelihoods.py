"""Observation models: densities of the data around the output of a generator."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.errors import UserError
from lebm.models.frozen import frozen
from lebm.models.generators import Generator
from lebm.samplers.noise import RandomSource, normal


class Likelihood(nn.Module, Component, ABC):
    """Base class of the likelihoods ``p(x | z)``.

    A subclass sets ``generator``, the network, and ``latent_dim``, its number of latent coordinates.

    Example:
        >>> import torch
        >>> from lebm.models import GaussianLikelihood, Likelihood, MLPGenerator
        >>> likelihood: Likelihood = GaussianLikelihood(MLPGenerator(latent_dim=4, out_shape=[1, 8, 8]))
        >>> x, z = torch.zeros(3, 1, 8, 8), torch.zeros(3, 4)
        >>> log_density = likelihood.given(x)
        >>> torch.equal(log_density(z), likelihood.log_prob(x, z))
        True
    """

    generator: nn.Module
    latent_dim: int

    @abstractmethod
    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the normalised ``log p(x | z)`` of each sample in nats, ``(B,)``."""

    @abstractmethod
    def mean(self, z: Tensor) -> Tensor:
        """Return the mean of the observation, or the most likely observation, ``(B, *x)``."""

    def given(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return :meth:`log_prob` of the observations ``x`` as a function of ``z``, for chains.

        A subclass may override it to do work that does not depend on ``z`` only once.
        """
        return lambda z: self.log_prob(x, z)

    def training_log_prob(self, x: Tensor, z: Tensor, generator: RandomSource = None) -> Tensor:
        """Return the log-probability that training maximises, ``(B,)``.

        It is :meth:`log_prob`, unless the likelihood perturbs its input in training with ``generator``.
        """
        return self.log_prob(x, z)

    def draw(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        """Return the observation that a sample of the model shows, ``(B, *x)``.

        It is :meth:`mean`, or drawn with ``generator`` if a mean is not meaningful, as for sentences.
        """
        return self.mean(z)


class GaussianLikelihood(Likelihood):
    """The model ``x = g(z) + N(0, sigma^2 I)``, with images in [-1, 1] (Pang et al. 2020, eq. 5).

    Args:
        generator: the network ``g``, ``(B, d) -> (B, C, H, W)`` or ``(B, D)``; any ``nn.Module``.
        sigma: standard deviation of the observation noise in the units of ``x``, positive (released: 0.3).
        latent_dim: number of latent coordinates ``d``, required if the generator has no attribute
            ``latent_dim``.

    Raises:
        ValueError: if ``sigma`` is not positive, or ``latent_dim`` is not known.

    Example:
        >>> import torch
        >>> from lebm.models import GaussianLikelihood, IdentityGenerator
        >>> likelihood = GaussianLikelihood(IdentityGenerator(latent_dim=2), sigma=1.0)
        >>> x, z = torch.tensor([[1.0, 1.0]]), torch.zeros(1, 2)
        >>> likelihood.log_prob(x, z), likelihood.mean(z)
        (tensor([-2.8379]), tensor([[0., 0.]]))
    """

    def __init__(
        self, generator: Generator | nn.Module, sigma: float = 0.3, latent_dim: int | None = None
    ) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, not {sigma}")
        self.generator = generator
        self.sigma = float(sigma)
        dim = getattr(generator, "latent_dim", latent_dim)
        if dim is None:
            raise ValueError(
                f"the generator, {type(generator).__name__}, has no attribute latent_dim; give"
                " GaussianLikelihood a latent_dim"
            )
        self.latent_dim = dim

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one observation, measured by a pass if the generator has no ``out_shape``."""
        shape = getattr(self.generator, "out_shape", None)
        with torch.no_grad(), frozen(self.generator):
            like = next(self.generator.parameters(), torch.zeros(()))
            return tuple(shape or self.generator(like.new_zeros(1, self.latent_dim)).shape[1:])

    def mean(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return self.log_prob_around(x, self.generator(z))

    def log_prob_around(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return ``log p(x | z)`` for a known output ``mean = g(z)`` of the generator, ``(B,)``."""
        if x.shape[1:] != mean.shape[1:]:  # which could broadcast
            shapes = f"{tuple(mean.shape[1:])}, but x has rows of shape {tuple(x.shape[1:])}"
            raise UserError(f"the generator gives observations of shape {shapes}")
        error = (x - mean).flatten(1).square().sum(dim=1)
        return -error / (2 * self.sigma**2) - self.log_normaliser(x[0].numel())

    def log_normaliser(self, size: int) -> float:
        """Return ``D/2 log(2 pi sigma^2)`` in nats, for observations of ``D = size`` numbers."""
        return 0.5 * size * math.log(2 * math.pi * self.sigma**2)

    def squared_error(self, nll: Tensor, size: int) -> Tensor:
        """Return ``|x - g(z)|^2`` from ``nll`` in nats, for observations of ``size`` numbers."""
        return (nll - self.log_normaliser(size)) * (2 * self.sigma**2)

    def sample(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        """Draw from ``p(x | z)``, noise included, ``(B, *x)``."""
        mean = self.generator(z)
        return mean + self.sigma * normal(generator, mean.shape, dtype=mean.dtype, device=mean.device)
