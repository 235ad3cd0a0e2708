"""Results depend on no luck: resumption at any step, the number of processes, data workers, and the way a run
is started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lebm import checkpoint
from lebm.callbacks import Divergence, ReconstructionError
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.data import ImageData
from tests.distributed import run_processes
from tests.estimators.test_resume import same
from tests.reliability.methods import BASES, KINDS, METHODS, description, model_of

ROOT = Path(__file__).parents[2]
STEPS = 12
KEYS = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step", "epoch")


def trainer(
    folder: Path, steps: int, callbacks: list[Callback], processes: int = 1, **settings: Any
) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )


def data(workers: int = 0) -> ImageData:
    """Six batches an epoch, with flips."""
    return ImageData(
        "embedded:mnist",
        image_size=8,
        channels=1,
        batch_size=24,
        limit_train=144,
        limit_eval=24,
        flip=True,
        seed=3,
        num_workers=workers,
    )


RESUMED = ("latent_mle+Remembered", "latent_mle+Taught", "multistage_nce+Variational")
"""Methods with another inference or noise that every run of the tests resumes; slow tests resume the rest.
Those with a base that is fitted are resumed around its fit in tests/estimators/test_fit_base.py.
"""


def _fast_or_slow(name: str, fast: Sequence[str]) -> Any:
    return pytest.param(name, marks=[] if name in fast else pytest.mark.slow)


# Resumption


def run(
    folder: Path, method: str, resume: Path | None = None, every_step: bool = False, workers: int = 0
) -> dict[str, Any]:
    callbacks: list[Callback] = [ReconstructionError(), EMAWeightAveraging(decay=0.9), Divergence()]
    if every_step:
        callbacks.append(ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}"))
    this = trainer(folder, STEPS + 2, callbacks, val_check_interval=0.5, enable_checkpointing=every_step)
    this.fit(model_of(method), data(workers), ckpt_path=resume, weights_only=True)
    this.save_checkpoint(folder / "end.ckpt")
    return checkpoint.read(folder / "end.ckpt")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((5,), id="one step"),
        pytest.param(range(1, STEPS + 1), id="every step", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("method", [*METHODS, *(_fast_or_slow(name, RESUMED) for name in [*KINDS, *BASES])])
def test_resume_is_bit_exact(tmp_path: Path, method: str, steps: Any) -> None:
    whole = run(tmp_path / "whole", method, every_step=True)
    assert whole["global_step"] == STEPS + 2
    for step in steps:
        part = run(tmp_path / f"part-{step}", method, resume=tmp_path / "whole" / f"step={step}.ckpt")
        for key in KEYS:
            same(part[key], whole[key], f"{method}, step {step}: {key}")


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name == "latent_mle" else pytest.mark.slow) for name in METHODS]
)
def test_a_resumed_run_may_be_resumed_again(tmp_path: Path, method: str) -> None:
    """At the last steps of two epochs, where the first resumption must leave the right counters for the
    second.
    """
    whole = run(tmp_path / "whole", method, every_step=True)
    run(tmp_path / "first", method, resume=tmp_path / "whole" / "step=6.ckpt", every_step=True)
    second = run(tmp_path / "second", method, resume=tmp_path / "first" / "step=12.ckpt")
    for key in KEYS:
        same(second[key], whole[key], f"{method}: {key}")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_data_workers_change_nothing(tmp_path: Path, method: str) -> None:
    ends = [run(tmp_path / str(workers), method, workers=workers) for workers in (0, 1, 2)]
    for other in ends[1:]:
        for key in KEYS:
            same(other[key], ends[0][key], f"{method}: {key}")


# Processes


class Keep(Callback):
    """The first step's synchronised gradients."""

    def __init__(self) -> None:
        self.gradients: dict[str, Any] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if not self.gradients:
            self.gradients = {
                name: p.grad.double().numpy().copy()
                for name, p in pl_module.named_parameters()
                if p.grad is not None
            }


def train(folder: Path, method: str, processes: int, precision: str, steps: int) -> dict[str, Any]:
    """Runs in every process: what training and a validation pass ended with."""
    keep, error = Keep(), ReconstructionError()
    model = model_of(method)
    this = trainer(
        folder,
        steps,
        [keep, error],
        processes,
        precision=precision,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    this.fit(model, data())
    this.save_checkpoint(folder / f"{processes}-{steps}.ckpt")  # chain pools are whole after every step
    this.test(model, data(), verbose=False)
    return {
        "parameters": {name: p.detach().double().numpy() for name, p in model.named_parameters()},
        "buffers": {name: buffer.double().numpy() for name, buffer in model.named_buffers()},
        "gradients": keep.gradients,
        "figures": dict(error.figures),
    }


norm = np.linalg.norm
# one pair is fast; the other methods have tests of two processes of their own
LAYOUTS = [
    pytest.param(
        method, processes, marks=[] if (method, processes) == ("joint_hierarchical", 2) else pytest.mark.slow
    )
    for method in METHODS
    for processes in (2, 4)
] + [
    pytest.param(
        method,
        processes,
        marks=[]
        if (method, processes) in [("latent_mle+Remembered", 2), ("latent_mle+base", 2)]
        else pytest.mark.slow,
    )
    for method in [*KINDS, *BASES]
    for processes in (2, 4)
]


@pytest.mark.parametrize(("method", "processes"), LAYOUTS)
def test_processes_agree_in_double_precision(tmp_path: Path, method: str, processes: int) -> None:
    (one,) = run_processes(train, tmp_path, method, 1, "64-true", 20, world_size=1)
    (start,) = run_processes(train, tmp_path, method, 1, "64-true", 1, world_size=1)
    for other in run_processes(train, tmp_path, method, processes, "64-true", 20, world_size=processes):
        for kind in ("parameters", "buffers"):
            for name, value in one[kind].items():
                assert abs(other[kind][name] - value).max() < 1e-9, name
        assert other["figures"] == pytest.approx(one["figures"], rel=0, abs=1e-9)
    moved = [abs(one["parameters"][name] - start["parameters"][name]).max() for name in one["parameters"]]
    assert max(moved) > 1e-4
    assert one["figures"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("method", METHODS)
def test_first_gradients_agree_in_single_precision(tmp_path: Path, method: str, processes: int) -> None:
    (one,) = run_processes(train, tmp_path, method, 1, "32-true", 1, world_size=1)
    largest = max(map(norm, one["gradients"].values()))
    for other in run_processes(train, tmp_path, method, processes, "32-true", 1, world_size=processes):
        for name, gradient in one["gradients"].items():
            # one that vanishes by symmetry is rounding and nothing else, so it is held against the others
            size = max(norm(gradient), 1e-2 * largest)
            assert norm(other["gradients"][name] - gradient) <= 1e-5 * size, name


# Ways to start


@pytest.mark.slow
def test_lebm_its_module_and_python_agree(tmp_path: Path) -> None:
    images = {
        "path": "embedded:mnist",
        "image_size": 8,
        "channels": 1,
        "batch_size": 24,
        "limit_train": 144,
        "limit_eval": 24,
    }
    recipe = {
        "seed_everything": 0,
        "model": description("latent_mle"),
        "data": {"class_path": "lebm.data.ImageData", "init_args": images},
        "trainer": {
            "max_steps": 8,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "logger": False,
            "num_sanity_val_steps": 0,
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name, command in {
        "script": [str(Path(sys.executable).with_name("lebm"))],
        "module": [sys.executable, "-m", "lebm"],
    }.items():
        words = [*command, "fit", "-c", str(tmp_path / "recipe.yaml"), "--run_dir", str(tmp_path / name)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    seed_everything(0, verbose=False)
    from lebm.checkpoint.rebuild import build
    from lebm.estimators import LatentModel

    model = build(description("latent_mle"), LatentModel)
    trainer(tmp_path / "python", 8, [], enable_checkpointing=False).fit(model, ImageData(**images))  # type: ignore[arg-type]
    ends = [
        checkpoint.read(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"]
        for name in ("script", "module")
    ]
    for other in (ends[1], model.state_dict()):
        same(dict(other), dict(ends[0]))
