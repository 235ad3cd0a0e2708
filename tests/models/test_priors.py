"""Priors against ``torch.distributions`` and against their definition."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from lebm.component import DescriptionError, describe
from lebm.models import Energy, EnergyPrior, MLPEnergy, StandardNormal
from lebm.samplers import Langevin, Noise


class Slope(Energy):
    """``E(z) = a . z``, which moves a standard normal to ``N(-a, I)`` with ``log Z = |a|^2 / 2``."""

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.register_buffer("slope", slope)
        self.latent_dim = len(slope)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.slope


def test_standard_normal_density() -> None:
    prior = StandardNormal(4)
    z = torch.randn(6, 4, dtype=torch.float64)
    reference = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1)
    torch.testing.assert_close(prior.log_density(z), reference.log_prob(z), rtol=1e-12, atol=1e-12)
    assert prior.is_exact
    assert (prior.energy(z) == 0).all()


def test_energy_prior_tilts_its_base() -> None:
    slope = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    prior = EnergyPrior(Slope(slope))
    z = torch.randn(6, 3, dtype=torch.float64)
    shifted = Independent(Normal(-slope.expand(6, 3), torch.ones(6, 3, dtype=torch.float64)), 1)
    log_normaliser = slope.square().sum() / 2
    torch.testing.assert_close(
        prior.log_density(z) - log_normaliser, shifted.log_prob(z), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(prior.energy(z), z @ slope)
    assert not prior.is_exact


def test_reference_draws_are_standard_normal() -> None:
    prior = EnergyPrior(MLPEnergy(5, [8]))
    n = 20_000
    drawn = prior.reference(n, torch.Generator().manual_seed(0))
    assert drawn.shape == (n, 5)
    assert not drawn.requires_grad
    # five standard errors of a mean, a variance and a covariance of n standard normals
    assert drawn.mean(0).abs().max() < 5 / n**0.5
    covariance = drawn.T.cov()
    assert (covariance.diagonal() - 1).abs().max() < 5 * (2 / n) ** 0.5
    assert (covariance - covariance.diagonal().diag()).abs().max() < 5 / n**0.5


def test_reference_follows_keyed_noise_only() -> None:
    prior = EnergyPrior(MLPEnergy(3, [4]))
    before = torch.random.get_rng_state()
    whole = prior.reference(8, Noise.shards(0, "prior", shards=4))
    halves = [
        prior.reference(4, Noise.shards(0, "prior", shards=4, rank=rank, world_size=2)) for rank in range(2)
    ]
    assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(whole, prior.reference(8, Noise.shards(1, "prior", shards=4)))
    assert torch.equal(torch.random.get_rng_state(), before), "torch's own stream is left alone"


@pytest.mark.parametrize("prior", [StandardNormal(2), EnergyPrior(MLPEnergy(2, [4]))])
def test_reference_has_the_models_precision(prior: StandardNormal | EnergyPrior) -> None:
    assert prior.double().reference(3).dtype == torch.float64


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="takes 3 latent coordinates but the base has 4"):
        EnergyPrior(MLPEnergy(3), StandardNormal(4))
    with pytest.raises(ValueError, match="give EnergyPrior a base"):
        EnergyPrior(Energy())
    with pytest.raises(ValueError, match="at least 1"):
        StandardNormal(0)


class Bowl(nn.Module):
    """``E(z) = |z|^2 / 2``, a module that knows nothing of lebm."""

    def forward(self, z: Tensor) -> Tensor:
        return z.square().sum(dim=1) / 2


def test_any_module_is_an_energy() -> None:
    prior = EnergyPrior(Bowl(), StandardNormal(3))
    z = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(prior.energy(z), z.square().sum(dim=1) / 2)
    torch.testing.assert_close(prior.log_density.state_gradient(z), -2 * z)
    drawn = Langevin(20, 0.3)(prior.log_density, prior.reference(2000, torch.Generator().manual_seed(0)))
    assert drawn.var().item() == pytest.approx(0.5, abs=0.05)  # exp(-|z|^2)
    with pytest.raises(ValueError, match="does not know its latent_dim; give EnergyPrior a base"):
        EnergyPrior(Bowl())
    with pytest.raises(DescriptionError, match="energy: .*Bowl has no plain description"):
        describe(prior)
