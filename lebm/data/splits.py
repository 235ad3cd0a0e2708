"""Which rows train, validate and test; pure functions of labels and a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SplitRows", "held_out_rows", "limited", "ordinary_rows"]

TRAIN_FRACTION = 0.8  # of the normals, under the "lebm" protocol


@dataclass(frozen=True)
class SplitRows:
    """Rows by split, ascending. Rows number the training source first and, where both are joined, the test
    source after it.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def _permutation(rows: np.ndarray, seed: int) -> np.ndarray:
    # RandomState's stream is frozen by NumPy's compatibility policy, so a published split stays what it is
    return np.random.RandomState(seed % 2**32).permutation(rows)


def _carved(rows: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    shuffled = _permutation(rows, seed)
    return np.sort(shuffled[size:]), np.sort(shuffled[:size])


def ordinary_rows(train: int, test: int, validation_size: int, seed: int) -> SplitRows:
    """The source's own splits, with validation rows carved out of the training rows by a seeded permutation.

    Args:
        train: rows of the training source.
        test: rows of the test source; they are numbered from ``train`` on.
        validation_size: rows to carve, less than ``train``.
        seed: of the permutation.
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
    """Splits for anomaly detection; the held-out class never trains nor validates.

    Args:
        train_labels: of the training source, shape (N,).
        test_labels: of the test source, shape (M,).
        held_out: the label of the anomalies.
        protocol: ``"lebm"``: both sources are joined, one permutation of all normals gives its first 80% to
            training, and the test set is the other 20% with every held-out image. ``"official"``: training
            rows without the held-out class; all test rows.
        validation_size: rows to carve out of the training rows (normals).
        seed: of the permutations.
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
