"""Bounds on log p(x) against the closed form of linear-Gaussian models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lebm.evaluation.marginal_likelihood import LatentGaussian, log_marginal, prior_log_z
from lebm.models import EnergyPrior, GaussianLikelihood
from lebm.samplers import HMC
from tests.estimators.linear_gaussian import LinearGenerator, QuadraticEnergy, marginal, posterior

SIGMA, IMAGES, CHAINS = 0.5, 10, 16


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Truth:
    """A tilted linear-Gaussian model, data drawn from it, and its exact answers."""

    def __init__(self, d: int) -> None:
        generator = source(d)
        size = 2 * d
        self.likelihood = GaussianLikelihood(LinearGenerator(d, size), SIGMA).double()
        self.prior = EnergyPrior(QuadraticEnergy(d)).double()
        root = torch.randn(d, d, generator=generator).double() / d**0.5
        with torch.no_grad():
            self.likelihood.generator.linear.weight.copy_(torch.randn(size, d, generator=generator) / d**0.5)
            self.prior.tilt.matrix.copy_(root @ root.T)
            self.prior.tilt.vector.copy_(0.5 * torch.randn(d, generator=generator))
        self.weight = self.likelihood.generator.linear.weight.detach()
        self.mean, self.covariance = (part.detach() for part in self.prior.tilt.prior())
        half = self.mean @ torch.linalg.solve(self.covariance, self.mean) / 2
        self.log_z = float(half + 0.5 * torch.logdet(self.covariance))
        prior = torch.distributions.MultivariateNormal(self.mean, self.covariance)
        torch.manual_seed(d)
        z = prior.sample((IMAGES,))
        self.x = self.likelihood.sample(z, generator).detach()
        self.log_p = marginal(self.weight, SIGMA, self.mean, self.covariance).log_prob(self.x)

    def joint(self, x: Tensor):
        return lambda z: self.likelihood.log_prob(x, z) + self.prior.log_density(z)

    def posterior_draws(self, n: int, seed: int = 0) -> Tensor:
        """Exact, ``(n, B, d)``."""
        means, shared = posterior(self.x, self.weight, SIGMA, self.mean, self.covariance)
        noise = torch.randn(n, *means.shape, generator=source(seed), dtype=torch.float64)
        return means + noise @ torch.linalg.cholesky(shared).T


@pytest.mark.parametrize("d", [2, 10, 50])
def test_the_closed_form_lies_between_the_bounds(d: int) -> None:
    """Each bound is on its own side of the truth, or as near to it as its error: the start is a Gaussian, as
    the posterior is.
    """
    truth = Truth(d)
    start = LatentGaussian.fitted(truth.posterior_draws(400, seed=3), widen=2.0)
    exact = truth.posterior_draws(CHAINS, seed=4).transpose(0, 1)
    importance = log_marginal(truth.joint, truth.x, start, 1, CHAINS, source(1))
    below = log_marginal(truth.joint, truth.x, start, 20, CHAINS, source(2))
    above = log_marginal(truth.joint, truth.x, start, 20, CHAINS, source(3), posterior=exact)
    log_z, _ = prior_log_z(truth.prior, 40 + 4 * d, truth.mean.expand(64, -1), source(5))
    error = float(log_z.high - log_z.low) / 4  # one standard error, about
    for bound, side in ((importance, -1), (below, -1), (above, 1)):
        gap = bound.estimate - log_z.estimate - truth.log_p
        spread = float(gap.std()) / math.sqrt(IMAGES) + error
        assert side * float(gap.mean()) > -3 * spread, (d, side)
        assert float(gap.mean()) == pytest.approx(0, abs=0.1 * d if bound is not importance else 0.6 * d)
    assert importance.estimate.mean() < below.estimate.mean() + 0.05 < above.estimate.mean() + 0.1
    assert float(log_z.low) - error < truth.log_z < float(log_z.high) + error


def test_more_levels_close_the_gap_and_the_start_does_not_matter() -> None:
    truth = Truth(10)
    wide = LatentGaussian.standard(truth.mean.expand(IMAGES, -1))
    exact = truth.posterior_draws(CHAINS, seed=4).transpose(0, 1)
    gaps = []
    for levels in (5, 40):
        below = log_marginal(truth.joint, truth.x, wide, levels, CHAINS, source(1))
        above = log_marginal(truth.joint, truth.x, wide, levels, CHAINS, source(2), posterior=exact)
        gaps.append(float((above.estimate - below.estimate).mean()))
        assert below.estimate.mean() - truth.log_z < truth.log_p.mean() < above.estimate.mean() - truth.log_z
    assert gaps[0] > 2 * gaps[1] > 0


def test_a_wrong_model_is_not_bracketed() -> None:
    """The bounds know the density they are of: with another sigma they leave the truth."""
    truth = Truth(2)
    other = GaussianLikelihood(truth.likelihood.generator, 2 * SIGMA)
    joint = lambda x: lambda z: other.log_prob(x, z) + truth.prior.log_density(z)  # noqa: E731
    start = LatentGaussian.fitted(truth.posterior_draws(100))
    found = log_marginal(joint, truth.x, start, 20, CHAINS, source())
    assert abs(float((found.estimate - truth.log_z - truth.log_p).mean())) > 0.3


def test_no_process_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has rows of its own, and one without rows makes no call at all."""

    def waiting(*args: object, **options: object) -> None:
        raise AssertionError("a collective call")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", waiting)
    truth = Truth(2)
    start = LatentGaussian.located(truth.joint, truth.x, truth.posterior_draws(3), source())
    log_marginal(truth.joint, truth.x, start, 2, 2, source())
    prior_log_z(truth.prior, 2, torch.zeros(4, 2).double(), source())
    with pytest.raises(AssertionError, match="a collective call"):
        HMC(1, 0.3, leapfrog_steps=3).warm_up(truth.prior.target(), torch.zeros(4, 2).double(), source())


def test_log_z_from_both_sides() -> None:
    truth = Truth(10)
    prior = torch.distributions.MultivariateNormal(truth.mean, truth.covariance)
    torch.manual_seed(0)
    below, above = prior_log_z(truth.prior, 30, prior.sample((200,)), source())
    assert float(below.low) < truth.log_z < float(above.high)
    assert float(above.high - below.low) < 0.5


def test_the_fitted_gaussian_is_the_draws_own() -> None:
    truth = Truth(2)
    draws = truth.posterior_draws(20_000)
    fitted = LatentGaussian.fitted(draws, widen=1.0)
    means, shared = posterior(truth.x, truth.weight, SIGMA, truth.mean, truth.covariance)
    torch.testing.assert_close(fitted.mean, means, atol=0.02, rtol=0)
    torch.testing.assert_close(
        fitted.factor @ fitted.factor.transpose(1, 2), shared.expand(IMAGES, -1, -1), atol=0.02, rtol=0.05
    )
    u = torch.randn(IMAGES, 2, generator=source()).double()
    torch.testing.assert_close(fitted.whiten(fitted.place(u)), u)
    few = LatentGaussian.fitted(truth.posterior_draws(3))
    assert torch.isfinite(few.factor).all()


def test_one_level_is_importance_sampling_with_the_gaussian() -> None:
    truth = Truth(2)
    start = LatentGaussian.fitted(truth.posterior_draws(50))
    found = log_marginal(truth.joint, truth.x, start, 1, 5, source(7))
    z = start.repeated(5).place(torch.randn(IMAGES * 5, 2, generator=source(7), dtype=torch.float64))
    rows = truth.x.repeat_interleave(5, 0)
    proposal = torch.distributions.MultivariateNormal(
        start.repeated(5).mean, scale_tril=start.repeated(5).factor
    )
    weights = (truth.joint(rows)(z) - proposal.log_prob(z)).reshape(IMAGES, 5)
    torch.testing.assert_close(found.estimate, weights.logsumexp(1).detach() - math.log(5))
