"""The data module: splits, protocols, batches, and one line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from lebm.component import describe
from lebm.data.cache import open_images
from lebm.data.images import ImageData
from lebm.errors import UserError
from tests.conftest import MakeParquet, png, write_parquet


def ready(**arguments: Any) -> ImageData:
    data = ImageData(**arguments)
    data.prepare_data()
    data.setup()
    return data


def sources_of(data: ImageData, split: str) -> set[bytes]:
    return {image.numpy().tobytes() for image in getattr(data, split).images()}


def test_embedded_uses_its_own_validation_split() -> None:
    data = ready(path="embedded:mnist", validation_size=77)
    assert data.image_shape == (1, 28, 28)
    assert data.validation is not None
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (8000, 1000, 1000)
    assert data.class_counts["validation"] == dict.fromkeys(range(10), 100)
    used = data.describe_split()
    assert used["source_splits"] == {"train": "train", "validation": "validation", "test": "test"}
    assert used["sizes"] == {"train": 8000, "validation": 1000, "test": 1000}
    assert used["anomaly_split"] is None
    assert json.loads(json.dumps(used)) == used


def test_validation_is_carved_from_training(make_parquet: MakeParquet) -> None:
    path = str(make_parquet(train=40, test=10))
    data, again, other = (ready(path=path, validation_size=12, seed=seed) for seed in (0, 0, 1))
    assert data.validation is not None
    assert other.validation is not None
    assert again.validation is not None
    rows = np.concatenate([data.train.rows, data.validation.rows])
    assert sorted(rows) == list(range(40))
    assert len(data.validation) == 12
    assert data.validation.rows.tolist() == again.validation.rows.tolist() != other.validation.rows.tolist()
    none = ready(path=path)
    assert len(none.train) == 40
    assert none.validation is None
    assert none.val_dataloader() == []


@pytest.mark.parametrize("protocol", ["lebm", "official"])
def test_held_out_class(make_parquet: MakeParquet, protocol: Any) -> None:
    path = str(make_parquet(train=80, test=20))
    data = ready(path=path, held_out_label=2, anomaly_split=protocol, validation_size=5, batch_size=5)
    assert data.validation is not None
    assert data.test is not None
    for split in (data.train, data.validation):
        assert split.anomaly is not None
        assert not split.anomaly.any()
        assert 2 not in split.labels
    assert data.test.anomaly is not None
    found = (len(data.train), len(data.validation), len(data.test), int(data.test.anomaly.sum()))
    # 75 normals of 100: 60 train (5 of them carved), 15 + all 25 held out; or the test split of 20 with its 5
    assert found == ((55, 5, 40, 25) if protocol == "lebm" else (55, 5, 20, 5))
    pieces = [sources_of(data, name) for name in ("train", "validation", "test")]
    assert not pieces[0] & pieces[1]
    assert not pieces[0] & pieces[2]
    assert not pieces[1] & pieces[2]
    labels = torch.cat([batch["label"][batch["anomaly"]] for batch in data.test_dataloader()])
    assert labels.tolist() == [2] * found[3]
    used = data.describe_split()
    assert used["anomaly_split"] == protocol
    assert used["anomaly_base_rate"] == found[3] / found[2]


def test_a_validation_split_of_the_source_loses_its_anomalies() -> None:
    data = ready(path="embedded:mnist", held_out_label=4)
    assert data.validation is not None
    assert data.class_counts["validation"] == {digit: 100 for digit in range(10) if digit != 4}
    assert len(data.train) == int(0.8 * 8100)
    assert data.class_counts["test"][4] == 900


@pytest.mark.slow
def test_the_published_split_of_mnist(data_root: Path) -> None:
    rates = {}
    for digit in (1, 4, 5, 7, 9):
        data = ready(path=str(data_root / "mnist"), held_out_label=digit)
        assert data.test is not None
        normals = 70_000 - (held_out := int(data.class_counts["test"][digit]))
        assert len(data.train) == int(0.8 * normals)
        assert len(data.test) == normals - len(data.train) + held_out
        assert data.validation is None
        rates[digit] = round(data.describe_split()["anomaly_base_rate"], 3)
    assert rates == {
        1: 0.388,
        4: 0.351,
        5: 0.331,
        7: 0.368,
        9: 0.356,
    }  # as computed from the class sizes of MNIST


@pytest.mark.slow
def test_the_official_split_of_mnist(data_root: Path) -> None:
    data = ready(
        path=str(data_root / "mnist"), held_out_label=4, anomaly_split="official", validation_size=1000
    )
    assert data.validation is not None
    assert data.test is not None
    assert len(data.train) + len(data.validation) == 60_000 - 5_842
    assert len(data.test) == 10_000
    assert data.class_counts["test"][4] == 982


def test_limits(make_parquet: MakeParquet) -> None:
    path = str(make_parquet(train=40, test=20))
    data = ready(path=path, validation_size=10, limit_train=12, limit_eval=4, batch_size=4)
    assert data.validation is not None
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 4)
    assert data.train.rows.tolist() == sorted(data.train.rows.tolist()) != list(range(12))


def test_a_source_with_its_own_names(make_parquet: MakeParquet) -> None:
    data = ready(
        path=str(make_parquet(train=12, test=4, valid=3, size=6)),
        image_size=4,
        channels=3,
        crop=(0, 0, 5, 6),
        batch_size=4,
    )
    assert data.image_shape == (3, 4, 4)
    assert data.validation is not None
    assert len(data.validation) == 3


def test_mistakes_are_told_in_one_line(make_parquet: MakeParquet, make_image_folder: MakeParquet) -> None:
    labelled, unlabelled = (
        str(make_parquet(train=8, test=4)),
        str(make_parquet("bare", train=8, test=4, classes=None)),
    )
    only_train = str(make_image_folder(train=8))
    cases = {
        "held_out_label 7 does not exist; the labels are 0 (class 0), 1 (class 1)": {
            "path": labelled,
            "held_out_label": 7,
        },
        "the split 'train' has none; set label_column": {"path": unlabelled, "held_out_label": 1},
        "no split 'test' (test_split; null trains without a test set); it has train": {"path": only_train},
        "no split 'learn' (train_split); it has train, test": {"path": labelled, "train_split": "learn"},
        "no training images are left": {"path": labelled, "validation_size": 8},
        "no such file or folder": {"path": "./nowhere"},
    }
    for message, arguments in cases.items():
        with pytest.raises(UserError) as error:
            ImageData(**arguments).setup()  # type: ignore[arg-type]
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    without_test = ready(path=only_train, test_split=None)
    assert without_test.test is None
    with pytest.raises(UserError, match="there is no test split"):
        without_test.test_dataloader()


def test_splits_of_different_shapes(tmp_path: Path) -> None:
    for split, side in (("train", 4), ("test", 5)):
        write_parquet(tmp_path / f"{split}.parquet", [png(np.zeros((side, side), np.uint8))], None)
    with pytest.raises(UserError, match="images differ between splits .* set image_size and channels"):
        ImageData(str(tmp_path)).setup()


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"eval_batch_size": -1},
        {"limit_train": 0},
        {"validation_size": -1},
        {"num_workers": -1},
        {"image_size": 0},
    ],
)
def test_arguments_out_of_range(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ImageData("embedded:mnist", **arguments)  # type: ignore[arg-type]


def test_a_recipe_and_python_describe_the_same(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    arguments = {
        "path": "embedded:mnist",
        "crop": [2, 2, 26, 26],
        "channels": 1,
        "held_out_label": 4,
        "on_error": "skip",
    }
    parsed = parser.parse_string(
        yaml.safe_dump({"data": {"class_path": "lebm.data.images.ImageData", "init_args": arguments}})
    )
    built = parser.instantiate(parsed)["data"]
    assert isinstance(built, ImageData)
    python = ImageData("embedded:mnist", crop=(2, 2, 26, 26), channels=1, held_out_label=4, on_error="skip")
    assert describe(built) == describe(python)
    with pytest.raises(Exception, match="channels"):
        parser.parse_string(
            yaml.safe_dump(
                {
                    "data": {
                        "class_path": "lebm.data.images.ImageData",
                        "init_args": arguments | {"channels": 2},
                    }
                }
            )
        )


def test_open_images_is_the_same_data(make_parquet: MakeParquet) -> None:
    path = str(make_parquet(train=6, test=4))
    data = ready(path=path, batch_size=2)
    assert data.test is not None
    np.testing.assert_array_equal(data.test.images(), open_images(path, "test").images)


@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("train", "val", "test")])
def test_images_directly_in_the_folders_of_splits_have_no_labels(
    make_image_folder: MakeParquet, splits: tuple[str, ...]
) -> None:
    folder = make_image_folder(**dict.fromkeys(splits, 4), classes=1)
    for file in list(folder.glob("*/*/*.png")):
        file.rename(file.parents[1] / file.name)
    for empty in folder.glob("*/class0"):
        empty.rmdir()
    data = ready(path=str(folder), test_split="test" if "test" in splits else None, batch_size=2)
    assert list(data.describe_split()["sizes"].values()) == [4] * len(splits)
    assert not any(data.class_counts.values())
    for split in splits:
        assert not open_images(str(folder), "validation" if split == "val" else split).has_labels
    with pytest.raises(UserError, match="the split 'train' has none"):
        ready(path=str(folder), test_split=None, held_out_label=0)


def test_a_detected_column_without_labels_and_one_with_a_few(tmp_path: Path) -> None:
    images = [png(np.full((4, 4), row, np.uint8)) for row in range(3)]
    for name, labels in (("none", [None] * 3), ("few", [1, None, 0]), ("all", [1, 1, 0])):
        write_parquet(tmp_path / name / "train.parquet", images, labels)
    write_parquet(tmp_path / "all" / "test.parquet", images, [None] * 3)
    without = open_images(str(tmp_path / "none"))
    assert not without.has_labels
    assert without.labels.tolist() == [-1] * 3
    with pytest.raises(UserError, match="column 'label' holds no class labels"):
        open_images(str(tmp_path / "none"), label_column="label")
    few = open_images(str(tmp_path / "few"))
    assert few.has_labels
    assert few.labels.tolist() == [1, -1, 0]
    with pytest.raises(UserError, match="the split 'test' has none"):
        ready(path=str(tmp_path / "all"), held_out_label=1)
