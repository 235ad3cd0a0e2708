"""Two-dimensional and small targets whose moments are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor


@dataclass
class Target:
    """A log-density with functions whose expectation is known."""

    log_density: Callable[[Tensor], Tensor]
    dim: int
    features: Callable[[Tensor], Tensor]  # (n, d) -> (n, k)
    expected: Tensor  # (k,)
    exact: Callable[[int, torch.Generator], Tensor]


def gaussian() -> Target:
    """Full covariance, condition number about 19."""
    factor = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.3, 0.7]], dtype=torch.float64)
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    covariance = factor @ factor.T
    precision = covariance.inverse()

    def log_density(z: Tensor) -> Tensor:
        return -0.5 * torch.einsum("bi,ij,bj->b", z - mean.to(z), precision.to(z), z - mean.to(z))

    def features(z: Tensor) -> Tensor:
        return torch.cat([z, (z.unsqueeze(2) * z.unsqueeze(1)).flatten(1)], dim=1)

    expected = torch.cat([mean, (covariance + torch.outer(mean, mean)).flatten()])
    return Target(
        log_density,
        3,
        features,
        expected,
        lambda n, g: mean + torch.randn(n, 3, generator=g, dtype=torch.float64) @ factor.T,
    )


def mixture(distance: float = 1.5, weight: float = 0.3) -> Target:
    """Two unit Gaussians at -distance (with this weight) and +distance along the first of two axes."""

    def log_density(z: Tensor) -> Tensor:
        centre = torch.tensor([distance, 0.0]).to(z)
        left = math.log(weight) - 0.5 * (z + centre).square().sum(1)
        right = math.log(1 - weight) - 0.5 * (z - centre).square().sum(1)
        return torch.logaddexp(left, right)

    def exact(n: int, g: torch.Generator) -> Tensor:
        sign = torch.where(torch.rand(n, 1, generator=g, dtype=torch.float64) < weight, -1.0, 1.0)
        return torch.randn(n, 2, generator=g, dtype=torch.float64) + sign * torch.tensor([distance, 0.0])

    def features(z: Tensor) -> Tensor:
        return torch.cat([z, z.square(), z[:, :1] * z[:, 1:]], dim=1)

    expected = torch.tensor([(1 - 2 * weight) * distance, 0, 1 + distance**2, 1, 0], dtype=torch.float64)
    return Target(log_density, 2, features, expected, exact)


def banana(bend: float = 0.5) -> Target:
    """x ~ N(0, 1), y | x ~ N(bend (x^2 - 1), 1)."""

    def log_density(z: Tensor) -> Tensor:
        x, y = z[:, 0], z[:, 1]
        return -0.5 * x.square() - 0.5 * (y - bend * (x.square() - 1)).square()

    def exact(n: int, g: torch.Generator) -> Tensor:
        noise = torch.randn(n, 2, generator=g, dtype=torch.float64)
        return torch.stack([noise[:, 0], noise[:, 1] + bend * (noise[:, 0].square() - 1)], dim=1)

    def features(z: Tensor) -> Tensor:
        x, y = z[:, 0], z[:, 1]
        return torch.stack([x, y, x.square(), y.square(), x * y, x.square() * y], dim=1)

    expected = torch.tensor([0, 0, 1, 1 + 2 * bend**2, 0, 2 * bend], dtype=torch.float64)
    return Target(log_density, 2, features, expected, exact)


def funnel(scale: float = 1.0) -> Target:
    """Neal's funnel with one ray: v ~ N(0, scale^2), x | v ~ N(0, exp v)."""

    def log_density(z: Tensor) -> Tensor:
        v, x = z[:, 0], z[:, 1]
        return -0.5 * (v / scale).square() - 0.5 * x.square() * (-v).exp() - 0.5 * v

    def exact(n: int, g: torch.Generator) -> Tensor:
        noise = torch.randn(n, 2, generator=g, dtype=torch.float64)
        v = scale * noise[:, 0]
        return torch.stack([v, noise[:, 1] * (v / 2).exp()], dim=1)

    def features(z: Tensor) -> Tensor:
        v, x = z[:, 0], z[:, 1]
        return torch.stack([v, x, v.square(), x.abs(), v * x, (-x.square()).exp()], dim=1)

    spread = math.sqrt(2 / math.pi) * math.exp(scale**2 / 8)
    nodes, weights = (torch.from_numpy(part) for part in hermegauss(80))
    inside = (weights * (1 + 2 * (scale * nodes).exp()).rsqrt()).sum() / weights.sum()  # E exp(-x^2)
    expected = torch.tensor([0, 0, scale**2, spread, 0, float(inside)], dtype=torch.float64)
    return Target(log_density, 2, features, expected, exact)


TARGETS = {"gaussian": gaussian(), "mixture": mixture(), "banana": banana(), "funnel": funnel()}
