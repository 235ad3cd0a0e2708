"""The density of an energy at a temperature."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lebm.samplers.base import state_gradient

__all__ = ["Boltzmann"]


class Boltzmann:
    """The log-density ``-E(x) / T`` of an energy at a temperature, up to a constant.

    The division comes last, also in the gradient. At a temperature of 1e-6 a value divided earlier would
    leave the range of half precision.

    Args:
        energy: ``(B, *event) -> (B,)``.
        temperature: T, positive.

    Raises:
        ValueError: if ``temperature`` is not positive.

    Example:
        >>> import torch
        >>> from lebm.samplers import Boltzmann
        >>> log_density = Boltzmann(lambda x: x.square().sum(dim=1), temperature=2.0)
        >>> log_density(torch.ones(1, 4))
        tensor([-2.])
    """

    def __init__(self, energy: Callable[[Tensor], Tensor], temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.energy = energy
        self.temperature = temperature

    def __call__(self, x: Tensor) -> Tensor:
        return -self.energy(x).to(x.dtype) / self.temperature

    def state_gradient(self, x: Tensor) -> Tensor:
        """Gradient of the log-density at ``x: (B, *event)``."""
        return state_gradient(self.energy, x) / -self.temperature
