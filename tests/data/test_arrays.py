"""Arrays as data: from files and from Python, whole or carved, and one line for each mistake."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lebm.data import ArrayData, SplitData
from lebm.errors import UserError
from tests.data.test_resume import Learner, quiet_trainer

ROWS = np.arange(60, dtype=np.float32).reshape(30, 2)


def ready(data: ArrayData) -> ArrayData:
    data.prepare_data()
    data.setup()
    return data


def test_a_file_of_rows_is_carved_by_the_seed(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    path = str(tmp_path / "rows.npy")
    data, again, other = (
        ready(ArrayData(path, 5, validation_size=4, test_size=6, seed=seed)) for seed in (0, 0, 1)
    )
    assert data.describe_split() == {
        "path": path,
        "shape": [2],
        "sizes": {"train": 20, "validation": 4, "test": 6},
        "batch_size": 5,
        "seed": 0,
    }
    splits = [data.train.observations(), data.validation.observations(), data.test.observations()]
    assert sorted(torch.cat(splits)[:, 0].tolist()) == ROWS[:, 0].tolist()
    assert torch.equal(data.test.observations(), again.test.observations())
    assert not torch.equal(data.test.observations(), other.test.observations())
    assert torch.equal(
        data.test.observations(), ready(ArrayData(path, 5, test_size=6)).test.observations()
    )  # whatever else is set aside
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch["x"], data.train.observations()[batch["index"]])
    assert batch["x"].dtype == torch.float32
    assert batch["label"].tolist() == [-1] * 5
    assert torch.cat([batch["index"] for batch in data.test_dataloader()]).tolist() == list(range(6))


def test_a_file_with_its_own_splits_is_taken_as_it_is(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 4, 4), dtype=np.uint8)
    images[0, 0, 0, :2] = 0, 255
    np.savez(
        tmp_path / "images.npz", train=images, train_label=np.arange(12, dtype=np.int32), test=images[:3]
    )
    data = ready(ArrayData(str(tmp_path / "images.npz"), 4, validation_size=2, test_size=5))
    assert data.describe_split()["sizes"] == {"train": 10, "validation": 2, "test": 3}
    batch = next(iter(data.test_dataloader()))
    assert batch["x"][0, 0, 0, :2].tolist() == [-1.0, 1.0]
    assert batch["label"].tolist() == [-1, -1, -1]
    whole = torch.cat([data.train.labels, data.validation.labels])
    assert sorted(whole.tolist()) == list(range(12))


def test_a_training_run_reads_tensors(tmp_path: Path) -> None:
    x = torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    data = ArrayData.of({"train": x, "train_label": torch.arange(20)}, batch_size=4, validation_size=4)
    learner = Learner()
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(learner, datamodule=data)
    assert sorted(row for _, _, rows in learner.seen for row in rows) == list(range(16))
    assert learner.validated == list(range(4))
    with pytest.raises(UserError, match="there is no test split; add an array 'test', or set test_size"):
        data.test_dataloader()


def test_channels_may_come_last() -> None:
    x = np.random.default_rng(0).integers(0, 255, (6, 8, 9, 3), dtype=np.uint8)
    last, first = (ArrayData.of({"train": part}, batch_size=6) for part in (x, x.transpose(0, 3, 1, 2)))
    for data in (last, first):
        data.setup()
    assert last.train.image_shape == (3, 8, 9)
    assert torch.equal(last.train.observations(), first.train.observations())


IMAGES = np.zeros((4, 1, 2, 2), dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"test": ROWS}, "holds test; expected train, and optionally"),
        ({"train": ROWS, "size": ROWS}, "holds train, size; expected train, and optionally"),
        (
            {"train": IMAGES[None]},
            r"array 'train': must hold numbers of shape \(N, d\), \(N, H, W\) or \(N, C, H, W\), not float32",
        ),
        ({"train": ROWS[:0]}, r"not float32 of shape \(0, 2\)"),
        ({"train": IMAGES + 2}, r"must hold finite numbers; images in \[-1, 1\]"),
        ({"train": ROWS + np.nan}, "must hold finite numbers"),
        (
            {"train": ROWS, "train_label": ROWS[:, 0]},
            r"its labels are float32 of shape \(30,\), not 30 whole numbers",
        ),
        ({"train": ROWS, "train_label": np.arange(3)}, r"of shape \(3,\), not 30 whole numbers"),
        ({"train": ROWS, "test": ROWS[:, :1]}, "rows differ between splits"),
        ({"train": ROWS[:5]}, r"no training rows are left \(test_size 3, validation_size 2, of 5 rows\)"),
    ],
)
def test_mistakes_are_told_in_one_line(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        ArrayData.of(arrays, validation_size=2, test_size=3).setup()
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    for name, reason in (
        ("objects.npy", "plain numbers"),
        ("text.npy", "plain numbers"),
        ("cut.npz", "plain numbers"),
        ("x.npy", "no such file"),
    ):
        with pytest.raises(UserError, match=reason):
            ArrayData(str(tmp_path / name)).setup()
    with pytest.raises(ValueError, match="at least 1"):
        ArrayData("rows.npy", batch_size=0)


@pytest.mark.parametrize("kind", [">f4", ">i2", np.longdouble, np.uint16, np.float16, bool])
def test_every_kind_of_number_is_read(tmp_path: Path, kind: Any) -> None:
    np.save(tmp_path / "rows.npy", (ROWS % 2).astype(kind))
    data = ready(ArrayData(str(tmp_path / "rows.npy"), 5))
    assert torch.equal(data.train.observations(), torch.from_numpy(ROWS % 2))


@pytest.mark.parametrize("shape", [(20, 0), (20, 0, 0, 0), (20, 1, 0, 2)])
def test_rows_without_numbers(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="must hold numbers of shape"):
        ArrayData.of({"train": np.zeros(shape)}).setup()


def test_a_class_of_ones_own_says_that_it_does_not_list_its_rows() -> None:
    class Own(SplitData):
        pass

    with pytest.raises(UserError, match=r"Own does not list its rows; define rows\(split, limit\)"):
        Own().rows()


def test_grey_images_need_no_axis_of_channels_and_names_may_be_those_of_keras(tmp_path: Path) -> None:
    x = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)
    labels = np.array([3, 1, 4])
    np.savez(tmp_path / "a.npz", x_train=x[:3], y_train=labels, x_test=x[3:], x_train_name=["a", "b", "c"])
    data = ArrayData(str(tmp_path / "a.npz"), batch_size=1)
    data.setup()
    assert data.train.image_shape == (1, 6, 7)
    assert torch.equal(data.train.labels, torch.tensor([3, 1, 4]))
    torch.testing.assert_close(data.test.images()[:, 0], torch.from_numpy(x[3:] / 127.5 - 1).float())


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_of_mnist_bring_their_labels_and_test_images(tmp_path: Path, suffix: str, dot: str) -> None:
    def write(name: str, values: np.ndarray) -> None:
        name = name.replace("-idx", f"{dot}idx")
        content = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()
        (tmp_path / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)

    x = np.random.default_rng(0).integers(0, 256, (7, 4, 5), dtype=np.uint8)
    y = np.arange(7, dtype=np.uint8)
    write("train-images-idx3-ubyte", x[:5])
    write("train-labels-idx1-ubyte", y[:5])
    write("t10k-images-idx3-ubyte", x[5:])
    write("t10k-labels-idx1-ubyte", y[5:])
    data = ArrayData(str(tmp_path / f"train-images{dot}idx3-ubyte{suffix}"), batch_size=1)
    data.setup()
    for split, rows in ((data.train, slice(0, 5)), (data.test, slice(5, 7))):
        assert torch.equal(split.labels, torch.from_numpy(y[rows]).long())
        torch.testing.assert_close(split.images()[:, 0], torch.from_numpy(x[rows] / 127.5 - 1).float())
    (tmp_path / f"train-images{dot}idx3-ubyte{suffix}").write_bytes(b"broken")
    with pytest.raises(UserError, match="not a .npy, .npz or IDX file of plain numbers"):
        ArrayData(str(tmp_path / f"train-images{dot}idx3-ubyte{suffix}")).setup()
