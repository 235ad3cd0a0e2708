"""A split as a data set: rows of one or more arrays, read one batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ImageRows", "to_unit_range"]


def to_unit_range(x: Tensor) -> Tensor:
    """``uint8`` pixels to ``float32`` in [-1, 1], of any shape.

    Example:
        >>> import torch
        >>> from lebm.data import to_unit_range
        >>> to_unit_range(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return x.to(torch.float32).div_(127.5).sub_(1.0)


class ImageRows(Dataset):
    """Rows of decoded images, or of other arrays.

    Args:
        sources: arrays ``(N_i, C, H, W)`` ``uint8``, memory-mapped or not, or ``(N_i, *event)`` ``float32``.
            Their rows are numbered one source after the other.
        labels: ``(sum N_i,)`` ``int64`` labels of the sources.
        rows: the rows of this split, in order.
        held_out: the labels of anomalies. With them, batches have the flag ``anomaly``.
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
        self._files = [getattr(source, "filename", None) for source in sources]
        self.rows = rows
        self.labels = torch.from_numpy(labels[rows])
        self.held_out = tuple(held_out)
        self._starts = np.cumsum([0, *(len(source) for source in self.sources)])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width, ``(C, H, W)``; ``(d,)`` for vectors."""
        return tuple(map(int, self.sources[0].shape[1:]))

    @property
    def anomaly(self) -> Tensor | None:
        """Which rows are anomalies, ``(len(self),)`` of ``bool``; ``None`` without held-out labels."""
        return torch.isin(self.labels, torch.tensor(self.held_out)) if self.held_out else None

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, indices: Sequence[int] | np.ndarray | slice = slice(None)) -> Tensor:
        """Raw images ``(B, C, H, W)`` of some rows of this split, of all rows by default, as stored."""
        rows = self.rows[indices]
        if len(self.sources) == 1:
            return torch.from_numpy(self.sources[0][rows])
        images = np.empty((len(rows), *self.image_shape), dtype=self.sources[0].dtype)
        which = np.searchsorted(self._starts, rows, side="right") - 1
        for number, source in enumerate(self.sources):
            mine = which == number
            images[mine] = source[rows[mine] - self._starts[number]]
        return torch.from_numpy(images)

    def observations(self, indices: Sequence[int] | np.ndarray | slice = slice(None)) -> Tensor:
        """The same in the form that a model takes: images in [-1, 1], vectors as they are."""
        x = self.images(indices)
        return to_unit_range(x) if x.dtype == torch.uint8 else x

    def subset(self, keep: np.ndarray) -> ImageRows:
        """Some rows of this split; ``keep`` holds their places in the split, or one flag per row."""
        part = copy.copy(self)
        part.rows, part.labels = self.rows[keep], self.labels[torch.from_numpy(np.asarray(keep))]
        return part

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch: ``x`` as stored, ``label`` and ``index``, which is the row number within this split.

        With held-out labels the batch also has ``anomaly``.
        """
        index = torch.as_tensor(indices, dtype=torch.int64)
        batch = {"x": self.images(index.numpy()), "label": self.labels[index], "index": index}
        if self.held_out:
            batch["anomaly"] = torch.isin(batch["label"], torch.tensor(self.held_out))
        return batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out memory-mapped images: a worker process that is not forked opens the memory maps again."""
        state = dict(self.__dict__)
        state["sources"] = [
            source if file is None else None for source, file in zip(self.sources, self._files, strict=True)
        ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for number, file in enumerate(self._files):
            if file is not None:
                self.sources[number] = np.asarray(np.load(file, mmap_mode="r"))
