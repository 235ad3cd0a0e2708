"""Which rows train, validate and test: pure functions of labels and a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SplitRows", "held_out_rows", "limited", "ordinary_rows"]

TRAIN_FRACTION = 0.8  # of the normal rows, under the protocol "lebm"


@dataclass(frozen=True)
class SplitRows:
    """The rows of each split, ascending.

    The rows of the training source have the first numbers. If both sources are joined, the rows
    of the test source follow.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def _permutation(rows: np.ndarray, seed: int) -> np.ndarray:
    # NumPy guarantees that the stream of RandomState never changes, so a published split stays the same.
    return np.random.RandomState(seed % 2**32).permutation(rows)


def _carved(rows: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    shuffled = _permutation(rows, seed)
    return np.sort(shuffled[size:]), np.sort(shuffled[:size])


def ordinary_rows(train: int, test: int, validation_size: int, seed: int) -> SplitRows:
    """The splits of the source, with validation rows taken from the training rows by a seeded permutation.

    Args:
        train: number of rows of the training source.
        test: number of rows of the test source; their numbers start at ``train``.
        validation_size: number of validation rows, less than ``train``.
        seed: seed of the permutation.
    """
    kept, validation = _carved(np.arange(train), validation_size, seed)
    return SplitRows(kept, validation, np.arange(train, train + test))


def held_out_rows(
    train_labels: np.ndarray,
    test_labels: np.ndarray,
    held_out: int,
    protocol: str,
    validation_size: int,
    seed: int,
) -> SplitRows:
    """Splits for anomaly detection; the held-out class is in neither the training nor the validation rows.

    Args:
        train_labels: labels of the training source, shape (N,).
        test_labels: labels of the test source, shape (M,).
        held_out: the label of the anomalies.
        protocol: ``"lebm"`` joins both sources. The first 80% of one permutation of all normal rows are for
            training; the test rows are the other 20% and every held-out row. ``"official"`` takes the
            training rows without the held-out class, and all test rows.
        validation_size: number of validation rows, taken from the training rows, which are all normal.
        seed: seed of the permutations.
    """
    labels = np.concatenate([train_labels, test_labels])
    normal = labels != held_out
    if protocol == "lebm":
        shuffled = _permutation(np.flatnonzero(normal), seed)
        cut = int(TRAIN_FRACTION * len(shuffled))
        train, test = (
            np.sort(shuffled[:cut]),
            np.sort(np.concatenate([shuffled[cut:], np.flatnonzero(~normal)])),
        )
    else:
        train = np.flatnonzero(normal[: len(train_labels)])
        test = np.arange(len(train_labels), len(labels))
    kept, validation = _carved(train, validation_size, seed + 1)
    return SplitRows(kept, validation, test)


def limited(rows: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """At most ``limit`` of the rows, chosen by a seeded permutation, ascending."""
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(_permutation(rows, seed)[:limit])
