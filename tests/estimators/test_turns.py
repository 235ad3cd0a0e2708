"""Whose turn it is in the optimiser steps of a batch."""

from __future__ import annotations

import pytest
import torch

from lebm.estimators.dual_mcmc import Turns
from tests.reliability.methods import model_of


def test_alternate_has_two_turns_and_leaves_all_networks_learning() -> None:
    turns = Turns("alternate")
    assert [(turns.teachers, turns.energy) for _ in turns.of_batch()] == [(True, False), (False, True)]
    assert turns.teachers
    assert turns.energy
    assert [(turns.teachers, turns.energy) for _ in Turns("simultaneous").of_batch()] == [(True, True)]


def test_networks_that_rest_have_no_gradient_at_all() -> None:
    model, seen = model_of("dual_mcmc_alternate"), []
    optimizer = model.configure_optimizers()["optimizer"]
    for _ in model.updates():
        sum(parameter.sum() for parameter in model.parameters()).backward()
        model.on_before_optimizer_step(optimizer)
        networks = model.networks().items()
        seen.append({name for name, part in networks if any(p.grad is not None for p in part.parameters())})
        model.zero_grad(set_to_none=True)
    assert seen == [{"generator", "encoder"}, {"energy"}]


def test_the_loss_of_earlier_turns_does_not_reach_the_next_batch() -> None:
    turns = Turns("alternate")
    for _ in turns.of_batch():
        turns.earlier = torch.tensor(2.0)
    assert turns.earlier == 0.0


def test_another_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="schedule must be one of simultaneous, alternate, not 'both'"):
        Turns("both")  # type: ignore[arg-type]
