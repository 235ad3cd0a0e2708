"""Long chains of models: where they start, and what a model says of its own chains."""

from __future__ import annotations

import pytest
import torch

from lebm.evaluation.chains import NoChainError, posterior_chains
from lebm.evaluation.settings import CHAINS_PER_IMAGE
from lebm.samplers import Noise
from tests.callbacks.test_revision import model as dual_mcmc
from tests.callbacks.tiny import SHAPE, latent_mle
from tests.estimators.hierarchical_models import variational


def noise() -> Noise:
    return Noise([(0, "test")])


def test_posterior_chains_start_where_the_model_starts_them() -> None:
    model, x = latent_mle(), torch.zeros(3, *SHAPE)
    chain = posterior_chains(model, x, noise())
    assert chain.start.dtype == torch.float64, "in the model's precision"
    assert torch.equal(chain.start, model.space.reference(3 * CHAINS_PER_IMAGE, noise()))
    assert chain.sampler is model.posterior_sampler


def test_chains_that_an_inference_model_starts_are_spread_over_the_prior() -> None:
    model, x = dual_mcmc(), torch.rand(3, *SHAPE)
    before = torch.get_rng_state()
    chain = posterior_chains(model, x, noise())
    assert torch.equal(chain.start, model.sample_latent(3 * CHAINS_PER_IMAGE, generator=noise()))
    assert torch.equal(torch.get_rng_state(), before)
    rows = x.repeat_interleave(CHAINS_PER_IMAGE, dim=0)
    assert torch.equal(chain.target(chain.start), model.posterior(rows)(chain.start))


def test_a_model_without_posterior_chains_says_so() -> None:
    with pytest.raises(NoChainError, match="come from the encoder"):
        posterior_chains(variational(), torch.zeros(3, *SHAPE), noise())


def test_models_know_the_lengths_of_their_chains() -> None:
    names = ("prior", "posterior", "image")
    assert [latent_mle().chain_steps(name) for name in names] == [4, 3, None]
    dual = dual_mcmc()
    assert [dual.chain_steps(name) for name in names] == [
        None,
        dual.posterior_sampler.steps,
        dual.image_sampler.steps,
    ]
