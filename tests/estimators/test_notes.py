"""Scalars that a loss notes: collected on steps that are logged, and on no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping

from tests.callbacks.tiny import TinyData, latent_mle, trainer


def batch() -> dict[str, torch.Tensor]:
    return {"x": torch.rand(4, 1, 4, 4, dtype=torch.float64), "index": torch.arange(4)}


def test_notes_are_detached_and_have_the_health_of_the_chains() -> None:
    model = latent_mle()
    with model.noting() as notes:
        loss = model.loss(batch(), 0)
    assert loss.requires_grad
    assert not any(value.requires_grad for value in notes.values())
    assert {"train/nll_given_z", "train/energy_gap", "mcmc/prior/displacement"} <= notes.keys()


def test_nothing_is_noted_outside_and_the_loss_is_the_same() -> None:
    model, data = latent_mle(), batch()
    with model.noting() as notes:
        noted = model.loss(data, 0)
    before = dict(notes)
    assert torch.equal(model.loss(data, 0), noted)
    with model.noting(wanted=False) as none:
        assert torch.equal(model.loss(data, 0), noted)
    assert notes == before
    assert not none


class Losses(Callback):
    """The loss of every batch, by epoch."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def on_train_epoch_start(self, run, model) -> None:
        self.steps.append([])

    def on_train_batch_end(self, run, model, outputs, batch, batch_idx) -> None:
        self.steps[-1].append(outputs["loss"].item())


class Monitor(EarlyStopping):
    """Keeps what it is shown."""

    seen: list[float] = []

    def _evaluate_stopping_criteria(self, current):
        self.seen = [*self.seen, current.item()]
        return super()._evaluate_stopping_criteria(current)


def test_monitoring_the_loss_sees_the_mean_of_the_epoch(tmp_path: Path) -> None:
    losses, monitor = Losses(), Monitor("loss", check_on_train_epoch_end=True)
    run = trainer(tmp_path, [losses, monitor], max_epochs=3, log_every_n_steps=50)  # longer than an epoch
    run.fit(latent_mle(), datamodule=TinyData())
    assert len(losses.steps[0]) == 4
    assert monitor.seen == pytest.approx([sum(epoch) / len(epoch) for epoch in losses.steps])
