"""Log-densities made of other log-densities: products, tempering, and conditionals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lebm.samplers.base import Info, LogDensity, Sampler, state_gradient
from lebm.samplers.noise import RandomSource


class Boltzmann:
    """The log-density ``-E(x) / T`` of an energy at a temperature, up to a constant.

    The division comes last, also in the gradient, because an earlier division by a temperature of 1e-6 would
    leave the range of half precision.

    Args:
        energy: energy ``(B, *event) -> (B,)``.
        temperature: temperature T, positive.

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
        """Return the gradient of the log-density at ``x: (B, *event)``."""
        return state_gradient(self.energy, x) / -self.temperature


def product(*log_densities: LogDensity) -> LogDensity:
    """Return the product of densities, for example of a likelihood and a prior: the sum of their logarithms.

    Raises:
        ValueError: if no log-density is given.

    Example:
        >>> import torch
        >>> from lebm.samplers import product
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> product(normal, normal)(torch.ones(1, 2))
        tensor([-2.])
    """
    if not log_densities:
        raise ValueError("a product of densities needs at least one density")

    def log_density(state: Tensor) -> Tensor:
        total = log_densities[0](state)
        for factor in log_densities[1:]:
            total = total + factor(state)
        return total

    return log_density


def tempered(log_density: LogDensity, temperature: float, base: LogDensity | None = None) -> LogDensity:
    r"""Return :math:`\pi^{1/T}`, or with a base :math:`\pi^{1/T} p_0^{1 - 1/T}`, which is proper for every T.

    Args:
        log_density: log-density :math:`\log \pi`.
        temperature: temperature T, positive; above 1 the density is flatter.
        base: log-density :math:`\log p_0`.

    Raises:
        ValueError: if ``temperature`` is not positive.

    Example:
        >>> import torch
        >>> from lebm.samplers import tempered
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> tempered(normal, temperature=2.0)(torch.ones(1, 2))
        tensor([-0.5000])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    inverse = 1.0 / temperature
    if base is None:
        return lambda state: inverse * log_density(state)
    return lambda state: inverse * log_density(state) + (1.0 - inverse) * base(state)


class Conditional:
    """The unnormalised density of free coordinates given the frozen ones.

    Args:
        log_density: log-density of all coordinates, ``(B, *event) -> (B,)``.
        given: states ``(B, *event)`` with the frozen coordinates.
        frozen: mask of the frozen coordinates, ``(*event)`` of ``bool``.

    Raises:
        ValueError: if ``frozen`` does not have the shape of a row.

    Example:
        >>> import torch
        >>> from lebm.samplers import Conditional
        >>> normal = lambda z: -0.5 * z.square().sum(dim=1)
        >>> conditional = Conditional(normal, torch.ones(1, 3), torch.tensor([True, True, False]))
        >>> conditional.complete(torch.zeros(1, 1)), conditional(torch.zeros(1, 1))
        (tensor([[1., 1., 0.]]), tensor([-1.]))
    """

    def __init__(self, log_density: LogDensity, given: Tensor, frozen: Tensor) -> None:
        if frozen.shape != given.shape[1:]:
            raise ValueError(
                f"the mask has shape {tuple(frozen.shape)} but a row has {tuple(given.shape[1:])}"
            )
        self.log_density = log_density
        self.given = given
        self.free = (~frozen).flatten().nonzero().squeeze(1).to(given.device, non_blocking=True)

    def restrict(self, state: Tensor) -> Tensor:
        """Return the free coordinates ``(B, f)`` of ``(B, *event)``."""
        return state.flatten(1).index_select(1, self.free)

    def complete(self, part: Tensor) -> Tensor:
        """Join the free coordinates ``(B, f)`` and the frozen ones to ``(B, *event)``."""
        return self.given.flatten(1).index_copy(1, self.free, part).reshape(self.given.shape)

    def __call__(self, part: Tensor) -> Tensor:
        return self.log_density(self.complete(part))


class Masked(Sampler):
    """A sampler of the conditional density of some coordinates, given the frozen ones of its start.

    Use it for hierarchical latents, to keep the upper layers and draw a lower layer again. The kernel handles
    invariance and non-finite values; its preconditioner has one entry per free coordinate.

    Args:
        kernel: sampler of the free coordinates, ``(B, f)``.
        frozen: one ``bool`` per coordinate of the flattened event, of which at least one is false.

    Raises:
        ValueError: if no coordinate is free, or in a call if the state has another size.

    Example:
        >>> import torch
        >>> from lebm.samplers import MALA, Masked
        >>> sampler = Masked(MALA(steps=5, step_size=1.0), frozen=[True, False])
        >>> z = sampler(lambda z: -0.5 * z.square().sum(dim=1), torch.full((100, 2), 3.0))
        >>> bool((z[:, 0] == 3).all()), bool((z[:, 1] == 3).all())
        (True, False)
    """

    frozen: Tensor

    def __init__(self, kernel: Sampler, frozen: Sequence[bool]) -> None:
        super().__init__(kernel.steps)
        if all(frozen):
            raise ValueError("a mask must leave at least one coordinate free")
        self.kernel, self.exact = kernel, kernel.exact
        self._mask = [bool(entry) for entry in frozen]  # for the host, which would wait for the buffer
        self.register_buffer("frozen", torch.tensor(self._mask))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if not self.frozen.is_meta:
            self._mask = self.frozen.tolist()

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        if self.frozen.numel() != start[0].numel():
            raise ValueError(
                f"the mask has {self.frozen.numel()} entries but a row of the state has {start[0].numel()}"
                " coordinates"
            )
        target = Conditional(log_density, start, torch.tensor(self._mask).reshape(start.shape[1:]))
        part, info = self.kernel.chain(target, target.restrict(start), generator, steps, want_info)
        return target.complete(part), info
