"""Every kind of inference against the exact posterior of a linear Gaussian model.

The generator is linear and the prior N(0, I), so the posterior is Gaussian, and a Langevin chain on it is a
first-order autoregression whose mean and covariance are known after any number of steps. Tolerances are five
standard errors of the means over many equal rows.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lebm.estimators import AdamGroups, LatentMLE
from lebm.inference import Inference, Remembered, ShortRun, Taught, Variational
from lebm.models import GaussianEncoder, GaussianLikelihood, StandardNormal
from lebm.samplers import Langevin, Noise
from tests.estimators.linear_gaussian import LinearGenerator, posterior

ROWS, STEP, SIGMA = 40_000, 0.5, 0.8
WEIGHT = torch.tensor([[1.0, 0.3], [-0.4, 0.8], [0.2, -0.6]], dtype=torch.float64)
X = torch.tensor([0.9, -1.1, 0.4], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
MEAN, COVARIANCE = (
    found.squeeze(0) for found in posterior(X[None], WEIGHT, SIGMA, torch.zeros(2).double(), EYE)
)
PRECISION = torch.linalg.inv(COVARIANCE)


class Affine(GaussianEncoder):
    """``q(z | x)`` with the same mean and scale for every x: enough for one x."""

    latent_dim, in_shape = 2, (3,)

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(mean.clone())
        self.log_variance = torch.nn.Parameter(2 * scale.log())

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean.expand(len(x), 2), self.log_variance.expand(len(x), 2)


def model(inference: Inference, steps: int) -> LatentMLE:
    generator = LinearGenerator(2, 3)
    sampler = Langevin(steps, STEP) if inference.runs_chain else None
    rates = {"generator": 1e-3} | ({"encoder": 1e-3} if inference.encoder is not None else {})
    made = LatentMLE(
        GaussianLikelihood(generator, SIGMA),
        StandardNormal(2),
        Langevin(1, 0.1),
        sampler,
        AdamGroups(rates),
        inference,
    ).double()
    with torch.no_grad():
        generator.linear.weight.copy_(WEIGHT)
    return made


def latents(made: LatentMLE, call: int = 0) -> Tensor:
    batch = {"x": X.expand(ROWS, 3), "index": torch.arange(ROWS)}
    return made.infer(made.observations(batch), batch, call).z.detach()


def chain_law(steps: int, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the chain after some steps from a Gaussian start."""
    keep = EYE - 0.5 * STEP**2 * PRECISION
    for _ in range(steps):
        mean = MEAN + keep @ (mean - MEAN)
        covariance = keep @ covariance @ keep.T + STEP**2 * EYE
    return mean, covariance


def check(z: Tensor, mean: Tensor, covariance: Tensor) -> None:
    error = (covariance.diagonal() / len(z)).sqrt()
    assert ((z.mean(dim=0) - mean).abs() < 5 * error).all(), (z.mean(dim=0), mean)
    spread = (covariance.diagonal()[:, None] * covariance.diagonal()[None] + covariance.square()).sqrt()
    assert ((z.T.cov() - covariance).abs() < 5 * spread / math.sqrt(len(z))).all(), (z.T.cov(), covariance)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_short_run_has_the_law_of_its_length(steps: int) -> None:
    z = latents(model(ShortRun(), steps))
    check(z, *chain_law(steps, torch.zeros(2).double(), EYE))
    with pytest.raises(AssertionError):  # it is biased, and the test can tell
        check(z, MEAN, COVARIANCE)


def test_a_remembered_chain_adds_its_steps_up_to_the_stationary_law() -> None:
    made = model(Remembered(), 3)
    for visit in range(1, 4):
        check(latents(made, visit), *chain_law(3 * visit, torch.zeros(2).double(), EYE))
    for visit in range(4, 15):
        z = latents(made, visit)
    check(z, MEAN, torch.linalg.inv(PRECISION @ (EYE - 0.25 * STEP**2 * PRECISION)))


def test_a_taught_chain_starts_at_the_encoder() -> None:
    mean, scale = torch.tensor([1.5, -0.5]).double(), torch.tensor([0.3, 0.6]).double()
    made = model(Taught(Affine(mean, scale)), 2)
    check(latents(made), *chain_law(2, mean, scale.square().diag()))
    assert made.encode(X[None].expand(5, 3), steps=0).shape == (5, 2)
    z = made.encode(X.expand(ROWS, 3), steps=1, generator=Noise([(5, "one")]))
    check(z, *chain_law(1, mean, scale.square().diag()))


def test_the_taught_encoder_comes_to_rest_at_the_moments_of_the_chain() -> None:
    """At its fixed point the encoder has the mean and the variances of the chain's ends. The expected
    gradient vanishes there, and nowhere near.
    """
    keep = EYE - 0.5 * STEP**2 * PRECISION
    noise = sum((keep @ keep) ** 0 if k == 0 else torch.linalg.matrix_power(keep, 2 * k) for k in range(4))
    # variances v with diag(K^4 diag(v) K^4') + diag(noise) = v, a linear equation
    power = torch.linalg.matrix_power(keep, 4)
    variance = torch.linalg.solve(EYE - power.square(), STEP**2 * noise.diagonal())
    for shift, vanishes in ((0.0, True), (0.1, False)):
        encoder = Affine(MEAN + shift, variance.sqrt() * (1 + shift))
        made = model(Taught(encoder), 4)
        found = made.infer(X.expand(ROWS, 3), {"index": torch.arange(ROWS)}, 0)
        assert found.teaching is not None
        found.teaching.backward()
        # the standard error of the two gradients, for unit residuals
        mean_error = (encoder.mean.grad * variance.sqrt()).abs() * math.sqrt(ROWS)
        scale_error = encoder.log_variance.grad.abs() * math.sqrt(2 * ROWS)
        assert bool((mean_error < 5).all() and (scale_error < 5).all()) == vanishes


def test_the_variational_optimum_has_the_inverse_diagonal_precision() -> None:
    """The best diagonal Gaussian has the posterior's mean and the variances ``1 / precision``; there the loss
    is the exact negative bound, which misses the evidence by the known divergence.
    """
    best = Affine(MEAN, PRECISION.diagonal().rsqrt())
    made = model(Variational(best), 0)
    x = X.expand(ROWS, 3)
    loss = made.loss({"x": x, "index": torch.arange(ROWS)}, 0)
    evidence = torch.distributions.MultivariateNormal(
        torch.zeros(3).double(), WEIGHT @ WEIGHT.T + SIGMA**2 * torch.eye(3).double()
    ).log_prob(X)
    gap = 0.5 * (PRECISION.diagonal().log().sum() - torch.logdet(PRECISION))
    spread = made.likelihood.log_prob(x, latents(made)).std() / math.sqrt(ROWS)
    assert abs(float(loss + evidence - gap)) < 5 * spread
    loss.backward()
    moves = model(Variational(Affine(MEAN + 0.1, PRECISION.diagonal().rsqrt() * 1.1)), 0)
    moves.loss({"x": x, "index": torch.arange(ROWS)}, 0).backward()
    assert moves.encoder is not None
    for name in ("mean", "log_variance"):
        at_best, away = getattr(best, name).grad, getattr(moves.encoder, name).grad
        assert (at_best.abs() < 0.02).all()
        assert (away.abs() > 0.04).any()


@pytest.mark.parametrize("pull", [0.25, 0.7])
def test_the_optimum_under_a_weaker_pull_of_the_prior(pull: float) -> None:
    """With the weight b on the divergence from N(0, I), the best q has the mean ``(H + b I)^-1 W' x / s^2``
    and the variances ``b / (h_ii + b)``, where H = W' W / s^2; the gradient of the encoder vanishes there
    only.
    """
    H = WEIGHT.T @ WEIGHT / SIGMA**2
    mean = torch.linalg.solve(H + pull * EYE, WEIGHT.T @ X / SIGMA**2)
    scale = (pull / (H.diagonal() + pull)).sqrt()
    best, away = Affine(mean, scale), Affine(MEAN, PRECISION.diagonal().rsqrt())
    for encoder in (best, away):
        made = model(Variational(encoder, prior_pull=pull), 0)
        made.loss({"x": X.expand(ROWS, 3), "index": torch.arange(ROWS)}, 0).backward()
    for name in ("mean", "log_variance"):
        assert (getattr(best, name).grad.abs() < 0.02).all()
    assert (away.log_variance.grad.abs() > 0.04).any()
