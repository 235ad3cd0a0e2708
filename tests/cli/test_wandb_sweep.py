"""The sweep of docs/wandb.md: W&B takes the file, and the command of an agent trains into its own folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.__main__ import main
from tests.cli.test_wandb_run import ROOT, prepare
from tests.cli.wandb_records import Recorded


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(tmp_path, monkeypatch)
    return tmp_path


def shown() -> dict[str, Any]:
    text = (ROOT / "docs" / "wandb.md").read_text()
    return yaml.safe_load(re.findall(r"^```yaml\n(program: .*?)^```", text, re.S | re.M)[0])


def words_of(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """The command of a cell, expanded as an agent of W&B does it."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    named = {name: {"value": value} for name, value in values.items()}
    given = create_sweep_command_args({"args": named})["args"]
    expanded = create_sweep_command(list(sweep["command"]))
    return [part for word in expanded for part in (given if word == "${args}" else [word])]


def test_the_recipe_has_the_parameters_and_the_metric_of_the_sweep(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = shown()
    last = {name: parameter["values"][-1] for name, parameter in sweep["parameters"].items()}
    shell, flag, script, _, *arguments = words_of(sweep, last)
    assert [shell, flag] == ["sh", "-c"]
    fit = script.replace('"runs/sweep/$WANDB_RUN_ID" "$@"', "runs/sweep/cell7").split()
    assert fit[:3] == ["exec", "lebm", "fit"]
    assert main(["validate-recipe", *fit[3:], *arguments]) == 0
    printed = capsys.readouterr().out
    assert f"{last['latent_dim']} latent coordinates" in printed
    assert "run      runs/sweep/cell7" in printed
    assert sweep["metric"] == {"name": "val/reconstruction_mse", "goal": "minimize"}
    recipe = (ROOT / "recipes" / f"{fit[4]}.yaml").read_text()
    assert "ReconstructionError" in recipe  # what logs the metric


@pytest.mark.slow
def test_a_cell_runs_as_an_agent_runs_it(work: Path) -> None:
    sweep = shown()
    words = words_of(sweep, {"latent_dim": 3, "seed_everything": 5})
    callbacks = "-c callbacks.yaml --trainer.max_steps 2 --trainer.limit_val_batches 1"
    words[2] = words[2].replace("-c latent_mle/mnist", f"-c own.yaml {callbacks}")
    words[2] = words[2].replace("offline false", "offline true")
    Path("bin").mkdir()
    Path("bin/lebm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lebm "$@"\n')
    Path("bin/lebm").chmod(0o755)
    path = f"{Path('bin').absolute()}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "WANDB_RUN_ID": "cell7"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    recorded = Recorded(Path("runs/sweep/cell7"))
    assert recorded.ids == ["cell7"]
    assert (recorded.config["latent_dim"], recorded.config["seed_everything"]) == (3, 5)
    assert recorded.summary[sweep["metric"]["name"]] > 0
