"""A latent EBM whose everything is known: linear generator, quadratic energy, Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.models import Energy, Generator


class LinearGenerator(Generator):
    """``x = W z``, without bias, so that only the prior can move the mean."""

    def __init__(self, latent_dim: int, size: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.out_shape = (size,)
        self.linear = nn.Linear(latent_dim, size, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z)


class QuadraticEnergy(Energy, Component):
    """``E(z) = z'Az / 2 - a'z``, so the tilted standard normal is ``N((I + A)^-1 a, (I + A)^-1)``."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.matrix = nn.Parameter(torch.zeros(latent_dim, latent_dim))
        self.vector = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 * ((z @ self.matrix) * z).sum(1) - z @ self.vector

    def prior(self) -> tuple[Tensor, Tensor]:
        """Mean ``(d,)`` and covariance ``(d, d)`` of the tilted prior."""
        symmetric = 0.5 * (self.matrix + self.matrix.T)
        covariance = torch.linalg.inv(torch.eye(self.latent_dim).to(symmetric) + symmetric)
        return covariance @ self.vector, covariance


def marginal(
    weight: Tensor, sigma: float, mean: Tensor, covariance: Tensor
) -> torch.distributions.MultivariateNormal:
    """The exact density of ``x`` under ``z ~ N(mean, covariance)``, ``x = W z + N(0, sigma^2)``."""
    noise = sigma**2 * torch.eye(weight.shape[0]).to(weight)
    return torch.distributions.MultivariateNormal(weight @ mean, weight @ covariance @ weight.T + noise)


def posterior(
    x: Tensor, weight: Tensor, sigma: float, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Means ``(B, d)`` and the shared covariance ``(d, d)`` of ``z`` given ``x``."""
    precision = torch.linalg.inv(covariance)
    shared = torch.linalg.inv(precision + weight.T @ weight / sigma**2)
    return (x @ weight / sigma**2 + precision @ mean) @ shared, shared
