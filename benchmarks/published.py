"""The published latent-EBM training loop, written anew in plain PyTorch: the alternative our figures are
ratios to.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["PublishedLoop", "plain_energy", "plain_generator", "same_size"]


def plain_energy(latent_dim: int, width: int = 200) -> nn.Module:
    layers = [
        nn.Linear(latent_dim, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, 1),
    ]
    return nn.Sequential(*layers)


def plain_generator(latent_dim: int, out_shape: Sequence[int], channels: Sequence[int]) -> nn.Module:
    """Transposed convolutions from a 1x1 latent image: 28 px as 7-14-28, 32 px as 4-8-16-32; ``channels`` are
    the hidden ones.
    """
    layers: list[nn.Module] = []
    start = out_shape[1] // 2 ** len(channels)
    for position, (inputs, outputs) in enumerate(pairwise([latent_dim, *channels, out_shape[0]])):
        kernel, stride, padding = (4, 2, 1) if position else (start, 1, 0)
        layers += [nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding), nn.LeakyReLU(0.2)]
    layers[-1] = nn.Tanh()
    return nn.Sequential(*layers)


def same_size(ours: nn.Module, plain: nn.Module) -> None:
    """Refuse to compare networks of different sizes.

    Raises:
        AssertionError: if their numbers of parameters differ.
    """
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (ours, plain)]
    assert counts[0] == counts[1], f"the networks compared have {counts[0]:,} and {counts[1]:,} parameters"


class PublishedLoop:
    """Two short-run chains from N(0, I), then one Adam step for each network.

    As released: latents are ``(B, d, 1, 1)``, noise is drawn at every step, the gradients of likelihood and
    prior are separate calls, and gradient norms are taken at every step."""

    def __init__(
        self, generator: nn.Module, energy: nn.Module, sigma=0.3, posterior=(20, 0.1), prior=(60, 0.4)
    ) -> None:
        self.generator, self.energy, self.sigma, self.posterior, self.prior = (
            generator,
            energy,
            sigma,
            posterior,
            prior,
        )
        self.adam_g = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.5, 0.999))
        self.adam_e = torch.optim.Adam(energy.parameters(), lr=2e-5, betas=(0.5, 0.999))

    def sample_prior(self, z: Tensor) -> Tensor:
        steps, size = self.prior
        z = z.clone().detach().requires_grad_(True)
        for _ in range(steps):
            slope = torch.autograd.grad(self.energy(z.flatten(1)).sum(), z)[0]
            z.data = z.data - 0.5 * size * size * (slope + z.data) + size * torch.randn_like(z).data
            slope.view(z.shape[0], -1).norm(dim=1).mean()
        return z.detach()

    def sample_posterior(self, z: Tensor, x: Tensor) -> Tensor:
        steps, size = self.posterior
        z = z.clone().detach().requires_grad_(True)
        for _ in range(steps):
            error = ((x - self.generator(z)) ** 2).sum() / (2 * self.sigma**2)
            slope_g = torch.autograd.grad(error, z)[0]
            slope_e = torch.autograd.grad(self.energy(z.flatten(1)).sum(), z)[0]
            z.data = (
                z.data - 0.5 * size * size * (slope_g + slope_e + z.data) + size * torch.randn_like(z).data
            )
            slope_g.view(z.shape[0], -1).norm(dim=1).mean()
            slope_e.view(z.shape[0], -1).norm(dim=1).mean()
        return z.detach()

    def step(self, x: Tensor, latent_dim: int) -> None:
        z_post = self.sample_posterior(torch.randn(len(x), latent_dim, 1, 1, device=x.device), x)
        z_prior = self.sample_prior(torch.randn(len(x), latent_dim, 1, 1, device=x.device))
        self.adam_g.zero_grad()
        (((x - self.generator(z_post)) ** 2).sum() / len(x)).backward()
        self.adam_g.step()
        self.adam_e.zero_grad()
        (self.energy(z_post.flatten(1)).mean() - self.energy(z_prior.flatten(1)).mean()).backward()
        self.adam_e.step()
