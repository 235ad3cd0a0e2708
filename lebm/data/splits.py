"""Choice of the training, validation and test rows: pure functions of labels and a seed."""

from collections.abc import Sequence

import numpy as np

from lebm.errors import data_error

PARTS = ("train", "validation", "test")
VALIDATION_SPLITS = ("validation", "valid", "val")
TRAIN_FRACTION = 0.8  # share of the normal rows under the protocol "lebm"


def chosen_splits(
    path: str, names: Sequence[str], train_split: str, test_split: str | None
) -> dict[str, str]:
    """Return the splits of a source that a run uses, by their role.

    These are ``train``, ``validation`` if the source has such a split besides the two, and ``test``.
    """
    for argument, name in (("train_split", train_split), ("test_split", test_split)):
        if name is not None and name not in names:
            hint = "; null trains without a test set" if argument == "test_split" else ""
            raise data_error(path, f"no split {name!r} ({argument}{hint}); it has {', '.join(names)}")
    unused = (name for name in VALIDATION_SPLITS if name in names and name not in (train_split, test_split))
    chosen = {"train": train_split, "validation": next(unused, None), "test": test_split}
    return {part: name for part, name in chosen.items() if name is not None}


def existing_split(path: str, names: Sequence[str], split: str | None = None) -> str:
    """Return a split of a source: by default the only one, or the last that exists of ``PARTS``."""
    if split is None:
        split = names[0] if len(names) == 1 else next((n for n in reversed(PARTS) if n in names), None)
    if split is None or split not in names:
        raise data_error(path, f"no split {split!r}; it has {', '.join(names)}")
    return split


def _permutation(rows: np.ndarray, seed: int) -> np.ndarray:
    # The stream of RandomState never changes, so a published split stays the same.
    return np.random.RandomState(seed % 2**32).permutation(rows)


def check_size(name: str, size: int | float) -> None:
    """Reject a size that is neither a number of rows (``int``) nor a share above 0 and below 1."""
    if not (size >= 0 if isinstance(size, int) else 0 < size < 1):
        wanted = "a whole number of at least 0, or a share above 0 and below 1"
        raise ValueError(f"{name} must be {wanted}, not {size}")


def size_in_rows(size: int | float, rows: int) -> int:
    """Return the number of rows of a size as in :func:`check_size`; a share is at least one row."""
    return size if isinstance(size, int) else max(1, round(size * rows))


def is_normal(labels: np.ndarray, held_out: Sequence[int]) -> np.ndarray:
    """Return the flags of the rows that are not of a held-out class, ``(N,)``.

    With held-out classes, rows without a label are not normal either, because they may be of any class.
    """
    return ~np.isin(labels, held_out) & ((labels >= 0) | (not held_out))


def held_out_rows(
    labels: np.ndarray, train_count: int, held_out: Sequence[int], protocol: str, seed: int
) -> dict[str, np.ndarray]:
    """Return ascending rows for training and testing, with held-out classes in test rows only.

    Args:
        labels: labels of the training source, then labels of the test source if there is one, ``(N,)``.
        train_count: number of rows of the training source.
        held_out: labels of the anomalies; if there are none, each source keeps its rows.
        protocol: ``"lebm"`` joins both sources. The first 80% of a permutation of all normal rows are for
            training; the other 20% and every held-out row are test rows. ``"official"`` uses the training
            rows without the held-out classes, and all test rows.
        seed: seed of the permutation.
    """
    normal, anomaly = is_normal(labels, held_out), np.isin(labels, held_out)
    if held_out and protocol == "lebm":
        shuffled = _permutation(np.flatnonzero(normal), seed)
        cut = int(TRAIN_FRACTION * len(shuffled))
        test = np.concatenate([shuffled[cut:], np.flatnonzero(anomaly)])
        return {"train": np.sort(shuffled[:cut]), "test": np.sort(test)}
    trained = np.arange(len(labels)) < train_count
    return {"train": np.flatnonzero(trained & normal), "test": np.flatnonzero(~trained & (normal | anomaly))}


def spread_rows(labels: np.ndarray | None, rows: int, n: int, seed: int) -> np.ndarray:
    """Return ``n`` rows (all if there are fewer) chosen by a seed and spread over the classes.

    These are one row of each class, then a second row of each class, and so on; without ``labels``,
    ``(rows,)``, the first rows of a permutation.
    """
    shuffled = _permutation(np.arange(rows), seed)
    if labels is None:
        return shuffled[:n]
    classes = labels[shuffled]
    turn = np.empty(rows, dtype=np.int64)
    for label in np.unique(classes):
        mine = np.flatnonzero(classes == label)
        turn[mine] = np.arange(len(mine))
    return shuffled[np.lexsort((classes, turn))][:n]


def limited(rows: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Return at most ``limit`` of the rows, chosen by a seeded permutation, ascending."""
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(_permutation(rows, seed)[:limit])
