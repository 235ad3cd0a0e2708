"""Splits as data sets: rows of arrays and encoded sentences, read one batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lebm.data.loader import ShardedBatchSampler
from lebm.data.splits import spread_rows
from lebm.models.text_likelihood import PAD
from lebm.samplers.noise import keyed_seed

BATCHES_A_POOL = 50


def to_unit_range(x: Tensor) -> Tensor:
    """Convert ``uint8`` pixels of any shape to ``float32`` in [-1, 1].

    Example:
        >>> import torch
        >>> from lebm.data import to_unit_range
        >>> to_unit_range(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    if x.is_floating_point():
        raise ValueError(f"needs uint8 pixels, not {x.dtype}; for values in [0, 1] use 2 * x - 1")
    return x.to(torch.float32).div_(127.5).sub_(1.0)


class ImageRows(Dataset):
    """A data set of rows of decoded images, or of other arrays.

    Args:
        sources: arrays ``(N_i, C, H, W)`` ``uint8``, memory-mapped or not, or ``(N_i, *event)`` ``float32``.
            Their rows are numbered one source after the other.
        labels: ``(sum N_i,)`` ``int64`` labels of the sources.
        rows: the rows of this split, in order.
        held_out: labels of anomalies, for the flag ``anomaly`` in batches.
    """

    def __init__(
        self,
        sources: Sequence[np.ndarray],
        labels: np.ndarray,
        rows: np.ndarray,
        held_out: Sequence[int] = (),
    ) -> None:
        # Plain views: indexing np.memmap itself is slower.
        self.sources = [np.asarray(source) for source in sources]
        self.rows = rows
        self.labels = torch.from_numpy(labels[rows])
        self.held_out = tuple(held_out)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width, ``(C, H, W)``; ``(d,)`` for vectors."""
        return tuple(map(int, self.sources[0].shape[1:]))

    @property
    def anomaly(self) -> Tensor | None:
        """The flags of anomalies, ``(len(self),)`` ``bool``; ``None`` without held-out labels."""
        return torch.isin(self.labels, torch.tensor(self.held_out)) if self.held_out else None

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, indices: Sequence[int] | np.ndarray | slice = slice(None)) -> Tensor:
        """Return raw images ``(B, C, H, W)`` of some rows of this split, by default all."""
        rows = self.rows[indices]
        if len(self.sources) == 1:
            return torch.from_numpy(self.sources[0][rows])
        images = np.empty((len(rows), *self.image_shape), dtype=self.sources[0].dtype)
        first = 0  # row of a source
        for source in self.sources:
            mine = (rows >= first) & (rows < first + len(source))
            images[mine] = source[rows[mine] - first]
            first += len(source)
        return torch.from_numpy(images)

    def observations(self, indices: Sequence[int] | np.ndarray | slice = slice(None)) -> Tensor:
        """Return rows as a model takes them: images in [-1, 1], vectors unchanged."""
        x = self.images(indices)
        return to_unit_range(x) if x.dtype == torch.uint8 else x

    def subset(self, keep: np.ndarray) -> ImageRows:
        """Return some rows of this split; ``keep`` holds their positions, or one flag per row."""
        part = copy.copy(self)
        part.rows, part.labels = self.rows[keep], self.labels[torch.from_numpy(np.asarray(keep))]
        return part

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return a batch: ``x`` as stored, ``label``, ``index`` (row of this split) and maybe ``anomaly``."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        batch = {"x": self.images(index.numpy()), "label": self.labels[index], "index": index}
        if self.held_out:
            batch["anomaly"] = torch.isin(batch["label"], torch.tensor(self.held_out))
        return batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getstate__(self) -> dict[str, Any]:
        """Replace memory-mapped images by their files, which a process that is not forked maps again."""
        sources = [getattr(source.base, "filename", source) for source in self.sources]
        return {**self.__dict__, "sources": sources}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for number, source in enumerate(self.sources):
            if not isinstance(source, np.ndarray):
                self.sources[number] = np.asarray(np.load(source, mmap_mode="r"))


class TextRows(Dataset):
    """A data set of sentences, each given by its token numbers, at least one."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        self._starts = np.concatenate([[0], self.lengths.cumsum()])
        self._tokens = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(self._starts[-1]))

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, indices: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Return some sentences, by default all, as ``(B, T)`` ``int64``.

        T is the length of the longest sentence, and shorter sentences are padded at the end.
        """
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices)
        position = np.arange(self.lengths[chosen].max())
        inside = position < self.lengths[chosen, None]
        sources = np.where(inside, self._starts[chosen, None] + position, 0)
        return torch.from_numpy(np.where(inside, self._tokens[sources], PAD).astype(np.int64))

    observations = tokens

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return a batch: ``x``, and ``index``, the row number in this split."""
        return {"x": self.tokens(indices), "index": torch.as_tensor(indices, dtype=torch.int64)}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}


class LengthBatchSampler(ShardedBatchSampler):
    """A sampler of shuffled batches of sentences with similar lengths, which need little padding.

    The order of an epoch is cut into pools of ``BATCHES_A_POOL`` batches. Each pool is sorted by ``lengths``
    and cut into batches, which are then shuffled over all pools. The order depends only on seed and epoch.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, **sharing: int) -> None:
        super().__init__(len(lengths), batch_size, shuffle=True, drop_last=True, **sharing)
        self.lengths = lengths

    def _order(self) -> np.ndarray:
        order = super()._order()[: self._end]  # whole batches; each epoch skips other rows
        size = BATCHES_A_POOL * self.batch_size
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        sorted_pools = [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools]
        batches = np.concatenate(sorted_pools).reshape(-1, self.batch_size)
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "batches", self.epoch))
        return batches[torch.randperm(len(batches), generator=generator).numpy()].reshape(-1)


@dataclass(frozen=True)
class Rows:
    """Rows of one split: images in [-1, 1], vectors or sentences.

    Attributes:
        split: all rows of the split.
        source: name of the data, for messages.
        order: numbers of the used rows, in order, which also key the noise.
        known: columns of all rows of the split: ``path``, ``label`` and ``class_name`` of images, and as
            ``index`` the line of each sentence, from 0, without empty lines.
    """

    split: ImageRows | TextRows
    source: str
    order: np.ndarray
    known: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The ``index`` of each row, and its further columns."""
        known = {name: [values[row] for row in self.order] for name, values in self.known.items()}
        return {"index": self.order.tolist(), **known}

    def chosen(self, rows: np.ndarray) -> Rows:
        """Return the rows at some positions, in this order."""
        return replace(self, order=self.order[rows])

    def spread(self, n: int, seed: int) -> Rows:
        """Return ``n`` rows chosen by a seed: images spread over the classes, sentences in order."""
        labels = np.asarray(self.known["label"])[self.order] if "label" in self.known else None
        rows = spread_rows(labels, len(self), n, seed)
        return self.chosen(np.sort(rows) if isinstance(self.split, TextRows) else rows)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield row numbers ``(B,)`` and observations ``(B, *event)``."""
        for start in range(0, len(self), size):
            index = self.order[start : start + size]
            yield torch.from_numpy(index), self.split.observations(index)

    def all(self) -> Tensor:
        """Return every observation, ``(N, *event)``."""
        return self.split.observations(self.order)
