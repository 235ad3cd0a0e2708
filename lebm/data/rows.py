"""Rows of one split, in the form that a model takes, with all that is known of each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lebm.data.dataset import ImageRows
from lebm.data.splits import spread_rows
from lebm.data.text_rows import TextRows

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """Rows of one split: images in [-1, 1], vectors or sentences.

    Attributes:
        split: all rows of the split.
        source: name of the data, for messages.
        order: which of the rows are used, in this order; their numbers key the noise.
        labels: a label for each row of the split, or ``None``.
        class_names: names of the labels, or ``None``.
        paths: the file of each row of the split, or ``None``.
        lines: the line of each sentence of the split, from 0; empty lines are left out.

    Example:
        >>> from lebm.data import ImageData
        >>> rows = ImageData("embedded:mnist").rows("test").spread(3, seed=0)
        >>> rows.source, rows.all().shape, rows.columns["label"]
        ('embedded:mnist (test)', torch.Size([3, 1, 28, 28]), [0, 1, 2])
    """

    split: ImageRows | TextRows
    source: str
    order: np.ndarray
    labels: Sequence[int] | None = None
    class_names: Sequence[str] | None = None
    paths: Sequence[str] | None = None
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.order)

    @property
    def columns(self) -> dict[str, list[Any]]:
        """``index`` of each row, and its ``path``, ``label`` and ``class_name`` where the data have them."""
        given = {"index": self.lines, "path": self.paths, "label": self.labels}
        found = {
            name: [values[row] for row in self.order] for name, values in given.items() if values is not None
        }
        if self.labels is not None and self.class_names is not None:
            names = dict(enumerate(self.class_names))
            found["class_name"] = [names.get(label, "") for label in found["label"]]
        return {"index": self.order.tolist(), **found}

    def chosen(self, rows: np.ndarray) -> Rows:
        """Some of the rows, given by their places, in this order."""
        return replace(self, order=self.order[rows])

    def spread(self, n: int, seed: int) -> Rows:
        """A seeded choice of ``n`` rows: images spread over the classes, sentences in their order."""
        labels = None if self.labels is None else np.asarray(self.labels)[self.order]
        rows = spread_rows(labels, len(self), n, seed)
        return self.chosen(np.sort(rows) if isinstance(self.split, TextRows) else rows)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Row numbers ``(B,)`` and observations ``(B, *event)``."""
        for start in range(0, len(self), size):
            index = self.order[start : start + size]
            yield torch.from_numpy(index), self.split.observations(index)

    def all(self) -> Tensor:
        """Every observation, ``(N, *event)``."""
        return self.split.observations(self.order)
