"""The density of an energy at a temperature."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lebm.samplers.base import state_gradient

__all__ = ["Boltzmann"]


class Boltzmann:
    """``-E(x) / T``, the log-density of an energy at a temperature, up to a constant.

    The division comes last, also in the gradient: at a temperature of 1e-6 anything before it would leave the
    range of half precision.

    Args:
        energy: ``(B, *event) -> (B,)``.
        temperature: T, positive.
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
