"""Latent priors: a Gaussian reference, and the same reference tilted by an energy."""

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
    """A density on latents ``z`` of shape ``(B, latent_dim)``, known up to a constant.

    ``latent_dim`` is the number of latent coordinates.

    Example:
        >>> import torch
        >>> from lebm.models import Prior, StandardNormal
        >>> prior: Prior = StandardNormal(latent_dim=2)
        >>> prior.reference(4).shape, prior.energy(torch.zeros(4, 2)), prior.is_exact
        (torch.Size([4, 2]), tensor([0., 0., 0., 0.]), True)
    """

    latent_dim: int

    @abstractmethod
    def energy(self, z: Tensor) -> Tensor:
        """The learned energy ``E(z)``, shape ``(B,)``, low where latents are likely; zero without one."""

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """Unnormalised log-density of ``z: (B, latent_dim)`` in nats, shape ``(B,)``."""

    @abstractmethod
    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        """``n`` starts of chains, ``(n, latent_dim)``: by default exact draws from the reference measure."""

    @property
    def is_exact(self) -> bool:
        """Whether the reference *is* the prior. Draws from it then need no chain."""
        return False

    def _place(self) -> dict[str, torch.dtype | torch.device]:
        anchor: Tensor = next(itertools.chain(self.parameters(), self.buffers()))
        return {"dtype": anchor.dtype, "device": anchor.device}


class StandardNormal(Prior):
    """N(0, I): the prior of a plain latent-variable model, and the reference of an energy prior.

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

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, not {latent_dim}")
        self.latent_dim = latent_dim
        # It is in no checkpoint, and so it needs memory in a model that is built without any.
        memory = "cpu" if torch.get_default_device().type == "meta" else None
        self.register_buffer("_anchor", torch.zeros((), device=memory), persistent=False)

    @property
    def is_exact(self) -> bool:
        return True

    def energy(self, z: Tensor) -> Tensor:
        return z.new_zeros(z.shape[0])

    def log_density(self, z: Tensor) -> Tensor:
        """The normalised log-density ``-|z|^2 / 2 - d/2 log(2 pi)`` in nats, shape ``(B,)``."""
        return -0.5 * torch.linalg.vecdot(z, z) - 0.5 * self.latent_dim * math.log(2 * math.pi)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        return normal(generator, (n, self.latent_dim), **self._place())  # type: ignore[arg-type]


class EnergyPrior(Prior):
    """``p(z) = exp(-E(z)) p0(z) / Z`` (Pang et al. 2020, eq. 3, with E = -f).

    Args:
        energy: the energy ``E``, any ``nn.Module`` that maps ``(B, d)`` to ``(B,)``. A recipe or a checkpoint
            can only name an :class:`Energy`.
        base: the reference ``p0``; by default a standard normal with the ``latent_dim`` of the energy. An
            energy without a ``latent_dim`` needs one.

    Raises:
        ValueError: if energy and base disagree on the latent size, or neither of them gives it.

    Example:
        >>> import torch
        >>> from lebm.models import EnergyPrior, MLPEnergy
        >>> prior = EnergyPrior(MLPEnergy(latent_dim=8))
        >>> z = prior.reference(16, torch.Generator().manual_seed(0))
        >>> prior.log_density(z).shape, prior.is_exact
        (torch.Size([16]), False)
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
        """The unnormalised log-density ``-E(z) + log p0(z)``, a function from ``(B, d)`` to ``(B,)``."""
        return TiltedNormal(self)

    def reference(self, n: int, generator: RandomSource = None) -> Tensor:
        return normal(generator, (n, self.latent_dim), **self._place())  # type: ignore[arg-type]


class TiltedNormal:
    """The log-density of an :class:`EnergyPrior`, whose gradient is fast.

    The gradient of the normal part needs no autograd. For a small energy this saves a
    sixth of the time of a chain.

    Args:
        prior: the prior whose log-density this is.
    """

    def __init__(self, prior: EnergyPrior) -> None:
        self.prior = prior

    def __call__(self, z: Tensor) -> Tensor:
        return self.prior.base.log_density(z) - self.prior.tilt(z)

    def state_gradient(self, z: Tensor) -> Tensor:
        """The gradient ``-grad E(z) - z``, shape ``(B, d)``, detached."""
        z = z.detach()
        return (state_gradient(self.prior.tilt, z) + z).neg_()
