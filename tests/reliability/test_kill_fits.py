"""Training that is killed twenty times at random moments ends, every time, where an undisturbed run ends."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from lebm import checkpoint
from tests.distributed import _CONTEXT
from tests.estimators.test_resume import same
from tests.reliability.methods import METHODS
from tests.reliability.test_faults import write_recipe
from tests.reliability.test_process_loss import step_of

STEPS, KILLS = 60, 5  # of every method


def _fit(folder: str, run: str) -> None:
    """``lebm fit --resume`` in a process that has its imports behind it."""
    os.chdir(folder)
    import torch

    from lebm.__main__ import main

    torch.set_num_threads(1)
    words = [
        "fit",
        "-c",
        "recipe.yaml",
        "--resume",
        "--run_dir",
        run,
        "--trainer.max_steps",
        str(STEPS),
        "--trust",
        "tests",
    ]
    os._exit(main([*words, "--checkpoint_every", "1"]))


def start(folder: Path, run: str) -> object:
    process = _CONTEXT.Process(target=_fit, args=(str(folder), run), daemon=True)
    process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_five_kills(tmp_path: Path, method: str) -> None:
    write_recipe(tmp_path / "recipe.yaml", method)
    moments, killed_at = random.Random(method), []
    for kill in range(KILLS):
        process = start(tmp_path, "killed")
        deadline = time.monotonic() + 200
        goal = (STEPS - 10) * kill // KILLS + moments.randrange(8)  # then a moment that no step announces
        while step_of(tmp_path / "killed") < goal and process.is_alive() and time.monotonic() < deadline:  # type: ignore[attr-defined]
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))
        assert process.is_alive()  # type: ignore[attr-defined]
        process.kill()  # type: ignore[attr-defined]
        process.join()  # type: ignore[attr-defined]
        killed_at.append(step_of(tmp_path / "killed"))
    for run in ("killed", "whole"):
        process = start(tmp_path, run)
        process.join(timeout=300)  # type: ignore[attr-defined]
        assert process.exitcode == 0, run  # type: ignore[attr-defined]
    assert len(killed_at) == KILLS
    assert killed_at == sorted(killed_at)
    assert killed_at[-1] < STEPS
    one, other = (checkpoint.newest(tmp_path / run)[1] for run in ("killed", "whole"))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        same(one[key], other[key], f"{method}, killed at {killed_at}: {key}")
    killed, whole = ((tmp_path / run / "metrics.csv").read_text().splitlines() for run in ("killed", "whole"))
    assert set(killed) <= set(whole)
    assert len(whole) - len(killed) <= 2 * KILLS  # the rows of a step may be unwritten when its checkpoint is
    assert killed[-1] == whole[-1]
    figures = [
        json.loads((tmp_path / run / "summary.json").read_text())["metrics"] for run in ("killed", "whole")
    ]
    assert figures[0]["val/reconstruction_mse"] == figures[1]["val/reconstruction_mse"]
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))
