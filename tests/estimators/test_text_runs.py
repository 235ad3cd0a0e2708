"""Sentences under the Trainer: resuming with dropout on, two processes with word dropout on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lebm.checkpoint.writing import AtomicCheckpointIO
from lebm.data import TextData
from lebm.estimators import AdamGroups, FixedStages, LatentMLE, MultiStageNCE
from lebm.estimators.prior_model import PriorModel
from lebm.models import (
    CategoricalLikelihood,
    EnergyPrior,
    MLPEnergy,
    RatioPrior,
    RatioProduct,
    RecurrentGenerator,
    TransformerGenerator,
)
from lebm.models.sequence_generators import SequenceGenerator
from lebm.samplers import Langevin
from tests.distributed import run_processes
from tests.estimators.test_multistage_runs import trainer_for
from tests.estimators.test_resume import same

WORDS, LONGEST = 60, 8


def model(method: str, dropout: float) -> PriorModel:
    torch.manual_seed(0)
    generator: SequenceGenerator
    if method == "transformer":
        generator = TransformerGenerator(3, WORDS, LONGEST, 8, 1, 2, dropout)
    else:
        generator = RecurrentGenerator(3, WORDS, LONGEST, 8, 8, "gru" if method == "gru" else "lstm", dropout)
    likelihood = CategoricalLikelihood(generator, word_dropout=0.3)
    chains = Langevin(4, 0.4), Langevin(3, 0.3)
    optimizer = AdamGroups({"generator": 1e-2, "energy": 1e-3}, max_grad_norm={"generator": 5.0})
    if method == "stages":
        prior = RatioPrior(RatioProduct(MLPEnergy(3, hidden=[8], output_bias=True), 3))
        return MultiStageNCE(likelihood, prior, *chains, optimizer, FixedStages(4), noise_shards=4, seed=1)
    return LatentMLE(
        likelihood, EnergyPrior(MLPEnergy(3, hidden=[8])), *chains, optimizer, noise_shards=4, seed=1
    )


def data() -> TextData:
    # 5 batches an epoch, so that 9 steps cross one
    return TextData(
        "embedded:verses",
        vocabulary_size=WORDS,
        max_length=LONGEST,
        batch_size=12,
        limit_train=60,
        limit_eval=12,
        seed=3,
    )


def run(folder: Path, method: str, resume: Path | None = None, every_step: bool = False) -> dict:
    callbacks: list = [EMAWeightAveraging(decay=0.9)]
    if every_step:
        callbacks.append(ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}"))
    trainer = trainer_for(
        folder, 9, callbacks=callbacks, plugins=[AtomicCheckpointIO()], enable_checkpointing=every_step
    )
    trainer.fit(model(method, dropout=0.3), data(), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "end.ckpt")
    return torch.load(folder / "end.ckpt", weights_only=True)


@pytest.mark.parametrize(
    "method",
    ["lstm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gru", "transformer", "stages"))],
)
def test_resume_with_dropout_is_bit_exact(tmp_path: Path, method: str) -> None:
    whole = run(tmp_path / "whole", method, every_step=True)
    for step in (2, 5, 6):
        part = run(tmp_path / f"part-{step}", method, resume=tmp_path / "whole" / f"step={step}.ckpt")
        for key in (
            "state_dict",
            "current_model_state",
            "optimizer_states",
            "lr_schedulers",
            "global_step",
            "epoch",
        ):
            same(part[key], whole[key], f"step {step}: {key}")


def train(folder: str, processes: int, method: str) -> dict[str, object]:
    trainer = trainer_for(
        Path(folder),
        8,
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        precision="64-true",
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    estimator = model(method, dropout=0.0)
    start = {name: value.detach().numpy().copy() for name, value in estimator.named_parameters()}
    trainer.fit(estimator, data())
    assert isinstance(estimator.likelihood, CategoricalLikelihood)
    assert estimator.likelihood.vocabulary is not None
    end = {name: value.detach().numpy() for name, value in estimator.named_parameters()}
    return {"start": start, "end": end, "vocabulary": estimator.likelihood.vocabulary.to_json()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lstm", "stages"])
def test_two_processes_train_as_one_does(tmp_path: Path, method: str) -> None:
    (one,) = run_processes(train, str(tmp_path / "one"), 1, method, world_size=1)
    two, other = run_processes(train, str(tmp_path / "two"), 2, method, world_size=2)
    assert one["vocabulary"] == two["vocabulary"] == other["vocabulary"]
    for name, value in one["end"].items():
        assert abs(value - two["end"][name]).max() < 1e-9, name
        assert (two["end"][name] == other["end"][name]).all(), name
    assert (
        abs(
            one["end"]["likelihood.generator.output.weight"]
            - one["start"]["likelihood.generator.output.weight"]
        ).max()
        > 1e-3
    )
