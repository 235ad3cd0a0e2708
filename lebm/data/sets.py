"""Training, validation and test sets of a run, from decoded sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lebm.data.cache import CachedImages, open_images, split_names
from lebm.data.rows import ImageRows
from lebm.data.splits import carve, chosen_splits, held_out_rows, limited, nothing_left
from lebm.errors import UserError, one_line

Label = int | str
Labels = Label | list[Label] | None
HELD_OUT = ("held_out_label", "normal_label")
"""The arguments of :class:`~lebm.data.images.ImageData` that hold out classes."""


class ClassError(UserError):
    """An error for a held-out class that the data do not have."""


@dataclass(frozen=True)
class Sources:
    """The decoded splits of a data set that a run uses, by their role.

    Attributes:
        path: the data set.
        splits: ``train``, and if present ``validation`` and ``test``.
    """

    path: str
    splits: dict[str, CachedImages]

    @classmethod
    def open(
        cls, path: str, train_split: str, test_split: str | None, where: dict[str, Any], how: dict[str, Any]
    ) -> Sources:
        """Open the splits of a run, and a validation split if the data set has one.

        ``where`` holds the arguments of :func:`~lebm.data.cache.split_names`, and ``how`` the other arguments
        of :func:`~lebm.data.cache.open_images`.

        Raises:
            UserError: if a split does not exist, cannot be read, or has images of another shape.
        """
        names = chosen_splits(path, split_names(path, **where), train_split, test_split)
        opened = {part: open_images(path, name, **where, **how) for part, name in names.items()}
        shapes = {cached.split: cached.images.shape[1:] for cached in opened.values()}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise UserError(
                f"data path {path!r}: images differ between splits ({listed}); set image_size and channels"
            )
        return cls(path, opened)

    @property
    def label_names(self) -> dict[int, str]:
        """The name of each class, by its number; empty if the classes have no names."""
        named = (split.label_names for split in self.splits.values() if split.label_names)
        return dict(enumerate(next(named, [])))

    def held_out(self, anomalous: Labels, normal: Labels = None) -> list[int]:
        """Return the numbers of the held-out classes in ascending order; empty if both arguments are.

        These are the ``anomalous`` classes, or all except the ``normal`` classes. A name takes precedence
        over a number: if the classes are called ``"1"``, ``"10"`` and ``"2"``, the class 2 is the last one.

        Raises:
            ClassError: if a class does not exist; the message lists the classes.
        """
        of_normal = anomalous in (None, [])
        wanted, name = (normal, "normal_label") if of_normal else (anomalous, "held_out_label")
        if wanted is None or wanted == []:
            return []
        where, way = f"data path {self.path!r}: {name}", f"--data.init_args.{name} null holds out no class"
        for part, hint in (("train", "label_column"), ("test", "test_split: null")):
            split = self.splits.get(part)
            if split is not None and not split.has_labels:
                raise ClassError(
                    f"{where} needs labels, but the split {split.split!r} has none; set {hint}, or {way}"
                )
        labels = np.concatenate([split.labels for split in self.splits.values()])
        known, names = np.unique(labels[labels >= 0]).tolist(), self.label_names
        named = {names[n]: n for n in known if n in names}
        digits = {str(int(name)): n for name, n in named.items() if name.isdecimal()}  # "007" counts as 7
        numbers = {str(n): n for n in known} | digits | named
        chosen = [wanted] if isinstance(wanted, int | str) else wanted
        for label in chosen:
            if str(label) not in numbers:
                listed = ", ".join(class_words(n, names, "{} ({})") for n in known[:50])
                raise ClassError(f"{where} {label} does not exist; the labels are {listed}; {way}")
        found = {numbers[str(label)] for label in chosen}
        held_out = [n for n in known if (n in found) != of_normal]
        if not held_out:
            raise UserError(f"{where} {wanted}: the data have no other class; {way}")
        return held_out


def by_number(labels: Any) -> bool:
    """Return whether a class is given by number, which may be another class in other data."""
    return any(isinstance(label, int) for label in (labels if isinstance(labels, list) else [labels]))


def class_words(number: int, names: Mapping[int, str], both: str = "{} ({!r})") -> str:
    """Return a class in words: its number, and its name if it differs."""
    name = names.get(number, str(number))
    return str(number) if name == str(number) else one_line(both.format(number, name))


@dataclass(frozen=True)
class Splitting:
    """The division of sources into splits; the arguments are as in :class:`~lebm.data.images.ImageData`."""

    validation_size: int | float = 0
    anomaly_split: str = "lebm"
    seed: int = 0
    limit_train: int | None = None
    limit_eval: int | None = None

    def apply(self, sources: Sources, held_out: Sequence[int] = ()) -> dict[str, ImageRows]:
        """Return the splits that have rows, by name: ``train``, and if present ``validation`` and ``test``.

        Raises:
            UserError: if no training images are left without the labels ``held_out``.
        """
        own, test = (sources.splits.get(part) for part in ("validation", "test"))
        both = [sources.splits["train"], *([] if test is None else [test])]
        known = both[0].labels
        tested = known[:0] if test is None else test.labels
        size = 0 if own is not None else self.validation_size
        if held_out:
            rows = held_out_rows(known, tested, held_out, self.anomaly_split, size, self.seed)
        else:
            rows = *carve(np.arange(len(known)), size, self.seed), len(known) + np.arange(len(tested))
        if not len(rows[0]):
            raise UserError(nothing_left(sources.path, "images", size, len(rows[1]), held_out))
        chosen = {
            part: ([cached.images for cached in both], np.concatenate([known, tested]), kept)
            for part, kept in zip(("train", "validation", "test"), rows, strict=True)
        }
        if own is not None:
            usable = (own.labels >= 0) & ~np.isin(own.labels, held_out) if held_out else own.labels >= -1
            chosen["validation"] = [own.images], own.labels, np.flatnonzero(usable)
        splits = {}
        for name, (images, classes, numbers) in chosen.items():
            limit = self.limit_train if name == "train" else self.limit_eval
            splits[name] = ImageRows(images, classes, limited(numbers, limit, self.seed), held_out)
        return {name: split for name, split in splits.items() if len(split)}
