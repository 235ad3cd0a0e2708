"""A class that is held out: given by name, said in the first lines, and refused for other data."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.cli.starting import TrainingCLI
from lebm.config.held_out import held_out_notes
from lebm.config.request import read_request
from lebm.data import ImageData
from lebm.errors import UserError
from lebm.evaluation.data import RunImages
from tests.cli.conftest import Run
from tests.conftest import MakeParquet, pictures, png, write_parquet

CLOTHES = ["coat", "pullover", "sneaker", "bag"]


@pytest.fixture
def clothes(make_parquet: MakeParquet) -> str:
    return str(make_parquet("clothes", train=24, test=8, names=CLOTHES))


@pytest.fixture
def digits(make_parquet: MakeParquet) -> str:
    return str(make_parquet("digits", train=24, test=8, names=list("0123")))


def ready(path: str, **arguments: Any) -> ImageData:
    data = ImageData(path, **arguments)
    data.setup()
    return data


def notes(words: list[str], path: str, label: int | str) -> list[str]:
    return held_out_notes(read_request("fit", words), ready(path, held_out_label=label))


def test_a_class_may_be_named(clothes: str) -> None:
    by_name, by_number = ready(clothes, held_out_label="pullover"), ready(clothes, held_out_label=1)
    assert by_name.held_out_label == 1
    assert by_name.describe_split() == by_number.describe_split()
    assert by_name.train.rows.tolist() == by_number.train.rows.tolist()
    assert by_name.describe_split()["label_names"] == dict(zip("0123", CLOTHES, strict=True))
    assert by_name.describe_split()["held_out_label"] == 1
    with pytest.raises(UserError, match=r"held_out_label socks does not exist; the labels are 0 \(coat\), 1"):
        ready(clothes, held_out_label="socks")


def test_a_name_that_is_a_number_is_a_name_first(make_parquet: MakeParquet) -> None:
    path = str(make_parquet("years", train=8, test=4, names=["1", "0", "3", "2"]))
    assert ready(path, held_out_label="1").held_out_label == 0
    assert ready(path, held_out_label=1).held_out_label == 1
    assert ready(path, held_out_label="0").held_out_label == 1


def test_the_notes_name_the_class_and_count(clothes: str) -> None:
    (note,) = ready(clothes, held_out_label=1, anomaly_split="official", validation_size=3).notes()
    assert note.startswith(
        "held out: class 1 ('pullover') is in none of the 18 training and validation images"
    )
    assert "2 images of it are the anomalies of the test split" in note
    (bare,) = ready(clothes, held_out_label=1, anomaly_split="official", test_split=None).notes()
    assert "there is no test split" in bare
    assert ready(clothes).notes() == []


def test_a_run_says_so_and_keeps_the_names(
    lebm: Run, tiny: Path, clothes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"path": clothes, "image_size": 4, "batch_size": 4, "held_out_label": "coat"}
    recipe = {**yaml.safe_load(tiny.read_text()), "data": {"class_path": "ImageData", "init_args": arguments}}
    Path("own.yaml").write_text(yaml.safe_dump(recipe))
    assert lebm("fit", "-c", "own.yaml", "--run_dir", "run", "--trainer.max_steps", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "lebm: fit in run"
    assert lines[1].startswith("lebm: held out: class 0 ('coat')")
    assert json.loads(Path("run/summary.json").read_text())["data"]["label_names"]["1"] == "pullover"


def test_a_number_for_other_data_is_refused(tmp_path: Path, clothes: str, digits: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"data: {{init_args: {{path: {digits}, held_out_label: 1}}}}\n")
    other = ["-c", str(own), "--data.init_args.path", clothes]
    for words in (other, ["-c", str(own), f"--data.path={clothes}"]):
        with pytest.raises(UserError, match="1 was written for .*digits, and class 1 of .* is 'pullover'"):
            notes(words, clothes, 1)
    assert notes([*other, "--data.held_out_label", "1"], clothes, 1) == []
    assert notes(["-c", str(own)], digits, 1) == []
    assert notes(["-c", str(own), "--data.init_args.path", digits], digits, 1) == []
    block = tmp_path / "block.yaml"
    block.write_text(f"data: {{init_args: {{path: {clothes}}}}}\n")
    label = tmp_path / "label.yaml"
    label.write_text("data: {init_args: {held_out_label: 1}}\n")
    assert notes(["-c", str(block), "-c", str(label)], clothes, 1) == []
    label.write_text("data: {init_args: {held_out_label: pullover}}\n")
    assert notes(["-c", str(own), "-c", str(label), "--data.path", clothes], clothes, "pullover") == []


def test_names_that_are_the_numbers_need_no_question(tmp_path: Path, digits: str) -> None:
    words = ["-c", "latent_mle/mnist_anomaly", "--data.init_args.path", digits]
    assert notes(words, digits, 1) == []


def test_classes_without_names_are_stated(make_parquet: MakeParquet, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    for split in ("train", "test"):
        write_parquet(path / f"{split}.parquet", [png(image) for image in pictures(8)], [0, 1] * 4)
    (note,) = notes(["-c", "quickstart", "--data.init_args.path", str(path)], str(path), 1)
    assert "the number 1 was written for embedded:mnist" in note


def test_the_command_refuses_before_it_builds(
    lebm: Run, clothes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingCLI, "_instantiate", lambda cli: pytest.fail("the networks were built"))
    assert lebm("fit", "-c", "quickstart", "--data.init_args.path", clothes) == 2
    assert "held_out_label 4 does not exist; the labels are 0 (coat)" in capsys.readouterr().err


def test_an_evaluation_on_other_data_drops_a_label_of_another_meaning(
    clothes: str, digits: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"path": digits, "held_out_label": 1, "seed": 0}
    with caplog.at_level(logging.WARNING):
        assert RunImages.open(settings, clothes, (1, 8, 8)).held_out_label is None
    assert "holds out label 1, which is 'pullover' in" in caplog.text
    assert RunImages.open(settings, digits, (1, 8, 8)).held_out_label == 1
    named = {**settings, "path": clothes, "held_out_label": "pullover"}
    assert RunImages.open(named, digits, (1, 8, 8)).held_out_label is None
    assert "which does not exist in" in caplog.text
