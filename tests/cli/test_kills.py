"""A training process that is killed, and killed again, ends where an undisturbed one ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from lebm.checkpoint import find_checkpoint, read
from tests.estimators.test_resume import same

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The quickstart, small: 300 steps over several epochs, validation and EMA included, a checkpoint every 3
    steps.
    """
    content = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    content["latent_dim"] = 3
    content["checkpoint_every"] = 3
    content["trainer"] = {
        "max_steps": 300,
        "accelerator": "cpu",
        "check_val_every_n_epoch": 2,
        "enable_progress_bar": False,
        "log_every_n_steps": 7,
        "callbacks": [
            {"class_path": "lebm.callbacks.ReconstructionError"},
            {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}},
        ],
    }
    content["data"]["init_args"] |= {"limit_train": 1600, "limit_eval": 100, "batch_size": 50}
    generator = content["model"]["init_args"]["likelihood"]["init_args"]["generator"]["init_args"]
    generator["hidden"] = [64]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start(recipe: Path, run_dir: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lebm", "fit", "-c", str(recipe), "--run_dir", str(run_dir), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def steps_of(run_dir: Path) -> int:
    try:
        return read(find_checkpoint(run_dir))["global_step"]
    except ValueError:
        return 0


@pytest.mark.slow
def test_three_kills(recipe, tmp_path):
    whole = start(recipe, tmp_path / "whole")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output

    killed_at = []
    for kill in range(3):
        process = start(recipe, tmp_path / "killed", "--resume")
        deadline = time.time() + 200
        while steps_of(tmp_path / "killed") < 70 * (kill + 1) and time.time() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed_at.append(steps_of(tmp_path / "killed"))
    assert all(70 * (kill + 1) <= step < 300 for kill, step in enumerate(killed_at)), killed_at

    last = start(recipe, tmp_path / "killed", "--resume")
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output
    one, other = (read(find_checkpoint(tmp_path / name)) for name in ("whole", "killed"))
    for key in (
        "state_dict",
        "current_model_state",
        "optimizer_states",
        "lr_schedulers",
        "global_step",
        "epoch",
    ):
        same(other[key], one[key], key)
    figures = [
        json.loads((tmp_path / name / "summary.json").read_text())["metrics"]["val/reconstruction_mse"]
        for name in ("whole", "killed")
    ]
    assert figures[0] == figures[1]
    rows = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "killed")]
    assert rows[0] == rows[1]
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))
    assert torch.isfinite(torch.tensor(figures)).all()
