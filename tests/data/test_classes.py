"""One numbering of the classes for all splits, and the classes that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lebm.data.cache import open_images
from lebm.data.images import ImageData
from lebm.errors import UserError
from tests.conftest import MakeParquet, png, write_parquet

SHADES = {"cat": 40, "dog": 120, "emu": 200}  # of the whole image: it says which class a row really has


def picture(shade: int) -> bytes:
    return png(np.full((4, 4), shade, np.uint8))


def write(folder: Path, names: Sequence[str] | None = None, **splits: Sequence[Any]) -> str:
    """Parquet files with a row for each label; ``names`` makes the labels numbers of classes."""
    for split, labels in splits.items():
        words = [names[label] if names and label >= 0 else label for label in labels]
        images = [picture(SHADES.get(word, 0)) for word in words]
        write_parquet(folder / f"{split}.parquet", images, labels, names)
    return str(folder)


def folders(root: Path, counts: dict[str, int]) -> str:
    """A folder of images, by the number of images of each inner folder."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (4, 4), 8 * number).save(root / folder / f"{number:03d}.png")
    return str(root)


def ready(path: str, **arguments: Any) -> ImageData:
    data = ImageData(path, batch_size=2, **arguments)
    data.setup()
    return data


def shades(data: ImageData, anomaly: bool) -> set[int]:
    """The shades of the normal or the anomalous images of the test split."""
    assert data.test is not None
    assert data.test.anomaly is not None
    return set(data.test.images()[data.test.anomaly == anomaly].flatten().tolist())


@pytest.mark.parametrize("held_out", ["emu", 1])
def test_words_have_one_numbering_for_all_splits(tmp_path: Path, held_out: str | int) -> None:
    path = write(tmp_path, train=["cat", "emu"] * 4, test=["cat", "dog", "emu"] * 2)
    data = ready(path, held_out_label=held_out, anomaly_split="official")
    assert data.label_names == {0: "cat", 1: "emu", 2: "dog"}  # those of the first split come first
    assert data.held_out_label == 1
    assert shades(data, anomaly=True) == {SHADES["emu"]}
    assert shades(data, anomaly=False) == {SHADES["cat"], SHADES["dog"]}
    alone = open_images(path, "test")
    assert alone.label_names == ["cat", "emu", "dog"]
    assert alone.labels.tolist() == [0, 2, 1] * 2


def test_names_that_each_split_declares_for_itself(tmp_path: Path) -> None:
    write(tmp_path, ["cat", "emu"], train=[0, 1] * 4)
    path = write(tmp_path, ["dog", "emu", "cat"], test=[0, 1, 2] * 2)
    data = ready(path, held_out_label="emu", anomaly_split="official")
    assert data.label_names == {0: "cat", 1: "emu", 2: "dog"}
    assert shades(data, anomaly=True) == {SHADES["emu"]}


def test_words_in_one_split_and_names_in_the_other(tmp_path: Path) -> None:
    write(tmp_path, train=["emu", "cat"] * 4)
    path = write(tmp_path, ["dog", "emu"], test=[0, 1] * 2)
    data = ready(path, held_out_label="emu", anomaly_split="official")
    assert shades(data, anomaly=True) == {SHADES["emu"]}
    assert shades(data, anomaly=False) == {SHADES["dog"]}


def test_numbers_in_one_split_and_names_in_the_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ["cat", "dog"], train=[0, 1] * 4)
    path = write(tmp_path, test=[0, 1] * 2)
    with pytest.raises(UserError, match=r"split 'test': column 'label' holds the number 0, which is not one"):
        ready(path)


def test_a_number_without_a_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ["cat", "dog"], train=[0, 1])
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.set_column(1, table.field(1), pa.array([0, 5])), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"the number 5, which is not one of the classes \(cat, dog\)"):
        ready(path, test_split=None)


def test_a_split_without_labels_cannot_be_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path, ["cat", "dog"], train=[0, 1] * 4, test=[-1] * 8)
    with pytest.raises(UserError, match="the split 'test' has none; set test_split: null"):
        ready(path, held_out_label="dog")
    assert len(ready(path).test or ()) == 8
    data = ready(path, held_out_label="dog", test_split=None)
    assert data.class_counts["train"].keys() == {0}


@pytest.mark.parametrize(
    ("protocol", "train", "test"), [("lebm", {0: 9}, {0: 3, 1: 6}), ("official", {0: 8}, {0: 4, 1: 2})]
)
@pytest.mark.parametrize("labels", [[0, 1, -1, 0], ["cat", "dog", None, "cat"], ["cat", "dog", "", "cat"]])
def test_rows_without_a_label_are_left_out(
    tmp_path: Path, labels: list[Any], protocol: Any, train: dict[int, int], test: dict[int, int]
) -> None:
    names = ["cat", "dog"] if 0 in labels else None
    path = write(tmp_path, names, train=labels * 4, validation=labels, test=labels * 2)
    data = ready(path, held_out_label="dog", anomaly_split=protocol)
    assert data.class_counts == {"train": train, "validation": {0: 2}, "test": test}
    assert data.notes()[1] == "7 images without a label are skipped: their class is unknown"
    without = ready(path)
    assert len(without.train) == 16
    assert without.notes() == []


def column(root: Path, labels: Any) -> str:
    """A parquet file with labels of any type, as pandas writes them."""
    rows = {"image": [{"bytes": picture(9), "path": None}] * len(labels), "label": labels}
    pq.write_table(pa.table(rows), root / "train.parquet")
    return str(root)


def test_numbers_with_empty_cells_are_labels(tmp_path: Path) -> None:
    found = open_images(column(tmp_path, [3.0, float("nan"), 0.0, 3.0]))
    assert (found.labels.tolist(), found.label_names) == ([3, -1, 0, 3], None)
    assert not open_images(column(tmp_path, [0.5, 1.0, 0.0, 3.0])).has_labels  # a target of a regression


def test_a_number_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the number 9223372036854775808, which is not .* below 2\*\*63"):
        open_images(column(tmp_path, np.array([1, 2**63], np.uint64)))


def test_labels_that_are_true_or_false(tmp_path: Path) -> None:
    data = ready(column(tmp_path, [True, False, True, False]), held_out_label=1, test_split=None)
    assert data.class_counts == {"train": {0: 1}, "test": {0: 1, 1: 2}}


MVTEC = {"train/good": 8, "test/good": 3, "test/broken": 2, "test/scratch": 4, "ground_truth/broken": 2}


@pytest.mark.parametrize(
    ("held_out", "anomalies"),
    [
        ({"held_out_label": "broken"}, 2),
        ({"held_out_label": ["broken", "scratch"]}, 6),
        ({"held_out_label": [0, "scratch"]}, 6),
        ({"normal_label": "good"}, 6),
        ({"normal_label": ["good", "broken"]}, 4),
    ],
)
@pytest.mark.parametrize("protocol", ["lebm", "official"])
def test_the_layout_of_data_sets_of_anomalies(
    tmp_path: Path, held_out: dict[str, Any], anomalies: int, protocol: Any
) -> None:
    data = ready(folders(tmp_path, MVTEC), anomaly_split=protocol, **held_out)
    assert data.test is not None
    assert data.test.anomaly is not None
    assert int(data.test.anomaly.sum()) == anomalies
    assert not data.train.anomaly.any()  # type: ignore[union-attr]
    if protocol == "official":
        assert (len(data.train), len(data.test)) == (8, 9)
    flags = [flag for batch in data.test_dataloader() for flag in batch["anomaly"].tolist()]
    assert sum(flags) == anomalies


def test_several_classes_are_said_and_described(tmp_path: Path) -> None:
    data = ready(folders(tmp_path, MVTEC), normal_label="good", anomaly_split="official")
    assert data.notes() == [
        "held out: class 0 ('broken'), 2 ('scratch'); 6 images in the test split, none of 8 for training"
        " (--data.init_args.normal_label null trains on all classes)"
    ]
    used = data.describe_split()
    assert (used["held_out_label"], used["anomaly_base_rate"]) == ([0, 2], 6 / 9)


def test_a_class_that_only_one_split_has(tmp_path: Path) -> None:
    path = folders(tmp_path, {"train/a": 2, "train/b": 2, "test/b": 2, "test/c": 2})
    data = ready(path, held_out_label="c", anomaly_split="official")
    assert data.class_counts == {"train": {0: 2, 1: 2}, "test": {1: 2, 2: 2}}


@pytest.mark.parametrize("names", [("0", "1", "2", "10"), ("001", "002", "010")])
def test_folders_whose_names_are_numbers(tmp_path: Path, names: Sequence[str]) -> None:
    path = folders(tmp_path, {f"{split}/{name}": 2 for split in ("train", "test") for name in names})
    for number in (1, 2, 10):
        data = ready(path, held_out_label=number, anomaly_split="official")
        assert int(data.label_names[data.held_out_label]) == number


def test_mistakes_about_classes(tmp_path: Path) -> None:
    path = folders(tmp_path, MVTEC)
    for arguments, line in (
        (
            {"held_out_label": ["broken", "dent"]},
            "held_out_label dent does not exist; the labels are 0 (broken)",
        ),
        ({"normal_label": "bad"}, "normal_label bad does not exist"),
        ({"normal_label": ["good", "broken", "scratch"]}, "the data have no other class"),
        ({"normal_label": "broken", "anomaly_split": "official"}, "no training images are left"),
    ):
        with pytest.raises(UserError) as error:
            ready(path, **arguments)
        assert line in str(error.value)
    with pytest.raises(ValueError, match="held_out_label and normal_label exclude each other"):
        ImageData(path, held_out_label="broken", normal_label="good")


def test_names_in_messages_stay_in_their_line(make_parquet: MakeParquet) -> None:
    path = str(make_parquet(train=4, classes=2, names=["a\x1b[2J", "b\nlebm: all is well"]))
    with pytest.raises(UserError) as error:
        ready(path, held_out_label="c", test_split=None)
    assert "0 (a?[2J), 1 (b?lebm: all is well)" in str(error.value)
    (note,) = ready(path, held_out_label=1, test_split=None).notes()
    assert note.isprintable()
