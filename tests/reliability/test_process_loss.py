"""Two processes that train together: one is killed, or one is told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lebm import checkpoint
from tests.estimators.test_resume import same
from tests.reliability.test_faults import healthy, write_recipe

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def fit(run: Path, recipe: Path, *more: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "lebm",
        "fit",
        "-c",
        str(recipe),
        "--run_dir",
        str(run),
        "--trust",
        "tests",
        *more,
    ]
    keep = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "LEBM_DEBUG"))
    }
    environment = keep | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, cwd=run.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def two(run: Path, recipe: Path, *more: str) -> subprocess.Popen:
    return fit(run, recipe, "--trainer.devices=2", "--trainer.strategy=ddp", *more)


def children(process: subprocess.Popen) -> list[int]:
    """Processes whose parent it is and that run lebm."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"lebm" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def step_of(run: Path) -> int:
    try:
        return int(checkpoint.newest(run)[1]["global_step"])
    except ValueError:
        return 0


def wait_for(run: Path, step: int) -> None:
    deadline = time.monotonic() + 400
    while step_of(run) < step and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_recipe(tmp_path / "recipe.yaml", "multistage_nce")
    return tmp_path / "recipe.yaml"


def test_a_killed_process_ends_the_job(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    process = two(run, recipe, "--trainer.max_steps=1000000")
    wait_for(run, 6)
    (child,) = children(process)
    os.kill(child, signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert process.returncode in (1, -signal.SIGKILL), error
    assert (
        "has lost another process of this run" in error or f"PID {child} terminated with code -9" in error
    ), error
    assert "Traceback" not in error
    content = checkpoint.newest(run)[1]
    assert content["global_step"] >= 6
    assert healthy(content)
    last = two(run, recipe, "--resume", f"--trainer.max_steps={content['global_step'] + 3}")
    _, error = last.communicate(timeout=400)
    assert last.returncode == 0, error
    assert step_of(run) == content["global_step"] + 3


@pytest.mark.parametrize("told", ["first", "second", "both"])
def test_a_signal_to_any_process_stops_all_after_one_step(tmp_path: Path, recipe: Path, told: str) -> None:
    run = tmp_path / "run"
    process = two(run, recipe, "--trainer.max_steps=1000000")
    wait_for(run, 4)
    pids = {"first": [process.pid], "second": children(process), "both": [process.pid, *children(process)]}[
        told
    ]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 143, error
    assert "Traceback" not in error
    stopped = step_of(run)
    limit = f"--trainer.max_steps={stopped + 5}"
    for resumed in (two(run, recipe, "--resume", limit), two(tmp_path / "whole", recipe, limit)):
        _, error = resumed.communicate(timeout=400)
        assert resumed.returncode == 0, error
    one, other = (checkpoint.newest(folder)[1] for folder in (run, tmp_path / "whole"))
    for key in ("state_dict", "optimizer_states", "global_step"):
        same(one[key], other[key], key)
