"""Whole processes: signals, and two processes that train together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lebm import checkpoint
from lebm.errors import UserError
from lebm.run import folder as runs

ROOT = Path(__file__).resolve().parents[2]


def command(*words: object) -> tuple[list[str], dict[str, str]]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LEBM_", "SLURM_"))
    }
    return [sys.executable, "-m", "lebm", *map(str, words)], {
        **environment,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_leaves_a_checkpoint_that_resumes(tiny: Path, number: signal.Signals, status: int) -> None:
    words, environment = command(
        "fit",
        "-c",
        tiny,
        "--trust",
        "tests",
        "--trainer.max_epochs",
        10**6,
        "--trainer.enable_progress_bar",
        "false",
    )
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not Path("runs/tiny/checkpoints/last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    assert "lebm: interrupted, runs/tiny/summary.json" in output
    assert json.loads(Path("runs/tiny/summary.json").read_text())["status"] == "interrupted"
    step = checkpoint.read("runs/tiny/checkpoints/last.ckpt")["global_step"]
    assert step == json.loads(Path("runs/tiny/summary.json").read_text())["steps"] > 0
    words, environment = command(
        "fit",
        "--resume",
        "runs/tiny",
        "--trust",
        "tests",
        "--trainer.max_epochs",
        "-1",
        "--trainer.max_steps",
        step + 2,
    )
    assert subprocess.run(words, env=environment, capture_output=True).returncode == 0
    assert json.loads(Path("runs/tiny/summary.json").read_text())["steps"] == step + 2


@pytest.mark.slow
def test_two_processes_share_one_run_folder(tiny: Path) -> None:
    arguments = {
        "path": "embedded:mnist",
        "image_size": 4,
        "batch_size": 8,
        "limit_train": 32,
        "limit_eval": 9,
    }
    recipe = {
        **yaml.safe_load(tiny.read_text()),
        "data": {"class_path": "lebm.data.images.ImageData", "init_args": arguments},
    }
    tiny.write_text(yaml.safe_dump(recipe))
    words, environment = command(
        "fit", "-c", tiny, "--trainer.devices", 2, "--trainer.strategy", "ddp", "--trainer.max_steps", 4
    )
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(Path("runs/tiny/summary.json").read_text())
    assert summary["processes"] == 2
    assert summary["steps"] == 4
    assert done.stdout.count("lebm: fit in runs/tiny") == 1
    again = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 2
    assert "runs/tiny exists" in again.stderr
    assert again.stderr.count("lebm: error") == 1


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_first_process_is_known_before_anything_starts(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], first: bool
) -> None:
    monkeypatch.delenv("NODE_RANK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runs.is_first_process() is first


def test_claim_is_for_empty_folders(tmp_path: Path) -> None:
    runs.claim(tmp_path / "new", resume=False)
    runs.claim(tmp_path, resume=False)
    (tmp_path / "metrics.csv").touch()
    runs.claim(tmp_path, resume=True)
    with pytest.raises(UserError, match=f"--run_dir {tmp_path}-2"):
        runs.claim(tmp_path, resume=False)
    Path(f"{tmp_path}-2").mkdir()
    with pytest.raises(UserError, match=f"--run_dir {tmp_path}-3"):
        runs.claim(tmp_path, resume=False)


def test_json_is_replaced_whole_and_strict(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "summary.json"
    runs.write_json(target, runs.plain({"a": float("nan"), "b": [1, float("inf")], "c": Path("x")}))
    assert json.loads(target.read_text()) == {"a": None, "b": [1, None], "c": "x"}
    with pytest.raises(TypeError):
        runs.write_json(target, {"a": object()})
    assert json.loads(target.read_text())["c"] == "x"
    assert [path.name for path in target.parent.iterdir()] == ["summary.json"]
