"""The splits that an evaluation opens again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lebm.errors import UserError
from lebm.evaluation.data import RunImages, batches, subset
from tests.evaluation.conftest import write_pictures

SHAPE = (1, 4, 4)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(write_pictures(tmp_path / "pictures"))


def settings(path: str, split: str) -> dict:
    return {"path": path, "held_out_label": "class2", "anomaly_split": split, "seed": 1, "batch_size": 7}


@pytest.mark.parametrize("split", ["lebm", "official"])
def test_no_protocol_holds_rows_that_were_trained_on(path: str, split: str) -> None:
    images = RunImages.open(settings(path, split), None, SHAPE)
    assert images.train is not None
    for name, rows in images.protocols.items():
        assert not set(rows.rows) & set(images.train.rows), name
        assert rows.labels.eq(2).any()
        assert rows.labels.ne(2).any()
    assert np.array_equal(images.protocols[split].rows, images.test.rows)  # the run's own is whole
    other = "official" if split == "lebm" else "lebm"
    assert len(images.protocols[other]) < images.protocol_sizes[other]
    assert images.protocol_sizes["official"] == 30


def test_labels_follow_their_rows(path: str) -> None:
    images = RunImages.open(settings(path, "lebm"), None, SHAPE)
    part = subset(images.test, images.test.labels.numpy() == 2)
    assert part.labels.unique().tolist() == [2]
    assert torch.equal(
        part.images([0, 3]), images.test.images(np.flatnonzero(images.test.labels.numpy() == 2)[[0, 3]])
    )
    seen = list(batches(part, 4, first=100))
    assert torch.cat([batch["index"] for batch in seen]).tolist() == list(range(100, 100 + len(part)))
    assert all(batch["x"].abs().max() <= 1 for batch in seen)
    assert (
        sum(len(batch["x"]) for batch in seen)
        == len(part)
        == len(images.test.rows) - int(images.test.labels.ne(2).sum())
    )


def test_other_data_know_no_training_rows(path: str, tmp_path: Path) -> None:
    other = str(write_pictures(tmp_path / "other", test=9))
    images = RunImages.open(settings(path, "official"), other, SHAPE)
    assert images.train is None
    assert len(images.protocols["official"]) == 9
    linked = tmp_path / "elsewhere" / ".." / "pictures"
    (tmp_path / "elsewhere").mkdir()
    assert RunImages.open(settings(path, "official"), str(linked), SHAPE).train is not None
    limited = RunImages.open(settings(path, "official"), None, SHAPE, limit=5)
    assert len(limited.test) == 5
    assert list(limited.protocols) == ["official"]


def test_other_data_have_the_white_level_of_the_run(path: str, tmp_path: Path) -> None:
    for name, value in {"train/a": 4095, "test/a": 4095, "test/b": 2048}.items():
        file = tmp_path / "deep" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(file)
    deep = str(tmp_path / "deep")
    with pytest.raises(UserError, match="the brightest pixel is 4095 of 65535"):
        RunImages.open({"path": path}, deep, SHAPE)
    found = RunImages.open({"path": path, "white_level": 4095}, deep, SHAPE)
    assert found.test.images().flatten().tolist() == [255] * 16 + [127] * 16


def test_refusals(path: str) -> None:
    with pytest.raises(UserError, match=r"shape \(2,\), but these suites measure models of square images"):
        RunImages.open({}, path, (2,))
    with pytest.raises(UserError, match="name some with --data"):
        RunImages.open({}, None, SHAPE)
    with pytest.raises(UserError, match="no test split"):
        RunImages.open({"path": path, "test_split": None}, None, SHAPE)
