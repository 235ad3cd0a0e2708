"""What a component prints of itself."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from lebm.checkpoint.rebuild import build
from lebm.component import Component, DescriptionError, constructor_parameters, describe
from lebm.data import ArrayData
from lebm.errors import UserError
from lebm.estimators import AdamGroups, LatentMLE, MultiStageNCE
from lebm.models import Energy, EnergyPrior, GaussianChain, MLPEnergy
from lebm.samplers import Langevin, PersistentChains
from tests.estimators.test_latent_mle import small_model


def test_arguments_are_shown_and_defaults_left_out() -> None:
    assert repr(Langevin(steps=60, step_size=0.4)) == "Langevin(steps=60, step_size=0.4)"
    assert (
        repr(Langevin(60, 0.4, clamp=(-1.0, 1.0))) == "Langevin(steps=60, step_size=0.4, clamp=(-1.0, 1.0))"
    )
    assert repr(ArrayData("rows.npz", batch_size=8)) == "ArrayData(path='rows.npz', batch_size=8)"
    assert repr(AdamGroups({"energy": 0.1}, betas=[0.5, 0.999])) == "AdamGroups(lr={'energy': 0.1})"


def test_modules_are_shown_once_and_on_lines_of_their_own() -> None:
    lines = repr(PersistentChains(Langevin(3, 0.1), slots=2)).splitlines()
    assert lines == ["PersistentChains(", "  slots=2", "  (kernel): Langevin(steps=3, step_size=0.1)", ")"]
    shown = repr(GaussianChain([2, 1], hidden=[8], floor=0.1))
    assert shown.splitlines()[1] == "  latent_dims=[2, 1], hidden=[8], floor=0.1"
    prior = repr(EnergyPrior(MLPEnergy(3, [8]))).splitlines()
    assert prior[:3] == ["EnergyPrior(", "  (tilt): MLPEnergy(", "    latent_dim=3, hidden=[8]"]
    model = repr(small_model()).splitlines()
    assert model[0] == "LatentMLE("
    assert model[1].startswith("  optimizer=AdamGroups(lr={")  # no module, so that nobody else shows it


def test_a_class_may_show_itself_differently() -> None:
    class Quiet(Energy):
        def __init__(self, width: int) -> None:
            super().__init__()

        def extra_repr(self) -> str:
            return "quiet"

    class Derived(Quiet):
        pass

    class ComponentFirst(Component, nn.Module):
        def __init__(self, width: int, **others: int) -> None:
            super().__init__()
            self.inner = nn.Linear(1, 1)

    assert repr(Quiet(3)) == "Quiet(quiet)"
    assert repr(Derived(3)) == "Derived(quiet)"
    first = repr(ComponentFirst(3, other=4)).splitlines()
    assert first[1:3] == ["  width=3, other=4", "  (inner): Linear(in_features=1, out_features=1, bias=True)"]


class Sized(Component):
    def __init__(self, sizes: list[int], /, *more: int, **named: Any) -> None:
        self.first = sizes.pop(0)


class Other:
    pass


def test_arguments_are_recorded_as_they_were_given() -> None:
    assert Sized([1, 2])._init_arguments == {"sizes": [1, 2]}
    assert Sized([1], 5, 6, a=[7])._init_arguments == {"sizes": [1], "more": (5, 6), "a": [7]}
    again = build(describe(Sized([1, 2], 5, a=0.5)), Sized, trust=["tests"])
    assert again._init_arguments == {"sizes": [1, 2], "more": (5,), "a": 0.5}


def test_arguments_that_a_constructor_passes_on_belong_to_it() -> None:
    parameters = constructor_parameters(MultiStageNCE)
    assert list(parameters)[:6] == [
        *("likelihood", "prior", "prior_sampler", "posterior_sampler", "optimizer", "stages")
    ]
    assert {"inference", "fit_base", "anomaly", "scale_likelihood", "seed"} <= set(parameters)
    assert parameters["posterior_sampler"].default is inspect.Parameter.empty  # not that of PriorModel
    assert not {"self", "model", "shared"} & set(parameters)
    assert list(constructor_parameters(nn.Linear))[:2] == ["in_features", "out_features"]


def test_arguments_of_a_base_are_described_and_rebuilt() -> None:
    model = small_model(seed=5)
    described = describe(model)
    assert described["init_args"]["seed"] == 5
    assert "seed=5" in repr(model).splitlines()[1]
    assert build(described, LatentMLE).seed == 5
    described["class_path"] = "lebm.samplers.Langevin"
    with pytest.raises(UserError, match=r"Langevin is not a subclass of LatentMLE"):
        build(described, LatentMLE)


def test_a_description_is_plain() -> None:
    named = {"a": np.int64(3), "b": np.float32(0.5), "c": Path("w.pt"), "d": True, "e": (1, None)}
    described = describe(Sized([1], **named))
    assert described == {
        "class_path": "tests.test_component.Sized",
        "init_args": {"sizes": [1], "a": 3, "b": 0.5, "c": "w.pt", "d": True, "e": [1, None]},
    }
    kinds = [type(value) for value in described["init_args"].values()]
    assert kinds == [list, int, float, str, bool, list]


def test_what_cannot_be_described_is_named_where_a_description_is_for_reading() -> None:
    with pytest.raises(DescriptionError, match="part: tests.test_component.Other has no plain description"):
        describe(Sized([1], part=Other()))
    described = describe(Sized([1], part=Other(), keys={1: "one"}), strict=False)
    assert described["init_args"] == {
        "sizes": [1],
        "part": "tests.test_component.Other",
        "keys": {"1": "one"},
    }
