"""Recipes that say 'released': one training step beside the release, initial weights, and the settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.fidelity.steps import Step, built, conditional, dual, images, ladder, latent_mle, our_step
from tests.recipes.test_recipes import ALL, header

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
NEARER: dict[str, dict[str, Any]] = {"ladder": {"added": 0.0}, "dual": {"added": 0.0, "scaled": False}}
"""Without the deviations that docs/fidelity.md names."""


def both(name: str, **changed: Any) -> tuple[Step, Step]:
    """Our step and the released one."""
    words = ["--model.init_args.kl=monte_carlo"] if STEPS[name].func is ladder else []
    ours = built(name, *words)
    theirs = deepcopy(ours)
    x = images(ours)
    return our_step(ours, x), STEPS[name](theirs, x, **changed)


def distances(ours: Step, theirs: Step) -> dict[str, float]:
    """Largest differences: of values, of gradients over the largest gradient, of parameters after the step."""

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
    return {
        "values": max(far(ours.values[name], value) for name, value in theirs.values.items()),
        "gradient": max(gradients),
        "step": max(parameters),
    }


@pytest.mark.parametrize("name", STEPS)
def test_one_step_is_the_released_one(name: str) -> None:
    """To rounding where nothing is left; the named deviations are worth less than 1e-5 of a gradient."""
    nearer = NEARER.get(STEPS[name].func.__name__, {})
    ours, theirs = both(name, **nearer)
    assert ours.gradients.keys() == theirs.gradients.keys()
    found = distances(ours, theirs)
    print(name, found)
    assert max(found["values"], found["gradient"]) < 1e-9
    assert found["step"] < 1e-9
    if nearer:
        found = distances(*both(name))
        print("with the named deviations", found)
        assert found["gradient"] < 1e-4
