"""Scalars that a loss notes: collected on steps that are logged, and on no others."""

from __future__ import annotations

import torch

from tests.callbacks.tiny import latent_mle


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
