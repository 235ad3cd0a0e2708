"""Settings of the optimiser that are refused where they are made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lebm.estimators import AdamGroups


@pytest.mark.parametrize(
    "settings", [{"lr": 1e-3}, {"lr": None}, {"lr": {"energy": 1e-3}, "weight_decay": 0.1}]
)
def test_one_number_for_all_networks_is_refused(settings: dict[str, Any]) -> None:
    name = "weight_decay" if "weight_decay" in settings else "lr"
    with pytest.raises(
        ValueError,
        match=(
            rf'^{name} maps names of networks to numbers, for example {{"generator": 1e-4, "energy": 2e-5}}'
        ),
    ):
        AdamGroups(**settings)


@pytest.mark.parametrize("settings", [{"lr": -1e-3}, {"max_grad_norm": 0.0}, {"weight_decay": -1.0}])
def test_numbers_out_of_range_are_rejected(settings: dict[str, float]) -> None:
    ((name, number),) = settings.items()
    with pytest.raises(ValueError, match=f"^{name} must"):
        AdamGroups(**{"lr": {"energy": 1e-3}, name: {"energy": number}})


@pytest.mark.parametrize(
    ("full", "rates"),
    [(1, [1.0, 0.5, 0.25, 0.125]), (2, [1.0, 1.0, 0.5, 0.25]), (0.5, [1.0, 1.0, 0.5, 0.25])],
)
def test_decay_begins_after_the_epochs_at_the_full_rate(full: float, rates: list[float]) -> None:
    """Also in a run that is resumed in the middle."""

    def settings() -> tuple[Any, Any]:
        return AdamGroups({"net": 2.0}, lr_decay=0.5, full_rate_epochs=full).build(
            {"net": nn.Linear(1, 1)}, False, epochs=4
        )

    optimizer, schedule = settings()
    seen = []
    for epoch in range(4):
        if epoch == 2:
            states = optimizer.state_dict(), schedule.state_dict()
            optimizer, schedule = settings()
            optimizer.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        seen.append(optimizer.param_groups[0]["lr"] / 2)
        optimizer.step()
        schedule.step()
    assert seen == rates
    with pytest.raises(ValueError, match="full_rate_epochs 0.5: the run needs max_epochs"):
        AdamGroups({"net": 2.0}, full_rate_epochs=0.5).build({"net": nn.Linear(1, 1)}, False, epochs=-1)


@pytest.mark.parametrize(("decoupled", "expected"), [(True, 2.0 * (1 - 0.5 * 0.1)), (False, 2.0 - 0.5)])
def test_decoupled_weight_decay_shrinks_a_weight_without_gradient(decoupled: bool, expected: float) -> None:
    """By the factor 1 - lr * weight_decay. As an L2 penalty it is the only gradient, so Adam moves by lr."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 2.0)
    settings = AdamGroups({"net": 0.5}, weight_decay={"net": 0.1}, decoupled_weight_decay=decoupled)
    optimizer, _ = settings.build({"net": net}, fused=False)
    net.weight.grad = torch.zeros_like(net.weight)
    optimizer.step()
    assert net.weight.item() == pytest.approx(expected, rel=1e-6)
