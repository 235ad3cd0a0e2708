"""A run continued from any checkpoint ends bit for bit where the undisturbed one ends."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lebm.callbacks import ReconstructionError
from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.data import ImageData
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEnergy, MLPGenerator
from lebm.samplers import Langevin

STEPS = 32


def model() -> LatentMLE:
    torch.manual_seed(0)
    return LatentMLE(
        GaussianLikelihood(MLPGenerator(3, [1, 28, 28], hidden=[16]), 0.3),
        EnergyPrior(MLPEnergy(3, hidden=[12, 12])),
        Langevin(4, 0.4),
        Langevin(3, 0.1),
        AdamGroups({"generator": 1e-3, "energy": 1e-4}, max_grad_norm={"energy": 0.1}, lr_decay=0.9),
        seed=1,
    )


class Record(Callback):
    """The numbers of every validation, by step."""

    def __init__(self) -> None:
        self.seen: dict[int, list[float]] = {}

    def on_validation_end(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            self.seen[trainer.global_step] = [
                value.item() for name, value in sorted(trainer.callback_metrics.items()) if "val" in name
            ]


def run(folder: Path, accumulate: int, resume: Path | None = None, every_step: bool = False):
    record = Record()
    # 5 batches an epoch (or 10 for two to accumulate), so that 32 steps cross several epochs; validation in
    # their middle too
    data = ImageData("embedded:mnist", batch_size=20, limit_train=100 * accumulate, limit_eval=50, seed=3)
    callbacks: list[Callback] = [record, ReconstructionError(), EMAWeightAveraging(decay=0.9)]
    if every_step:
        callbacks.append(ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}"))
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=STEPS + 2,
        accelerator="cpu",
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        accumulate_grad_batches=accumulate,
        val_check_interval=0.4,
        log_every_n_steps=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=every_step,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    estimator = model()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*resuming from a checkpoint that ended before.*")
        trainer.fit(estimator, data, ckpt_path=resume, weights_only=True)
    end = folder / "end.ckpt"
    trainer.save_checkpoint(end)
    return torch.load(end, weights_only=True), record.seen


def same(a, b, where: str = "") -> None:
    """Bit for bit, through nested containers."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for position, (left, right) in enumerate(zip(a, b, strict=True)):
            same(left, right, f"{where}/{position}")
    else:
        assert a == b, where


@pytest.mark.slow  # tests/reliability resumes every method at one step in every run of the tests
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_from_each_of_32_consecutive_steps(tmp_path, accumulate):
    whole, whole_seen = run(tmp_path / "whole", accumulate, every_step=True)
    assert whole["global_step"] == STEPS + 2
    for step in range(1, STEPS + 1):
        part, part_seen = run(
            tmp_path / f"part-{step}", accumulate, resume=tmp_path / "whole" / f"step={step}.ckpt"
        )
        for key in (
            "state_dict",
            "current_model_state",
            "optimizer_states",
            "lr_schedulers",
            "global_step",
            "epoch",
        ):
            same(part[key], whole[key], f"step {step}: {key}")
        assert part_seen, step
        for at, numbers in part_seen.items():
            assert numbers == whole_seen[at], f"resumed at {step}, validation at {at}"
            assert numbers
