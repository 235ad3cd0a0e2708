"""The arithmetic of a training step against closed forms, and the line that ``validate-recipe`` prints."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from lebm.cli.dispatch import run
from lebm.config.parser import RecipeCLI
from lebm.config.request import read_request
from lebm.estimators import AdamGroups, LatentMLE
from lebm.models import EnergyPrior, GaussianLikelihood, Generator, MLPEnergy, MLPGenerator
from lebm.run.cost import PEAK, UTILISATION, Cost, batch_of, run_cost, step_flops
from lebm.samplers import Langevin

ENERGY = 2 * (5 * 7 + 7 * 1)
"""One forward pass of the energy 5-7-1 per row: two operations per weight."""
TO_LATENTS = 2 * ENERGY
"""Forward, and the gradient with respect to the latents alone."""
MLP = 2 * (5 * 11 + 11 * 16)
FIRST, SECOND = 2 * 5 * 6 * 4 * 4, 2 * 6 * 1 * 4 * 4 * 4 * 4
"""Transposed convolutions: 5 to 6 channels from 1x1 by a 4x4 kernel, then 6 to 1 from 4x4 by a 4x4 kernel."""
PRIOR, POSTERIOR = 9, 4
"""Steps of the two chains."""


class Convolutions(Generator):
    """Two plain transposed convolutions; those of ``ConvGenerator`` compute the last one in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim, self.out_shape = 5, (1, 8, 8)
        self.net = nn.Sequential(nn.ConvTranspose2d(5, 6, 4), nn.ReLU(), nn.ConvTranspose2d(6, 1, 4, 2, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z[:, :, None, None])


def model_of(generator: Generator, prior: int = PRIOR, posterior: int = POSTERIOR) -> LatentMLE:
    return LatentMLE(
        GaussianLikelihood(generator, 0.3),
        EnergyPrior(MLPEnergy(5, hidden=[7])),
        Langevin(prior, 0.4),
        Langevin(posterior, 0.1),
        AdamGroups({"generator": 1e-4, "energy": 2e-5}),
    )


def expected(generator: int) -> int:
    """Of one row: chains, then forward and gradient of the weights. The latents need no gradient any more, so
    the first layer has two products and every later one three.
    """
    chains = PRIOR * TO_LATENTS + POSTERIOR * (TO_LATENTS + 2 * generator)
    return chains + 2 * (3 * ENERGY - 2 * 5 * 7)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_fully_connected_networks_have_the_count_of_the_closed_form(device: str) -> None:
    model = model_of(MLPGenerator(5, [1, 4, 4], hidden=[11])).to(device)
    assert step_flops(model) == expected(MLP) + 3 * MLP - 2 * 5 * 11


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_convolutions_have_the_count_of_the_closed_form(device: str) -> None:
    model = model_of(Convolutions()).to(device)
    assert step_flops(model) == expected(FIRST + SECOND) + 2 * FIRST + 3 * SECOND


def test_a_model_is_left_with_its_own_methods_and_compiled_chains() -> None:
    model = model_of(MLPGenerator(5, [1, 4, 4], hidden=[11])).to("meta")
    model.prior_sampler = Langevin(PRIOR, 0.4, compile=True)
    assert step_flops(model) == expected(MLP) + 3 * MLP - 2 * 5 * 11
    assert model.prior_sampler.compiles
    assert not {"follow", "noise"} & set(vars(model))


def test_measured_times_of_two_sizes_have_the_ratio_of_their_counts() -> None:
    """Wide networks, whose time is in their matrix products; half to twice the ratio of the counts. The two
    take turns, so that other programs slow both.
    """

    def made(width: int) -> LatentMLE:
        return model_of(MLPGenerator(5, [1, 16, 16], hidden=[width, width]))

    widths = (700, 2100)
    models, times = [made(width) for width in widths], [[], []]
    batch = batch_of(models[0], 100, "cpu")
    for number in range(8):
        for model, own in zip(models, times, strict=True):
            begun = time.process_time()
            model.loss(batch, number).backward()
            own.append(time.process_time() - begun)
    small, large = (
        (min(own), step_flops(made(width).to("meta"))) for own, width in zip(times, widths, strict=True)
    )
    assert 0.5 < (large[0] / small[0]) / (large[1] / small[1]) < 2


def test_hours_follow_the_stated_formula() -> None:
    cost = Cost(flops=2e9, batch_size=100, steps=10_000)
    assert cost.hours_per_step == pytest.approx(2e9 * 100 / (PEAK * UTILISATION) / 3600)
    assert cost.line.startswith("200 GFLOP per step of 100 rows, 10,000 steps, 0.095 hours on an A100")
    unknown = Cost(flops=2e9, batch_size=100, steps=None)
    assert unknown.duration == "0.0095 hours per 1,000 steps"


def cost_of(*words: str) -> Cost:
    with torch.device("meta"):
        cli = RecipeCLI(read_request("validate-recipe", ["-c", *words]), trainer_too=False)
    return run_cost(cli.model, cli.datamodule, cli.config.trainer)


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["latent_mle/mnist"], 20 * 550),
        (["latent_mle/mnist", "--trainer.max_steps", "77"], 77),
        (["latent_mle/mnist", "--data.init_args.limit_train", "250", "--trainer.max_epochs", "3"], 6),
        (["latent_mle/mnist", "--trainer.accumulate_grad_batches", "2"], 20 * 275),
        (["joint_hierarchical/svhn"], 200 * 5311),
        (["multistage_nce/toy2d"], 40 * 20),
        pytest.param(["dual_mcmc/lsun_church64"], None, marks=pytest.mark.slow),
    ],
)
def test_steps_come_from_rows_batches_and_limits(words: list[str], steps: int | None) -> None:
    assert cost_of(*words).steps == steps


@pytest.mark.slow
def test_two_turns_of_a_batch_cost_more_than_one() -> None:
    once = cost_of("dual_mcmc/cifar10_small", "--model.init_args.schedule", "simultaneous")
    twice = cost_of("dual_mcmc/cifar10_small", "--model.init_args.schedule", "alternate")
    assert twice.flops > 1.3 * once.flops


@pytest.mark.parametrize("name", ["latent_mle/text_small", "joint_hierarchical/text_small"])
def test_sentences_are_counted(name: str) -> None:
    """At least the output layer over 24 words of a vocabulary of 1,500, forward and backward."""
    assert cost_of(name).flops > 3 * 2 * 24 * 128 * 1498


def test_validate_recipe_prints_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate-recipe", "latent_mle/svhn"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("cost     616 GFLOP per step of 100 rows, 147,132 steps, 4.3 hours on an A100")
