"""Recipes that say 'released': one training step beside the release, initial weights, and the settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.fidelity.steps import Step, built, conditional, dual, images, ladder, latent_mle, our_step
from tests.recipes.test_recipes import ALL, build, header

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"
HALVES, KEEPS = (2, 1), (1, 1)  # stride and padding of a generator's last layer
STEPS: dict[str, Callable[..., Step]] = {
    "latent_mle/svhn": partial(latent_mle, prior=60, posterior=20, last=HALVES),
    "latent_mle/celeba128": partial(latent_mle, prior=80, posterior=40, last=HALVES),
    "joint_hierarchical/svhn": partial(ladder, factor=10, chain=(100, 0.3), energy_lr=2e-6, added=1e-6),
    "joint_hierarchical/svhn_hierarchical_sampling": partial(
        ladder, factor=3, chain=(60, 0.4), energy_lr=2e-6, added=1e-6
    ),
    "joint_hierarchical/cifar10_conditional": partial(conditional, posterior=40, last=KEEPS),
    "dual_mcmc/cifar10": partial(dual, drift=0.5, teaching=50, added=1e-6, scaled=True),
    "dual_mcmc/celeba64": partial(dual, drift=0.3, teaching=70, added=1e-6, scaled=True),
}
LONG = ("latent_mle/celeba128", "dual_mcmc/celeba64", "joint_hierarchical/svhn")
"""Other recipes take the same steps on smaller images, or with shorter chains."""
NEARER: dict[str, dict[str, Any]] = {"ladder": {"added": 0.0}, "dual": {"added": 0.0, "scaled": False}}
"""Without the deviations that docs/fidelity.md names."""


def both(name: str, *variants: dict[str, Any], full_width: bool = False) -> tuple[Step, list[Step]]:
    """Our step, and the released one with the arguments of every variant."""
    words = ["--model.init_args.inference.init_args.kl=monte_carlo"] if STEPS[name].func is ladder else []
    ours = built(name, *words, full_width=full_width)
    x = images(ours)
    theirs = [STEPS[name](deepcopy(ours), x, **changed) for changed in variants]
    return our_step(ours, x), theirs


def distances(ours: Step, theirs: Step) -> dict[str, float]:
    """Largest differences: of values, of gradients over the largest one, and of parameters after the step."""

    def far(one: Tensor, other: Tensor) -> float:
        return float((one - other).abs().max())

    gradients, parameters = [], []
    for name, expected in theirs.gradients.items():
        largest = max(float(gradient.abs().max()) for gradient in expected)
        pairs = list(zip(ours.gradients[name], expected, strict=True))
        scale = max(float(o.abs().max()) for o in ours.gradients[name])
        gradients.append(max(far(one / scale, other / largest) for one, other in pairs))
        pairs = list(zip(ours.parameters[name], theirs.parameters[name], strict=True))
        parameters.append(max(far(one, other) for one, other in pairs))
    values = {name: far(ours.values[name], value) for name, value in theirs.values.items()}
    return {
        "forward": values.pop("generated images"),
        "chain": max(values.values()),
        "gradient": max(gradients),
        "step": max(parameters),
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in STEPS]
)
def test_one_step_is_the_released_one(name: str) -> None:
    """To rounding, without the deviations that docs/fidelity.md names; with them the gradient is near."""
    nearer = NEARER.get(STEPS[name].func.__name__)
    ours, (theirs, *released) = both(name, *([nearer, {}] if nearer else [{}]))
    assert ours.gradients.keys() == theirs.gradients.keys()
    found = distances(ours, theirs)
    assert max(found.values()) < 1e-9, found
    for step in released:
        assert distances(ours, step)["gradient"] < 1e-4


def test_every_recipe_that_claims_the_release_is_compared() -> None:
    claim = re.compile(r"^# Settings +(all )?as (released[:.,]|in the final release)", re.MULTILINE)
    assert {name for name in ALL if claim.search("\n".join(header(name)))} == set(STEPS)


def original(layer: nn.Module) -> Tensor:
    """The weight itself, also under spectral norm."""
    weight = layer.parametrizations.weight.original if hasattr(layer, "parametrizations") else layer.weight
    return weight.detach()


@pytest.mark.parametrize("name", STEPS)
def test_initial_weights_are_the_released_ones(name: str) -> None:
    """Convolutions are Xavier-normal but in the conditional hierarchy; all other weights are torch's own."""
    normals, uniforms = [], []
    for layer in built(name).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            weight = original(layer)
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
            if isinstance(layer, nn.Linear) or name.endswith("conditional"):
                uniforms.append(weight.flatten() * fan_in**0.5)
            else:
                normals.append(weight.flatten() * ((fan_in + fan_out) / 2) ** 0.5)
    uniform = torch.cat(uniforms)
    assert 0.99 < float(uniform.abs().max()) <= 1
    assert float(uniform.std()) == pytest.approx(3**-0.5, rel=0.05)
    if normals:
        normal = torch.cat(normals)
        assert float(normal.std()) == pytest.approx(1, rel=0.05)
        assert float(normal.abs().max()) > 2.5
    assert bool(normals) != name.endswith("conditional")


@pytest.mark.parametrize("name", STEPS)
def test_the_schedule_and_the_last_batch_are_the_released_ones(name: str) -> None:
    """The scripts of latent_mle step the schedule late and keep the last batch; CVPR has no schedule."""
    cli = build(["-c", name])
    optimizer, schedule = cli.model.optimizer_settings.build(cli.model.networks(), fused=False)
    factors = []
    for _ in range(4):
        group = optimizer.param_groups[0]
        factors.append(group["lr"] / cli.model.optimizer_settings.lr[group["name"]])
        optimizer.step()
        schedule.step()
    late, decay = name.startswith("latent_mle/"), 1.0 if name.endswith("conditional") else 0.998
    assert factors == pytest.approx([decay ** max(0, epoch - late) for epoch in range(4)], rel=1e-12)
    assert cli.datamodule.drop_last != late


@pytest.mark.parametrize("name", STEPS)
def test_the_table_counts_the_parameters(name: str) -> None:
    """The released energies on latents have a constant each, which no contrast can learn."""
    networks = build(["-c", name]).model.networks().values()
    ours = sum(parameter.numel() for network in networks for parameter in network.parameters())
    constants = 2 if name.endswith("conditional") else 0 if name.startswith("dual_mcmc/") else 1
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}`"))
    assert f"| {ours + constants:,} | {ours:,} |" in row
