"""The networks that learn in the optimiser steps of a batch."""

from __future__ import annotations

import torch

from tests.reliability.methods import model_of


def test_alternate_has_two_steps_and_leaves_all_networks_learning() -> None:
    for method, steps in (
        ("dual_mcmc_alternate", [("generator", "encoder"), ("energy",)]),
        ("dual_mcmc", [("energy", "generator", "encoder")]),
    ):
        model = model_of(method)
        assert [model.learning for _ in model.updates()] == steps
        assert model.idle_networks == []


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


def test_the_loss_of_an_earlier_step_does_not_reach_the_next_batch() -> None:
    model = model_of("dual_mcmc_alternate")
    batch = {"x": torch.zeros(4, 1, 8, 8), "index": torch.arange(4)}
    losses = [[model.loss(batch, 0).item() for _ in model.updates()] for _ in range(2)]
    assert losses[0][0] == losses[1][0]
    assert all(second != first for first, second in losses)
