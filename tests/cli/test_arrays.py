"""Every verb on arrays: vectors, images in a ``.npz`` file, and points in the plane."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lebm.cli.dispatch import run as dispatch
from tests.cli.conftest import Run

NOISE = np.random.default_rng(0)
IMAGES = NOISE.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)


@pytest.fixture
def images(lebm: Run, tiny: Path) -> Path:
    """A run on the images of a file."""
    np.savez("own.npz", train=IMAGES[:40], test=IMAGES[40:], test_label=np.arange(20) % 2)
    recipe = yaml.safe_load(tiny.read_text())
    arguments = {"path": "./own.npz", "batch_size": 10, "validation_size": 10}
    recipe["data"] = {"class_path": "lebm.data.ArrayData", "init_args": arguments}
    Path("own.yaml").write_text(yaml.safe_dump(recipe))
    assert lebm("fit", "-c", "own.yaml", "--run_dir", "run", "--trainer.max_steps", 1) == 0
    return Path("run")


def scores(file: str) -> list[dict[str, str]]:
    with Path(file).open(newline="") as lines:
        return list(csv.DictReader(lines))


def figures(file: str) -> dict[str, Any]:
    suites = json.loads(Path(file).read_text())["suites"]
    return {figure["name"]: figure for suite in suites.values() for figure in suite["figures"]}


def test_images_in_a_file(lebm: Run, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lebm("score", images, "--false_positive_rate", 0.2, "--top", 2) == 0
    assert "threshold" in capsys.readouterr().out
    rows = scores("run/scores.csv")
    assert [row["label"] for row in rows[:3]] == ["0", "1", "0"]
    assert len(rows) == 20
    assert Image.open("run/scores-most.png")
    assert lebm("score", images, "--split", "train", "--limit", 3, "--out", "t.csv") == 0
    assert len(scores("t.csv")) == 3
    for words in (["reconstruct"], ["interpolate"], ["traverse", "3"]):
        assert lebm(words[0], images, *words[1:]) == 0
    assert len(list(images.glob("images/*.png"))) == 3
    words = ["--features", "pixels", "--n-samples", 40, "--resamples", 20, "--limit", 15]
    assert (
        lebm("evaluate", images, "--suite", "image", "--suite", "anomaly", *words, "--real-split", "train")
        == 0
    )
    assert figures("run/evaluation.json")["reconstruction_mse"]["n"] == 15
    np.savez("other.npz", train=IMAGES[:5])
    assert lebm("score", images, "--data", "other.npz", "--out", "o.csv") == 0
    assert len(scores("o.csv")) == 5


def test_points_in_the_plane(lebm: Run, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data.n_train", 1000, "--data.n_eval", 50, "--trainer.max_epochs", 1]
    assert lebm("fit", "-c", "multistage_nce/toy2d", *data, "--run_dir", "run") == 0
    assert lebm("score", "run", "--score", "combined") == 0
    assert len(scores("run/scores.csv")) == 50
    assert lebm("score", "run", "--top", 3, "--out", "t.csv") == 2
    assert "--top needs images" in capsys.readouterr().err
    assert lebm("reconstruct", "run", "-n", 6) == 0
    assert np.load("run/images/reconstructions.npy").shape == (12, 2)
    assert lebm("interpolate", "run", "--pairs", 2, "-n", 5) == 0
    assert np.load("run/images/interpolation.npy").shape == (10, 2)
    assert lebm("reconstruct", "run", "--out", "points.png") == 2
    assert "observations of shape (2,) are written as .npy" in capsys.readouterr().err
    np.save("own.npy", NOISE.normal(size=(7, 2)))
    assert lebm("score", "run", "--data", "own.npy", "--out", "o.csv") == 0
    assert len(scores("o.csv")) == 7
    assert lebm("score", "run", "--data", "embedded:mnist", "--out", "m.csv") == 2
    assert "not square images; name a .npy or .npz file with --data" in capsys.readouterr().err
    words = ["--likelihood-images", 4, "--levels", 3, "--n-samples", 30]
    assert lebm("evaluate", "run", "--suite", "image", "--suite", "ood", "--suite", "likelihood", *words) == 0
    assert {"reconstruction_mse", "log_likelihood/ais"} <= figures("run/evaluation.json").keys()


def test_latents_have_the_names_of_their_files(lebm: Run, trained: Path, pictures: Path) -> None:
    """Of the splits of the run, and of other data, whose test split is encoded."""
    data = "data: {class_path: ImageData, init_args: {path: pictures, test_size: 0, batch_size: 4}}"
    Path("own.yaml").write_text(data.replace("test_size: 0", "image_size: 4, validation_size: 3"))
    words = ["--trainer.callbacks", "null", "--trainer.max_steps", 1, "--run_dir", "own"]
    assert lebm("fit", "-c", "tiny.yaml", "-c", "own.yaml", *words) == 0
    assert lebm("encode", "own", "--out", "z.npz") == 0
    with np.load("z.npz") as latents:
        names = [*latents["train_name"], *latents["validation_name"]]
        assert sorted(names) == sorted(str(p.relative_to(pictures)) for p in pictures.glob("train/*/*"))
        assert [name.startswith("test") for name in latents["test_name"]] == [True] * 12
        for part in ("train", "validation", "test"):
            classes = [int(name.split("class")[1][0]) for name in latents[f"{part}_name"]]
            assert latents[f"{part}_label"].tolist() == classes
    assert lebm("encode", trained, "--data", "pictures", "--out", "other.npz") == 0
    with np.load("other.npz") as latents:
        assert latents["train"].shape[0] == 12
        assert all(name.startswith("test") for name in latents["train_name"])


def test_a_prior_on_the_latents_of_another_run(
    lebm: Run, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Encode once, fit the recipe of vectors to the file, draw, and decode what was drawn."""
    assert lebm("encode", images, "--out", "z.npz") == 0
    with np.load("z.npz") as latents:
        sizes = {name: latents[name].shape for name in latents}
    assert sizes["train"] == (30, 2)
    assert sizes["validation"] == (10, 2)
    assert sizes["test"] == (20, 2)
    assert np.load("z.npz")["test_label"].tolist() == [0, 1] * 10
    assert lebm("encode", images, "--split", "test", "--out", "t.npz") == 0
    assert np.array_equal(np.load("t.npz")["train"], np.load("z.npz")["test"])
    assert lebm("encode", images, "--out", "z.csv") == 2
    assert "latents are written as .npz" in capsys.readouterr().err
    assert dispatch(["cp", "latent_mle/vectors", "prior.yaml", "--for", "z.npz"]) == 0
    assert "30 training vectors of 2 numbers" in capsys.readouterr().out
    words = ["--trainer.max_steps", 6, "--run_dir", "prior"]
    base = ["--model.init_args.prior.init_args.base.init_args.components", 2]
    assert lebm("fit", "-c", "prior.yaml", *words, *base) == 0
    assert lebm("sample", "prior", "-n", 5) == 0
    assert np.load("prior/images/samples.npy").shape == (5, 2)
    assert lebm("sample", "prior", "-n", 9, "--decode", images) == 0
    assert Image.open("prior/images/samples.png")
    assert lebm("sample", images, "-n", 1, "--decode", "prior") == 2
    assert "expected latents of 2 numbers, but the samples of run have the shape (1, 4, 4)" in (
        capsys.readouterr().err
    )
    for verb in ("score", "reconstruct", "interpolate", "traverse"):
        assert lebm(verb, "prior") == 0
    assert dispatch(["cp", "latent_mle/mnist", "a.yaml", "--for", "z.npz"]) == 2
    assert "contains vectors; start from a recipe of vectors, such as latent_mle/vectors" in (
        capsys.readouterr().err
    )
    assert dispatch(["cp", "latent_mle/vectors", "a.yaml", "--for", "own.npz"]) == 2
    assert (
        "contains images; start from a recipe of images, such as latent_mle/mnist" in capsys.readouterr().err
    )
    assert not Path("a.yaml").exists()
