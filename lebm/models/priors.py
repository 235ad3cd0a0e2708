"""Latent priors: a Gaussian reference, and a reference tilted by an energy."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.errors import at_least
from lebm.models.encoders import DiagonalGaussian
from lebm.models.energies import Energy, ModuleEnergy
from lebm.models.layers import check_sizes
from lebm.samplers.base import LogDensity, log_density_gradient, state_gradient
from lebm.samplers.noise import RandomSource, normal


class Prior(nn.Module, Component, ABC):
    """A density of latents ``z: (B, latent_dim)``, known up to a constant.

    A subclass sets ``latent_dim``, the number of latent coordinates.

    Example:
        >>> import torch
        >>> from lebm.models import Prior, StandardNormal
        >>> prior: Prior = StandardNormal(latent_dim=2)
        >>> prior.reference(4).shape, prior.energy(torch.zeros(4, 2)), prior.is_exact
        (torch.Size([4, 2]), tensor([0., 0., 0., 0.]), True)
    """

    latent_dim: int
    is_exact: bool = False
    """True if the reference is the prior, so that sampling needs no chain."""

    def energy(self, z: Tensor) -> Tensor:
        """Return the learned energy ``E(z)``, ``(B,)``, low where latents are likely; zero by default."""
        return z.new_zeros(z.shape[0])

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """Return the unnormalised log-density of ``z: (B, latent_dim)`` in nats, ``(B,)``."""

    def target(self) -> LogDensity:
        """Return :meth:`log_density` as a function for samplers, which may have a fast gradient."""
        return self.log_density

    @abstractmethod
    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        """Draw ``n`` starts of chains, ``(n, latent_dim)``; by default exact samples of the reference."""

    def fit(self, z: Tensor, generator: RandomSource = None) -> None:
        """Fit the density to latents ``z: (N, latent_dim)``, at the steps of
        :class:`~lebm.estimators.FitBase`.

        Raises:
            ValueError: for a prior without a fit, which is the default.
        """
        raise ValueError(f"{type(self).__name__} has no fit; use a base that has one, like GaussianMixture")

    def conditionals(self, z: Tensor) -> DiagonalGaussian | None:
        """Return the prior as one Gaussian per layer, given the layers above it in ``z: (B, latent_dim)``.

        The divergence from an encoder then has a closed form. Other priors return ``None``.
        """
        return None

    def noise(self, n: int, generator: RandomSource = None) -> Tensor:
        """Draw ``n`` standard normals, ``(n, latent_dim)``."""
        anchor: Tensor = next(itertools.chain(self.parameters(), self.buffers()))
        return normal(generator, (n, self.latent_dim), dtype=anchor.dtype, device=anchor.device)


class StandardNormal(Prior):
    """The prior N(0, I) of a plain latent-variable model, and the reference of an energy prior.

    Args:
        latent_dim: number of latent coordinates, at least 1.

    Raises:
        ValueError: if ``latent_dim`` is below 1.

    Example:
        >>> import torch
        >>> from lebm.models import StandardNormal
        >>> StandardNormal(latent_dim=2).log_density(torch.zeros(1, 2))
        tensor([-1.8379])
    """

    is_exact = True

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        at_least(1, latent_dim=latent_dim)
        self.latent_dim = latent_dim
        # It is not part of any checkpoint, so it needs memory in a model that is built on the meta device.
        memory = "cpu" if torch.get_default_device().type == "meta" else None
        self.register_buffer("_anchor", torch.zeros((), device=memory), persistent=False)

    def log_density(self, z: Tensor) -> Tensor:
        """Return the normalised log-density ``-|z|^2 / 2 - d/2 log(2 pi)`` in nats, ``(B,)``."""
        return -0.5 * torch.linalg.vecdot(z, z) - 0.5 * self.latent_dim * math.log(2 * math.pi)

    def state_gradient(self, z: Tensor) -> Tensor:
        """Return the gradient ``-z`` of :meth:`log_density`, ``(B, latent_dim)``."""
        return -z.detach()

    def conditionals(self, z: Tensor) -> DiagonalGaussian:
        zeros = torch.zeros_like(z)
        return DiagonalGaussian(zeros, zeros)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        return self.noise(n, generator)


class EnergyPrior(Prior):
    """A prior ``p(z) = exp(-E(z)) p0(z) / Z`` (Pang et al. 2020, eq. 3, with E = -f).

    Args:
        energy: the energy ``E``, any ``nn.Module`` that maps ``(B, d)`` to ``(B,)`` or ``(B, 1)``.
        base: the reference ``p0``, a prior with a normalised ``log_density`` and exact samples, such as a
            :class:`~lebm.models.GaussianMixture` that is fitted in training; a :class:`StandardNormal` if
            ``None``.
        latent_dim: number of latent coordinates, required if the energy has no attribute ``latent_dim`` and
            ``base`` is ``None``.

    Attributes:
        asleep: whether the base has not been fitted yet; the prior is then the base.

    Raises:
        ValueError: if energy and base disagree on the latent size, the latent size is unknown, or the base
            has no exact samples.

    Example:
        >>> import torch
        >>> from lebm.models import EnergyPrior, MLPEnergy
        >>> prior = EnergyPrior(MLPEnergy(latent_dim=8))
        >>> z = prior.reference(16, torch.Generator().manual_seed(0))
        >>> prior.log_density(z).shape, prior.is_exact
        (torch.Size([16]), False)
    """

    def __init__(
        self, energy: Energy | nn.Module, base: Prior | None = None, latent_dim: int | None = None
    ) -> None:
        super().__init__()
        dim: int | None = getattr(energy, "latent_dim", None) or latent_dim
        if base is None:
            if dim is None:
                raise ValueError("this energy has no attribute latent_dim; give EnergyPrior a latent_dim")
            base = StandardNormal(dim)
        check_sizes("the energy takes", dim, "the base has", base.latent_dim)
        if not base.is_exact:
            raise ValueError(f"a base needs exact samples, which {type(base).__name__} does not have")
        self.tilt = energy if isinstance(energy, Energy) else ModuleEnergy(energy)
        self.base = base
        self.latent_dim = base.latent_dim
        self._schedule: Any = None

    def wait_for(self, schedule: Any) -> None:
        """Leave the energy out of the prior while ``schedule.pending`` is true."""
        object.__setattr__(self, "_schedule", schedule)  # a part of the model, and not of the prior

    @property
    def asleep(self) -> bool:
        return self._schedule is not None and self._schedule.pending

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        return self.asleep

    def energy(self, z: Tensor) -> Tensor:
        return super().energy(z) if self.asleep else self.tilt(z)

    def log_density(self, z: Tensor) -> Tensor:
        """Return the unnormalised log-density ``log p0(z) - E(z)``, ``(B,)``."""
        return self.target()(z)

    def target(self) -> Tilted:
        return Tilted(self.base, None if self.asleep else self.tilt)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        return self.base.reference(n, generator)


class Tilted:
    """The log-density ``log p0(z) - E(z)`` of a base with an energy, with a fast gradient.

    A ``state_gradient`` of the base replaces autograd, which saves a sixth of the time of a chain for a small
    energy on N(0, I). Samplers without a gradient propose samples of the base. ``None`` is the energy zero.
    """

    def __init__(self, base: Prior, energy: LogDensity | None) -> None:
        self.base = base
        self.energy = energy

    def __call__(self, z: Tensor) -> Tensor:
        density = self.base.log_density(z)
        return density if self.energy is None else density - self.energy(z)

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return ``-E(z)``, the logarithm of this density over its base, ``(B,)``."""
        return z.new_zeros(len(z)) if self.energy is None else -self.energy(z)

    def state_gradient(self, z: Tensor) -> Tensor:
        """Return the gradient ``grad log p0(z) - grad E(z)``, ``(B, d)``, detached."""
        z = z.detach()
        own = getattr(self.base, "state_gradient", None)
        slope = log_density_gradient(self.base.log_density, z)[1] if own is None else own(z)
        return slope if self.energy is None else slope - state_gradient(self.energy, z)
