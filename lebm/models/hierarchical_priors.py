"""Priors whose reference is a hierarchy of conditional Gaussians, and the space of their noise."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lebm.models.encoders import DiagonalGaussian
from lebm.models.energies import Energy
from lebm.models.hierarchical import LatentLayout
from lebm.models.layers import check_choice, check_sizes, mlp
from lebm.models.priors import Prior
from lebm.samplers.base import LogDensity
from lebm.samplers.noise import RandomSource


class GaussianHierarchy(Prior):
    r"""A prior :math:`p(z_L) \prod_i p(z_i \mid z_{i+1}, ..., z_L)` of Gaussians, with exact samples.

    To use a hierarchical VAE as the base of an energy-based prior, derive from this class, set ``layout`` to
    the shapes of the layers, and implement :meth:`place` and :meth:`conditionals`.

    Example:
        >>> import torch
        >>> from lebm.models import GaussianChain, GaussianHierarchy
        >>> hierarchy: GaussianHierarchy = GaussianChain(latent_dims=[3, 2], hidden=[8])
        >>> noise = torch.ones(4, 5)
        >>> torch.allclose(hierarchy.noise_of(hierarchy.place(noise)), noise, atol=1e-5)
        True
    """

    layout: LatentLayout
    is_exact = True

    @abstractmethod
    def place(self, noise: Tensor) -> Tensor:
        r"""Map noise to latents, from the top layer down; both are ``(B, latent_dim)``.

        :math:`z_i = \mu_i(z_{>i}) + \sigma_i(z_{>i}) \epsilon_i`.
        """

    @abstractmethod
    def conditionals(self, z: Tensor) -> DiagonalGaussian:
        """Return the Gaussians of all layers, given the layers above in ``z``, as one ``(B, latent_dim)``."""

    def noise_of(self, z: Tensor) -> Tensor:
        """Return the noise that :meth:`place` maps to ``z``, both ``(B, latent_dim)``."""
        given = self.conditionals(z)
        return (z - given.mean) * (-given.log_scale).exp()

    def log_density(self, z: Tensor) -> Tensor:
        """Return the normalised log-density in nats, ``(B,)``, summed over the conditionals of all layers."""
        return self.conditionals(z).log_prob(z)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        return self.place(self.noise(n, generator))


class GaussianChain(GaussianHierarchy):
    r"""A hierarchy with N(0, I) at the top and a network for each :math:`p(z_i \mid z_{i+1})` (CVPR 2023).

    The log standard deviations are bounded softly, ``limit * tanh(s / limit)``, then ``floor`` is added to
    the standard deviations. With both bounds the joint density is proper under an energy that grows at most
    linearly.

    The released code is ``limit=None, top_floor=True``: it has no soft bound, so the joint density may be
    improper, and :math:`p(z_L)` is N(0, 1.01^2 I).

    Args:
        latent_dims: sizes of the layers, bottom first; at least two.
        hidden: widths of the hidden layers of each network.
        activation: name of an activation, see :class:`~lebm.models.MLPEnergy`.
        floor: smallest standard deviation.
        limit: largest absolute log standard deviation, before the floor is added; ``None`` for no bound.
        top_floor: whether the floor is also added to the standard deviation of the top layer.

    Raises:
        ValueError: for fewer than two layers, or if floor or limit is not positive.

    Example:
        >>> import torch
        >>> from lebm.models import GaussianChain
        >>> prior = GaussianChain(latent_dims=[3, 2], hidden=[8])
        >>> z = prior.reference(4, torch.Generator().manual_seed(0))
        >>> z.shape, prior.log_density(z).shape, prior.is_exact
        (torch.Size([4, 5]), torch.Size([4]), True)
    """

    def __init__(
        self,
        latent_dims: Sequence[int],
        hidden: Sequence[int] = (200, 200, 200, 200),
        activation: str = "leaky_relu",
        floor: float = 0.01,
        limit: float | None = 5.0,
        top_floor: bool = False,
    ) -> None:
        super().__init__()
        self.layout = LatentLayout(latent_dims)
        if len(self.layout) < 2 or not floor > 0 or not (limit is None or limit > 0):
            raise ValueError(
                f"a chain needs two layers, positive floor and limit, not {latent_dims}, {floor} and {limit}"
            )
        self.latent_dim = self.layout.latent_dim
        self.floor, self.limit = floor, limit
        self.top_scale = 1 + floor if top_floor else 1.0
        pairs = pairwise(self.layout.sizes)
        self.nets = nn.ModuleList(mlp([up, *hidden, 2 * low], activation) for low, up in pairs)

    def given(self, layer: int, above: Tensor) -> DiagonalGaussian:
        """Return the Gaussian of layer number ``layer``, given the layer ``above: (B, size)`` next to it."""
        mean, raw = self.nets[layer](above).chunk(2, dim=1)
        bounded = raw if self.limit is None else self.limit * torch.tanh(raw / self.limit)
        return DiagonalGaussian(mean, (self.floor + bounded.exp()).log())

    def place(self, noise: Tensor) -> Tensor:
        layers = noise.split(self.layout.sizes, dim=1)
        placed = [self.top_scale * layers[-1]]
        for layer in range(len(layers) - 2, -1, -1):
            given = self.given(layer, placed[0])
            placed.insert(0, given.mean + given.log_scale.exp() * layers[layer])
        return torch.cat(placed, dim=1)

    def conditionals(self, z: Tensor) -> DiagonalGaussian:
        layers = z.split(self.layout.sizes, dim=1)
        given = [self.given(layer, above) for layer, above in enumerate(layers[1:])]
        zeros = torch.zeros_like(layers[-1])
        top = DiagonalGaussian(zeros, zeros + math.log(self.top_scale))
        means, log_scales = zip(*((each.mean, each.log_scale) for each in [*given, top]), strict=True)
        return DiagonalGaussian(torch.cat(means, dim=1), torch.cat(log_scales, dim=1))


class HierarchicalPrior(Prior):
    r"""A prior ``p(z) = exp(-E(z)) p0(z) / Z`` with a hierarchy of Gaussians ``p0`` (CVPR 2023, eq. 4).

    Args:
        energy: the energy ``E``; :class:`~lebm.models.LayerEnergies` in the paper.
        base: the reference ``p0``.
        start: start of the chains that move ``z``. ``"normal"`` is N(0, I) on all layers, as released, and
            ``"ancestral"`` a sample of the reference.

    Raises:
        ValueError: if energy and base disagree on the latent size, or for an unknown start.

    Example:
        >>> import torch
        >>> from lebm.models import GaussianChain, HierarchicalPrior, LayerEnergies, MLPEnergy
        >>> energy = LayerEnergies([MLPEnergy(3), MLPEnergy(2)])
        >>> prior = HierarchicalPrior(energy, GaussianChain(latent_dims=[3, 2], hidden=[8]))
        >>> prior.log_density(prior.reference(4)).shape, prior.noise_log_density()(prior.noise(4)).shape
        (torch.Size([4]), torch.Size([4]))
    """

    def __init__(
        self, energy: Energy, base: GaussianHierarchy, start: Literal["normal", "ancestral"] = "normal"
    ) -> None:
        super().__init__()
        dim = getattr(energy, "latent_dim", None)  # any module may be an energy
        check_sizes("the energy takes", dim, "the base has", base.latent_dim)
        check_choice("start", start, ("normal", "ancestral"))
        self.tilt = energy
        self.base = base
        self.start = start
        self.latent_dim, self.layout = base.latent_dim, base.layout

    def energy(self, z: Tensor) -> Tensor:
        return self.tilt(z)

    def log_density(self, z: Tensor) -> Tensor:
        return self.base.log_density(z) - self.tilt(z)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        noise = self.noise(n, generator)
        return self.base.place(noise) if self.start == "ancestral" else noise

    def noise_log_density(self, exact: bool = True) -> LogDensity:
        r"""Return the unnormalised log-density of the noise whose latents follow this prior.

        The change of variables from latents :math:`z(\epsilon)` to noise :math:`\epsilon` cancels the
        standard deviations of the reference, so the log-density is
        :math:`-E(z(\epsilon)) - |\epsilon|^2 / 2`.

        Args:
            exact: ``False`` uses the density of the *latents* without the change of variables, as the
                released two-stage code:
                :math:`-E(z(\epsilon)) - |\epsilon|^2 / 2 - \sum \log \sigma_i(\epsilon)`. The latents of such
                a chain do not follow the prior, because they gather where the reference is narrow.
        """

        def log_density(noise: Tensor) -> Tensor:
            z = self.base.place(noise)
            energy = self.tilt(z)
            base = -0.5 * torch.linalg.vecdot(noise, noise) if exact else self.base.log_density(z)
            return base - energy

        return log_density
