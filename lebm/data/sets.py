"""The decoded splits of a data set of images that a run uses, and their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lebm.data.cache import CachedImages, open_images, split_names
from lebm.data.splits import chosen_splits
from lebm.errors import UserError, data_error, one_line

Label = int | str
Labels = Label | list[Label] | None
HELD_OUT = ("held_out_label", "normal_label")
"""The arguments of :class:`~lebm.data.images.ImageData` that hold out classes."""


class ClassError(UserError):
    """An error for a held-out class that the data do not have."""


def open_splits(
    path: str, train_split: str, test_split: str | None, where: dict[str, Any], how: dict[str, Any]
) -> dict[str, CachedImages]:
    """Return the splits of a run by their role: ``train``, and if present ``validation`` and ``test``.

    ``where`` holds the arguments of :func:`~lebm.data.cache.split_names`, and ``how`` the other arguments of
    :func:`~lebm.data.cache.open_images`.

    Raises:
        UserError: if a split does not exist, cannot be read, or has images of another shape.
    """
    names = chosen_splits(path, split_names(path, **where), train_split, test_split)
    opened = {part: open_images(path, name, **where, **how) for part, name in names.items()}
    shapes = {cached.split: cached.images.shape[1:] for cached in opened.values()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise data_error(path, f"images differ between splits ({listed}); set image_size and channels")
    return opened


def names_of_classes(splits: Mapping[str, CachedImages]) -> dict[int, str]:
    """Return the name of each class, by its number; empty if the classes have no names."""
    named = (split.label_names for split in splits.values() if split.label_names)
    return dict(enumerate(next(named, [])))


def held_out_classes(
    path: str, splits: Mapping[str, CachedImages], anomalous: Labels, normal: Labels
) -> list[int]:
    """Return the numbers of the held-out classes in ascending order; empty if both arguments are.

    These are the ``anomalous`` classes, or all except the ``normal`` classes. A name takes precedence over a
    number: if the classes are called ``"1"``, ``"10"`` and ``"2"``, the class 2 is the last one.

    Raises:
        ClassError: if a class does not exist; the message lists the classes.
    """
    of_normal = anomalous in (None, [])
    wanted, name = (normal, "normal_label") if of_normal else (anomalous, "held_out_label")
    if wanted is None or wanted == []:
        return []
    where, way = f"data path {path!r}: {name}", f"--data.init_args.{name} null holds out no class"
    for part, hint in (("train", "label_column"), ("test", "test_split: null")):
        split = splits.get(part)
        if split is not None and not split.has_labels:
            raise ClassError(
                f"{where} needs labels, but the split {split.split!r} has none; set {hint}, or {way}"
            )
    labels = np.concatenate([split.labels for split in splits.values()])
    known, names = np.unique(labels[labels >= 0]).tolist(), names_of_classes(splits)
    named = {names[n]: n for n in known if n in names}
    digits = {str(int(name)): n for name, n in named.items() if name.isdecimal()}  # "007" counts as 7
    numbers = {str(n): n for n in known} | digits | named
    chosen = wanted if isinstance(wanted, list) else [wanted]
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
