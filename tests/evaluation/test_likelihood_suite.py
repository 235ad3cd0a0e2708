"""The likelihood suite of models whose log p(x) is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from lebm.data.rows import ImageRows
from lebm.estimators import AdamGroups, DualMCMCTeaching, LatentMLE, LatentModel
from lebm.evaluation.context import Settings, Subject
from lebm.evaluation.data import first_normal
from lebm.evaluation.marginal_likelihood import likelihood_suite
from lebm.models import EnergyPrior, GaussianLikelihood, MLPEncoder, ResNetEnergy
from lebm.samplers import Langevin
from tests.estimators.linear_gaussian import LinearGenerator, QuadraticEnergy, marginal

SIGMA, D, SHAPE = 0.3, 3, (1, 4, 4)


class LinearImages(LinearGenerator):
    """``W z`` as an image."""

    def __init__(self) -> None:
        super().__init__(D, math.prod(SHAPE))
        self.out_shape = SHAPE
        torch.nn.init.normal_(self.linear.weight, std=0.2, generator=torch.Generator().manual_seed(1))

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).unflatten(1, SHAPE)


def pictures(x: Tensor) -> ImageRows:
    """Test images of eight bits, as a run's own."""
    levels = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return ImageRows([levels.numpy()], np.full(len(x), -1), np.arange(len(x)))


def latent_mle() -> tuple[LatentModel, torch.distributions.MultivariateNormal]:
    energy = QuadraticEnergy(D)
    with torch.no_grad():
        energy.matrix.copy_(torch.diag(torch.tensor([0.5, 2.0, 0.0])))
        energy.vector.copy_(torch.tensor([1.0, 0.0, -0.5]))
    model = LatentMLE(
        GaussianLikelihood(LinearImages(), SIGMA),
        EnergyPrior(energy),
        Langevin(60, 0.3),
        Langevin(60, 0.1),
        AdamGroups({"generator": 1e-3, "energy": 1e-3}),
    ).double()
    mean, covariance = energy.prior()
    return model, marginal(
        model.likelihood.generator.linear.weight.detach(), SIGMA, mean.detach(), covariance.detach()
    )


def dual_mcmc() -> tuple[LatentModel, torch.distributions.MultivariateNormal]:
    model = DualMCMCTeaching(
        ResNetEnergy([*SHAPE], channels=[2], downsample=[False]),
        GaussianLikelihood(LinearImages(), SIGMA),
        MLPEncoder(D, [*SHAPE], hidden=[4]),
        Langevin(3, 0.001),
        Langevin(60, 0.1),
        AdamGroups({"energy": 1e-3, "generator": 1e-3, "encoder": 1e-3}),
    ).double()
    weight = model.likelihood.generator.linear.weight.detach()
    return model, marginal(weight, SIGMA, torch.zeros(D).double(), torch.eye(D).double())


@pytest.mark.parametrize("method", [latent_mle, dual_mcmc])
def test_the_posterior_is_the_joint_density(method) -> None:
    model, _ = method()
    x, z = torch.zeros(2, *SHAPE).double(), torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.1, 0.0]]).double()
    torch.testing.assert_close(model.posterior(x)(z), model.log_joint(x, z))


@pytest.mark.parametrize("method", [latent_mle, pytest.param(dual_mcmc, marks=pytest.mark.slow)])
def test_it_finds_the_closed_form(method) -> None:
    model, truth = method()
    torch.manual_seed(2)
    x = truth.sample((40,)).unflatten(1, SHAPE)
    subject = Subject(model.eval(), SimpleNamespace(test=pictures(x), held_out_label=None))  # type: ignore[arg-type]
    settings = Settings(likelihood_images=24, levels=30, chains=16, seed=5)
    figures = {figure.name: figure for figure in likelihood_suite(subject, settings).figures}
    exact = truth.log_prob(first_normal(subject.images, 24, seed=5).double().flatten(1)).mean()
    # log Z: a standard error a quarter of its interval, the images: the spread of 16 chains over 24 images,
    # below .02
    error = 0.02
    for name in ("log_z/below", "log_z/above"):
        if name in figures:
            error = max(error, (figures[name].high - figures[name].low) / 4)
    found = figures["log_likelihood/ais"]
    assert found.value == pytest.approx(float(exact), abs=3 * error)
    assert found.low < float(exact) < found.high
    assert figures["log_likelihood/importance_sampling"].value == pytest.approx(
        float(exact), abs=3 * error + 0.05
    )
    bits = -float(exact) / (16 * math.log(2)) + math.log2(127.5)
    assert figures["bits_per_dimension/ais"].value == pytest.approx(bits, abs=3 * error / 16 / math.log(2))
    gap = figures["bracket_gap/simulated_images"]
    assert abs(gap.value) < 0.1
    assert all(
        parameter.requires_grad for parameter in model.parameters()
    )  # what was frozen for the chains is free again
