"""Sentences from a run folder or a checkpoint alone."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lebm.__main__ import main
from lebm.data.splits import spread_rows
from lebm.plots import between
from tests.cli.conftest import Run
from tests.conftest import tiny_recipe

TINY = """
seed_everything: 0
trainer:
  accelerator: cpu
  max_epochs: 1
  enable_progress_bar: false
  enable_model_summary: false
model:
  class_path: lebm.estimators.LatentMLE
  init_args:
    likelihood:
      class_path: lebm.models.CategoricalLikelihood
      init_args:
        generator:
          class_path: lebm.models.RecurrentGenerator
          init_args: {latent_dim: 2, vocabulary_size: 12, max_length: 6, embedding: 4, hidden: 6}
    prior: {class_path: lebm.models.StandardNormal, init_args: {latent_dim: 2}}
    prior_sampler: {class_path: lebm.samplers.Langevin, init_args: {steps: 2, step_size: 0.4}}
    posterior_sampler: {class_path: lebm.samplers.Langevin, init_args: {steps: 2, step_size: 0.4}}
    optimizer: {class_path: lebm.estimators.AdamGroups, init_args: {lr: {generator: 1.0e-2}}}
data:
  class_path: lebm.data.TextData
  init_args: {path: ./words, vocabulary_size: 12, max_length: 6, batch_size: 3}
"""


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with sentences and a finished run on them."""
    folder = tmp_path_factory.mktemp("talk")
    with pytest.MonkeyPatch.context() as patch:
        tiny_recipe(folder, patch)
        Path("words").mkdir()
        lines = [f"{a} {b} runs" for a in ("the", "one", "a") for b in ("cat", "dog", "cow")]
        for split in ("train", "test"):
            Path(f"words/{split}.txt").write_text("\n".join(lines))
        Path("talk.yaml").write_text(TINY)
        assert main(["fit", "-c", "talk.yaml", "--run_dir", "runs/talk", "--trust", "tests"]) == 0
    return folder


@pytest.fixture
def talking(tiny: Path, talked: Path) -> Path:
    """The folder of a finished run on sentences, in a copy of the working folder."""
    shutil.copytree(talked, ".", symlinks=True, dirs_exist_ok=True)
    return Path("runs/talk")


def test_sample_prints_sentences(lebm: Run, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert lebm("sample", talking, "-n", 7) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7
    known = {"the", "one", "a", "cat", "dog", "cow", "runs", "<unk>"}
    assert set(" ".join(printed).split()) <= known
    Path("alone").mkdir()
    shutil.copy(talking / "checkpoints/last.ckpt", "alone/model.ckpt")
    shutil.rmtree("words")
    assert lebm("sample", "alone/model.ckpt", "-n", 7, "--batch-size", 2, "--out", "said.txt") == 0
    assert capsys.readouterr().out.splitlines() == printed
    assert Path("said.txt").read_text().splitlines() == printed
    assert lebm("sample", talking, "-n", 7, "--seed", 5) == 0
    assert capsys.readouterr().out.splitlines() != printed


def written(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(name).read_text().splitlines()))


def test_score_of_a_text_file(lebm: Run, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.txt").write_text("the cat runs\n\nquite unheard of\nthe cat runs")
    assert lebm("score", talking, "--data", "new.txt", "--out", "new.csv") == 0
    said = capsys.readouterr().out
    assert "3 scores of new.txt (3 of 12 tokens unknown, 1 empty lines left out)" in said
    rows = written("new.csv")
    assert [row["index"] for row in rows] == ["0", "2", "3"]
    scores = [float(row["anomaly_score"]) for row in rows]
    assert scores[0] != scores[2]  # each line has a chain of its own
    assert abs(scores[0] - scores[2]) < 20
    assert lebm("score", talking, "--data", "new.txt", "--out", "small.csv", "--batch-size", 1) == 0
    again = [float(row["anomaly_score"]) for row in written("small.csv")]
    assert again == pytest.approx(scores, abs=1e-4)


def test_reconstruct_prints_pairs(lebm: Run, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert lebm("reconstruct", talking, "-n", 2) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["data", "model", "data", "model"]
    lines = Path("words/test.txt").read_text().splitlines()
    chosen = np.sort(spread_rows(None, 9, 2, seed=0))  # the seed of the model
    assert printed[::2] == [f"data   {lines[row]}" for row in chosen]
    assert lebm("reconstruct", talking, "-n", 2, "--seed", 1) == 0
    assert capsys.readouterr().out.splitlines()[::2] != printed[::2]
    assert lebm("reconstruct", talking, "-n", 20) == 0
    every = capsys.readouterr().out.splitlines()
    assert every[::2] == [f"data   {line}" for line in lines]
    # noise belongs to the row, so a choice gives what the whole gives; a batch may round differently
    assert printed[1::2] == [every[2 * row + 1] for row in chosen]


def test_interpolate_prints_the_way(lebm: Run, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert lebm("interpolate", talking, "the cat runs", "one cow runs", "-n", 5) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert lebm("interpolate", talking, "a", "b", "-n", "1") == 2
    assert "whole number of at least 2" in capsys.readouterr().err


def test_interpolate_between_draws_prints_sentences(
    lebm: Run, talking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert lebm("interpolate", talking, "--seeds", 1, 2, "-n", 3) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert lebm("interpolate", talking, "--pairs", 2, "-n", 4) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert lebm("traverse", talking) == 2
    assert "traverse takes models of images" in capsys.readouterr().err


BAD = {"empty": (b"", "holds no sentences"), "latin": (b"caf\xe9\n", "line 1 is not UTF-8")}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_one_line_and_status_2(
    kind: str, lebm: Run, talking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BAD[kind]
    Path("bad.txt").write_bytes(content)
    capsys.readouterr()
    assert lebm("score", talking, "--data", "bad.txt") == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_another_vocabulary_is_refused(lebm: Run, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("words/train.txt").write_text("quite other words\n" * 9)
    assert lebm("test", talking, "--data.init_args.path", "words") == 2
    told = capsys.readouterr().err
    assert "another vocabulary" in told
    assert told.count("lebm: error") == 1


def test_latents_between_two_lie_on_a_circle() -> None:
    first, last = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    way = between(first, last, 5)
    assert torch.allclose(way.norm(dim=1), torch.full((5,), 2.0))
    assert torch.allclose(way[2], torch.tensor([2.0, 2.0]) / 2**0.5)
    assert torch.allclose(way[[0, 4]], torch.stack([first, last]), atol=1e-6)
    same = between(first, first, 3)
    assert torch.allclose(same, first.expand(3, 2))
