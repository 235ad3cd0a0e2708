"""Log-densities made of log-densities: sums, tempering, and the conditional that is left when a part of the
state is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lebm.samplers.base import Info, LogDensity, Sampler
from lebm.samplers.noise import RandomSource

__all__ = ["Conditional", "Masked", "product", "tempered"]


def product(*log_densities: LogDensity) -> LogDensity:
    """The product of densities: the sum of their logarithms, for example a likelihood and a prior.

    Raises:
        ValueError: if there is none.
    """
    if not log_densities:
        raise ValueError("a product of densities needs at least one")

    def log_density(state: Tensor) -> Tensor:
        total = log_densities[0](state)
        for factor in log_densities[1:]:
            total = total + factor(state)
        return total

    return log_density


def tempered(log_density: LogDensity, temperature: float, base: LogDensity | None = None) -> LogDensity:
    r""":math:`\pi^{1/T}`, or with a base the geometric path :math:`\pi^{1/T} p_0^{1 - 1/T}`, which stays
    proper as T grows.

    Args:
        log_density: of :math:`\pi`.
        temperature: T, positive; above 1 flatter.
        base: log-density of :math:`p_0`.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    inverse = 1.0 / temperature
    if base is None:
        return lambda state: inverse * log_density(state)
    return lambda state: inverse * log_density(state) + (1.0 - inverse) * base(state)


class Conditional:
    """The density of some coordinates given the others, unnormalised: the joint as a function of the free
    coordinates alone.

    Args:
        log_density: of the joint, ``(B, *event) -> (B,)``.
        given: ``(B, *event)``; its frozen coordinates are conditioned on.
        frozen: ``(*event)``, bool.
    """

    def __init__(self, log_density: LogDensity, given: Tensor, frozen: Tensor) -> None:
        if frozen.shape != given.shape[1:]:
            raise ValueError(
                f"the mask has shape {tuple(frozen.shape)} but a row has {tuple(given.shape[1:])}"
            )
        self.log_density = log_density
        self.given = given
        self.free = (~frozen).flatten().nonzero().squeeze(1).to(given.device)

    def restrict(self, state: Tensor) -> Tensor:
        """The free coordinates ``(B, f)`` of ``(B, *event)``."""
        return state.flatten(1).index_select(1, self.free)

    def complete(self, part: Tensor) -> Tensor:
        """Free coordinates ``(B, f)`` put back beside the frozen ones, ``(B, *event)``."""
        return self.given.flatten(1).index_copy(1, self.free, part).reshape(self.given.shape)

    def __call__(self, part: Tensor) -> Tensor:
        return self.log_density(self.complete(part))


class Masked(Sampler):
    """Any sampler on a part of the state, the rest frozen at its start: samples the conditional given the
    frozen part.

    For hierarchical latents: hold the upper layers and re-draw a lower one. Invariance and non-finite
    handling are the kernel's. A kernel's preconditioner has one entry a free coordinate.

    Args:
        kernel: moves the free coordinates, as ``(B, f)``.
        frozen: one bool a coordinate of the flattened event; at least one must be free.

    Raises:
        ValueError: if nothing is free, or at the call if the state has another size.
    """

    frozen: Tensor

    def __init__(self, kernel: Sampler, frozen: Sequence[bool]) -> None:
        super().__init__(kernel.steps)
        if all(frozen):
            raise ValueError("a mask must leave at least one coordinate free")
        self.kernel = kernel
        self.register_buffer("frozen", torch.tensor([bool(entry) for entry in frozen]))

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.kernel.exact

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        if self.frozen.numel() != start[0].numel():
            raise ValueError(
                f"the mask has {self.frozen.numel()} entries but a row of the state has {start[0].numel()}"
                " coordinates"
            )
        target = Conditional(log_density, start, self.frozen.reshape(start.shape[1:]))
        if want_info:
            part, info = self.kernel.run(target, target.restrict(start), generator, steps=steps)
            return target.complete(part), info
        return target.complete(self.kernel(target, target.restrict(start), generator, steps=steps)), None
