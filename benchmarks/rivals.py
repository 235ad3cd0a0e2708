"""Rivals of lebm: the released training loops in plain PyTorch, and two libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lebm.models.sequence_generators import NEVER_WRITTEN
from lebm.models.text_likelihood import PAD, START

Variants = dict[str, Callable[[], object]]


def same_size(ours: nn.Module, plain: nn.Module) -> None:
    """Check that compared networks have equal sizes.

    Raises:
        AssertionError: if their numbers of parameters differ.
    """
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (ours, plain)]
    assert counts[0] == counts[1], f"the networks compared have {counts[0]:,} and {counts[1]:,} parameters"


def check_agreement(variants: Mapping[str, Callable[[], Tensor]]) -> None:
    """Check that compared chains agree: mean squares of their ends within five standard errors.

    Raises:
        ValueError: if a variant samples another density.
    """
    found = []
    for name, variant in variants.items():
        squares = torch.cat([variant().square().flatten(1).mean(dim=1) for _ in range(2)]).double()
        found.append((name, squares.mean().item(), squares.std().item() / math.sqrt(len(squares))))
    first, middle, error = found[0]
    for name, mean, spread in found[1:]:
        if abs(mean - middle) > 5 * math.hypot(error, spread):
            raise ValueError(f"{name} samples another chain: mean square {mean:.4f}, {first} {middle:.4f}")


def plain_energy(latent_dim: int, width: int = 200) -> nn.Module:
    hidden = [nn.Linear(latent_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(*hidden, nn.Linear(width, 1))


def plain_generator(latent_dim: int, out_shape: Sequence[int], channels: Sequence[int]) -> nn.Module:
    """Return transposed convolutions from a 1x1 latent image, with hidden ``channels``."""
    layers: list[nn.Module] = []
    start = out_shape[1] // 2 ** len(channels)
    for position, (inputs, outputs) in enumerate(pairwise([latent_dim, *channels, out_shape[0]])):
        kernel, stride, padding = (4, 2, 1) if position else (start, 1, 0)
        layers += [nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding), nn.LeakyReLU(0.2)]
    layers[-1] = nn.Tanh()
    return nn.Sequential(*layers)


class PublishedLoop:
    """Two short-run chains from N(0, I), then one Adam step for each network.

    As released, latents are ``(B, d, 1, 1)``, noise is drawn at every step, the gradients of likelihood and
    prior are separate calls, and gradient norms are computed at every step.
    """

    def __init__(
        self, generator: nn.Module, energy: nn.Module, sigma=0.3, posterior=(20, 0.1), prior=(60, 0.4)
    ) -> None:
        self.generator, self.energy, self.sigma = generator, energy, sigma
        self.posterior, self.prior = posterior, prior
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
            drift = 0.5 * size * size * (slope_g + slope_e + z.data)
            z.data = z.data - drift + size * torch.randn_like(z).data
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


class ReleasedTeaching:
    """One iteration of dual-MCMC teaching: both chains, then one step of each of three Adams.

    As in code that stays in training mode, every forward pass of the energy normalises its weights and runs a
    power iteration.
    """

    image_steps, latent_steps = 30, 10

    def __init__(self, energy: nn.Module, generator: nn.Module, encoder: nn.Module) -> None:
        self.energy, self.generator, self.encoder = energy, generator, encoder
        networks = (energy, generator, encoder)
        self.adams = [torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.0, 0.9)) for net in networks]

    def revise_images(self, x: Tensor, drift: float = 0.5, noise: float = 0.001) -> Tensor:
        x = x.clone().detach().requires_grad_(True)
        for _ in range(self.image_steps):
            slope = torch.autograd.grad(self.energy(x).sum(), x)[0]
            x.data = x.data - 0.5 * drift**2 * slope + noise * torch.randn_like(x).data
        return x.detach()

    def revise_latents(self, z: Tensor, x: Tensor) -> Tensor:
        z = z.clone().detach().requires_grad_(True)
        for _ in range(self.latent_steps):
            error = ((x - self.generator(z)) ** 2).sum() / 0.09
            slope = torch.autograd.grad(error, z)[0]
            z.data = z.data - 0.005 * (slope + z.data) + 0.1 * torch.randn_like(z).data
        return z.detach()

    def step(self, x: Tensor, latent_dim: int) -> None:
        z = torch.randn(len(x), latent_dim, device=x.device)
        generated = self.generator(z)
        revised = self.revise_images(generated)
        q = self.encoder(x)
        z_revised = self.revise_latents(q.mean + q.log_scale.exp() * torch.randn_like(q.mean), x)
        again = self.encoder(revised)
        error, distance = ((x - self.generator(z_revised)) ** 2).sum(), ((generated - revised) ** 2).sum()
        losses = (
            self.energy(x).mean() - self.energy(revised).mean(),
            (error + 50 * distance) / len(x),
            -q.log_prob(z_revised).mean() - 0.1 * again.log_prob(z).mean(),
        )
        for adam, loss in zip(self.adams, losses, strict=True):
            adam.zero_grad()
            loss.backward()
            adam.step()


class PlainText:
    """The latent-EBM loop on sentences with one LSTM call and one cross-entropy over all positions per step.

    Padded positions are ignored. ``network`` is a ``RecurrentGenerator`` of lebm, whose layers are used, and
    ``energy`` the tilt.
    """

    def __init__(self, network: nn.Module, energy: nn.Module, steps: int) -> None:
        self.network, self.energy, self.steps = network, energy, steps
        rates = {network: 1e-3, energy: 1e-4}
        self.adams = [
            torch.optim.Adam(part.parameters(), rate, betas=(0.5, 0.999)) for part, rate in rates.items()
        ]

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the density of lebm's likelihood, computed without it."""
        given = torch.cat([torch.full_like(x[:, :1], START), x[:, :-1]], dim=1)
        each = z.unsqueeze(1).expand(-1, x.shape[1], -1)
        hidden = self.network.start(z).unsqueeze(0)
        inputs = torch.cat([self.network.embedding(given), each], dim=2)
        seen, _ = self.network.recurrent(inputs, (hidden, torch.zeros_like(hidden)))
        logits, words = self.network.output(seen).flatten(0, 1), x.flatten() - NEVER_WRITTEN
        surprise = cross_entropy(logits, words, ignore_index=PAD - NEVER_WRITTEN, reduction="none")
        return -surprise.view(x.shape).sum(dim=1)

    def log_prior(self, z: Tensor) -> Tensor:
        return -self.energy(z) - 0.5 * z.square().sum(dim=1)

    def chain(self, log_density: Callable[[Tensor], Tensor], steps: int, z: Tensor) -> Tensor:
        for _ in range(steps):
            z = z.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(log_density(z).sum(), z)
            z = z + 0.5 * 0.5**2 * gradient + 0.5 * torch.randn_like(z)
        return z.detach()

    def step(self, x: Tensor, latent_dim: int) -> None:
        first, second = (torch.randn(len(x), latent_dim, device=x.device) for _ in range(2))
        positives = self.chain(lambda z: self.log_prob(x, z) + self.log_prior(z), self.steps, first)
        negatives = self.chain(self.log_prior, 40, second)
        for adam in self.adams:
            adam.zero_grad()
        (-self.log_prob(x, positives).mean()).backward()
        (self.energy(positives).mean() - self.energy(negatives).mean()).backward()
        for adam in self.adams:
            adam.step()


class Potential(nn.Module):
    """Minus the log-density of a chain, called the energy in other libraries."""

    def __init__(self, log_density: Callable[[Tensor], Tensor], *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.log_density = log_density

    def forward(self, z: Tensor) -> Tensor:
        return -self.log_density(z)


def peers(potential: Potential, size: float, steps: int, start: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the chain in the installed libraries, with steps ``size^2 / 2`` and noise ``sqrt(2 step)``."""
    found: dict[str, Callable[[], Tensor]] = {}
    with suppress(ImportError):
        from ebm.samplers import LangevinDynamics as EbmkitLangevin

        ebmkit = EbmkitLangevin(step_size=size**2 / 2, steps=steps)
        found["ebmkit"] = lambda: ebmkit.sample(potential, start)
    with suppress(ImportError):
        from torchebm.core import BaseModel
        from torchebm.samplers import LangevinDynamics as TorchebmLangevin

        class Wrapped(BaseModel):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.potential = potential

            def forward(self, x: Tensor) -> Tensor:
                return self.potential(x)

        torchebm = TorchebmLangevin(Wrapped(), step_size=size**2 / 2, noise_scale=1.0, device=start.device)
        found["torchebm"] = lambda: torchebm.sample(x=start, n_steps=steps)
    return found
