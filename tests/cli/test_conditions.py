"""Class draws and completions from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import lebm as package
from lebm import checkpoint
from lebm.conditions import ClassCondition, Observed
from lebm.models import LatentClassifier
from lebm.plots import image_grid
from lebm.samplers import Noise
from tests.cli.conftest import Run

DATA = ("--data", "./pictures")


@pytest.fixture
def conditioned(lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run with a classifier of two classes beside it."""
    for number in range(30):  # more rows, so that every class has held-out ones
        shutil.copy("pictures/train/class0/0.png", f"pictures/train/class0/more{number}.png")
    assert lebm("condition", trained, *DATA) == 0
    shown = capsys.readouterr().out
    assert (
        "classifier of 2 classes in runs/tiny/classes.safetensors (latents of 42 rows of ./pictures" in shown
    )
    assert "lebm: next: lebm sample runs/tiny --class class0" in shown
    return trained


def _classifier(run: Path) -> LatentClassifier:
    return checkpoint.rebuilt(*checkpoint.newest(run / "classes.safetensors"), LatentClassifier)


def test_samples_of_a_class_are_draws_of_the_model_given_it(
    lebm: Run, conditioned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--class", "class1", "-n", 5, "--seed", 7, "--sharpness", 3, "--out", "x.npy")
    assert lebm("sample", conditioned, *words) == 0
    shown = capsys.readouterr().out
    assert "5 samples of class class1 in x.npy (chain of 2 steps, seed 7" in shown
    assert "the classifier agrees with" in shown
    assert "effective draws of the prior" in shown
    given = 3 * ClassCondition(_classifier(conditioned), 1)
    model = package.load(conditioned)
    expected = model.sample(5, given=given, generator=Noise([(7, "sample", "class1")]))
    np.testing.assert_allclose(np.load("x.npy"), expected, atol=1e-5)
    assert lebm("sample", conditioned, "--class", "~1", "-n", 3) == 0
    assert (conditioned / "images/samples.png").exists()


def test_the_classifier_says_what_it_was_fitted_to(lebm: Run, conditioned: Path, pictures: Path) -> None:
    with safe_open(conditioned / "classes.safetensors", "pt") as file:
        facts = file.metadata()["facts"]
    assert '"names": ["class0", "class1"]' in facts
    assert '"rows": 42' in facts
    before = (conditioned / "classes.safetensors").read_bytes()
    assert lebm("condition", conditioned, *DATA) == 2
    assert lebm("condition", conditioned, *DATA, "--force") == 0
    assert (conditioned / "classes.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "2"], "--class 2: '2' is not a class; the classes are class0, class1"),
        (["--class", "0|1"], "--class 0|1: 2 of 2 classes are not a condition"),
        (["--class", "0", "--start", "pool"], "--start pool runs no chain; leave out --class"),
        (["--class", "0", "--sharpness", "0"], "--sharpness 0: must be finite and above 0"),
        (
            ["--class", "0", "--classifier", "other"],
            "other: no such classifier for --class; fit one with lebm condition",
        ),
        (["--class", "0", "--weights", "raw"], None),
    ],
)
def test_refusals_of_sample(
    words: list[str], message: str | None, lebm: Run, conditioned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("sample", conditioned, *words) == (0 if message is None else 2)
    if message is not None:
        assert message in capsys.readouterr().err


def test_a_classifier_of_other_weights_is_refused(
    lebm: Run, conditioned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(conditioned, "runs/other", symlinks=True)
    assert lebm("fit", "-c", "tiny.yaml", "--run_dir", "runs/again", "--seed_everything", "5") == 0
    shutil.rmtree("runs/other/checkpoints")
    shutil.copytree("runs/again/checkpoints", "runs/other/checkpoints", symlinks=True)
    assert lebm("sample", "runs/other", "--class", "0") == 2
    message = "runs/other/classes.safetensors: fitted to other weights than runs/other has"
    assert message in capsys.readouterr().err


def test_data_without_labels_are_refused(
    lebm: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("plain.npy", np.zeros((20, 1, 4, 4), dtype=np.float32))
    assert lebm("condition", trained, "--data", "plain.npy") == 2
    assert "a classifier needs labels of at least two classes" in capsys.readouterr().err
    assert not (trained / "classes.safetensors").exists()


def test_restored_images_show_what_was_seen_and_what_the_model_makes_of_it(
    lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*DATA, "--images", 3, "-n", 5, "--seed", 3, "--sigma", 0.5)
    assert lebm("restore", trained, *words) == 0
    shown = capsys.readouterr().out
    assert "5 completions of 3 images of ./pictures (test) in runs/tiny/images/restored.png" in shown
    assert "squared error per hidden pixel" in shown
    assert lebm("restore", trained, *words, "--out", "x.npy") == 0
    assert np.load("x.npy").shape == (15, 1, 4, 4)
    made = torch.from_numpy(np.load("x.npy")).unflatten(0, (3, 5))
    picture = np.asarray(Image.open("runs/tiny/images/restored.png")).astype(int)
    assert picture.shape == image_grid(torch.zeros(27, 1, 4, 4), 9).shape
    from lebm.evaluation.reopen import reopen

    model = package.load(trained)
    x = reopen(trained, "./pictures", model, trust=["tests"]).rows("test").spread(3, 3).all()
    seen = torch.ones(1, 4, 4).bool()
    seen[:, 2:] = False
    small = torch.where(seen, x, 0.0)
    expected = model.sample(15, given=Observed(small, seen, 0.5), generator=Noise([(3, "restore", 0)]))
    torch.testing.assert_close(made.flatten(0, 1), expected, atol=1e-5, rtol=0)
    columns = [x[:, None], small[:, None], made, made.mean(1, keepdim=True)]
    columns.append(2 * made.std(1, correction=0, keepdim=True) - 1)
    table = image_grid(torch.cat(columns, 1).flatten(0, 1), 9).astype(int)
    assert np.abs(picture - table).max() <= 1


@pytest.mark.parametrize("words", [["--mask", "box", "--noise", "0.3"], ["--shrink", "2"]])
def test_noisy_and_small_images(
    words: list[str], lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("restore", trained, *DATA, *words, "-n", 2, "--images", 1) == 0
    assert f"mask {'box' if 'box' in words else 'none'}, sigma 1" in capsys.readouterr().out


def test_a_picture_can_be_the_mask(
    lebm: Run, trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    white = np.full((4, 4), 255, dtype=np.uint8)
    white[2:] = 0
    for name, pixels in {"lower": white, "black": 0 * white, "large": white.repeat(3, 0)}.items():
        Image.fromarray(pixels).save(f"{name}.png")
    for mask, out in (("lower.png", "a.npy"), ("lower", "b.npy"), ("large.png", "c.npy")):
        assert lebm("restore", trained, *DATA, "--mask", mask, "-n", 2, "--images", 1, "--out", out) == 0
    for resized in ("b.npy", "c.npy"):
        np.testing.assert_array_equal(np.load("a.npy"), np.load(resized))
    for name, message in {
        "black.png": "black.png: black everywhere",
        "tiny.yaml": "cannot identify image file 'tiny.yaml'",
        "bog": "--mask bog: neither a file nor one of lower, upper",
    }.items():
        assert lebm("restore", trained, *DATA, "--mask", name) == 2
        assert message in capsys.readouterr().err
    assert lebm("restore", trained, *DATA, "--shrink", 3) == 2
    assert "--shrink 3: does not divide images of 4x4" in capsys.readouterr().err
