"""What only some models can answer: a posterior density, layers, revision by an energy.

Callbacks and suites ask for a type, ``isinstance(model, HasPosterior)``, not for an attribute by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from lebm.errors import UserError
from lebm.models.hierarchical import LatentLayout
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.noise import RandomSource

__all__ = ["DrawsObservations", "HasLayers", "HasPosterior", "ModelChain", "NoChainError", "Revises"]


class NoChainError(UserError):
    """The model draws without a chain, so that there is none to look at."""


@dataclass(frozen=True)
class ModelChain:
    """A chain of a model.

    Attributes:
        target: the unnormalised log-density that the chain samples.
        sampler: the kernel and its length.
        start: ``(chains, *event)``, where the chains start.
    """

    target: LogDensity
    sampler: Sampler
    start: Tensor


@runtime_checkable
class DrawsObservations(Protocol):
    """A likelihood that can be drawn from."""

    def sample(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        """A draw ``(B, *event)`` of ``p(x | z)``, observation noise included."""


@runtime_checkable
class HasPosterior(Protocol):
    """A model whose posterior density can be differentiated."""

    def posterior(self, x: Tensor) -> LogDensity:
        """``log p(x, z)`` as a function of ``z: (B, latent_dim)``, unnormalised where the prior is."""


@runtime_checkable
class HasLayers(Protocol):
    """A model whose latent has layers, bottom layer first."""

    layout: LatentLayout

    def redraw(
        self, z: Tensor, layers: list[int], *, steps: int | None = None, generator: RandomSource = None
    ) -> Tensor:
        """``z: (B, latent_dim)`` with some layers drawn anew from the prior given the others."""

    def log_joint_above(
        self, x: Tensor, z: Tensor, k: int, *, steps: int | None = None, generator: RandomSource = None
    ) -> Tensor:
        """``log p(x, z)``, ``(B,)``, with the ``k`` lowest layers drawn anew from the prior."""


@runtime_checkable
class Revises(Protocol):
    """A model that revises its generator's observations by a chain on observations."""

    revised: Mapping[str, Tensor]

    def revise(self, x: Tensor, *, steps: int | None = None, generator: RandomSource = None) -> Tensor:
        """Observations ``(B, *event)`` after the chain that starts at ``x``."""
