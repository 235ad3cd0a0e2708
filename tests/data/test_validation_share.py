"""The size of a validation split: a number of rows, or a share of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lebm.data import ArrayData, ImageData, TextData
from lebm.errors import UserError
from tests.conftest import MakeParquet

MODULES: list[Any] = [ArrayData, ImageData, TextData]


def images(path: Path, **arguments: Any) -> ImageData:
    data = ImageData(str(path), **arguments)
    data.setup()
    return data


def test_a_share_is_the_same_split_as_its_count(make_parquet: MakeParquet) -> None:
    path = make_parquet(train=40, test=10)
    share, number = (images(path, validation_size=size, seed=3) for size in (0.3, 12))
    assert share.validation is not None
    assert number.validation is not None
    assert share.validation.rows.tolist() == number.validation.rows.tolist()
    assert share.train.rows.tolist() == number.train.rows.tolist()
    assert share.describe_split()["validation_size"] == 0.3


def test_a_share_is_of_the_rows_that_can_train(make_parquet: MakeParquet) -> None:
    path = make_parquet(train=40, test=10)  # 4 classes, so 30 training rows are not of class 1
    data = images(path, validation_size=0.1, held_out_label=1, anomaly_split="official")
    assert data.describe_split()["sizes"] == {"train": 27, "validation": 3, "test": 10}


def test_a_share_is_at_least_one_row(make_parquet: MakeParquet) -> None:
    assert images(make_parquet(train=8, test=4), validation_size=0.01).describe_split()["sizes"] == {
        "train": 7,
        "validation": 1,
        "test": 4,
    }


def test_shares_of_arrays_and_sentences(tmp_path: Path) -> None:
    rows = ArrayData.of({"train": np.zeros((20, 2))}, validation_size=0.2, test_size=0.1)
    rows.setup()
    assert rows.describe_split()["sizes"] == {"train": 14, "validation": 4, "test": 2}
    (tmp_path / "train.txt").write_text("\n".join(f"w{n}" for n in range(20)))
    sentences = TextData(str(tmp_path), test_split=None, validation_size=0.25)
    sentences.setup()
    assert sentences.describe_split()["sizes"] == {"train": 15, "validation": 5}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("size", [1.0, 1.5, -0.1, 0.0, -1])
def test_what_is_neither_is_refused(module: Any, size: float) -> None:
    with pytest.raises(ValueError, match=r"validation_size must be a whole number .* or a share above 0"):
        module("nowhere", validation_size=size)


def test_the_message_names_the_words_to_type(make_parquet: MakeParquet, tmp_path: Path) -> None:
    path = make_parquet(train=8, test=4)
    with pytest.raises(UserError, match=r"--data\.init_args\.validation_size 0\.1"):
        images(path, validation_size=5000)
    arrays = ArrayData.of({"train": np.zeros((20, 2))}, validation_size=5000)
    with pytest.raises(UserError, match=r"--data\.init_args\.validation_size 0\.1"):
        arrays.setup()
    (tmp_path / "train.txt").write_text("one\ntwo")
    with pytest.raises(UserError, match=r"--data\.init_args\.validation_size 0\.1"):
        TextData(str(tmp_path), test_split=None, validation_size=5000).setup()
    with pytest.raises(UserError, match=r"--data\.init_args\.batch_size 8"):
        images(path, batch_size=9).train_dataloader()
