"""Sampling, reconstructing and scoring from a run folder or a checkpoint alone."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from lebm import load
from lebm.data.images import open_images, to_unit_range
from lebm.data.splits import spread_rows
from tests.cli.conftest import Run
from tests.reliability.test_hostile_runs import checkpoint


def test_samples_as_picture(lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lebm("sample", trained, "-n", 9) == 0
    assert (
        "9 samples in runs/tiny/images/samples.png (chain of 2 steps, seed 0, plain weights of runs/tiny)"
        in capsys.readouterr().out
    )
    assert Image.open(trained / "images/samples.png").size == (
        8 * 6 + 2,
        2 * 6 + 2,
    )  # 4 pixels and 2 of border an image
    assert lebm("sample", trained, "-n", 9) == 0
    assert (trained / "images/samples-2.png").read_bytes() == (trained / "images/samples.png").read_bytes()


def test_samples_depend_on_seed_and_steps_alone(lebm: Run, trained: Path) -> None:
    def draw(name: str, *words: object) -> np.ndarray:
        assert lebm("sample", trained, "--out", f"{name}.npy", *words) == 0
        return np.load(f"{name}.npy")

    first = draw("a", "-n", 20)
    assert first.shape == (20, 1, 4, 4)
    assert np.abs(first).max() <= 1
    np.testing.assert_allclose(draw("b", "-n", 7, "--batch-size", 3), first[:7], atol=1e-6)
    assert np.abs(draw("c", "-n", 20, "--seed", 1) - first).max() > 0.01
    assert np.abs(draw("d", "-n", 20, "--steps", 30) - first).max() > 0.01


def test_samples_as_files_and_from_a_lone_checkpoint(lebm: Run, trained: Path) -> None:
    Path("lone").mkdir()
    shutil.copy(trained / "checkpoints/last.ckpt", "lone/model.ckpt")
    assert lebm("sample", "lone/model.ckpt", "-n", 3, "--format", "png-files") == 0
    assert sorted(path.name for path in Path("lone/samples").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
    ]
    assert Image.open("lone/samples/000000.png").size == (4, 4)


def test_weights_that_are_not_finite_are_said(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def damage(content: dict[str, Any]) -> None:
        content["state_dict"]["prior.tilt.net.0.weight"][0, 0] = torch.nan

    words = ["sample", trained, "-n", 3, "--format", "png-files"]
    assert lebm(*words) == 0
    assert "finite" not in "".join(capsys.readouterr())
    (file, *_) = sorted((trained / "images").rglob("000000.png"))
    assert Image.open(file).mode == "L"  # grey, as the images of the recipe
    assert lebm("sample", trained, "--out", "samples.jpg") == 2
    assert "--out samples.jpg: pictures are written as .png" in capsys.readouterr().err
    checkpoint(trained, damage)
    assert lebm(*words) == 0
    shown = capsys.readouterr()
    assert "last.ckpt: NaN or infinite weights in 1 of " in shown.err
    assert "first in prior.tilt.net.0.weight;" in shown.err
    assert shown.err.count("\n") == 1
    assert "3 of these samples are not finite" in shown.out


def test_weights_choose_between_averaged_and_raw(
    lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ema.yaml").write_text(
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.EMAWeightAveraging, init_args:"
        " {decay: 0.5}}]}\n"
    )
    assert lebm("fit", "-c", tiny, "-c", "ema.yaml", "--run_dir", "run") == 0
    assert lebm("sample", "run", "--out", "ema.npy") == 0
    assert lebm("sample", "run", "--out", "raw.npy", "--weights", "raw") == 0
    assert np.abs(np.load("ema.npy") - np.load("raw.npy")).max() > 1e-6
    shown = capsys.readouterr().out
    assert "averaged weights of run)" in shown
    assert "raw weights of run)" in shown
    assert load("run").loaded_weights == "averaged"


def test_out_is_never_overwritten_unasked(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.png").write_text("precious")
    assert lebm("sample", trained, "--out", "mine.png") == 2
    assert capsys.readouterr().err.endswith(
        "lebm: error: mine.png exists; choose another --out or add --force\n"
    )
    assert Path("mine.png").read_text() == "precious"
    assert lebm("sample", trained, "--out", "mine.png", "--force") == 0
    assert Image.open("mine.png").format == "PNG"


def test_reconstructions_are_below_the_data(
    lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("reconstruct", trained, "--data", "./pictures", "-n", 5) == 0
    shown = capsys.readouterr().out
    assert (
        "5 reconstructions of ./pictures (test) in runs/tiny/images/reconstructions.png (chain of 5 steps"
        in shown
    )
    assert "mean squared error" in shown
    grid = np.asarray(Image.open(trained / "images/reconstructions.png").convert("L"))
    assert grid.shape == (2 * 6 + 2, 5 * 6 + 2)
    chosen = spread_rows(np.repeat([0, 1], 6), 12, 5, seed=load(trained).seed)
    images = open_images("./pictures", "test", image_size=4, channels=1)
    assert images.labels[chosen].tolist() == [0, 1, 0, 1, 0]
    assert np.array_equal(grid[2:6, 2:6], images.images[chosen[0], 0])


def test_scores_have_index_label_and_the_model_s_own_numbers(
    lebm: Run, trained: Path, pictures: Path
) -> None:
    assert lebm("score", trained, "--data", "./pictures", "--batch-size", 5) == 0
    with (trained / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(12))
    assert [int(row["label"]) for row in rows] == [0] * 6 + [1] * 6
    assert [row["path"] for row in rows[5:7]] == ["test/class0/5.png", "test/class1/0.png"]
    assert [row["class_name"] for row in rows[5:7]] == ["class0", "class1"]

    model = load(trained)
    x = to_unit_range(torch.tensor(open_images("./pictures", "test", image_size=4, channels=1).images))
    expected = model.anomaly_score(x, steps=5, generator=model.sample_noise("encode", torch.arange(12)))
    np.testing.assert_allclose([float(row["anomaly_score"]) for row in rows], expected.numpy(), rtol=1e-5)


def test_scores_as_parquet(lebm: Run, trained: Path, pictures: Path) -> None:
    assert (
        lebm("score", trained, "--data", "./pictures", "--split", "train", "--limit", 4, "--out", "s.parquet")
        == 0
    )
    assert parquet.read_table("s.parquet").column_names == [
        *("index", "path", "label", "class_name", "anomaly_score")
    ]
    assert parquet.read_table("s.parquet").num_rows == 4


def test_data_of_the_run_itself(
    lebm: Run,
    tiny: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("own.yaml").write_text(
        "data: {class_path: lebm.data.images.ImageData, init_args: {path: ./pictures, image_size: 4,"
        " channels: 1, batch_size: 4}}\n"
    )
    assert lebm("fit", "-c", tiny, "-c", "own.yaml", "--run_dir", "run", "--trainer.max_steps", 2) == 0
    assert lebm("score", "run") == 0
    assert lebm("score", "run/checkpoints/last.ckpt", "--out", "again.csv") == 0
    assert Path("again.csv").read_text() == Path("run/scores.csv").read_text()
    assert f"12 scores of {pictures.resolve()} (test)" in capsys.readouterr().out
    run, there = Path("run").resolve(), tmp_path / "elsewhere"
    shutil.copytree(pictures / "test" / "class0", there / "pictures")  # other data of the same name
    monkeypatch.chdir(there)
    assert lebm("score", run, "--out", "again.csv") == 0
    assert Path("again.csv").read_text() == (run / "scores.csv").read_text()
    assert lebm("test", run, "--ckpt_path", run / "checkpoints/last.ckpt") == 0
    assert json.loads((run / "summary.json").read_text())["data"]["sizes"]["test"] == 12
    assert lebm("score", run, "--data", "pictures", "--out", "other.csv") == 0
    assert "6 scores of pictures (train)" in capsys.readouterr().out
    for split in ("train", "test"):
        shutil.copytree(run.parent / "pictures" / split, there / "pictures" / split)
    assert lebm("test", run, "--data.init_args.path", "pictures") == 0
    assert (
        capsys.readouterr().err.count("6 file(s) are not read, because they are in none of its splits") == 1
    )


def test_other_data_are_read_with_the_white_level_of_the_run(
    lebm: Run, trained: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("deep").mkdir()
    Image.fromarray(np.full((4, 4), 4095, dtype=np.uint16)).save("deep/a.png")
    Image.fromarray(np.full((4, 4), 255, dtype=np.uint8)).save("bright.png")
    assert lebm("score", trained, "--data", "deep") == 2
    assert "the brightest pixel would be 16 of 255; set white_level" in capsys.readouterr().err
    Path(trained / "config.yaml").write_text(
        "data: {class_path: lebm.data.ImageData, init_args: {path: gone, white_level: 4095}}\n"
    )
    for data in ("deep", "bright.png"):
        assert lebm("score", trained, "--data", data, "--out", f"{data}.csv") == 0
    assert Path("deep.csv").read_text().replace("a.png", "bright.png") == Path("bright.png.csv").read_text()


OWN = (
    "data: {class_path: lebm.data.images.ImageData, init_args: {path: ./pictures, image_size: 4, channels: 1,"
    " batch_size: 4, validation_size: 0.5}}\n"
)


def test_a_picture_of_the_most_anomalous_images(
    lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "./pictures", "--top", 2, "--out", "s.csv"]
    assert lebm("score", trained, *words) == 0
    shown = capsys.readouterr().out
    assert "2 images, the most anomalous first, in s-most.png" in shown
    assert "squared error per pixel, from 0 (black) to" in shown
    assert lebm("score", trained, *words) == 2
    assert "s.csv exists" in capsys.readouterr().err
    with open("s.csv", newline="") as file:
        scores = [float(row["anomaly_score"]) for row in csv.DictReader(file)]
    Path("s.csv").unlink()
    assert lebm("score", trained, *words) == 2
    assert "s-most.png exists" in capsys.readouterr().err
    most = np.asarray(Image.open("s-most.png").convert("L"))[6 : 6 + 96, 6 : 6 + 96]
    images = open_images("./pictures", "test", image_size=4, channels=1).images
    assert np.array_equal(most, images[np.argmax(scores), 0].repeat(24, 0).repeat(24, 1))


def test_a_threshold_at_a_rate_of_false_alarms(
    lebm: Run, tiny: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.yaml").write_text(OWN)
    assert lebm("fit", "-c", tiny, "-c", "own.yaml", "--run_dir", "run", "--trainer.max_steps", 1) == 0
    assert lebm("score", "run", "--false_positive_rate", 0.2) == 0
    shown = capsys.readouterr().out
    threshold = float(re.search(r"threshold (\S+): 1 of 6 rows of \S+/pictures \(validation\)", shown)[1])
    with Path("run/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    flagged = [float(row["anomaly_score"]) > threshold for row in rows]
    assert [row["flagged"] == "true" for row in rows] == flagged
    assert f"{sum(flagged)} of 12 rows score above it" in shown
    Path("bare.yaml").write_text(OWN.replace("validation_size: 0.5", "validation_size: 0"))
    assert lebm("fit", "-c", tiny, "-c", "bare.yaml", "--run_dir", "b", "--trainer.max_steps", 1) == 0
    assert lebm("score", "b", "--false_positive_rate", 0.2) == 2
    assert "--data.init_args.validation_size 0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["score", "{run}", "--data", "./pictures", "--false_positive_rate", "0.1"],
            "ToyData is not a data module that can be opened again",
        ),
        (["score", "{run}", "--data", "./nowhere"], "./nowhere"),
        (["score", "{run}", "--data", "./pictures", "--split", "tset"], "no split 'tset'"),
        (["score", "{run}"], "name some with --data"),
        (["score", "{run}", "--data", "./pictures", "--out", "scores.txt"], "scores.txt"),
        (["sample", "{run}/config.yaml"], "config.yaml"),
        (["sample", "pictures"], "no checkpoints/last.ckpt"),
        (["sample", "{run}", "--device", "cuda"], "finds no CUDA device"),
    ],
)
def test_one_line(
    lebm: Run,
    trained: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    if "cuda" in words and torch.cuda.is_available():
        assert lebm(*(word.format(run=trained) for word in words)) == 0
        return
    capsys.readouterr()
    assert lebm(*(word.format(run=trained) for word in words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("lebm: error: ")
    assert error.count("\n") == 1
    assert expected in error


def test_wrong_option_is_explained_by_usage(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("sample", trained, "-n", "none") == 2
    assert "expected a whole number of at least 1, not 'none'" in capsys.readouterr().err
