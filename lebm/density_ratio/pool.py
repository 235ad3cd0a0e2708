"""Chains that supply the negatives of one stage after another."""

from __future__ import annotations

import torch
from torch import Tensor

from lebm.models.ratios import RatioPrior
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.noise import RandomSource

__all__ = ["Pool"]


class Pool:
    """Chains under the product of the finished stages: a source of negatives.

    Args:
        prior: the base and the product.
        kernel: moves the chains, an exact sampler.
        states: ``(chains, d)``, the starts.
    """

    def __init__(self, prior: RatioPrior, kernel: Adaptive, states: Tensor) -> None:
        self.prior, self.kernel, self.states, self.next = prior, kernel, states, 0

    def begin(self, burn_in: int, generator: RandomSource) -> None:
        """Adapt the step to the finished stages, and move the whole pool ``burn_in`` transitions.

        Raises:
            ValueError: if a chain becomes non-finite.
        """
        if self.prior.tilt.finished:
            target = self.prior.log_density_so_far
            self.kernel.warm_up(target, self.states[:256], generator, steps=60)
            self.states = self.kernel(target, self.states, generator, steps=burn_in)
            if not torch.isfinite(self.states).all():
                raise ValueError(
                    f"chains under the first {self.prior.tilt.finished} stages became non-finite; use a"
                    " smaller step or weight_decay"
                )

    def __call__(self, n: int, generator: RandomSource) -> Tensor:
        """The next ``n`` chains, moved; before the first stage ends, ``n`` exact draws of the base."""
        if not self.prior.tilt.finished:
            return self.prior.reference(n, generator)
        rows = (self.next + torch.arange(n)) % self.states.shape[0]
        self.next = (self.next + n) % self.states.shape[0]
        self.states[rows] = self.kernel(self.prior.log_density_so_far, self.states[rows], generator)
        return self.states[rows]
