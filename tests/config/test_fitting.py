"""``lebm cp RECIPE DEST --for FOLDER``: a recipe for one's own images."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lebm.cli.dispatch import run
from lebm.cli.recipes import built
from lebm.config import recipes
from lebm.config.fitting import fitted
from lebm.config.request import read_request
from lebm.data.survey import Survey, survey
from lebm.errors import UserError
from tests.conftest import MakeParquet

CLASSES = ["coat", "pullover", "sneaker"]
OWN = Survey("/nowhere", False, 90, (1, 40, 36), True, CLASSES, "train", None, False)


def refused(name: str) -> str:
    with pytest.raises(UserError) as error:
        fitted(recipes.find(name), OWN)
    return str(error.value)


@functools.cache
def image_recipes() -> list[str]:
    found = []
    for name, path in recipes.names().items():
        try:
            fitted(path, OWN)
        except UserError:
            continue
        found.append(name)
    return found


def data_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)["data"]["init_args"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 18 colour images of two sizes in three classes."""
    monkeypatch.chdir(tmp_path)
    for number in range(18):
        folder = tmp_path / "own" / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24 if number else 22), (number, 0, 9)).save(folder / f"{number}.png")
    return tmp_path / "own"


def test_which_recipes_can_be_fitted() -> None:
    left_out = set(recipes.names()) - set(image_recipes())
    assert {name.split("/")[-1] for name in left_out} == {
        *("ptb", "snli", "yahoo", "kjv", "kjv_published", "text_small", "toy2d", "vectors"),
        *("mnist_two_stage", "mnist_two_stage_normal_base", "cifar10_two_stage"),
        *("csv", "tensorboard", "wandb"),
        *("short_run", "remembered", "taught", "variational", "persistent", "mixture"),
    }
    assert "sentences need no --for" in refused("latent_mle/kjv")
    assert "starts from the networks of another run" in refused("joint_hierarchical/mnist_two_stage")


ONE_EACH = (
    "quickstart",
    "latent_mle/svhn",
    "multistage_nce/mnist_published",
    "joint_hierarchical/mnist",
    "dual_mcmc/mnist",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ONE_EACH else pytest.mark.slow) for name in image_recipes()],
)
def test_the_networks_can_do_what_the_data_give(name: str, tmp_path: Path) -> None:
    text, _ = fitted(recipes.find(name), OWN)
    target = tmp_path / "own.yaml"
    target.write_text(text)
    cli = built(read_request("validate-recipe", [str(target)]))
    data = data_of(text)
    assert data["channels"] == 1
    assert data["batch_size"] <= 81
    assert data["validation_size"] == 0.1
    config = yaml.safe_load(cli.parser.dump(cli.config))
    assert config["data"]["init_args"].get("held_out_label") is None
    assert "AnomalyDetection" not in str(config["trainer"].get("callbacks"))
    shape = (1, data["image_size"], data["image_size"])
    z = torch.zeros(1, cli.model.latent_dim, device=cli.model.device)
    assert cli.model.decode(z).shape[1:] == shape


def test_a_folder_of_images_is_trained_on(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cp", "quickstart", "own.yaml", "--for", str(own)]) == 0
    shown = capsys.readouterr().out
    assert "18 training images of 20 x 22 pixels or more, in colour, 3 classes (coat, pullover," in shown
    assert "held_out_label 4 applies only to the data of the recipe and was left out" in shown
    data = data_of(Path("own.yaml").read_text())
    assert data["image_size"] == 20
    assert data["channels"] == 3
    assert data["batch_size"] == 16
    more = "--trainer.max_epochs 1056 --model.init_args.optimizer.lr_decay 1"
    assert f"66 training steps are few; for more of them, add {more}" in shown
    short = [
        *more.split(),
        "--trainer.max_epochs",
        "1",
        "--trainer.callbacks",
        "null",
        "--trainer.logger",
        "false",
    ]
    assert run(["fit", "-c", "own.yaml", *short]) == 0


def test_one_tiny_image_does_not_decide_on_the_size(own: Path) -> None:
    assert survey(str(own)).shape == (3, 22, 20)
    Image.new("RGB", (1, 1)).save(own / "coat" / "tiny.png")
    for number in range(2):
        Image.new("RGB", (30, 30)).save(own / "coat" / f"large-{number}.png")
    assert survey(str(own)).shape == (3, 22, 20)


def test_a_folder_of_normal_images_and_defects(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("train/good", 12), ("test/good", 6), ("test/broken", 3), ("test/scratch", 3)):
        folder = Path("parts") / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("L", (20, 20), 20 * number).save(folder / f"{number}.png")
    assert run(["cp", "quickstart", "own.yaml", "--for", "parts"]) == 0
    shown = capsys.readouterr().out
    assert "12 training images of 20 x 20 pixels, grey, 3 classes (broken, good, scratch), a test" in shown
    assert "all training images have the class 'good', and test images have other classes too" in shown
    data = data_of(Path("own.yaml").read_text())
    assert (data["normal_label"], data["anomaly_split"]) == ("good", "official")
    assert data["held_out_label"] is None
    assert "trainer" not in yaml.safe_load(Path("own.yaml").read_text())
    module = built(read_request("validate-recipe", ["own.yaml"])).datamodule
    assert "6 images in the test split" in module.notes()[0]
    # without normal images in the test, or with one class in all splits, there is nothing to find
    shutil.rmtree("parts/test/good")
    assert survey("parts").normal is None
    shutil.rmtree("parts/test/broken")
    Path("parts/test/scratch").rename("parts/test/good")
    assert survey("parts").normal is None


HOSTILE = "dog\nrun_dir: elsewhere #\x1b[2J\u2028seed_everything: 7"


def test_names_write_no_keys_into_a_recipe() -> None:
    found = replace(OWN, path=f"/🙂/{HOSTILE}", classes=["cat", HOSTILE], test_split="test", normal=HOSTILE)
    text, _ = fitted(recipes.find("latent_mle/mnist_anomaly"), found)
    assert yaml.safe_load(text).keys() == {"include", "model", "data"}
    data = data_of(text)
    assert (data["path"], data["normal_label"], data["held_out_label"]) == (found.path, HOSTILE, None)
    assert "# mnist_anomaly, for /🙂/dog?run_dir: elsewhere #?[2J?seed_everything: 7\n" in text


def test_names_do_not_reach_the_terminal_raw(
    make_parquet: MakeParquet, own: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_parquet(train=12, classes=2, names=["cat", HOSTILE], size=20)
    assert run(["cp", "latent_mle/mnist", "new.yaml", "--for", "parquet"]) == 0
    said = capfd.readouterr().out
    assert "2 classes (cat, dog?run_dir: elsewhere #?[2J?seed_everything: 7)" in said
    assert all(line.isprintable() and line.startswith("new.yaml: ") for line in said.splitlines())
    assert "run_dir" not in yaml.safe_load(Path("new.yaml").read_text())


def test_few_training_steps_are_said() -> None:
    def said(count: int, has_validation: bool) -> str:
        found = replace(OWN, count=count, has_validation=has_validation)
        return " ".join(fitted(recipes.find("latent_mle/mnist"), found)[1])

    epochs = yaml.safe_load(recipes.find("latent_mle/mnist").read_text())["trainer"]["max_epochs"]
    few = f"{2 * epochs} training steps are few"
    assert few in said(260, False)  # 234 rows, the last 34 of an epoch are left out
    assert few in said(234, True)
    enough = -(-1000 // epochs) * 100
    assert "training steps are few" in said(enough - 1, True)
    assert "training steps" not in said(enough, True)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_change_of_size_is_said(size: int) -> None:
    shown = " ".join(fitted(recipes.find("latent_mle/svhn"), replace(OWN, shape=(3, size, size)))[1])
    assert ("the images are resized to 32 x 32, the size of the recipe's networks" in shown) == (size != 32)


def test_images_that_cannot_be_opened_have_no_size(own: Path) -> None:
    (own / "coat" / "broken.png").write_bytes(b"no image")
    assert survey(str(own)).shape == (3, 22, 20)


def test_splits_of_the_data_are_used(make_parquet: MakeParquet) -> None:
    found = survey(str(make_parquet(train=12, test=4, validation=4)))
    assert (found.test_split, found.has_validation, found.classes[0]) == ("test", True, "class 0")
    data = data_of(fitted(recipes.find("latent_mle/cifar10"), found)[0])
    assert "validation_size" not in data or data["validation_size"] == 0
    assert "test_split" not in data
    assert (data["image_size"], data["channels"], data["batch_size"]) == (32, 1, 12)


def test_array_files(tmp_path: Path) -> None:
    file = tmp_path / "images.npz"
    np.savez(file, train=np.zeros((30, 3, 12, 16), np.uint8), train_label=np.arange(30) % 2)
    found = survey(str(file))
    assert (found.shape, found.classes, found.count) == ((3, 12, 16), ["0", "1"], 30)
    recipe = yaml.safe_load(fitted(recipes.find("baselines/mnist_vae"), found)[0])
    assert recipe["data"]["class_path"] == "ArrayData"
    generator = recipe["model"]["init_args"]["likelihood"]["init_args"]["generator"]["init_args"]
    assert generator["out_shape"] == [3, 12, 16]
    with pytest.raises(UserError, match="its networks make images of 32 x 32 pixels, but the array has 16 x"):
        fitted(recipes.find("latent_mle/cifar10"), found)
    np.save(tmp_path / "rows.npy", np.zeros((9, 2), np.float32))
    found = survey(str(tmp_path / "rows.npy"))
    assert found.line.startswith("9 training vectors of 2 numbers, no labels")
    with pytest.raises(UserError, match="a recipe of images, but .*rows.npy contains vectors; start from"):
        fitted(recipes.find("quickstart"), found)
    text, _ = fitted(recipes.find("multistage_nce/vectors"), found)
    assert (yaml.safe_load(text)["latent_dim"], data_of(text)["batch_size"]) == (2, 7)
    assert data_of(text)["test_size"] == data_of(text)["validation_size"] == 0.1


def test_a_folder_without_images_leaves_no_recipe(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own.parent / "empty").mkdir()
    assert run(["cp", "quickstart", "new.yaml", "--for", "empty"]) == 2
    assert "no images" in capsys.readouterr().err
    assert not Path("new.yaml").exists()


@pytest.mark.parametrize(
    ("recipe", "data", "line"),
    [
        ("latent_mle/text_small", "own.txt", "--for own.txt: sentences need no --for, because recipes of"),
        ("latent_mle/text_small", "verses", "lebm fit -c DEST --data.init_args.path verses\n"),
        ("latent_mle/mnist", "own.txt", "sentences need no --for"),
        ("latent_mle/mnist", "verses", "copy one, such as latent_mle/text_small"),
    ],
)
def test_sentences_are_no_images(
    recipe: str, data: str, line: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.txt").write_text("one\ntwo\n")
    Path("verses").mkdir()
    Path("verses/train.txt").write_text("one\ntwo\n")
    assert run(["cp", recipe, "new.yaml", "--for", data]) == 2
    assert line in capsys.readouterr().err
    assert not Path("new.yaml").exists()
