"""What a training step computes in half precision under mixed precision, and that it learns as much."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from lebm.samplers import Sampler
from tests.reliability.methods import METHODS, SHAPE, model_of

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Types:
    """The types of what goes through every chain of a training step, by sampler."""

    def __init__(self) -> None:
        self.found: dict[str, set[torch.dtype]] = {"state": set(), "value": set(), "end": set()}
        self.guarded = Sampler.chain

    def __call__(self, sampler: Sampler, log_density: Any, init: Tensor, *rest: Any, **more: Any) -> Any:
        def seen(state: Tensor) -> Tensor:
            value = log_density(state)
            self.found["state"].add(state.dtype)
            self.found["value"].add(value.dtype)
            return value

        result = self.guarded(sampler, seen, init, *rest, **more)
        self.found["end"].add(result[0].dtype)
        return result


def step(name: str, half: torch.dtype) -> tuple[dict[str, set[torch.dtype]], dict[str, Any]]:
    """The types in the chains, and those of the loss, the noted scalars, the gradients and the layers."""
    model, types, layers = model_of(name), Types(), set()
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            module.register_forward_hook(lambda _, inputs, output: layers.add(output.dtype))
    x = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with (
        mock.patch.object(Sampler, "chain", lambda *args, **kwargs: types(*args, **kwargs)),
        torch.autocast("cpu", half),
        model.noting() as notes,
    ):
        loss = model.loss({"x": x, "index": torch.arange(8)}, 0)
    loss.backward()
    gradients = {p.grad.dtype for p in model.parameters() if p.grad is not None}
    return types.found, {"loss": loss.dtype, "layers": layers, "gradients": gradients, "notes": notes}


COARSE = {"latent_mle", "joint_hierarchical"}
"""Methods in which a chain's log-density is that of an energy alone, and so as coarse as the energy."""


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("name", METHODS)
def test_what_is_in_half_precision(name: str, precision: str) -> None:
    half, single = HALF[precision], torch.float32
    chains, others = step(name, half)
    assert chains["state"] == chains["end"] == {single}
    assert (half in chains["value"]) == (name in COARSE)
    assert others["layers"] == {half}
    assert others["gradients"] == {single}
    assert others["loss"] == single
    trained = {key: note.dtype for key, note in others["notes"].items() if key.startswith("train/")}
    assert set(trained.values()) == {single}, trained


STEPS = 60


def learned(name: str, seed: int, half: bool) -> float:
    """Squared error of reconstructions after a short training on images of rank two."""
    model = model_of(name, seed=seed)
    source = torch.Generator().manual_seed(5)
    x = (torch.randn(32, 2, generator=source) @ torch.randn(2, 64, generator=source)).tanh()
    x, index = x.reshape(32, *SHAPE), torch.arange(32)
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    for group in optimizer.param_groups:
        group["lr"] = 5e-3 if group["name"] == "generator" else 1e-3
    model.train()
    for number in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model.loss({"x": x, "index": index}, number)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    model.eval()
    again = model.reconstruct(x, generator=torch.Generator().manual_seed(6))
    return float((again.float() - x).square().mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "dual_mcmc_alternate"])
def test_a_short_training_in_bf16_learns_as_much(name: str) -> None:
    """The error is among those of three seeds in single precision, or outside by no more than their range."""
    errors = [learned(name, seed, half=False) for seed in range(3)]
    spread = max(errors) - min(errors)
    assert min(errors) - spread <= learned(name, 0, half=True) <= max(errors) + spread, errors
