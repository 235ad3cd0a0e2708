"""Parallel tempering: hot copies of a chain cross barriers and exchange states with the cold chain."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lebm.errors import at_least
from lebm.samplers.base import Info, LogDensity, Sampler, on_device, precise, summarise, values_of_all
from lebm.samplers.noise import RandomSource, uniform


class ParallelTempering(Sampler):
    r"""Replica exchange (Geyer 1991) over any sampler.

    Each row has one replica per temperature :math:`1 = T_1 < \dots < T_R`. Replica k samples
    :math:`\pi^{1/T_k}`. A transition runs the kernel on every replica and then proposes swaps between
    neighbours, the pairs (1,2), (3,4), ... and (2,3), (4,5), ... in turn. A swap is accepted with probability

    .. math:: \min\bigl(1, \exp[(1/T_i - 1/T_j)(\log \pi(z_j) - \log \pi(z_i))]\bigr).

    The kernel moves in :math:`u = z / \sqrt{T_k}`, so its step grows with the width of the flattened target.
    The result is the cold replica, at R times the cost of the kernel. Every call starts all replicas at the
    given state, so with an exact kernel the bias vanishes in many steps of one call, and not in many calls of
    few steps. A replica with a non-finite log-density counts as density zero, so it never becomes the cold
    replica by a swap.

    ``Info.extra`` has ``swap_acceptance`` ``(R - 1,)``, the mean acceptance for each pair of neighbours,
    which should be 0.2 to 0.5.

    Args:
        kernel: sampler that moves a replica, for example :class:`~lebm.samplers.MALA`.
        temperatures: at least two increasing temperatures, from 1.
        steps: number of transitions, at least 0.
        kernel_steps: number of kernel transitions between swaps, at least 1.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> from lebm.samplers import MALA, ParallelTempering
        >>> modes = lambda z: torch.logaddexp(-2 * (z - 3).square(), -2 * (z + 3).square()).sum(dim=1)
        >>> sampler = ParallelTempering(MALA(1, 0.5), temperatures=[1, 4, 16], steps=20)
        >>> z = sampler(modes, torch.full((100, 1), 3.0), torch.Generator().manual_seed(0))
        >>> bool((z < 0).any())  # some chains have crossed to the other mode
        True
    """

    def __init__(
        self, kernel: Sampler, temperatures: Sequence[float], steps: int, kernel_steps: int = 1
    ) -> None:
        super().__init__(steps)
        ladder = [float(temperature) for temperature in temperatures]
        if len(ladder) < 2 or ladder[0] != 1.0 or any(low >= high for low, high in pairwise(ladder)):
            raise ValueError(f"temperatures must start at 1 and increase, not {ladder}")
        at_least(1, kernel_steps=kernel_steps)
        self.kernel = kernel
        self.temperatures = ladder
        self.kernel_steps = kernel_steps

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        replicas = start.unsqueeze(1).repeat_interleave(len(self.temperatures), 1)
        replicas, swaps = self._exchange(log_density, replicas, generator, steps)
        cold = replicas[:, 0].contiguous()
        extra = {"swap_acceptance": swaps}
        return cold, summarise(log_density, start, cold, extra=extra) if want_info else None

    def _exchange(
        self, log_density: LogDensity, replicas: Tensor, generator: RandomSource, steps: int
    ) -> tuple[Tensor, Tensor]:
        """Return the moved replicas ``(B, R, *event)``, coldest first, and their swap acceptance."""
        root = on_device(self.temperatures, replicas).sqrt()
        cold_to_hot = root.square().reciprocal()
        shape, width = replicas.shape, len(self.temperatures)
        offers = torch.zeros(width - 1, device=replicas.device)
        accepted = torch.zeros(width - 1, device=replicas.device)
        stretch = root.reshape(1, -1, *[1] * (replicas.dim() - 2))

        def ladder(flat: Tensor) -> Tensor:
            states = flat.reshape(shape) * stretch
            return (values_of_all(log_density, states) * cold_to_hot).flatten()

        for step in range(steps):
            flat = (replicas / stretch).flatten(0, 1)
            moved = self.kernel(ladder, flat, generator, steps=self.kernel_steps)
            replicas = moved.reshape(shape) * stretch
            with torch.no_grad():
                values = values_of_all(log_density, replicas)
            values = precise(torch.where(torch.isfinite(values), values, -torch.inf))
            colder = torch.arange(step % 2, width - 1, 2, device=values.device)
            hotter = colder + 1
            log_ratio = (cold_to_hot[colder] - cold_to_hot[hotter]) * (values[:, hotter] - values[:, colder])
            log_ratio = torch.where(torch.isnan(log_ratio), -torch.inf, log_ratio)  # both of density zero
            chance = uniform(generator, log_ratio.shape, dtype=torch.float32, device=values.device)
            accept = chance.log() < log_ratio
            order = torch.arange(width, device=values.device).repeat(len(values), 1)
            order[:, colder] = torch.where(accept, hotter, colder)
            order[:, hotter] = torch.where(accept, colder, hotter)
            index = order.reshape(*order.shape, *[1] * (replicas.dim() - 2)).expand_as(replicas)
            replicas = replicas.gather(1, index)
            accepted[step % 2 :: 2] += log_ratio.clamp(max=0.0).exp().mean(dim=0)
            offers[step % 2 :: 2] += 1
        return replicas, accepted / offers.clamp_min(1)
