"""From decoded sources to the training, validation and test set of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lebm.data.cache import CachedImages, open_images, split_names
from lebm.data.dataset import ImageRows
from lebm.data.splits import held_out_rows, limited, nothing_left, ordinary_rows
from lebm.errors import UserError

__all__ = ["Sources", "Splitting"]

VALIDATION_SPLITS = ("validation", "valid", "val")


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
        names = split_names(path, **where)
        for argument, name in (("train_split", train_split), ("test_split", test_split)):
            if name is not None and name not in names:
                hint = "; null trains without a test set" if argument == "test_split" else ""
                raise UserError(
                    f"data path {path!r}: no split {name!r} ({argument}{hint}); it has {', '.join(names)}"
                )
        validation = next(
            (name for name in VALIDATION_SPLITS if name in names and name not in (train_split, test_split)),
            None,
        )
        train = open_images(path, train_split, **where, **how)
        others = [
            None if name is None else open_images(path, name, **where, **how)
            for name in (validation, test_split)
        ]
        shapes = {cached.split: cached.images.shape[1:] for cached in (train, *others) if cached is not None}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise UserError(
                f"data path {path!r}: images differ between splits ({listed}); set image_size and channels"
            )
        return cls(path, train, *others)

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

    def plain(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

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
        images, labels = (
            [cached.images for cached in both],
            np.concatenate([cached.labels for cached in both]),
        )
        splits = {
            "train": ImageRows(images, labels, limited(rows.train, self.limit_train, self.seed), held_out)
        }
        if valid is not None:
            normal = np.flatnonzero(
                np.ones(len(valid), dtype=bool) if held_out is None else valid.labels != held_out
            )
            splits["validation"] = ImageRows(
                [valid.images], valid.labels, limited(normal, self.limit_eval, self.seed), held_out
            )
        else:
            splits["validation"] = ImageRows(
                images, labels, limited(rows.validation, self.limit_eval, self.seed), held_out
            )
        splits["test"] = ImageRows(images, labels, limited(rows.test, self.limit_eval, self.seed), held_out)
        return {name: split for name, split in splits.items() if len(split)}
