"""Held-out classes of images, by name or number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lebm.data.cache import CachedImages
from lebm.errors import UserError, one_line

Labels = int | str | list[int | str] | None
HELD_OUT = ("held_out_label", "normal_label")
"""The arguments of :class:`~lebm.data.images.ImageData` that hold out classes."""


class ClassError(UserError):
    """An error for a held-out class that the data do not have."""


def held_out_classes(
    path: str, splits: Mapping[str, CachedImages], names: Mapping[int, str], anomalous: Labels, normal: Labels
) -> list[int]:
    """Return the numbers of the held-out classes in ascending order; empty if both arguments are.

    These are the ``anomalous`` classes, or all except the ``normal`` classes. A name takes precedence over a
    number: if the classes are called ``"1"``, ``"10"`` and ``"2"``, the class 2 is the last one.
    """
    of_normal = anomalous in (None, [])
    wanted, name = (normal, "normal_label") if of_normal else (anomalous, "held_out_label")
    if wanted is None or wanted == []:
        return []
    where, way = f"data path {path!r}: {name}", f"--data.init_args.{name} null holds out no class"
    for part, hint in (("train", "label_column"), ("test", "test_split: null")):
        split = splits.get(part)
        if split is not None and not split.has_labels:
            none = f"needs labels, but the split {split.split!r} has none"
            raise ClassError(f"{where} {none}; set {hint}, or {way}")
    labels = np.concatenate([split.labels for split in splits.values()])
    known = np.unique(labels[labels >= 0]).tolist()
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
