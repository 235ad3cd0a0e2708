"""``lebm sweep --wandb``: the file is what ``wandb sweep`` takes, and the command of a cell runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lebm.__main__ import main
from tests.cli.test_wandb_run import prepare
from tests.cli.wandb_records import Recorded

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ["sweep", "-c", "own.yaml", "--over", "latent_dim", "2,3", "--wandb", "sweep.yaml"]
SMALL = ["--suite", "anomaly", "--evaluate", "--resamples 20", "--trainer.max_steps", "2"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(tmp_path, monkeypatch)
    return tmp_path


def read(file: str = "sweep.yaml") -> dict[str, Any]:
    return yaml.safe_load(Path(file).read_text())


def test_the_file_is_a_sweep_and_nothing_is_trained(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command

    assert main([*SWEEP, *SMALL, "--search", "random"]) == 0
    assert "wandb sweep sweep.yaml" in capsys.readouterr().out
    assert not Path("runs").exists()
    content = read()
    assert content["method"] == "random"
    assert content["parameters"] == {"latent_dim": {"values": [2, 3]}}
    assert content["metric"] == {"name": "evaluation/anomaly/lebm/auroc/anomaly_score", "goal": "maximize"}
    assert content["program"] == "lebm"
    assert create_sweep_command(list(content["command"])) == content["command"]


@pytest.mark.slow
def test_a_cell_runs_as_an_agent_runs_it(work: Path) -> None:
    """By wandb's own expansion of the command, offline; two cells have two folders."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    offline = ["--trainer.logger.init_args.offline", "true"]
    assert main([*SWEEP, *SMALL, *offline]) == 0
    content = read()
    Path("bin").mkdir()
    Path("bin/lebm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lebm "$@"\n')
    Path("bin/lebm").chmod(0o755)
    given = create_sweep_command_args({"args": {"latent_dim": {"value": 3}}})["args"]
    words = [
        part
        for word in create_sweep_command(list(content["command"]))
        for part in (given if word == "${args}" else [word])
    ]
    path = f"{Path('bin').absolute()}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "WANDB_RUN_ID": "cell7"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = Path("runs/sweep-own/cell7")
    recorded = Recorded(run)
    assert recorded.ids == ["cell7", "cell7"]
    assert recorded.config["latent_dim"] == 3
    assert 0 <= recorded.summary[content["metric"]["name"]] <= 1
    failing = {**environment, "WANDB_RUN_ID": "cell8"}
    words[-1] = "--latent_dim=none"
    assert subprocess.run(words, env=failing, capture_output=True, timeout=300).returncode == 1
    assert not Path("runs/sweep-own/cell8/evaluation.json").exists()


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("latent_mle/mnist_anomaly", ("evaluation/anomaly/lebm/auroc/anomaly_score", "maximize")),
        ("multistage_nce/text_small", ("evaluation/text/test/perplexity", "minimize")),
        ("joint_hierarchical/mnist", ("evaluation/image/test/reconstruction_mse", "minimize")),
        ("dual_mcmc/mnist", ("evaluation/image/test/reconstruction_mse", "minimize")),
    ],
)
def test_every_method_has_a_metric(work: Path, recipe: str, expected: tuple[str, str]) -> None:
    assert main(["sweep", "-c", recipe, "--over", "seed", "1,2", "--wandb", "seeds.yaml"]) == 0
    content = read("seeds.yaml")
    assert (content["metric"]["name"], content["metric"]["goal"]) == expected
    assert content["parameters"] == {"seed_everything": {"values": [1, 2]}}


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--suite", "chains"], "name what to optimise with --metric"), (["--latent_dm", "3"], "latent_dm")],
)
def test_refused(work: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str) -> None:
    assert main([*SWEEP, *words]) == 2
    assert expected in capsys.readouterr().err
    assert not Path("sweep.yaml").exists()


def test_a_metric_of_the_user_and_no_second_file(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--suite", "chains", "--metric", "loss", "--goal", "maximize"]
    assert main([*SWEEP, *chosen]) == 0
    assert read()["metric"] == {"name": "loss", "goal": "maximize"}
    assert main([*SWEEP, *chosen]) == 2
    assert "sweep.yaml exists" in capsys.readouterr().err
