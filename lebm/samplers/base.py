"""The contract every sampler keeps, and the record of what a chain did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.samplers.noise import RandomSource

__all__ = ["Info", "LogDensity", "Sampler", "log_density_gradient"]

LogDensity = Callable[[Tensor], Tensor]
"""An unnormalised log-density ``(B, *event) -> (B,)``; row ``i`` of the result may depend on row ``i`` of the input only."""


@dataclass
class Info:
    """What a chain did. All tensors are detached and stay on the chain's device; nothing here synchronises with the host.

    Attributes:
        gradient_norm: ``(B,)``, norm of the gradient of the log-density at the last evaluated state.
        displacement: ``(B,)``, distance from the start to the end of the chain.
        log_density_change: ``(B,)``, unnormalised log-density at the end minus at the start.
        nonfinite: scalar, number of rows that ended non-finite.
        extra: further figures of a particular sampler, for example its acceptance rate.
    """

    gradient_norm: Tensor
    displacement: Tensor
    log_density_change: Tensor
    nonfinite: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def scalars(self) -> dict[str, Tensor]:
        """Means over the batch (a count for ``nonfinite``), ready to be logged."""
        means = {
            "gradient_norm": self.gradient_norm.mean(),
            "displacement": self.displacement.mean(),
            "log_density_change": self.log_density_change.mean(),
            "nonfinite": self.nonfinite.to(self.displacement.dtype),
        }
        return means | {name: value.float().mean() for name, value in self.extra.items()}


class Sampler(nn.Module, Component, ABC):
    """Moves one tensor under one log-density.

    ``sampler(log_density, init, generator=None)`` returns the end of the chain, detached. Gradients are taken with respect
    to the state only: parameters of the log-density never receive any, whatever the surrounding grad mode, and inference
    mode is lifted inside. Global random state is touched only if ``generator`` is ``None``.
    """

    def forward(self, log_density: LogDensity, init: Tensor, generator: RandomSource = None, *, steps: int | None = None) -> Tensor:
        """Run the chain.

        Args:
            log_density: ``(B, *event) -> (B,)``, unnormalised.
            init: ``(B, *event)`` start, floating point; it is not modified.
            generator: source of randomness.
            steps: number of transitions, the sampler's own default if ``None``.

        Returns:
            ``(B, *event)``, detached, of the dtype and device of ``init``.
        """
        state, _ = self._chain(log_density, init, generator, steps, want_info=False)
        return state

    def run(
        self, log_density: LogDensity, init: Tensor, generator: RandomSource = None, *, steps: int | None = None
    ) -> tuple[Tensor, Info]:
        """As calling the sampler, with the :class:`Info` of the chain; the same chain from the same randomness."""
        state, info = self._chain(log_density, init, generator, steps, want_info=True)
        assert info is not None
        return state, info

    @abstractmethod
    def _chain(
        self, log_density: LogDensity, init: Tensor, generator: RandomSource, steps: int | None, want_info: bool
    ) -> tuple[Tensor, Info | None]: ...


def log_density_gradient(log_density: LogDensity, state: Tensor) -> tuple[Tensor, Tensor]:
    """Value ``(B,)`` and gradient ``(B, *event)`` with respect to the state only, both detached.

    The caller must have left inference mode. ``torch.autograd.grad`` computes no parameter gradients, so nothing needs freezing.

    Raises:
        ValueError: if the log-density does not return one number a row.
    """
    state = state.detach().requires_grad_(True)
    with torch.enable_grad():
        value = log_density(state)
    if value.shape != state.shape[:1]:
        raise ValueError(f"a log-density must return one number a row, shape ({state.shape[0]},), but returned {tuple(value.shape)}")
    (gradient,) = torch.autograd.grad(value.sum(), state)
    return value.detach(), gradient


def finish(log_density: LogDensity, init: Tensor, state: Tensor, gradient: Tensor, extra: dict[str, Tensor] | None = None) -> Info:
    """The :class:`Info` of a chain from its two ends and its last gradient."""
    with torch.no_grad():
        change = log_density(state) - log_density(init)
        return Info(
            gradient_norm=gradient.flatten(1).norm(dim=1),
            displacement=(state - init).flatten(1).norm(dim=1),
            log_density_change=change.detach(),
            nonfinite=(~torch.isfinite(state.flatten(1)).all(dim=1)).sum(),
            extra=extra or {},
        )
