"""The one-classifier baseline: right where the classes overlap, without weights where they do not."""

from __future__ import annotations

import pytest
import torch

from lebm.density_ratio.classifiers import Training
from lebm.estimators.ncp import noise_contrastive_prior
from lebm.models import GaussianLikelihood, MLPEnergy
from lebm.samplers import Langevin
from tests.estimators.linear_gaussian import LinearGenerator


def fitted(shift: float):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    latents = torch.tensor([shift, 0.0]) + torch.randn(10_000, 2, generator=generator)
    likelihood = GaussianLikelihood(LinearGenerator(2, 4), 0.5)
    network = MLPEnergy(2, [32, 32], output_bias=True)
    training = Training(steps=500, batch_size=500, lr=5e-3)
    return noise_contrastive_prior(likelihood, latents, network, Langevin(20, 0.3), training, 1000, generator)


def test_finds_a_prior_that_overlaps_the_reference():
    model, ess = fitted(1.0)
    drawn = model.sample_latent(4000, generator=torch.Generator().manual_seed(1))
    assert (drawn.mean(0) - torch.tensor([1.0, 0.0])).abs().max() < 0.1
    assert (drawn.std(0) - 1).abs().max() < 0.1
    # Weights exp(z_1 - 1/2) of N(0, I) have the effective share 1 / E[w^2] = exp(-1).
    assert ess == pytest.approx(1000 * torch.exp(torch.tensor(-1.0)).item(), rel=0.2)
    assert model.sample(3).shape == (3, 4)
    assert model.anomaly_score(torch.randn(3, 4)).shape == (3,)
    assert not any(parameter.requires_grad for parameter in model.likelihood.parameters())


def test_its_weights_degenerate_where_the_prior_is_far():
    _, ess = fitted(5.0)
    assert ess < 20


def test_the_callers_generator_is_left_as_it_is():
    likelihood = GaussianLikelihood(LinearGenerator(2, 4), 0.5)
    before = {name: value.clone() for name, value in likelihood.state_dict().items()}
    training = Training(steps=1, batch_size=10)
    model, _ = noise_contrastive_prior(
        likelihood, torch.randn(100, 2), MLPEnergy(2, output_bias=True), Langevin(1, 0.1), training, 10
    )
    assert all(parameter.requires_grad for parameter in likelihood.parameters())
    assert not any(parameter.requires_grad for parameter in model.likelihood.parameters())
    with torch.no_grad():
        next(likelihood.parameters()).zero_()  # the caller goes on training
    assert all(torch.equal(value, before[name]) for name, value in model.likelihood.state_dict().items())


def test_latents_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"latents must be \(N, 2\)"):
        noise_contrastive_prior(
            GaussianLikelihood(LinearGenerator(2, 4), 0.5),
            torch.randn(50, 3),
            MLPEnergy(3, output_bias=True),
            Langevin(1, 0.1),
        )
