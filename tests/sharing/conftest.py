from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.evaluation.record import FORMAT, Figure, SuiteResult
from lebm.run.provenance import sha256
from tests.estimators.test_latent_mle import small_model


def finished_run(run: Path) -> Path:
    """A run folder as training and evaluation leave it, without their time."""
    model = small_model(seed=1)
    data = {"path": "embedded:mnist", "sizes": {"train": 7200, "test": 1000}, "held_out_label": 4}
    content: dict[str, Any] = {
        "state_dict": model.state_dict(),
        "global_step": 12,
        "ImageData": {"sizes": data["sizes"], "seed": 0},
    }
    model.on_save_checkpoint(content)
    AtomicCheckpointIO().save_checkpoint(content, run / "checkpoints" / "last.ckpt")
    (run / "config.yaml").write_text("latent_dim: 3\n")
    summary = {
        "status": "finished",
        "recipe": "/home/ada/lebm/recipes/latent_mle/mnist.yaml",
        "command": "lebm fit -c latent_mle/mnist --data.init_args.path /home/ada/mnist",
        "seed": 3,
        "versions": {"lebm": "0.0.9", "torch": "2.6.0"},
        "hardware": {"cpu": "a processor", "threads": 1, "gpus": []},
        "wall_time_seconds": 90.0,
        "cpu_time_seconds": 80.0,
        "data": data,
    }
    (run / "summary.json").write_text(json.dumps(summary))
    origin = {"command": "lebm evaluate /home/ada/run"}
    suites = {
        "image": [Figure("reconstruction_mse", 0.125, 0.1, 0.15, 0.95, "Student's t", 39, "test")],
        "anomaly": [
            Figure("auroc/anomaly_score", 0.75, 0.62, 0.84, 0.95, "bootstrap", 60, "lebm"),
            Figure("auroc/prior", 0.31, 0.2, 0.4, 0.95, "bootstrap", 60, "lebm"),
            Figure.plain("fpr_at_95/anomaly_score", float("nan"), 60, "lebm"),
        ],
        "chains": [Figure.plain("split_rhat/prior", 1.01, 32, "chains")],
    }
    evaluation = {
        "lebm_evaluation": FORMAT,
        "run": str(run),
        "checkpoint": "last.ckpt",
        "checkpoint_sha256": sha256(run / "checkpoints" / "last.ckpt"),
        "weights": "ema",
        "loaded_weights": "plain",
        "method": "LatentMLE",
        "seed": 0,
        "suites": {
            name: asdict(SuiteResult({"name": name}, figures, origin=origin))
            for name, figures in suites.items()
        },
    }
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    return run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``run`` of a finished and evaluated run, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return finished_run(Path("run"))
