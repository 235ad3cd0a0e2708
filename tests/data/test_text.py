"""Sentences from files to batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lebm.data import TextData, open_text
from lebm.data.rows import LengthBatchSampler, TextRows
from lebm.data.text import text_splits
from lebm.models.text_likelihood import END, PAD


def write(folder: Path, **splits: str | bytes) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in splits.items():
        (folder / f"{name}.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def ready(path: str, **arguments) -> TextData:
    data = TextData(path, **{"batch_size": 2, "vocabulary_size": 50, **arguments})
    data.prepare_data()
    data.setup()
    return data


def numbered(n: int, longest: int = 12) -> str:
    return "\n".join(" ".join(["w"] * (1 + (7 * row) % longest) + [f"n{row}"]) for row in range(n))


# Sources


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    path = write(tmp_path / "t", train="one two\nthree\n", valid="four\r\n", test="five six  seven")
    assert text_splits(path) == ["train", "valid", "test"]
    assert open_text(path, "train").texts == ["one two", "three"]
    assert open_text(path, "valid").texts == ["four"]
    assert open_text(path).texts == ["five six seven"]


def test_parquet_with_a_text_column(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": [1, 2, 3], "sentence": ["one", None, "two"]}),
        tmp_path / "train-00000-of-00001.parquet",
    )
    pq.write_table(pa.table({"id": [1], "sentence": ["three"]}), tmp_path / "test-00000-of-00001.parquet")
    found = open_text(str(tmp_path), "train")
    assert (found.texts, found.rows, found.empty) == (["one", "two"], [0, 2], 1)
    with pytest.raises(
        ValueError, match="no text column 'nowhere' found; set text_column to one of id, sentence"
    ):
        open_text(str(tmp_path), "train", text_column="nowhere")
    with pytest.raises(ValueError, match="'id' does not hold text"):
        open_text(str(tmp_path), "train", text_column="id")


def test_the_text_inside_the_package() -> None:
    splits = {name: open_text("embedded:verses", name).texts for name in ("train", "validation", "test")}
    assert {name: len(texts) for name, texts in splits.items()} == {
        "train": 4000,
        "validation": 300,
        "test": 300,
    }
    assert max(len(text.split()) for texts in splits.values() for text in texts) <= 20
    assert not set(splits["train"]) & set(splits["test"])


BAD = {
    "empty": (b"", "holds no sentences"),
    "blank": (b"\n \n\t\n", "holds no sentences"),
    "latin": (
        "fine\ncaf\u00e9\n".encode("latin-1"),
        "line 2 is not UTF-8: convert the file, or .* on_error: skip",
    ),
    "binary": (bytes(range(128, 256)), "line 1 is not UTF-8"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_get_one_line(kind: str, tmp_path: Path) -> None:
    content, message = BAD[kind]
    path = write(tmp_path / "t", train=content)
    with pytest.raises(ValueError, match=message) as caught:
        open_text(path, "train")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_bad_lines_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t", train=b"\xef\xbb\xbffirst\n\n" + "caf\u00e9\n".encode("latin-1") + b"last\n")
    found = open_text(path, "train", on_error="skip")
    assert (found.texts, found.rows, found.empty, found.skipped) == (["first", "last"], [0, 3], 1, 1)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(
        ValueError, match=r"the folder has neither train.txt, validation.txt and test.txt nor parquet"
    ):
        text_splits(str(tmp_path / "nothing"))
    (tmp_path / "rows.csv").write_text("id,text\n1,a b\n")
    with pytest.raises(ValueError, match="not a parquet table or a text file with one sentence per line"):
        open_text(str(tmp_path / "rows.csv"))
    with pytest.raises(ValueError, match="no such file or folder"):
        text_splits(str(tmp_path / "no where"))
    path = write(tmp_path / "t", train="one", test="two")
    with pytest.raises(ValueError, match="no split 'dev'; it has train, test"):
        open_text(path, "dev")
    with pytest.raises(
        ValueError,
        match=r"no split 'tset' \(test_split; null trains without a test set\); it has train, test",
    ):
        ready(path, test_split="tset")


# Rows and batches


def test_rows_come_back_padded() -> None:
    rows = [[4, 5, 6], [7], [8, 9]]
    data = TextRows(rows)
    assert data.tokens().tolist() == [[4, 5, 6], [7, PAD, PAD], [8, 9, PAD]]
    batch = data.__getitems__([2, 1])
    assert batch["x"].tolist() == [[8, 9], [7, PAD]]
    assert batch["x"].dtype == torch.int64
    assert batch["index"].tolist() == [2, 1]
    assert data[0]["x"].tolist() == [4, 5, 6]


def test_batches_of_like_length_see_every_row_once_and_in_another_order_each_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 1000)
    sampler = LengthBatchSampler(lengths, 8)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        rows = np.concatenate(epochs[-1])
        assert len(rows) == len(set(rows.tolist())) == 1000
        padded = sum(lengths[batch].max() * 8 for batch in epochs[-1])
        assert padded < 1.1 * lengths.sum()
    assert epochs[0] != epochs[1]
    means = [lengths[batch].mean() for batch in epochs[0]]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4  # batches do not come sorted


def test_processes_share_the_batches_of_one() -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 103)
    one = list(LengthBatchSampler(lengths, 12, seed=3))
    parts = [list(LengthBatchSampler(lengths, 12, seed=3, rank=rank, world_size=3)) for rank in range(3)]
    assert [[*a, *b, *c] for a, b, c in zip(*parts, strict=True)] == one
    late = LengthBatchSampler(lengths, 12, seed=3)
    assert list(late.batches(start=5)) == one[5:]


# The data module


def test_batches_of_the_module(tmp_path: Path) -> None:
    path = write(tmp_path / "t", train=numbered(40), validation=numbered(6), test=numbered(7))
    data = ready(path, max_length=8, batch_size=4)
    batches = list(data.train_dataloader())
    assert len(batches) == 10
    assert all(batch["x"].shape[1] <= 8 and (batch["x"] != PAD).any(dim=0).all() for batch in batches)
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(40))
    assert torch.cat([batch["index"] for batch in data.test_dataloader()]).tolist() == list(range(7))
    used = data.describe_split()
    assert used["sizes"] == {"train": 40, "validation": 6, "test": 7}
    assert used["vocabulary"] == len(data.vocabulary) == 45
    assert used["unknown"] == {"train": 0.0, "validation": 0.0, "test": 0.0}
    expected = [min(8, 3 + (7 * row) % 12) for row in range(40)]
    assert data.train.lengths.tolist() == expected
    assert used["cut"]["train"] == pytest.approx(
        sum(3 + (7 * row) % 12 > 8 for row in range(40)) / 40, abs=1e-5
    )
    ended = [END in row for row in data.train.tokens().tolist()]
    assert ended == [3 + (7 * row) % 12 <= 8 for row in range(40)]


def test_the_vocabulary_is_of_the_training_rows_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "t", train=numbered(40), test="w secret")
    data = ready(path, validation_size=10, limit_train=20)
    assert data.describe_split()["sizes"] == {"train": 20, "validation": 10, "test": 1}
    assert data.describe_split()["unknown"]["test"] == pytest.approx(1 / 3, abs=1e-4)
    assert len(data.vocabulary) == 4 + 1 + 20
    spelled = data.vocabulary.decode(data.train.tokens())
    assert len(set(spelled)) == 20


@pytest.mark.parametrize(
    "argument", ["batch_size", "max_length", "validation_size", "limit_eval", "vocabulary_size"]
)
def test_arguments_out_of_range(argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        TextData("embedded:verses", **{argument: -1})  # type: ignore[arg-type]


def test_too_few_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "t", train="one\ntwo", test="three")
    with pytest.raises(ValueError, match="batch_size 3 is larger than the 2 training sentences"):
        ready(path, batch_size=3).train_dataloader()
    with pytest.raises(ValueError, match="no training sentences are left"):
        ready(path, validation_size=2)
    assert ready(path, test_split=None).val_dataloader() == []
    with pytest.raises(ValueError, match="there is no test split"):
        ready(path, test_split=None).test_dataloader()
