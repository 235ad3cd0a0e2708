"""What evaluating a run folder takes from it, and that resuming one removes nothing but its checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lebm.checkpoint.reading import seal
from lebm.checkpoint.writing import AtomicCheckpointIO
from tests.cli.conftest import Run, lebm, tiny, trained, wicked  # noqa: F401


def config(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text())
    change(content)
    (run / "config.yaml").write_text(yaml.safe_dump(content))


def test_a_run_of_many_devices_is_evaluated_on_one(lebm: Run, trained: Path) -> None:
    change = {"devices": 2, "strategy": "ddp", "num_nodes": 3, "profiler": "simple"}
    config(trained, lambda content: content["trainer"].update(change))
    assert lebm("test", trained) == 0


def test_the_model_is_that_of_the_checkpoint(lebm: Run, trained: Path, wicked: Path) -> None:
    config(trained, lambda content: content.update(model={"class_path": "wicked.Sampler"}))
    assert lebm("test", trained) == 0
    assert not wicked.exists()
    assert lebm("test", trained, "--model.init_args.evaluation_steps", 3) == 0
    assert json.loads((trained / "test.json").read_text())["chains"]["evaluation_steps"] == 3


def test_the_checkpoint_names_no_other_classes(
    lebm: Run, trained: Path, wicked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["hyper_parameters"]["init_args"]["prior_sampler"]["class_path"] = "wicked.Sampler"

    checkpoint(trained, change)
    capsys.readouterr()
    for words in ((), ("--model.init_args.evaluation_steps", 3)):
        assert lebm("test", trained, *words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "add --trust wicked" in error
    assert not wicked.exists()


def test_data_are_of_a_trusted_package(
    lebm: Run, trained: Path, wicked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config(trained, lambda content: content.update(data={"class_path": "wicked.Sampler"}))
    capsys.readouterr()
    assert lebm("test", trained) == 2
    assert "add --trust wicked" in capsys.readouterr().err
    assert not wicked.exists()


def test_honest_figures_are_those_of_the_recipe(lebm: Run, tiny: Path) -> None:
    Path("more.yaml").write_text(
        """
data:
  class_path: lebm.data.ImageData
  init_args: {path: "embedded:mnist", batch_size: 10, image_size: 4, held_out_label: 4, limit_train: 40,
    limit_eval: 40}
trainer:
  max_epochs: 1
  callbacks:
    - class_path: lebm.callbacks.AnomalyDetection
    - class_path: lebm.callbacks.ReconstructionError
    - class_path: lebm.callbacks.SampleGrid
      init_args: {n: 4}
    - class_path: lebm.callbacks.FrechetDistance
      init_args: {n_samples: 50, features: {class_path: lebm.metrics.FlatFeatures}}
"""
    )
    assert lebm("fit", "-c", tiny, "-c", "more.yaml", "--run_dir", "run") == 0
    shutil.copytree("run", "other")
    assert lebm("test", "run") == 0
    assert lebm("test", "-c", "other/config.yaml", "--run_dir", "other") == 0
    ours, theirs = (json.loads(Path(run, "test.json").read_text()) for run in ("run", "other"))
    assert ours["metrics"] == theirs["metrics"]
    assert ours["protocols"] == theirs["protocols"]
    assert {"test/auroc", "test/reconstruction_mse"} <= set(ours["metrics"])
    assert sorted(os.listdir("run/images")) == sorted(os.listdir("other/images"))


def checkpoint(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    for file in (run / "checkpoints").glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        change(content)
        with file.open("w+b") as target:
            torch.save(content, target)
            seal(target)


VICTIMS = ["victim", "victim/inside.ckpt", "runs/tiny/checkpoints/../../../victim", "runs/tiny"]


@pytest.mark.parametrize("victim", VICTIMS)
def test_resuming_removes_no_folder_and_no_file_elsewhere(lebm: Run, trained: Path, victim: str) -> None:
    Path("victim").mkdir()
    for name in ("inside.ckpt", "precious"):
        Path("victim", name).write_text("keep me")
    named = str(Path(victim).absolute()) if ".." not in victim else str(Path.cwd() / victim)

    def change(content: dict[str, Any]) -> None:
        state = next(value for key, value in content["callbacks"].items() if key.startswith("RunCheckpoint"))
        state |= {"best_model_path": named, "kth_best_model_path": named, "last_model_path": named}
        state["best_k_models"] = {named: torch.tensor(0.0)}

    checkpoint(trained, change)
    assert lebm("fit", "--resume", trained, "--trainer.max_epochs", 3) == 0
    assert sorted(path.name for path in Path("victim").iterdir()) == ["inside.ckpt", "precious"]
    assert (trained / "config.yaml").is_file()


def test_the_writer_removes_its_own_files_only(tmp_path: Path) -> None:
    folder, other = tmp_path / "checkpoints", tmp_path / "other"
    other.mkdir()
    writer = AtomicCheckpointIO()
    for name in ("a.ckpt", "b.ckpt"):
        writer.save_checkpoint({"state_dict": {}}, folder / name)
    (folder / "notes.txt").write_text("keep me")
    (folder / "folder.ckpt").mkdir()
    (other / "c.ckpt").write_text("keep me")
    (folder / "out").symlink_to(other)
    for path in (
        folder,
        folder / "notes.txt",
        folder / "folder.ckpt",
        other / "c.ckpt",
        folder / "out/c.ckpt",
    ):
        writer.remove_checkpoint(path)
    assert (folder / "folder.ckpt").is_dir()
    assert (folder / "notes.txt").is_file()
    assert (other / "c.ckpt").is_file()
    writer.remove_checkpoint(folder / "a.ckpt")
    writer.remove_checkpoint(folder / "a.ckpt")
    assert sorted(path.name for path in folder.glob("?.ckpt")) == ["b.ckpt"]
