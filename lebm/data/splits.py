"""Choice of the training, validation and test rows: pure functions of labels and a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lebm.errors import UserError

VALIDATION_SPLITS = ("validation", "valid", "val")
TRAIN_FRACTION = 0.8  # share of the normal rows under the protocol "lebm"


def chosen_splits(
    path: str, names: Sequence[str], train_split: str, test_split: str | None
) -> dict[str, str]:
    """Return the splits of a source that a run uses, by their role.

    Returns:
        ``train``, ``validation`` if the source has such a split besides the two, and ``test``, in this order.

    Raises:
        UserError: if the source does not have a split in ``names``.
    """
    for argument, name in (("train_split", train_split), ("test_split", test_split)):
        if name is not None and name not in names:
            hint = "; null trains without a test set" if argument == "test_split" else ""
            raise UserError(
                f"data path {path!r}: no split {name!r} ({argument}{hint}); it has {', '.join(names)}"
            )
    unused = (name for name in VALIDATION_SPLITS if name in names and name not in (train_split, test_split))
    chosen = {"train": train_split, "validation": next(unused, None), "test": test_split}
    return {part: name for part, name in chosen.items() if name is not None}


def _permutation(rows: np.ndarray, seed: int) -> np.ndarray:
    # The stream of RandomState never changes, so a published split stays the same.
    return np.random.RandomState(seed % 2**32).permutation(rows)


def check_size(name: str, size: int | float) -> None:
    """Reject a size that is neither a number of rows (``int``) nor a share above 0 and below 1 (``float``).

    Raises:
        ValueError: with the name of the argument.
    """
    if not (size >= 0 if isinstance(size, int) else 0 < size < 1):
        raise ValueError(
            f"{name} must be a whole number of at least 0, or a share above 0 and below 1, not {size}"
        )


def check_counts(**counts: int | None) -> None:
    """Reject arguments below 1, by name, with a ValueError; ``None`` is accepted."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


def size_in_rows(size: int | float, rows: int) -> int:
    """Return the number of rows of a size as in :func:`check_size`; a share is at least one row."""
    return size if isinstance(size, int) else max(1, round(size * rows))


def carve(rows: np.ndarray, size: int | float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows without ``size`` of them, chosen by a seeded permutation, and those; both ascending."""
    shuffled, size = _permutation(rows, seed), size_in_rows(size, len(rows))
    return np.sort(shuffled[size:]), np.sort(shuffled[:size])


def held_out_rows(
    train_labels: np.ndarray,
    test_labels: np.ndarray,
    held_out: Sequence[int],
    protocol: str,
    validation_size: int | float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ascending rows for training, validation and testing, with held-out classes in test rows only.

    The rows of the test source are numbered after the rows of the training source. Rows without a label,
    which have a negative number, are skipped, because they may be of any class.

    Args:
        train_labels: labels of the training source, ``(N,)``.
        test_labels: labels of the test source, ``(M,)``.
        held_out: labels of the anomalies.
        protocol: ``"lebm"`` joins both sources. The first 80% of a permutation of all normal rows are for
            training; the other 20% and every held-out row are test rows. ``"official"`` uses the training
            rows without the held-out classes, and all test rows.
        validation_size: see :func:`check_size`.
        seed: seed of the permutations.
    """
    labels = np.concatenate([train_labels, test_labels])
    anomaly = np.isin(labels, held_out)
    normal = ~anomaly & (labels >= 0)
    if protocol == "lebm":
        shuffled = _permutation(np.flatnonzero(normal), seed)
        cut = int(TRAIN_FRACTION * len(shuffled))
        train = np.sort(shuffled[:cut])
        test = np.sort(np.concatenate([shuffled[cut:], np.flatnonzero(anomaly)]))
    else:
        train = np.flatnonzero(normal[: len(train_labels)])
        test = len(train_labels) + np.flatnonzero(test_labels >= 0)
    return *carve(train, validation_size, seed + 1), test


def nothing_left(
    path: str, noun: str, validation_size: int | float, rows: int, held_out: Sequence[int] = ()
) -> str:
    """Return the error for a validation split that leaves none of ``rows`` for training."""
    without = f" without label {', '.join(map(str, held_out))}" if held_out else ""
    return (
        f"data path {path!r}: no training {noun} are left (validation_size {validation_size}, of {rows}"
        f" {noun}{without}); use --data.init_args.validation_size 0.1 for a tenth"
    )


def spread_rows(labels: np.ndarray | None, rows: int, n: int, seed: int) -> np.ndarray:
    """Return ``n`` rows chosen by a seed and spread over the classes.

    Returns:
        One row of each class, then a second row of each class, and so on; without ``labels``, ``(rows,)``,
        rows in the order of the permutation. All rows if there are fewer than ``n``.
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
