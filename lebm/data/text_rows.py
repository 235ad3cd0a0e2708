"""Encoded sentences as a data set, and batches of sentences of similar length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lebm.data.loader import ShardedBatchSampler
from lebm.models.text_vocabulary import PAD
from lebm.samplers.noise import keyed_seed

__all__ = ["LengthBatchSampler", "TextRows"]

BATCHES_A_POOL = 50


class TextRows(Dataset):
    """Token numbers of sentences, one sentence after the other in one array.

    Args:
        rows: token numbers of each sentence; no sentence is empty.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        self._starts = np.concatenate([[0], self.lengths.cumsum()])
        self._tokens = np.fromiter(
            (token for row in rows for token in row), dtype=np.int32, count=int(self._starts[-1])
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, indices: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Some sentences, or all by default, as ``(B, T)`` of ``int64``.

        T is the length of the longest of them, and shorter sentences are padded after their ends.
        """
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices)
        position = np.arange(self.lengths[chosen].max())
        inside = position < self.lengths[chosen, None]
        sources = np.where(inside, self._starts[chosen, None] + position, 0)
        return torch.from_numpy(np.where(inside, self._tokens[sources], PAD).astype(np.int64))

    observations = tokens

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch: ``x``, and ``index``, which is the row number within this split."""
        return {"x": self.tokens(indices), "index": torch.as_tensor(indices, dtype=torch.int64)}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}


class LengthBatchSampler(ShardedBatchSampler):
    """Shuffled batches whose sentences have similar lengths, so that there is little padding.

    The order of an epoch is cut into pools of ``BATCHES_A_POOL`` batches. Each pool is sorted by length and
    cut into batches. Then the batches of all pools are shuffled. As in the base class, the order depends on
    seed and epoch only.

    Args:
        lengths: lengths of the sentences, in tokens.
        batch_size: number of sentences in a global batch.
        **sharing: ``rank``, ``world_size`` and ``seed`` of the base class.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, **sharing: int) -> None:
        super().__init__(len(lengths), batch_size, shuffle=True, drop_last=True, **sharing)
        self.lengths = lengths

    def _order(self) -> np.ndarray:
        order = super()._order()[: self._end]  # whole batches; each epoch leaves out other rows
        size = BATCHES_A_POOL * self.batch_size
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        sorted_pools = [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools]
        batches = np.concatenate(sorted_pools).reshape(-1, self.batch_size)
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "batches", self.epoch))
        return batches[torch.randperm(len(batches), generator=generator).numpy()].reshape(-1)
