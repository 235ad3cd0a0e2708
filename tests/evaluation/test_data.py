"""The splits that an evaluation opens again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lebm.data import ImageData
from lebm.errors import UserError
from lebm.evaluation.data import RunImages, batches
from lebm.evaluation.reopen import reopen
from lebm.models.text_likelihood import Vocabulary
from tests.evaluation.conftest import write_pictures

VECTORS: Any = SimpleNamespace(
    sentences=None, latent_dim=2, device="cpu", dtype=torch.float32, decode=lambda z: z
)
"""All that is asked of a model of vectors."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(write_pictures(tmp_path / "pictures"))


def settings(path: str, split: str) -> dict:
    return {"path": path, "held_out_label": "class2", "anomaly_split": split, "seed": 1, "batch_size": 7}


@pytest.mark.parametrize("split", ["lebm", "official"])
def test_no_protocol_holds_rows_that_were_trained_on(path: str, split: str) -> None:
    images = RunImages.of(ImageData(**settings(path, split)))
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
    images = RunImages.of(ImageData(**settings(path, "lebm")))
    part = images.test.subset(images.test.labels.numpy() == 2)
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


def stored(run: Path, kind: str, **arguments: Any) -> Path:
    """A folder with the recipe of a run on these data, and nothing else."""
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"class_path": kind, "init_args": arguments}}))
    return run


def test_other_data_know_no_training_rows(path: str, tmp_path: Path) -> None:
    other = str(write_pictures(tmp_path / "other", test=9))
    run = stored(tmp_path / "run", "lebm.data.ImageData", **settings(path, "official"))
    images = RunImages.of(reopen(run, other))
    assert images.train is None
    assert len(images.protocols["official"]) == 9
    linked = tmp_path / "elsewhere" / ".." / "pictures"
    (tmp_path / "elsewhere").mkdir()
    assert RunImages.of(reopen(run, str(linked))).train is not None
    limited = RunImages.of(reopen(run, limit=5))
    assert len(limited.test) == 5
    assert list(limited.protocols) == ["official"]


def test_other_data_have_the_white_level_of_the_run(path: str, tmp_path: Path) -> None:
    for name, value in {"train/a": 4095, "test/a": 4095, "test/b": 2048}.items():
        file = tmp_path / "deep" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(file)
    deep, run = str(tmp_path / "deep"), tmp_path / "run"
    with pytest.raises(UserError, match="the brightest pixel would be 16 of 255"):
        RunImages.of(reopen(stored(run, "lebm.data.ImageData", path=path), deep))
    found = RunImages.of(reopen(stored(run, "lebm.data.ImageData", path=path, white_level=4095), deep))
    assert found.test.images().flatten().tolist() == [255] * 16 + [128] * 16


def test_refusals(path: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shape \(2,\), not square images; name a .npy or .npz file"):
        reopen(tmp_path, path, VECTORS)
    with pytest.raises(UserError, match="name some with --data"):
        reopen(tmp_path)
    with pytest.raises(UserError, match="no test split"):
        RunImages.of(ImageData(path, test_split=None))
    run = stored(tmp_path / "run", "tests.cli.toy.ToyData")
    with pytest.raises(UserError, match="to trust it, add --trust tests"):
        reopen(run)
    with pytest.raises(UserError, match="ToyData is not a data module that can be opened again"):
        reopen(run, trust=["tests"])
    (run / "config.yaml").write_text("data: [")
    with pytest.raises(UserError, match=r"config.yaml: cannot be read"):
        reopen(run)


def test_every_kind_of_data_is_opened_as_the_run_reads_it(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", "lebm.data.PlaneData", shape="moons", n_train=50, n_eval=20, batch_size=10)
    rows = reopen(run).rows()
    assert (rows.source, len(rows)) == ("moons (test)", 20)
    np.save(tmp_path / "own.npy", np.zeros((8, 2), np.float32))
    other = reopen(run, str(tmp_path / "own.npy"), VECTORS).rows(limit=5)
    assert (other.source, len(other)) == (f"{tmp_path}/own.npy (train)", 5)
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        reopen(run, str(tmp_path / "own.npy")).rows("test")
    stored(run, "lebm.data.TextData", path="embedded:verses", max_length=12, vocabulary_size=300)
    (tmp_path / "own.txt").write_text("the light\n\nthe day and the night\n")
    sentences = SimpleNamespace(
        vocabulary=Vocabulary.learn(["the light"], 50, "word", True), generator=SimpleNamespace(max_length=12)
    )
    model: Any = SimpleNamespace(sentences=sentences)
    verses = reopen(run, str(tmp_path / "own.txt"), model)
    assert verses.max_length == 12
    assert verses.rows().columns == {"index": [0, 2]}
