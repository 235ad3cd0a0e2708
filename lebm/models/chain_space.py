"""Coordinates of a chain: latents, or the noise of a hierarchy; all layers, or some of them."""

from typing import Any

import torch
from torch import Tensor, nn

from lebm.models.hierarchical import LatentLayout
from lebm.models.hierarchical_priors import GaussianHierarchy, HierarchicalPrior
from lebm.models.layers import check_choice, check_sizes
from lebm.models.priors import Prior
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import RandomSource, normal
from lebm.samplers.targets import Masked


class ChainSpace:
    """The coordinates in which the chains of a hierarchical model move; here the latents themselves."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def target(self) -> LogDensity:
        """Return the unnormalised log-density of the prior in these coordinates."""
        return self.prior.target()

    def reference(self, n: int, generator: RandomSource) -> Tensor:
        """Draw ``n`` starts of chains in these coordinates, ``(n, latent_dim)``."""
        return self.prior.reference(n, generator)

    def latents(self, state: Tensor) -> Tensor:
        """Map coordinates to latents, both ``(B, latent_dim)``."""
        return state

    def coordinates(self, z: Tensor) -> Tensor:
        """Map latents to coordinates, both ``(B, latent_dim)``."""
        return z

    def posterior(self, log_likelihood: LogDensity) -> LogDensity:
        """Return the unnormalised log-density of the posterior in these coordinates.

        ``log_likelihood`` is ``log p(x | z)`` as a function of the latents, ``(B, latent_dim) -> (B,)``.
        """
        prior = self.target()
        return lambda state: log_likelihood(self.latents(state)) + prior(state)


class NoiseSpace(ChainSpace):
    r"""The noise :math:`\epsilon` of a :class:`~lebm.models.GaussianHierarchy`.

    The latents are :math:`z_i = \mu_i(z_{>i}) + \sigma_i(z_{>i}) \epsilon_i`. Chains start at N(0, I), which
    is an exact sample of the hierarchy. All layers have the same scale in noise, so chains mix in deep
    hierarchies, in which chains on the latents do not. ``exact`` is the argument of
    :meth:`~lebm.models.HierarchicalPrior.noise_log_density`.
    """

    prior: HierarchicalPrior

    def __init__(self, prior: HierarchicalPrior, exact: bool = True) -> None:
        super().__init__(prior)
        self.exact = exact

    def target(self) -> LogDensity:
        return self.prior.noise_log_density(self.exact)

    def reference(self, n: int, generator: RandomSource) -> Tensor:
        return self.prior.noise(n, generator)

    def latents(self, state: Tensor) -> Tensor:
        return self.prior.base.place(state)

    def coordinates(self, z: Tensor) -> Tensor:
        return self.prior.base.noise_of(z)


def redraw(
    space: ChainSpace,
    sampler: Sampler,
    z: Tensor,
    free: Tensor,
    generator: RandomSource = None,
    steps: int | None = None,
) -> Tensor:
    """Draw some coordinates of latents again from the prior, given the other coordinates.

    The chain starts from the reference, given the fixed layers above. In noise space the *noise* of the other
    layers is fixed, so the latents below a redrawn layer change with it. Without an energy no chain runs if
    the start is an exact sample: if the layers are independent or the free layers are the lowest ones.

    ``z`` and the result are latents ``(B, latent_dim)``; ``free``, ``(latent_dim,)`` of ``bool``, is true for
    the coordinates to draw again. The chain has the length of the sampler if ``steps`` is ``None``.
    """
    if not bool(free.any()):
        return z
    free = free.to(z.device)
    base, everything = getattr(space.prior, "base", space.prior), bool(free.all())
    if isinstance(base, GaussianHierarchy):
        lowest = not bool(free.long().diff().gt(0).any())
        noise = normal(generator, z.shape, dtype=z.dtype, device=z.device)
        with torch.no_grad():
            start = torch.where(free, noise, base.noise_of(z))
            if not isinstance(space, NoiseSpace):
                start = torch.where(free, base.place(start), z)
    else:  # the layers of a base without conditionals, such as a mixture, depend on each other
        lowest = everything or base.conditionals(z) is not None
        start = torch.where(free, base.reference(len(z), generator).detach().to(z), z)
    if space.prior.is_exact and lowest:
        return space.latents(start)
    if not everything:
        sampler = Masked(sampler, (~free).tolist()).to(z.device)
    return space.latents(sampler(space.target(), start, generator, steps=steps))


def chain_space(prior: Prior, space: str, noise_target: str) -> ChainSpace:
    """Return the space named ``space``, which is ``"latent"`` or ``"noise"``.

    ``noise_target`` is ``"exact"`` or ``"released"``, see
    :meth:`~lebm.models.HierarchicalPrior.noise_log_density`.

    Raises:
        ValueError: for an unknown name, or a prior without this space.
    """
    check_choice("space", space, ("latent", "noise"))
    check_choice("noise_target", noise_target, ("exact", "released"))
    if space == "noise":
        if not isinstance(prior, HierarchicalPrior):
            raise ValueError("space 'noise' needs a HierarchicalPrior; use space 'latent'")
        return NoiseSpace(prior, noise_target == "exact")
    if noise_target == "released":
        raise ValueError("noise_target 'released' requires space 'noise'")
    return ChainSpace(prior)


def common_layout(prior: Prior, *parts: nn.Module | None) -> LatentLayout:
    """Return the layers on which a prior and other parts agree; a single layer if no part has layers.

    Raises:
        ValueError: if they do not agree.
    """
    every: list[Any] = [prior, *parts]
    layouts = [part.layout for part in every if hasattr(part, "layout")]
    layout = layouts[0] if layouts else LatentLayout([prior.latent_dim])
    others = [other.sizes for other in layouts if other.sizes != layout.sizes]
    if others:
        raise ValueError(f"prior, encoder and generator disagree on the layers: {layout.sizes}, {others[0]}")
    check_sizes(f"the layers {layout.sizes} hold", layout.latent_dim, "the prior has", prior.latent_dim)
    return layout
