"""Chains that move the noise of a hierarchy instead of its latents, and chains that move some layers only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lebm.models.hierarchical import LatentLayout
from lebm.models.hierarchical_priors import GaussianHierarchy, HierarchicalPrior
from lebm.models.priors import Prior
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import RandomSource, normal
from lebm.samplers.targets import Masked

__all__ = ["ChainSpace", "NoiseSpace", "chain_space", "check_choice", "common_layout", "redraw"]


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
    r"""The noise :math:`\epsilon` of a :class:`~lebm.models.GaussianHierarchy`: :math:`z_i = \mu_i(z_{>i}) +
    \sigma_i(z_{>i}) \epsilon_i`.

    Chains start at N(0, I), which are ancestral draws of the hierarchy, and all layers move on one scale,
    whatever the network made of them: for deep hierarchies a chain in the latents is hopeless.

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
    space: ChainSpace,
    sampler: Sampler,
    z: Tensor,
    free: Tensor,
    generator: RandomSource = None,
    steps: int | None = None,
) -> Tensor:
    """Draw some coordinates of latents anew from the prior, given the others.

    The chain starts from the reference given the frozen layers above. In noise space it is the *noise* of the
    other layers that is held, so that latents below a redrawn layer follow it. Without an energy the start is
    exact already if all of the lowest layers, and no others, are redrawn; then no chain is run.

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
    if space.prior.is_exact and (
        not isinstance(space.prior, GaussianHierarchy) or not bool(free.long().diff().gt(0).any())
    ):
        return start if not isinstance(space, NoiseSpace) else space.latents(start)
    if bool(free.all()):
        return space.latents(sampler(space.log_density, start, generator, steps=steps))
    masked = Masked(sampler, (~free).tolist()).to(z.device)
    return space.latents(masked(space.log_density, start, generator, steps=steps))


def _fresh(space: ChainSpace, z: Tensor, free: Tensor, generator: RandomSource) -> Tensor:
    """Coordinates of ``z`` with the free ones replaced by a draw of the reference given what is frozen above
    them.
    """
    noise = normal(generator, z.shape, dtype=z.dtype, device=z.device)
    base = getattr(space.prior, "base", space.prior)
    if not isinstance(base, GaussianHierarchy):
        return torch.where(free, noise, z)
    with torch.no_grad():
        mixed = torch.where(free, noise, base.noise_of(z))
        if isinstance(space, NoiseSpace):
            return mixed
        return torch.where(free, base.place(mixed), z)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse an argument that is none of its choices.

    Raises:
        ValueError: naming them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def chain_space(prior: Prior, space: str, noise_target: str) -> ChainSpace:
    """The space of that name, ``"latent"`` or ``"noise"``.

    Raises:
        ValueError: for another name, or a prior without that space.
    """
    check_choice("space", space, ("latent", "noise"))
    check_choice("noise_target", noise_target, ("exact", "released"))
    if space == "noise":
        if not isinstance(prior, HierarchicalPrior):
            raise ValueError(
                "space 'noise' is that of a HierarchicalPrior; the layers of other priors are their own noise"
            )
        return NoiseSpace(prior, noise_target == "exact")
    if noise_target == "released":
        raise ValueError("noise_target 'released' belongs to space 'noise'")
    return ChainSpace(prior)


def common_layout(prior: Prior, *parts: nn.Module | None) -> LatentLayout:
    """The layers that a prior and other parts agree on; one layer of all coordinates if none of them has any.

    Raises:
        ValueError: if they do not agree.
    """
    layouts = [
        layout for layout in (getattr(part, "layout", None) for part in (prior, *parts)) if layout is not None
    ]
    sizes = {tuple(layout.sizes) for layout in layouts}
    if len(sizes) > 1:
        raise ValueError(
            "prior, encoder and generator disagree on the layers:"
            f" {', '.join(str(list(each)) for each in sorted(sizes))}"
        )
    if layouts and layouts[0].latent_dim != prior.latent_dim:
        raise ValueError(
            f"the layers {layouts[0].sizes} hold {layouts[0].latent_dim} coordinates but the prior has"
            f" {prior.latent_dim}"
        )
    return layouts[0] if layouts else LatentLayout([prior.latent_dim])
