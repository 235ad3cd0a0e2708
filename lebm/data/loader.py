"""Order of the rows at each step, exact after resumption and for any number of processes."""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_convert

from lebm.samplers.noise import keyed_seed


def coin_flips(seed: int, epoch: int, index: Tensor) -> Tensor:
    """Return one fair coin per row, ``(B,)``, a pure function of seed, epoch and row number ``(B,)``."""
    mask = 0xFFFFFFFF
    word = (index ^ (keyed_seed(seed, "flip", epoch) & mask)) & mask
    for multiplier, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):  # the finaliser of MurmurHash3, on 32 bits
        word = ((word ^ (word >> shift)) * multiplier) & mask
    return ((word ^ (word >> 16)) & 1).bool()


@dataclass(eq=False)
class ShardedBatchSampler:
    """The rows of each global batch that belong to this process.

    The rows of an epoch are put in an order that depends on seed and epoch only, and cut into global batches.
    Process ``r`` of ``W`` takes the rows ``floor(r B / W) .. floor((r + 1) B / W)`` of a global batch of
    ``B`` rows. Together the processes read the rows that a single process would read.

    Args:
        rows: number of rows in the data set, at least ``world_size``.
        batch_size: number of rows in a global batch, at least ``world_size``.
        rank: number of this process.
        world_size: number of processes.
        shuffle: whether each epoch has a new order in place of the ascending order.
        drop_last: whether an incomplete last batch is skipped. Otherwise, if it has fewer rows than there are
            processes, it is joined to the batch before, so every process has rows.
        seed: seed of the order.
    """

    rows: int
    batch_size: int
    _: KW_ONLY
    rank: int = 0
    world_size: int = 1
    shuffle: bool = False
    drop_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self.epoch = 0
        whole, rest = divmod(self.rows, self.batch_size)
        self._batches = whole + (rest >= self.world_size and not self.drop_last)
        self._end = whole * self.batch_size if self.drop_last else self.rows

    def __len__(self) -> int:
        return self._batches

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next order."""
        self.epoch = epoch

    def batches(self, start: int = 0) -> Iterator[list[int]]:
        """Yield the rows of this process batch by batch, from global batch number ``start``."""
        order = self._order()
        for batch in range(start, self._batches):
            first = batch * self.batch_size
            size = (self._end if batch == self._batches - 1 else first + self.batch_size) - first
            begin, end = (first + rank * size // self.world_size for rank in (self.rank, self.rank + 1))
            yield order[begin:end].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return self.batches()

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.rows)
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "order", self.epoch))
        return torch.randperm(self.rows, generator=generator).numpy()


class BatchLoader:
    """The batches of a sampler, from the current position of training.

    In training, the position is read from the trainer when the first batch of an epoch is requested.
    Lightning saves and restores its counters, so after a resumption each step gets its rows, independent of
    the read-ahead of workers. This is not a ``torch.utils.data.DataLoader``, so Lightning never replaces the
    sampler.

    Args:
        dataset: a map-style data set with ``__getitems__(rows)``, which returns a whole batch.
        sampler: the sampler of the rows.
        position: returns ``(epoch, batch)``, the first batch to read. ``None`` always starts at batch 0 of
            the epoch of the sampler.
        num_workers: number of processes that read ahead; 0 is fastest for decoded images.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: ShardedBatchSampler,
        position: Callable[[], tuple[int, int]] | None = None,
        num_workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = sampler
        self.num_workers = num_workers
        self._position = position

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        # This is a generator, so nothing below runs before the first batch is requested. Lightning calls
        # iter() before it sets the epoch.
        start = 0
        if self._position is not None:
            epoch, start = self._position()
            self.batch_sampler.set_epoch(epoch)
        rows: Any = self.batch_sampler.batches(start)
        if self.num_workers == 0:  # a DataLoader adds about 0.2 ms to each batch
            yield from map(self.dataset.__getitems__, rows)  # type: ignore[attr-defined]
        else:
            # Without a generator each epoch would draw from the global generator of torch.
            generator = torch.Generator().manual_seed(0)
            workers = {"num_workers": self.num_workers, "collate_fn": default_convert, "generator": generator}
            yield from DataLoader(self.dataset, batch_sampler=rows, **workers)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, int]:
        """Return an empty state, Lightning's sign that resumption within an epoch is exact."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Do nothing; see :meth:`state_dict`."""
