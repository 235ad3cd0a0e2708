"""Latent priors: a Gaussian reference, and that reference tilted by an energy."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.models.energies import Energy
from lebm.samplers.base import state_gradient
from lebm.samplers.noise import RandomSource, normal

__all__ = ["EnergyPrior", "Prior", "StandardNormal", "TiltedNormal"]


class Prior(nn.Module, Component, ABC):
    """A density on latents ``z`` of shape ``(B, latent_dim)``, known up to a constant."""

    latent_dim: int

    @abstractmethod
    def energy(self, z: Tensor) -> Tensor:
        """The learned tilt ``E(z)``, shape ``(B,)``, low where latents are likely; zero for a plain
        reference.
        """

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """Unnormalised log-density, shape ``(B,)``."""

    @abstractmethod
    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        """``n`` exact draws ``(n, latent_dim)`` from the reference measure, where chains start."""

    @property
    def is_exact(self) -> bool:
        """Whether the reference *is* the prior, so that no chain is needed to draw from it."""
        return False

    def _place(self) -> dict[str, torch.dtype | torch.device]:
        anchor: Tensor = next(itertools.chain(self.parameters(), self.buffers()))
        return {"dtype": anchor.dtype, "device": anchor.device}


class StandardNormal(Prior):
    """N(0, I), the prior of a plain latent-variable model and the reference of an energy prior.

    Args:
        latent_dim: number of latent coordinates, at least 1.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, not {latent_dim}")
        self.latent_dim = latent_dim
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)

    @property
    def is_exact(self) -> bool:
        return True

    def energy(self, z: Tensor) -> Tensor:
        return z.new_zeros(z.shape[0])

    def log_density(self, z: Tensor) -> Tensor:
        """Normalised: ``-|z|^2 / 2 - d/2 log(2 pi)``."""
        return -0.5 * torch.linalg.vecdot(z, z) - 0.5 * self.latent_dim * math.log(2 * math.pi)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        return normal(generator, (n, self.latent_dim), **self._place())  # type: ignore[arg-type]


class EnergyPrior(Prior):
    """``p(z) = exp(-E(z)) p0(z) / Z`` (Pang et al. 2020, eq. 3, with E = -f).

    Args:
        energy: the tilt, any ``nn.Module`` that maps ``(B, d)`` to ``(B,)``. Only an :class:`Energy` can be
            named in a recipe or stored in a checkpoint.
        base: the reference ``p0``; a standard normal of the energy's ``latent_dim`` by default. An energy
            without a ``latent_dim`` needs one.

    Raises:
        ValueError: if energy and base disagree on the latent size, or neither gives one.
    """

    def __init__(self, energy: Energy, base: StandardNormal | None = None) -> None:
        super().__init__()
        dim: int | None = getattr(energy, "latent_dim", None)
        if base is None:
            if dim is None:
                raise ValueError("this energy does not know its latent_dim; give EnergyPrior a base")
            base = StandardNormal(dim)
        if dim is not None and dim != base.latent_dim:
            raise ValueError(f"the energy takes {dim} latent coordinates but the base has {base.latent_dim}")
        self.tilt = energy
        self.base = base
        self.latent_dim = base.latent_dim

    def energy(self, z: Tensor) -> Tensor:
        return self.tilt(z)

    @property
    def log_density(self) -> TiltedNormal:  # type: ignore[override]
        """The unnormalised log-density ``-E(z) + log p0(z)``, to be called with ``z`` of shape ``(B, d)``."""
        return TiltedNormal(self)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        return normal(generator, (n, self.latent_dim), **self._place())  # type: ignore[arg-type]


class TiltedNormal:
    """The log-density of an :class:`EnergyPrior`, with a gradient that does not send the normal part through
    autograd.

    That is a sixth of a chain's time for a small energy.
    """

    def __init__(self, prior: EnergyPrior) -> None:
        self.prior = prior

    def __call__(self, z: Tensor) -> Tensor:
        return self.prior.base.log_density(z) - self.prior.tilt(z)

    def state_gradient(self, z: Tensor) -> Tensor:
        """``-grad E(z) - z``, shape ``(B, d)``, detached."""
        z = z.detach()
        return (state_gradient(self.prior.tilt, z) + z).neg_()
