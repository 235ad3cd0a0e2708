"""Collecting rows and refusing non-finite ones."""

import pytest
import torch

from lebm.errors import UserError
from lebm.metrics import NonFinite, RowCollector, finite_rows


def test_finite_rows_of_any_shape() -> None:
    x = torch.zeros(4, 1, 2, 2)
    x[1, 0, 1, 1], x[3, 0, 0, 0] = float("nan"), float("-inf")
    assert finite_rows(x).tolist() == [True, False, True, False]
    assert finite_rows(torch.tensor([1.0, float("inf")])).tolist() == [True, False]
    assert finite_rows(torch.zeros(0, 3)).shape == (0,)


def test_refusal_names_how_many_and_the_first() -> None:
    bad = NonFinite()
    bad.update(torch.tensor([True, False]), torch.tensor([20, 21]))
    bad.update(torch.tensor([False, False]), torch.tensor([9, 7]))
    bad.update(torch.ones(0, dtype=torch.bool), torch.zeros(0, dtype=torch.long))
    with pytest.raises(UserError, match="scores: 3 non-finite .* first at index 7; mend it"):
        bad.refuse("scores", "mend it")
    bad.reset()
    bad.update(torch.tensor([True]), torch.tensor([0]))
    bad.refuse("scores", "mend it")


def test_rows_come_back_sorted_by_index() -> None:
    rows = RowCollector(["z"])
    rows.update(index=torch.tensor([4, 1]), z=torch.tensor([[4.0], [1.0]]))
    rows.update(index=torch.tensor([2]), z=torch.tensor([[2.0]]))
    table = rows.table()
    assert table["index"].tolist() == [1, 2, 4]
    assert table["z"].tolist() == [[1], [2], [4]]


def test_a_single_row_keeps_its_shape() -> None:
    rows = RowCollector(["z"])
    rows.update(index=torch.tensor([4]), z=torch.tensor([[4.0]]))
    assert rows.table()["z"].shape == (1, 1)
    assert rows.table()["index"].shape == (1,)


def test_a_row_seen_twice_is_refused() -> None:
    rows = RowCollector([])
    rows.update(index=torch.tensor([0, 3]))
    rows.update(index=torch.tensor([3]))
    with pytest.raises(UserError, match="sample 3 was evaluated twice"):
        rows.table()
