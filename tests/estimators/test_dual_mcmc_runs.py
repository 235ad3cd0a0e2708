"""DualMCMCTeaching under the Trainer: two optimiser steps a batch are the same two steps taken by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset

from lebm.errors import UserError
from tests.estimators.test_dual_mcmc import images, small, update

BATCHES = 3


class Batches(Dataset):
    """The same few images in every batch."""

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        return {"x": images(), "index": torch.arange(6)}


def trained(model, **settings):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, log_every_n_steps=1, precision="64-true", **quiet, **settings
    )
    trainer.fit(model, DataLoader(Batches(), batch_size=None))
    return trainer


@pytest.mark.parametrize("schedule", ["simultaneous", "alternate"])
def test_the_trainer_takes_the_steps_that_were_taken_by_hand(schedule):
    model = small("none", schedule=schedule)
    twin = copy.deepcopy(model)
    optimizer = twin.optimizer_settings.build(twin.networks(), fused=True)[0]
    for number in range(BATCHES):
        update(twin, images(), optimizer, number)
    trainer = trained(model)
    assert trainer.global_step == BATCHES, "max_steps counts batches in either schedule"
    for (name, by_trainer), by_hand in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(
            by_trainer, by_hand, rtol=0, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )
    moments = trainer.optimizers[0].state
    assert all(moments[parameter]["step"] == BATCHES for parameter in model.parameters()), (
        "every network took one step a batch"
    )
    figures = trainer.callback_metrics
    assert {
        "loss",
        "train/energy_gap",
        "train/nll_given_z",
        "train/inference_nll",
        "teaching/generator",
        "teaching/encoder",
    } <= set(figures)


def test_the_two_schedules_differ_in_the_energys_negatives_only():
    models = [small("none", schedule=schedule) for schedule in ("simultaneous", "alternate")]
    for model in models:
        update(model, images())
    one, two = (
        {name: [p.detach() for p in net.parameters()] for name, net in model.networks().items()}
        for model in models
    )
    for name in ("generator", "encoder"):
        assert all(torch.equal(a, b) for a, b in zip(one[name], two[name], strict=True)), name
    assert not all(torch.equal(a, b) for a, b in zip(one["energy"], two["energy"], strict=True))


def test_alternating_steps_do_not_accumulate():
    with pytest.raises(UserError, match="cannot accumulate"):
        trained(small("none", schedule="alternate"), accumulate_grad_batches=2)
    trained(small("none"), accumulate_grad_batches=3)
