"""The density of an energy at a temperature, and samplers of some coordinates given the others."""

from collections.abc import Callable, Sequence

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

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        if self.frozen.numel() != start[0].numel():
            raise ValueError(
                f"the mask has {self.frozen.numel()} entries but a row of the state has {start[0].numel()}"
                " coordinates"
            )
        free = (~torch.tensor(self._mask)).nonzero().squeeze(1).to(start.device, non_blocking=True)
        flat = start.flatten(1)

        def whole(part: Tensor) -> Tensor:
            return flat.index_copy(1, free, part).reshape(start.shape)

        part, info = self.kernel.chain(
            lambda part: log_density(whole(part)), flat.index_select(1, free), generator, steps, want_info
        )
        return whole(part), info
