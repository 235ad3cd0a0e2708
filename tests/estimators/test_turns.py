"""Whose turn it is in the optimiser steps of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lebm.errors import UserError
from lebm.estimators.dual_mcmc import Turns, touch


def test_alternate_has_two_turns_and_leaves_all_networks_learning() -> None:
    turns = Turns("alternate")
    assert [(turns.teachers, turns.energy) for _ in turns.of_batch()] == [(True, False), (False, True)]
    assert turns.teachers
    assert turns.energy
    assert [(turns.teachers, turns.energy) for _ in Turns("simultaneous").of_batch()] == [(True, True)]


def test_networks_that_rest_have_no_gradient_at_all() -> None:
    networks = {name: nn.Linear(2, 1) for name in ("energy", "generator", "encoder")}
    turns, seen = Turns("alternate"), []
    for _ in turns.of_batch():
        touch(*networks.values()).backward()
        turns.rest(networks)
        seen.append({name for name, network in networks.items() if network.weight.grad is not None})
        for network in networks.values():
            network.zero_grad(set_to_none=True)
    assert seen == [{"generator", "encoder"}, {"energy"}]


def test_the_loss_of_earlier_turns_does_not_reach_the_next_batch() -> None:
    turns = Turns("alternate")
    for _ in turns.of_batch():
        turns.earlier = torch.tensor(2.0)
    assert turns.earlier == 0.0


def test_accumulation_is_refused_where_a_batch_has_two_steps() -> None:
    Turns("alternate").check(1)
    Turns("simultaneous").check(4)
    with pytest.raises(UserError, match="cannot accumulate"):
        Turns("alternate").check(2)
    with pytest.raises(ValueError, match="simultaneous or alternate"):
        Turns("both")  # type: ignore[arg-type]
