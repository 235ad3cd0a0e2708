"""``lebm evaluate`` and ``lebm sweep`` from the command line."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lebm.__main__ import main
from lebm.evaluation.record import read_evaluation
from lebm.metrics.features import DIGIT_WEIGHTS
from tests.cli.conftest import Run
from tests.evaluation.conftest import write_pictures

SMALL = ["--n-samples", 40, "--features", "pixels", "--resamples", 20]


@pytest.fixture
def own(lebm: Run, tiny: Path) -> Path:
    """A recipe on an image folder with a held-out class."""
    write_pictures(Path("pictures"))
    Path("own.yaml").write_text(
        tiny.read_text().replace(
            "  class_path: tests.cli.toy.ToyData",
            "  class_path: lebm.data.ImageData\n"
            "  init_args: {path: ./pictures, image_size: 4, channels: 1, batch_size: 10, held_out_label: 2}",
        )
    )
    return Path("own.yaml")


def test_a_file_and_a_table_and_suites_are_added(
    lebm: Run, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("fit", "-c", own, "--run_dir", "run", "--trainer.max_steps", 2) == 0
    capsys.readouterr()
    assert lebm("evaluate", "run", "--suite", "image", *SMALL) == 0
    shown = capsys.readouterr().out
    assert "frechet_distance/pixels8" in shown
    assert "run, plain weights, seed" in shown
    assert "95% interval" in shown
    assert "image: samples against real images, features FlatFeatures, " in shown
    assert lebm("evaluate", "run", "--suite", "anomaly", "--steps", 3, *SMALL) == 0
    assert "guessing" in capsys.readouterr().out
    found = read_evaluation(Path("run/evaluation.json"))
    assert set(found["suites"]) == {"image", "anomaly"}
    assert found["loaded_weights"] == "plain"
    assert (
        found["checkpoint_sha256"]
        == hashlib.sha256(Path("run/checkpoints/last.ckpt").read_bytes()).hexdigest()
    )
    origins = {name: suite["origin"] for name, suite in found["suites"].items()}
    assert {name: origin["command"].split(" --n-")[0] for name, origin in origins.items()} == {
        "image": "lebm evaluate run --suite image",
        "anomaly": "lebm evaluate run --suite anomaly --steps 3",
    }
    assert {name: origin["chains"]["evaluation_steps"] for name, origin in origins.items()} == {
        "image": 5,
        "anomaly": 3,
    }
    assert found["suites"]["image"]["protocol"]["features"]["class_path"] == "lebm.metrics.FlatFeatures"
    assert {figure["split"] for figure in found["suites"]["anomaly"]["figures"]} == {"lebm", "official"}
    assert lebm("test", "run") == 0
    tested = json.loads(Path("run/test.json").read_text())["metrics"]
    assert not any(
        name.startswith("test/auroc") for name in tested
    )  # this recipe has no such callback; only the JSON matters here


def test_what_was_measured_before_a_failure_is_kept(
    lebm: Run, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lebm("fit", "-c", own, "--run_dir", "run", "--trainer.max_steps", 1) == 0
    Path("empty").mkdir()  # found only when it is read
    assert lebm("evaluate", "run", "--suite", "image", "--suite", "ood", "--ood", "./empty", *SMALL) == 2
    assert set(read_evaluation(Path("run/evaluation.json"))["suites"]) == {"image"}


def test_features_by_name_carry_their_digest(lebm: Run, own: Path) -> None:
    assert lebm("fit", "-c", own, "--run_dir", "run", "--trainer.max_steps", 1) == 0
    assert (
        lebm(
            "evaluate", "run/checkpoints/last.ckpt", "--suite", "image", "--n-samples", 30, "--out", "e.json"
        )
        == 0
    )
    protocol = read_evaluation(Path("e.json"))["suites"]["image"]["protocol"]
    assert hashlib.sha256(DIGIT_WEIGHTS.read_bytes()).hexdigest().startswith(protocol["features_digest"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "--suite", "image", "--features", "os.system"], "os.system is outside the trusted packages"),
        (["run", "--suite", "image", "--features", "lebm.models.StandardNormal"], "--features"),
        (["run", "--suite", "image", "--features", "absent.pt"], "absent.pt"),
        (["run", "--suite", "ood", "--ood", "./nowhere"], "./nowhere"),
        (["run", "run", "--out", "x.json"], "--out names one file"),
        (
            ["run", "--suite", "image", "--features", "inception", "--inception-weights", "absent.pth"],
            "absent.pth: no such file",
        ),
    ],
)
def test_one_line(
    lebm: Run, own: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert lebm("fit", "-c", own, "--run_dir", "run", "--trainer.max_steps", 1) == 0
    capsys.readouterr()
    assert lebm("evaluate", *words) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


class Child:
    """Runs the sweep's commands in this process and counts them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.verbs: list[str] = []
        self.fail_at = -1
        patch.setattr(subprocess, "run", self)

    def __call__(self, words: list[str], env: dict[str, str], check: bool) -> None:
        assert words[:3] == [sys.executable, "-m", "lebm"]
        self.verbs.append(" ".join(words[3:5]))
        failing = len(self.verbs) - 1 == self.fail_at
        if code := 2 if failing else main([str(word) for word in words[3:]]):
            raise subprocess.CalledProcessError(code, words)


def sweep(lebm: Run, own: Path, *words: object) -> int:
    more = ["--suite", "anomaly", "--runs", "cells", "--trainer.max_steps", 2]
    return lebm("sweep", "-c", own, "--over", "held_out_label", "0,1", *more, *words)


def test_a_sweep_makes_every_cell_and_skips_what_is_done(
    lebm: Run, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    child = Child(monkeypatch)
    child.fail_at = 2  # the second cell's training
    assert sweep(lebm, own) == 1
    assert "| held_out_label-1 | not done | " in capsys.readouterr().out
    child.fail_at, child.verbs = -1, []
    assert sweep(lebm, own) == 0
    assert [verb.split()[0] for verb in child.verbs] == ["fit", "evaluate"]
    child.verbs = []
    capsys.readouterr()
    assert sweep(lebm, own) == 0
    assert child.verbs == []
    shown = capsys.readouterr().out
    for label in (0, 1):
        run = Path("cells") / f"held_out_label-{label}"
        assert json.loads((run / "summary.json").read_text())["data"]["held_out_label"] == label
        figures = json.loads((run / "evaluation.json").read_text())["suites"]["anomaly"]["figures"]
        auroc = next(figure["value"] for figure in figures if figure["name"] == "auroc/anomaly_score")
        assert re.search(rf"\| {run.name} \| done \| {auroc:.4g} ", shown)
    assert "lebm report cells/held_out_label-0 cells/held_out_label-1 --out sweep.html" in shown


def test_several_arguments_are_a_grid_and_a_name_may_have_a_section(
    lebm: Run, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def run(words: list[str], env: dict[str, str], check: bool) -> None:
        asked.append(" ".join(words[4:]))
        raise subprocess.CalledProcessError(1, words)

    monkeypatch.setattr(subprocess, "run", run)
    over = ["--over", "seed", "0,1", "--over", "data.init_args.seed", "2,3"]
    assert lebm("sweep", "-c", own, *over, "--seed_everything=4") == 1
    names = ["seed_everything-0_seed-2", "seed_everything-0_seed-3"]
    names += ["seed_everything-1_seed-2", "seed_everything-1_seed-3"]
    assert re.findall(r"--run_dir runs/sweep-own/(\S+) ", " ".join(asked)) == names
    # the values of the cell come last, so they win over a flag for all
    assert "--seed_everything 1 --data.init_args.seed 3 --run_dir" in asked[-1]


def test_an_interrupted_cell_goes_on(lebm: Run, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(monkeypatch)
    assert sweep(lebm, own) == 0
    summary = Path("cells/held_out_label-1/summary.json")
    summary.write_text(summary.read_text().replace('"finished"', '"interrupted"'))
    child.verbs = []
    assert sweep(lebm, own, "--trainer.max_steps", 3) == 0
    assert child.verbs == ["fit -c", "evaluate cells/held_out_label-1"]
    content = json.loads(summary.read_text())
    assert content["steps"] == 3
    assert content["earlier_attempts"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-c", "nowhere", "--over", "seed", "1"], "nowhere"),
        (["-c", "own.yaml", "--over", "seed", " , "], "separate the values by commas"),
        (["-c", "own.yaml", "--over", "seed", "../x"], "separate the values by commas"),
    ],
)
def test_refused_sweeps(
    lebm: Run, own: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert lebm("sweep", *words) == 2
    assert expected in capsys.readouterr().err
