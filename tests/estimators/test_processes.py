"""Strategies that are refused, gradients that data-parallel training waits for, and accumulated gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch import nn

from lebm.__main__ import main
from lebm.checkpoint.rebuild import build
from lebm.errors import UserError
from lebm.estimators import LatentModel
from lebm.estimators.latent_model import touch
from lebm.estimators.strategies import check_strategy
from lebm.samplers import Noise
from tests.reliability.methods import KINDS, METHODS, description


def made(name: str) -> LatentModel:
    torch.manual_seed(0)
    return build(description(name), LatentModel)  # type: ignore[type-abstract]


@pytest.mark.parametrize("strategy", [FSDPStrategy(), ModelParallelStrategy()])
def test_networks_in_pieces_are_refused(strategy: Strategy) -> None:
    with pytest.raises(UserError, match="use --trainer.strategy ddp") as refused:
        check_strategy(nn.Linear(1, 1), strategy)
    assert "\n" not in str(refused.value)


def synchronised() -> Strategy:
    return Trainer(
        accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True, logger=False, barebones=True
    ).strategy


def test_exchanged_batch_statistics_are_refused_where_there_are_any() -> None:
    strategy = synchronised()
    check_strategy(nn.Linear(1, 1), strategy)
    with pytest.raises(UserError, match="use --trainer.sync_batchnorm false"):
        check_strategy(nn.Sequential(nn.BatchNorm2d(1)), strategy)
    check_strategy(nn.Sequential(nn.BatchNorm2d(1)), DDPStrategy())


FORKED = '{"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"start_method": "fork"}}'


@pytest.mark.parametrize(
    "words",
    [
        *(["fsdp"], ["deepspeed"], ["model_parallel"], ["FSDPStrategy"]),
        *(["ddp_fork"], ["ddp_notebook"], ["ddp_spawn"], [FORKED, "--trainer.devices", "2"]),
    ],
)
def test_the_command_line_names_what_to_type(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    status = main(["fit", "-c", "quickstart", "--trainer.strategy", *words, "--run_dir", str(run)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lebm")]
    assert (status, len(lines)) == (2, 1)
    assert lines[0].endswith("use --trainer.strategy ddp")
    assert not run.exists()


def test_a_trainer_asks_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python, without the command line."""
    model = made("latent_mle")
    trainer = Trainer(accelerator="cpu", barebones=True)
    monkeypatch.setattr(
        "lebm.estimators.latent_model.check_strategy",
        lambda *given: (_ for _ in ()).throw(UserError("asked")),
    )
    with pytest.raises(UserError, match="asked"):
        trainer.fit(model, torch.utils.data.DataLoader([0]))


@pytest.mark.parametrize("name", [*METHODS, *KINDS])
def test_every_trained_parameter_gets_a_gradient_in_every_turn(name: str) -> None:
    """So ``find_unused_parameters`` is never needed."""
    model = made(name)
    x = torch.rand(8, 1, 8, 8) * 2 - 1
    for _ in model.updates():
        model.zero_grad(set_to_none=True)
        loss = model.loss({"x": x, "index": torch.arange(8)}, 0) + touch(model.idle_networks)
        loss.backward()
        without = [
            key for key, value in model.named_parameters() if value.requires_grad and value.grad is None
        ]
        assert without == []


def test_gradients_of_uneven_parts_add_up_to_that_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighted by rows: the loss is a mean over rows, and a row's chains depend on that row alone."""
    model = made("latent_mle").double()
    model.prior_sampler = model.prior_sampler.kernel
    x, index = torch.rand(10, 1, 8, 8, dtype=torch.float64) * 2 - 1, torch.arange(10)
    rows = [index]
    monkeypatch.setattr(
        model, "noise", lambda purpose, batch: Noise.samples(0, purpose, index=rows[0]), raising=False
    )

    def gradient(part: torch.Tensor) -> list[torch.Tensor]:
        rows[0] = part
        model.zero_grad()
        model.loss({"x": x[part], "index": part}, 0).backward()
        return [value.grad.clone() for value in model.parameters() if value.grad is not None]

    whole = gradient(index)
    parts = [(len(part) / 10, gradient(part)) for part in index.split([4, 4, 2])]
    for number, expected in enumerate(whole):
        total = sum(weight * gradients[number] for weight, gradients in parts)
        torch.testing.assert_close(total, expected, rtol=0, atol=1e-9)
    assert max(value.abs().max() for value in whole) > 1e-3
