"""From decoded sources to the training, validation and test set of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lebm.data.cache import CachedImages, open_images, split_names
from lebm.data.dataset import ImageRows
from lebm.data.splits import chosen_splits, held_out_rows, limited, nothing_left, ordinary_rows
from lebm.errors import UserError

__all__ = ["Sources", "Splitting"]


@dataclass(frozen=True)
class Sources:
    """The decoded splits of a data set that a run uses."""

    path: str
    train: CachedImages
    validation: CachedImages | None
    test: CachedImages | None

    @classmethod
    def open(
        cls, path: str, train_split: str, test_split: str | None, where: dict[str, Any], how: dict[str, Any]
    ) -> Sources:
        """Open the splits of a run; a validation split is opened if the data set has one.

        Args:
            path: see :func:`~lebm.data.cache.open_images`.
            train_split: name of the training split.
            test_split: name of the test split, or ``None``.
            where: arguments of :func:`~lebm.data.cache.split_names`.
            how: the other arguments of :func:`~lebm.data.cache.open_images`.

        Raises:
            UserError: if a split does not exist, cannot be read, or its images differ in shape
                from those of the others.
        """
        names = chosen_splits(path, split_names(path, **where), train_split, test_split)
        opened = {part: open_images(path, name, **where, **how) for part, name in names.items()}
        shapes = {cached.split: cached.images.shape[1:] for cached in opened.values()}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise UserError(
                f"data path {path!r}: images differ between splits ({listed}); set image_size and channels"
            )
        return cls(path, opened["train"], opened.get("validation"), opened.get("test"))

    @property
    def skipped(self) -> int:
        """Number of undecodable images that were left out."""
        return sum(
            len(cached.skipped) for cached in (self.train, self.validation, self.test) if cached is not None
        )

    @property
    def label_names(self) -> dict[int, str]:
        """The name of each class, by its number; empty if the classes have no names."""
        return dict(enumerate(self.train.label_names or []))

    def label(self, wanted: int | str) -> int:
        """The number of a class of the training split, given by name or by number.

        Raises:
            UserError: if the class does not exist; the message lists the classes.
        """
        if not self.train.has_labels:
            raise UserError(
                f"data path {self.path!r}: held_out_label needs labels, but no label column was found; set"
                " label_column, or --data.init_args.held_out_label null to hold out none"
            )
        if self.test is not None and not self.test.has_labels:
            raise UserError(
                f"data path {self.path!r}: held_out_label needs labels, but the test split has none; set"
                " test_split: null"
            )
        known, names = np.unique(self.train.labels).tolist(), self.label_names
        label: int | str = next((number for number, name in names.items() if name == wanted), wanted)
        if isinstance(label, str) and label.isdigit():
            label = int(label)
        if label in known:
            return int(label)
        listed = [
            str(number) if names.get(number, str(number)) == str(number) else f"{number} ({names[number]})"
            for number in known[:50]
        ]
        raise UserError(
            f"data path {self.path!r}: held_out_label {wanted} does not exist; the labels are"
            f" {', '.join(listed)}; --data.init_args.held_out_label null holds out none"
        )


@dataclass(frozen=True)
class Splitting:
    """How sources become splits; the arguments are those of :class:`~lebm.data.images.ImageData`."""

    validation_size: int | float = 0
    held_out_label: int | None = None
    anomaly_split: str = "lebm"
    seed: int = 0
    limit_train: int | None = None
    limit_eval: int | None = None

    def apply(self, sources: Sources) -> dict[str, ImageRows]:
        """The splits that have rows, by name: always ``train``, and possibly ``validation`` and ``test``.

        Raises:
            UserError: if the held-out label does not exist or no training images are left.
        """
        train, valid, test = sources.train, sources.validation, sources.test
        held_out = self.held_out_label
        carve = self.validation_size if valid is None else 0
        if held_out is None:
            rows = ordinary_rows(len(train), 0 if test is None else len(test), carve, self.seed)
        else:
            test_labels = np.empty(0, dtype=np.int64) if test is None else test.labels
            rows = held_out_rows(train.labels, test_labels, held_out, self.anomaly_split, carve, self.seed)
        if not len(rows.train):
            raise UserError(nothing_left(sources.path, "images", carve, len(rows.validation), held_out))
        both = [cached for cached in (train, test) if cached is not None]
        pixels = [cached.images for cached in both]
        labels = np.concatenate([cached.labels for cached in both])
        chosen = {part: (pixels, labels, getattr(rows, part)) for part in ("train", "validation", "test")}
        if valid is not None:
            every = np.arange(len(valid))
            normal = every if held_out is None else every[valid.labels != held_out]
            chosen["validation"] = [valid.images], valid.labels, normal
        splits = {}
        for name, (images, classes, numbers) in chosen.items():
            limit = self.limit_train if name == "train" else self.limit_eval
            splits[name] = ImageRows(images, classes, limited(numbers, limit, self.seed), held_out)
        return {name: split for name, split in splits.items() if len(split)}
