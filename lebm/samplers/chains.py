"""Persistent chains: a pool that stores the ends of the chains of earlier calls."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lebm.errors import at_least
from lebm.samplers.base import Info, LogDensity, Sampler, finite_rows, rows, summarise
from lebm.samplers.noise import RandomSource, uniform


class PersistentChains(Sampler):
    """A kernel whose chains continue from call to call (Tieleman 2008), with restarts (Du & Mordatch 2019).

    In training mode call number t continues the rows of slot ``t % slots`` of the pool. A row starts at
    ``init`` instead with probability ``restart_rate``, if the slot is new, or if the pool row is non-finite.
    In eval mode every chain starts at ``init``, and the pool does not change.

    The pool holds ``slots`` global batches, of which each process holds its own rows. It is part of the
    ``state_dict``, so with several processes all of them must call :func:`gather_pools` before one saves. The
    pool does not depend on the number of processes, which may change on loading.

    With ``together=k`` every k-th call moves k slots in one run of the kernel, and the other calls return a
    slot that was moved before, because a large batch costs less per row. A changed target then reaches a slot
    up to k - 1 calls late. The log-density must take any number of rows, and new slots that move together
    start at the same rows.

    ``Info.extra`` has the entries of the kernel, and in training mode ``restarted`` ``(B,)``, 0 or 1.

    Args:
        kernel: sampler that moves the chains.
        slots: number of batches in the pool, at least 1.
        restart_rate: probability of a restart per row, in [0, 1].
        fresh_steps: default number of transitions in eval mode, where new chains need more of them; the
            number of the kernel if ``None``.
        together: number of slots that move in one run of the kernel; it must divide ``slots``.

    Raises:
        ValueError: for arguments out of range; in training mode for rows of another shape than in the pool,
            or for more rows than in the first batch.

    Example:
        >>> import torch
        >>> from lebm.samplers import Langevin, PersistentChains
        >>> chains = PersistentChains(Langevin(steps=5, step_size=0.1, noise_scale=0.0))
        >>> ascend = lambda: chains(lambda z: -0.5 * z.square().sum(dim=1), torch.ones(1, 1)).item()
        >>> [round(ascend(), 3) for _ in range(3)]  # each call continues the last one
        [0.975, 0.951, 0.928]
    """

    def __init__(
        self,
        kernel: Sampler,
        slots: int = 1,
        restart_rate: float = 0.0,
        fresh_steps: int | None = None,
        together: int = 1,
    ) -> None:
        super().__init__(kernel.steps)
        at_least(0, fresh_steps=fresh_steps)
        at_least(1, slots=slots)
        self.fresh_steps = fresh_steps
        if together < 1 or slots % together:
            raise ValueError(f"together must be at least 1 and divide the {slots} slots, not {together}")
        if not 0 <= restart_rate <= 1:
            raise ValueError(f"restart_rate must be in [0, 1], not {restart_rate}")
        self.kernel, self.exact = kernel, kernel.exact
        self.slots = slots
        self.restart_rate = float(restart_rate)
        self.together = together
        self.calls = 0
        self._moved: Info | None = None  # of the slots that moved last, if they moved together
        self._own: Tensor | None = None  # the rows of this process, (slots, b, *event)
        self._whole: Tensor | None = None  # the global pool, set only right after gathering or loading

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Default number of transitions in the current mode."""
        return self._steps if self.training or self.fresh_steps is None else self.fresh_steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps = steps

    @property
    def is_empty(self) -> bool:
        """True if no chain has run in training mode yet."""
        return self._own is None and self._whole is None

    def pooled(self, n: int, generator: RandomSource = None) -> Tensor:
        """Draw ``n`` rows of the global pool with replacement, ``(n, *event)``.

        With several processes call :func:`gather_pools` first.

        Raises:
            ValueError: if the pool is empty, because no chain has run in training mode.
        """
        self.gather()
        states = torch.zeros(0, 1) if self._whole is None else self._whole.flatten(0, 1)
        states = states[finite_rows(states)]  # slots never used hold NaN
        if not len(states):
            raise ValueError("the pool is empty: its chains run in training")
        place = uniform(generator, (n,), dtype=torch.float64, device=states.device)
        return states[(place * len(states)).long().clamp(max=len(states) - 1)]

    def _chain(
        self, log_density: LogDensity, start: Tensor, generator: RandomSource, steps: int, want_info: bool
    ) -> tuple[Tensor, Info | None]:
        if not self.training:
            return self.kernel.chain(log_density, start, generator, steps, want_info)
        pool = self._shard(start)
        slot, count = self.calls % self.slots, start.shape[0]
        k, turn = self.together, slot % self.together
        if turn == 0:  # a smaller last batch moves only its own rows, but several slots move as a whole
            part = pool[slot : slot + k, : count if k == 1 else None]
            self._moved = self._move(log_density, start, generator, steps, part, want_info or k > 1)
        end, info = pool[slot, :count].to(start, copy=True), None
        if want_info and (moved := self._moved) is not None:
            info = _rows_of(moved, slice(turn, count * k, k))
        elif want_info:  # resumed between two moves
            info = summarise(log_density, end, end)
        self.calls += 1
        self._whole = None
        return end, info

    def _move(
        self,
        log_density: LogDensity,
        start: Tensor,
        generator: RandomSource,
        steps: int,
        part: Tensor,
        want_info: bool,
    ) -> Info | None:
        """Continue the chains of some slots ``(k, b, *event)``, which change in place."""
        k, b = part.shape[:2]
        # The k chains of a row are neighbours, so that each process draws the noise of its own rows.
        kept = part.transpose(0, 1).flatten(0, 1).to(start)
        start = start[torch.arange(b * k, device=start.device) // k % len(start)]
        fresh = uniform(generator, (b * k,), dtype=torch.float32, device=start.device) < self.restart_rate
        fresh = fresh | ~finite_rows(kept)  # slots never used hold NaN
        begin = torch.where(rows(fresh, start), start, kept)
        end, info = self.kernel.chain(log_density, begin, generator, steps, want_info)
        if info is not None:
            info.extra["restarted"] = fresh.to(start.dtype)
        part.copy_(end.unflatten(0, (b, k)).transpose(0, 1))
        return info

    def _shard(self, start: Tensor) -> Tensor:
        if self._own is None and self._whole is not None:
            rank, world_size = _rank_and_size()
            total = self._whole.shape[1]
            self._own = self._whole[:, rank * total // world_size : (rank + 1) * total // world_size].clone()
        if self._own is None:
            self._own = start.new_full((self.slots, *start.shape), torch.nan)
        if self._own.shape[2:] != start.shape[1:] or self._own.shape[1] < start.shape[0]:
            held = tuple(self._own.shape[1:])
            raise ValueError(
                f"the pool holds a batch of {held} but got one of {tuple(start.shape)}; call .eval() to"
                " sample without the pool"
            )
        self._own = self._own.to(start.device)
        return self._own

    def gather(self) -> None:
        """Collect the global pool on every process for saving. This is a collective call."""
        if self._own is None or self._whole is not None:
            return
        whole = of_all_processes(self._own.transpose(0, 1))[0].transpose(0, 1)
        self._whole = whole.clone(memory_format=torch.contiguous_format)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._own is not None and self._whole is None and _rank_and_size()[1] > 1:
            raise RuntimeError(
                "the chain pool is spread over several processes: call lebm.samplers.gather_pools(module) on"
                " all of them first"
            )
        self.gather()
        pool = torch.zeros(0) if self._whole is None else self._whole
        destination[prefix + "pool"] = pool.clone()
        destination[prefix + "calls"] = torch.tensor(self.calls)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        missing_keys, _, error_msgs = arguments[-3:]
        keys = [prefix + "pool", prefix + "calls"]
        found = {key: state_dict.pop(key) for key in keys if key in state_dict}
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        state_dict.update(found)
        missing_keys.extend(key for key in keys if key not in found)
        if len(found) == len(keys):
            pool = found[keys[0]]
            if pool.numel() and pool.shape[0] != self.slots:
                error_msgs.append(f"{keys[0]} holds {pool.shape[0]} slots but this sampler has {self.slots}")
                return
            self._own, self._whole = None, pool.clone() if pool.numel() else None
            self.calls = int(found[keys[1]])


def gather_pools(module: nn.Module) -> None:
    """Gather every chain pool inside ``module``.

    All processes must call this function before any of them calls ``state_dict()``.

    Example:
        >>> import torch
        >>> from lebm.samplers import Langevin, PersistentChains, gather_pools
        >>> chains = PersistentChains(Langevin(steps=5, step_size=0.1), slots=3)
        >>> z = chains(lambda z: -0.5 * z.square().sum(dim=1), torch.zeros(4, 2))
        >>> gather_pools(chains)
        >>> chains.state_dict()["pool"].shape
        torch.Size([3, 4, 2])
    """
    for part in module.modules():
        if isinstance(part, PersistentChains):
            part.gather()


def _rows_of(info: Info, some: slice) -> Info:
    extra = {name: value[some] for name, value in info.extra.items()}
    per_row = (info.gradient_norm[some], info.displacement[some], info.log_density_change[some])
    return Info(*per_row, info.nonfinite, extra)


def of_all_processes(*own: Tensor) -> list[Tensor]:
    """Return the rows of all processes, in the order of the processes. This is a collective call.

    Args:
        *own: tensors ``(B, ...)`` of the rows of this process.
    """
    world_size = _rank_and_size()[1]
    if world_size == 1:
        return list(own)
    sizes = [torch.zeros(1, dtype=torch.long, device=own[-1].device) for _ in range(world_size)]
    dist.all_gather(sizes, torch.tensor([len(own[0])], device=own[-1].device))
    counts = [int(size) for size in sizes]
    whole = []
    for each in own:
        padded = each.new_zeros((max(counts), *each.shape[1:]))  # gathering needs equal shapes
        padded[: len(each)] = each
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        whole.append(torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]))
    return whole


def sum_over_processes(total: Tensor) -> Tensor:
    """Add a tensor over all processes in place, and return it. This is a collective call."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
    return total


def _rank_and_size() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
