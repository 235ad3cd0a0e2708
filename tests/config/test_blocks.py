"""Blocks that recipes include: what is read, what is refused, and copies that stand alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.cli.dispatch import run
from lebm.config import recipes
from lebm.config.recipes import load_recipe, merged, read
from lebm.config.request import read_request

SHARED = [name for name, path in recipes.names().items() if "\ninclude:" in path.read_text()]
MINE = """\
# My own recipe
# with a header.
latent_dim: 4
include: [data/mnist, near.yaml]

model:  # the method
  class_path: LatentMLE

data:
  # smaller batches
  init_args: {batch_size: 7, crop: [0, 0, 9, 9]}  # for a small machine
"""
NEAR = """\
trainer:
  max_epochs: 3
data:
  init_args:
    # quicker
    eval_batch_size: 9
    batch_size: 8
"""


def whole(path: Path) -> dict[str, Any]:
    return merged(read(path))[0]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.yaml").write_text(MINE)
    (folder / "near.yaml").write_text(NEAR)
    return folder / "mine.yaml"


def test_a_copy_is_the_recipe_and_includes_what_it_includes(tmp_path: Path) -> None:
    name, path = "latent_mle/mnist", recipes.names()["latent_mle/mnist"]
    copy = tmp_path / "copy.yaml"
    assert run(["cp", name, str(copy)]) == 0
    assert copy.read_text() == path.read_text()
    assert whole(copy) == whole(path)


def test_a_recipe_in_another_folder_includes_packaged_blocks_and_files_beside_it(mine: Path) -> None:
    request = read_request("fit", ["-c", str(mine), "-c", "data/fashion_mnist"])
    known = recipes.blocks()
    assert [setting.source for setting in request.settings] == [
        known["data/mnist"],
        mine.parent / "near.yaml",
        mine,
        known["data/fashion_mnist"],
    ]
    assert request.recipes == [mine, known["data/fashion_mnist"]]
    assert request.default_run_dir == Path("runs/elsewhere-mine")


def test_what_is_included_is_printed_as_comments(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cat", str(mine)]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == yaml.safe_load(mine.read_text())
    assert text.startswith(MINE)
    assert "#       eval_batch_size: 9\n" in text
    data = load_recipe(recipes.blocks()["data/mnist"])["data"]["init_args"]
    assert whole(mine) == {
        "latent_dim": 4,
        "model": {"class_path": "LatentMLE"},
        "trainer": {"max_epochs": 3},
        "data": {
            "class_path": "ImageData",
            "init_args": {**data, "eval_batch_size": 9, "batch_size": 7, "crop": [0, 0, 9, 9]},
        },
    }


def test_a_recipe_may_include_a_whole_recipe(mine: Path) -> None:
    mine.write_text("include: latent_mle/mnist\ndata: {init_args: {batch_size: 7}}\n")
    request = read_request("fit", ["-c", str(mine)])
    assert [setting.source for setting in request.settings] == [
        recipes.blocks()["data/mnist"],
        recipes.names()["latent_mle/mnist"],
        mine,
    ]
    assert whole(mine)["data"]["init_args"]["batch_size"] == 7


def test_a_run_stores_what_its_blocks_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("near.yaml").write_text(
        "trainer: {max_epochs: 1}\ndata:\n  init_args: {limit_train: 100, limit_eval: 5}\n"
    )
    Path("mine.yaml").write_text("include: near.yaml\ntrainer: {limit_val_batches: 0, callbacks: null}\n")
    quick = ["--trainer.enable_progress_bar=false", "--run_dir=run"]
    assert run(["fit", "-c", "quickstart", "-c", "mine.yaml", *quick]) == 0
    stored = load_recipe(Path("run/config.yaml"))
    assert "include" not in stored
    assert stored["data"]["init_args"]["limit_train"] == 100
    assert run(["fit", "--resume", "run", "--trainer.max_epochs", "2"]) == 0
    assert "mine.yaml" not in load_recipe(Path("run/config.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("include: data/mnits", "no such block or file 'data/mnits'; did you mean 'data/mnist'?"),
        ("include: {data: mnist}", "expected a name or a list of names"),
        ("include: [3]", "expected a name or a list of names"),
        ("include: missing.yaml", "no such block or file 'missing.yaml'"),
        ("include: nested.yaml", "mine.yaml includes itself"),
        ("include: broken.yaml", "not valid YAML"),
    ],
)
def test_refusals(mine: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str) -> None:
    (mine.parent / "nested.yaml").write_text("include: mine.yaml\n")
    (mine.parent / "broken.yaml").write_text("a: [\n")
    mine.write_text(text + "\n")
    assert run(["fit", "-c", str(mine)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lebm: error: ")
    assert expected in line


def test_blocks_are_no_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("data/") for line in lines)
    assert lines[-1] == "blocks that recipes include: " + ", ".join(recipes.blocks())


@pytest.mark.parametrize("name", recipes.blocks())
def test_blocks_say_what_they_are_and_are_used(name: str) -> None:
    path = recipes.blocks()[name]
    assert 20 < len(recipes.title(path)) <= 110
    assert f"`include: {name}`" in path.read_text()
    assert any(f"\ninclude: {name}\n" in recipes.names()[recipe].read_text() for recipe in SHARED)
    assert max(map(len, path.read_text().splitlines())) <= 110
