"""The Gaussian likelihood against ``torch.distributions``."""

import pytest
import torch
from torch.distributions import Independent, Normal

from lebm.models import GaussianLikelihood, MLPGenerator


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0])
def test_log_prob_with_its_constant(sigma: float) -> None:
    torch.manual_seed(0)
    likelihood = GaussianLikelihood(MLPGenerator(3, [2, 4, 4], [8]), sigma).double()
    z, x = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, 4, 4, dtype=torch.float64)
    mean = likelihood.mean(z)
    reference = Independent(Normal(mean, torch.full_like(mean, sigma)), 3)
    torch.testing.assert_close(likelihood.log_prob(x, z), reference.log_prob(x), rtol=1e-12, atol=1e-12)


def test_draws_carry_the_observation_noise() -> None:
    torch.manual_seed(1)
    likelihood = GaussianLikelihood(MLPGenerator(3, [1, 4, 4], [8]), 0.3)
    n = 5_000
    z = torch.randn(1, 3).expand(n, 3)
    residual = (likelihood.sample(z, torch.Generator().manual_seed(2)) - likelihood.mean(z)).flatten()
    assert residual.mean().abs() < 5 * 0.3 / residual.numel() ** 0.5
    assert abs(residual.std().item() / 0.3 - 1) < 5 / (2 * residual.numel()) ** 0.5


def test_latent_gradient_is_the_scaled_residual() -> None:
    """With ``g`` the identity in effect, ``d log p / d z = (x - z) / sigma^2``."""
    generator = MLPGenerator(4, [4], [], output="linear").double()
    with torch.no_grad():
        generator.net[0].weight.copy_(torch.eye(4))
        generator.net[0].bias.zero_()
    likelihood = GaussianLikelihood(generator, 0.5)
    z, x = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    slope = torch.func.grad(lambda z: likelihood.log_prob(x, z).sum())(z)
    torch.testing.assert_close(slope, (x - z) / 0.25, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_sigma_must_be_positive(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be positive"):
        GaussianLikelihood(MLPGenerator(3, [4]), sigma)
