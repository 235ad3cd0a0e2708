"""A class that is held out: given by name, said in the first lines, and left out for other data."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.config.recipes import merged
from lebm.config.request import read_request
from lebm.data import ImageData
from lebm.errors import UserError
from lebm.evaluation.data import RunImages
from lebm.evaluation.reopen import reopen
from tests.cli.conftest import Run
from tests.conftest import MakeParquet

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


def held_out(*words: str) -> tuple[Any, list[str]]:
    """The held-out class that is left of a recipe's, and what is said."""
    content, notes = merged(read_request("fit", list(words)).settings)
    return content["data"]["init_args"]["held_out_label"], notes


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
    for zero, one in (("1", "0"), (1, 0)):
        assert ready(path, held_out_label=zero).held_out_label == 0
        assert ready(path, held_out_label=one).held_out_label == 1


def test_the_notes_name_the_class_and_count(clothes: str) -> None:
    (note,) = ready(clothes, held_out_label=1, anomaly_split="official", validation_size=3).notes()
    assert note.startswith(
        "held out: class 1 ('pullover'); 2 images in the test split, none of 18 for training (--data."
    )
    (bare,) = ready(clothes, held_out_label=1, anomaly_split="official", test_split=None).notes()
    assert "; 0 images in the test split" in bare
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


def test_a_number_is_left_out_for_other_data(tmp_path: Path, clothes: str, digits: str) -> None:
    own = tmp_path / "own.yaml"
    other = ["-c", str(own), "--data.init_args.path", clothes]
    for label in ([1, "coat"], 1):
        own.write_text(f"data: {{init_args: {{path: {digits}, held_out_label: {label}}}}}\n")
        left, (note,) = held_out(*other)
        assert left is None
        assert note == (
            f"held_out_label {label} is a class number of {digits} and was left out for {clothes}; add"
            " --data.init_args.held_out_label NAME to hold out a class"
        )
    for typed in (["--data.held_out_label", "1"], ["--data.init_args.held_out_label=1"]):
        assert held_out(*other, *typed) == ("1", [])
        assert held_out("-c", str(own), *typed, *other[2:]) == ("1", [])
    assert held_out("-c", str(own)) == (1, [])
    assert held_out("-c", str(own), "--data.init_args.path", digits) == (1, [])
    own.write_text(f"data: {{init_args: {{path: {digits}, held_out_label: pullover}}}}\n")
    assert held_out(*other) == ("pullover", [])


def test_a_number_belongs_to_the_path_that_stands_before_it(
    tmp_path: Path, clothes: str, digits: str
) -> None:
    block, label = tmp_path / "block.yaml", tmp_path / "label.yaml"
    block.write_text(f"data: {{init_args: {{path: {clothes}}}}}\n")
    label.write_text("data: {init_args: {held_out_label: 1}}\n")
    words = ["-c", str(block), "-c", str(label)]
    assert held_out(*words) == (1, [])
    assert held_out(*words, "--data.path", digits)[0] is None
    assert held_out("-c", str(label), "--data.path", digits) == (1, [])  # no data stand with it


def test_the_command_leaves_the_number_out(
    lebm: Run, clothes: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load(tiny.read_text())
    recipe["data"] = {
        "class_path": "ImageData",
        "init_args": {"path": "embedded:mnist", "image_size": 4, "batch_size": 4, "held_out_label": 4},
    }
    Path("own.yaml").write_text(yaml.safe_dump(recipe))
    words = ["-c", "own.yaml", "--run_dir", "run", "--trainer.max_steps", 1, "--data.path", clothes]
    assert lebm("fit", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("lebm: held_out_label 4 is a class number of embedded:mnist and was left")
    assert not any(line.startswith("lebm: held out") for line in lines)
    assert json.loads(Path("run/summary.json").read_text())["data"]["held_out_label"] is None
    assert yaml.safe_load(Path("run/config.yaml").read_text())["data"]["init_args"]["held_out_label"] is None


def test_the_command_refuses_a_class_that_there_is_not(
    lebm: Run, clothes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.init_args.path", clothes, "--data.init_args.held_out_label", "socks"]
    assert lebm("fit", "-c", "quickstart", *words) == 2
    assert "held_out_label socks does not exist; the labels are 0 (coat)" in capsys.readouterr().err


def test_an_evaluation_on_other_data_knows_names_only(
    clothes: str, digits: str, make_parquet: MakeParquet, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def held_out_of(data: str, **settings: Any) -> Any:
        section = {"data": {"class_path": "lebm.data.ImageData", "init_args": settings}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(section))
        return RunImages.of(reopen(tmp_path, data)).held_out_label

    with caplog.at_level(logging.WARNING):
        assert held_out_of(digits, path=digits, held_out_label=1) == 1
        assert held_out_of(clothes, path=digits, held_out_label=1) is None
        assert f"held_out_label 1 is a number of {digits} and was left out for {clothes}" in caplog.text
        caplog.clear()
        assert held_out_of(digits, path=clothes, held_out_label="pullover") is None
        assert "held_out_label pullover does not exist; the labels are 0, 1, 2, 3" in caplog.text
        caplog.clear()
        shuffled = str(make_parquet("shuffled", train=24, test=8, names=[*CLOTHES[2:], *CLOTHES[:2]]))
        assert held_out_of(shuffled, path=clothes, held_out_label="pullover") == 3
        assert held_out_of(shuffled, path=clothes, normal_label="coat") == [0, 1, 3]
    assert not caplog.text
