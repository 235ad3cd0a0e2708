"""A choice of rows for pictures: seeded, and spread over the classes."""

from __future__ import annotations

import numpy as np

from lebm.data.splits import spread_rows


def test_every_class_has_its_turn() -> None:
    labels = np.repeat([7, 3, 5], [50, 5, 2])  # sorted by class, as the files of a folder are
    rows = spread_rows(labels, 57, 9, seed=0)
    assert labels[rows].tolist() == [3, 5, 7, 3, 5, 7, 3, 7, 3]
    assert len(set(rows.tolist())) == 9
    assert (
        spread_rows(labels, 57, 9, seed=0).tolist() == rows.tolist() != spread_rows(labels, 57, 9, 1).tolist()
    )


def test_without_labels_or_rows_enough() -> None:
    rows = spread_rows(None, 40, 6, seed=2)
    assert len(set(rows.tolist())) == 6
    assert rows.tolist() != list(range(6))
    assert sorted(spread_rows(np.zeros(3), 3, 16, seed=0).tolist()) == [0, 1, 2]
