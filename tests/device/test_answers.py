"""Chains, training steps and answers of every method, on the device in single precision, against the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lebm.estimators import LatentModel
from lebm.samplers import Noise
from tests.device.same import SameNoise, close
from tests.reliability.methods import KINDS, METHODS, SHAPE, model_of
from tests.samplers.test_contract import MAKERS, Target, start

REFERENCE = torch.device("cpu"), torch.float64
ROWS = 8


@pytest.fixture(autouse=True)
def _same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw of a method by the same numbers."""
    monkeypatch.setattr(Noise, "shards", classmethod(_shards))


def _shards(_: type[Noise], *key: object, shards: int = 8, **layout: int) -> Noise:
    return SameNoise([(*key, shard) for shard in range(shards)])


def data(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    x = torch.rand(ROWS, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"x": x.to(device, dtype), "index": torch.arange(ROWS, device=device)}


@pytest.mark.parametrize("name", MAKERS)
def test_a_chain_ends_where_it_does_on_the_cpu(name: str, device: torch.device) -> None:
    def end(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
        target, init = Target().to(device, dtype), start(dtype=dtype).to(device)
        state, info = MAKERS[name]().to(device).run(target, init, Noise.shards("chain", shards=2), steps=5)
        assert (state.device.type, state.dtype) == (device.type, dtype)
        return state, info.scalars()

    state, scalars = end(device, torch.float32)
    expected, expected_scalars = end(*REFERENCE)
    close(state, expected, "state")
    for key, value in scalars.items():
        assert value.device.type == device.type, key
        close(value.float(), expected_scalars[key], key)


def trained(name: str, device: torch.device, dtype: torch.dtype) -> tuple[LatentModel, dict[str, Any]]:
    """A model after one training step, and what the step computed."""
    model = model_of(name).to(device, dtype)
    model.train()
    optimizer, _ = model.optimizer_settings.build(model.networks(), fused=True)
    with model.noting() as notes:
        loss = model.loss(data(device, dtype), 0)
    loss.backward()
    found: dict[str, Any] = {"loss": loss, **notes}
    for group in optimizer.param_groups:
        gradients = [p.grad.flatten() for p in group["params"] if p.grad is not None]
        if gradients:
            found[f"gradient of {group['name']}"] = torch.cat(gradients)
    model.optimizer_settings.clip(optimizer, 1.0)
    optimizer.step()
    return model, found


@pytest.mark.parametrize("name", [*METHODS, *KINDS])
def test_a_training_step_computes_what_it_does_on_the_cpu(name: str, device: torch.device) -> None:
    model, found = trained(name, device, torch.float32)
    _, expected = trained(name, *REFERENCE)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        close(value, expected[key], key)
    for parameter in model.parameters():
        assert (parameter.device.type, parameter.dtype) == (device.type, torch.float32)
        assert torch.isfinite(parameter).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_answers_are_those_of_the_cpu(name: str, device: torch.device) -> None:
    def answers(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        model = model_of(name).to(device, dtype).eval()
        x = data(device, dtype)["x"]

        def noise(purpose: str) -> Noise:
            return Noise.shards(purpose, shards=4)

        z = model.encode(x, generator=noise("encode"))
        return {
            "encode": z,
            "decode": model.decode(z),
            "log_joint": model.log_joint(x, z),
            "anomaly_score": model.anomaly_score(x, generator=noise("score")),
            "reconstruct": model.reconstruct(x, generator=noise("reconstruct")),
            "sample": model.sample(ROWS, generator=noise("sample")),
        }

    expected = answers(*REFERENCE)
    for key, value in answers(device, torch.float32).items():
        assert (value.device.type, value.dtype) == (device.type, torch.float32), key
        close(value, expected[key], key)
