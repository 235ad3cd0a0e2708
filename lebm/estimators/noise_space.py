"""Chains that move the noise of a hierarchy instead of its latents, and chains that move some layers only."""

from __future__ import annotations

import torch
from torch import Tensor

from lebm.models.hierarchical_priors import GaussianHierarchy, HierarchicalPrior
from lebm.models.priors import Prior
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import RandomSource, normal
from lebm.samplers.targets import Masked

__all__ = ["ChainSpace", "NoiseSpace", "redraw"]


class ChainSpace:
    """The coordinates that chains of a hierarchical model move in: here the latents themselves.

    Args:
        prior: whose latents they are.
    """

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    @property
    def log_density(self) -> LogDensity:
        """The prior's unnormalised log-density in these coordinates."""
        return self.prior.log_density

    def reference(self, n: int, generator: RandomSource) -> Tensor:
        """``n`` starts of chains."""
        return self.prior.reference(n, generator)

    def latents(self, state: Tensor) -> Tensor:
        """Latents of coordinates."""
        return state

    def coordinates(self, z: Tensor) -> Tensor:
        """Coordinates of latents."""
        return z

    def posterior(self, log_likelihood: LogDensity) -> LogDensity:
        """The posterior's unnormalised log-density, given ``log p(x | z)`` as a function of the latents."""
        prior = self.log_density
        return lambda state: log_likelihood(self.latents(state)) + prior(state)


class NoiseSpace(ChainSpace):
    r"""The noise :math:`\epsilon` of a :class:`~lebm.models.GaussianHierarchy`: :math:`z_i = \mu_i(z_{>i}) + \sigma_i(z_{>i}) \epsilon_i`.

    Chains start at N(0, I), which are ancestral draws of the hierarchy, and all layers move on one scale, whatever the network
    made of them: for deep hierarchies a chain in the latents is hopeless.

    Args:
        prior: the tilted hierarchy.
        exact: see :meth:`~lebm.models.HierarchicalPrior.noise_log_density`.
    """

    prior: HierarchicalPrior

    def __init__(self, prior: HierarchicalPrior, exact: bool = True) -> None:
        super().__init__(prior)
        self.exact = exact

    @property
    def log_density(self) -> LogDensity:
        return self.prior.noise_log_density(self.exact)

    def reference(self, n: int, generator: RandomSource) -> Tensor:
        return self.prior.noise(n, generator)

    def latents(self, state: Tensor) -> Tensor:
        return self.prior.base.place(state)

    def coordinates(self, z: Tensor) -> Tensor:
        return self.prior.base.noise_of(z)


def redraw(
    space: ChainSpace, sampler: Sampler, z: Tensor, free: Tensor, generator: RandomSource = None, steps: int | None = None
) -> Tensor:
    """Draw some coordinates of latents anew from the prior, given the others.

    The chain starts from the reference given the frozen layers above. In noise space it is the *noise* of the other layers that is
    held, so that latents below a redrawn layer follow it. Without an energy the start is exact already if all of the lowest
    layers, and no others, are redrawn; then no chain is run.

    Args:
        space: coordinates of the chain.
        sampler: its kernel.
        z: ``(B, latent_dim)``.
        free: ``(latent_dim,)`` of ``bool``, what is redrawn.
        generator: source of randomness.
        steps: length of the chain.
    """
    if not bool(free.any()):
        return z
    free = free.to(z.device)
    start = _fresh(space, z, free, generator)
    if space.prior.is_exact and (not isinstance(space.prior, GaussianHierarchy) or not bool(free.long().diff().gt(0).any())):
        return start if not isinstance(space, NoiseSpace) else space.latents(start)
    if bool(free.all()):
        return space.latents(sampler(space.log_density, start, generator, steps=steps))
    masked = Masked(sampler, (~free).tolist()).to(z.device)
    return space.latents(masked(space.log_density, start, generator, steps=steps))


def _fresh(space: ChainSpace, z: Tensor, free: Tensor, generator: RandomSource) -> Tensor:
    """Coordinates of ``z`` with the free ones replaced by a draw of the reference given what is frozen above them."""
    noise = normal(generator, z.shape, dtype=z.dtype, device=z.device)
    base = getattr(space.prior, "base", space.prior)
    if not isinstance(base, GaussianHierarchy):
        return torch.where(free, noise, z)
    with torch.no_grad():
        mixed = torch.where(free, noise, base.noise_of(z))
        if isinstance(space, NoiseSpace):
            return mixed
        return torch.where(free, base.place(mixed), z)
