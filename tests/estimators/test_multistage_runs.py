"""MultiStageNCE under the Trainer: resuming inside and across stages, and two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.data import ImageData
from lebm.estimators import AdamGroups, AdaptiveStages, FixedStages, MultiStageNCE, stages
from lebm.models import GaussianLikelihood, MLPEnergy, MLPGenerator, RatioPrior, RatioProduct
from lebm.samplers import MALA, AnnealedImportanceSampling, Langevin, PersistentChains
from tests.distributed import run_processes
from tests.estimators.test_resume import same

LENGTHS = [4, 3, 50]


def model(stages, max_stages: int = 3) -> MultiStageNCE:
    torch.manual_seed(0)
    return MultiStageNCE(
        GaussianLikelihood(MLPGenerator(3, [1, 28, 28], hidden=[16]), 0.3),
        RatioPrior(RatioProduct(MLPEnergy(3, hidden=[12, 12], output_bias=True), max_stages)),
        prior_sampler=PersistentChains(Langevin(2, 0.4), slots=2, restart_rate=0.2),
        posterior_sampler=Langevin(3, 0.1),
        optimizer=AdamGroups(
            {"generator": 1e-3, "energy": 1e-3},
            betas=(0.9, 0.999),
            weight_decay={"energy": 0.01},
            lr_decay=0.9,
        ),
        stages=stages,
        annealing=AnnealedImportanceSampling(MALA(1, 0.5), 3),
        annealing_chains=20,
        noise_shards=4,
        seed=1,
    )


def trainer_for(folder: Path, steps: int, **settings) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )


def run(
    folder: Path, steps: int, accumulate: int, resume: Path | None = None, every_step: bool = False
) -> dict:
    callbacks = [EMAWeightAveraging(decay=0.9)]
    if every_step:
        callbacks.append(ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}"))
    data = ImageData("embedded:mnist", batch_size=20, limit_train=100 * accumulate, limit_eval=40, seed=3)
    trainer = trainer_for(
        folder,
        steps,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        accumulate_grad_batches=accumulate,
        enable_checkpointing=every_step,
    )
    trainer.fit(model(FixedStages(LENGTHS, held_out=5, window=2)), data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "end.ckpt")
    return torch.load(folder / "end.ckpt", weights_only=True)


# before and after the switches at 4 and 7, and in the middle of a stage and of an averaging window
RESUMED = (2, 3, 4, 5, 7, 9)


@pytest.mark.parametrize(
    ("accumulate", "resumed"),
    [(1, RESUMED), (2, (3, 5)), pytest.param(2, RESUMED, marks=pytest.mark.slow)],
    ids=["1", "2, in two places", "2"],
)
def test_resume_inside_a_stage_and_across_its_end_is_bit_exact(tmp_path, accumulate, resumed):
    steps = 10
    whole = run(tmp_path / "whole", steps, accumulate, every_step=True)
    assert whole["state_dict"]["prior.tilt._extra_state"] == {"finished": 2}
    assert len(whole["state_dict"]["prior._extra_state"]["constants"]) == 2
    for step in resumed:
        part = run(
            tmp_path / f"part-{step}", steps, accumulate, resume=tmp_path / "whole" / f"step={step}.ckpt"
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


def test_the_average_of_the_weights_starts_anew_with_a_stage(tmp_path):
    run(tmp_path, 4, 1, every_step=True)
    end = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    average, current = end["state_dict"], end["current_model_state"]
    for name in current:
        if name.startswith("prior.tilt.") and isinstance(current[name], torch.Tensor):
            torch.testing.assert_close(average[name], current[name], rtol=1e-6, atol=0, msg=name)
    assert (
        average["likelihood.generator.net.0.weight"] - current["likelihood.generator.net.0.weight"]
    ).abs().max() > 1e-5


def test_the_run_ends_with_the_last_stage(tmp_path):
    trainer = trainer_for(tmp_path, 100, enable_checkpointing=False, limit_val_batches=0)
    estimator = model(FixedStages(3), max_stages=2)
    trainer.fit(estimator, ImageData("embedded:mnist", batch_size=20, limit_train=40, limit_eval=20))
    assert trainer.global_step == 6
    assert estimator.stages.ended
    assert estimator.prior.tilt.complete


def train(folder: str, processes: int) -> dict[str, object]:
    """Adaptive stages, which look at held-out rows of both processes."""
    trainer = trainer_for(
        Path(folder),
        20,
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        precision="64-true",
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    stages.AGREES = 0.0  # in this process
    estimator = model(AdaptiveStages(min_steps=4, max_steps=9, window=2, patience=1, held_out=3))
    trainer.fit(
        estimator, ImageData("embedded:mnist", batch_size=24, limit_train=120, limit_eval=24, flip=True)
    )
    return {
        "parameters": {name: value.detach().numpy() for name, value in estimator.named_parameters()},
        "slots": {name: value.numpy() for name, value in estimator.prior.tilt.named_buffers()},
        "history": estimator.stages.history,
        "log_z": [float(constant.estimate) for constant in estimator.prior.constants.values()],
    }


def test_two_processes_train_and_switch_as_one_does(tmp_path):
    (one,) = run_processes(train, str(tmp_path / "one"), 1, world_size=1)
    two, other = run_processes(train, str(tmp_path / "two"), 2, world_size=2)
    assert two["history"] == other["history"]
    assert len(one["history"]) >= 2
    assert [(record.stage, record.steps, record.reason) for record in one["history"]] == [
        (record.stage, record.steps, record.reason) for record in two["history"]
    ]
    for kind in ("parameters", "slots"):
        for name, value in one[kind].items():
            assert abs(value - two[kind][name]).max() < 1e-9, name
            assert (two[kind][name] == other[kind][name]).all(), name
    assert one["log_z"] == pytest.approx(two["log_z"], abs=1e-9)
