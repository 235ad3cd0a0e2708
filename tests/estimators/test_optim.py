"""Settings of the optimiser that are refused where they are made."""

from __future__ import annotations

from typing import Any

import pytest

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
