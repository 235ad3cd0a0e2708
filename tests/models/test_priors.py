"""Priors against ``torch.distributions`` and against their definition."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

from lebm.models import Energy, EnergyPrior, GaussianMixture, MLPEnergy, Prior, StandardNormal
from lebm.samplers import Langevin, Noise
from lebm.samplers.base import log_density_gradient, state_gradient


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
    with pytest.raises(ValueError, match="give EnergyPrior a latent_dim"):
        EnergyPrior(Energy())
    with pytest.raises(ValueError, match="at least 1"):
        StandardNormal(0)
    with pytest.raises(ValueError, match="a base needs exact samples, which EnergyPrior does not have"):
        EnergyPrior(MLPEnergy(3), EnergyPrior(MLPEnergy(3)))
    with pytest.raises(ValueError, match="StandardNormal has no fit; use a base that has one"):
        StandardNormal(3).fit(torch.zeros(4, 3))


class Bowl(nn.Module):
    """``E(z) = |z|^2 / 2``, a module that knows nothing of lebm."""

    def forward(self, z: Tensor) -> Tensor:
        return z.square().sum(dim=1) / 2


class Ellipse(Prior):
    """A base of a user: N(0, F F^T), without a gradient of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = 3
        self.register_buffer("factor", torch.tensor([[2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-1.0, 0.3, 0.5]]))

    @property
    def is_exact(self) -> bool:
        return True

    def energy(self, z: Tensor) -> Tensor:
        return torch.zeros(len(z))

    def log_density(self, z: Tensor) -> Tensor:
        return MultivariateNormal(torch.zeros(3), scale_tril=self.factor).log_prob(z)

    def reference(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 3, generator=generator) @ self.factor.T


def mixture() -> GaussianMixture:
    made = GaussianMixture(3, 4)
    made.fit(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).cumsum(dim=1))
    return made


@pytest.mark.parametrize("base", [StandardNormal(3), mixture(), Ellipse()])
@pytest.mark.parametrize("energy", [MLPEnergy(3, [8]), Bowl()], ids=["network", "module"])
def test_a_tilted_gradient_is_that_of_autograd(base: Prior, energy: nn.Module) -> None:
    prior = EnergyPrior(energy, base)
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prior.log_density(z), base.log_density(z) - energy(z))
    torch.testing.assert_close(prior.target().log_ratio(z), -energy(z))
    _, slope = log_density_gradient(lambda at: base.log_density(at) - energy(at), z)
    torch.testing.assert_close(prior.target().state_gradient(z), slope)
    assert torch.equal(
        prior.reference(4, torch.Generator().manual_seed(2)),
        base.reference(4, torch.Generator().manual_seed(2)),
    )


def test_the_gradient_under_a_standard_normal_has_the_bits_of_its_formula() -> None:
    prior = EnergyPrior(MLPEnergy(3, [8]))
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(prior.target().state_gradient(z), -(state_gradient(prior.tilt, z) + z))


def test_a_chain_of_a_prior_follows_the_gradient_of_autograd() -> None:
    torch.manual_seed(1)
    prior = EnergyPrior(MLPEnergy(4, hidden=[16, 16]).double())
    start = torch.randn(32, 4, dtype=torch.float64)
    ends = [
        Langevin(20, 0.3)(density, start, torch.Generator().manual_seed(2))
        for density in (prior.target(), prior.log_density)
    ]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)


class Waiting:
    pending = True


@pytest.mark.parametrize("base", [StandardNormal(3), mixture()])
def test_an_energy_that_waits_is_left_out(base: Prior) -> None:
    prior, schedule = EnergyPrior(MLPEnergy(3, [8]), base), Waiting()
    before = prior.state_dict().keys()
    prior.wait_for(schedule)
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    assert prior.asleep
    assert prior.is_exact
    assert torch.equal(prior.log_density(z), base.log_density(z))
    assert torch.equal(prior.target().state_gradient(z), base.state_gradient(z))
    assert torch.equal(prior.target().log_ratio(z), torch.zeros(7))
    assert torch.equal(prior.energy(z), torch.zeros(7))
    schedule.pending = False
    assert not prior.asleep
    assert not prior.is_exact
    assert torch.equal(prior.energy(z), prior.tilt(z))
    assert prior.state_dict().keys() == before, "the schedule is not a part of the prior"


def test_any_module_is_an_energy() -> None:
    prior = EnergyPrior(Bowl(), StandardNormal(3))
    z = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(prior.energy(z), z.square().sum(dim=1) / 2)
    torch.testing.assert_close(prior.target().state_gradient(z), -2 * z)
    noise = torch.Generator().manual_seed(0)
    drawn = Langevin(20, 0.3)(prior.target(), prior.reference(2000, noise), noise)
    kept = 0.91**40  # of exp(-|z|^2) one step of 0.3 keeps 0.91 of z, and adds a variance of 0.09
    assert drawn.var().item() == pytest.approx(0.09 / (1 - 0.91**2) * (1 - kept) + kept, abs=0.03)
    with pytest.raises(ValueError, match="has no attribute latent_dim; give EnergyPrior a latent_dim"):
        EnergyPrior(Bowl())
    assert EnergyPrior(nn.Linear(3, 1), latent_dim=3).energy(torch.randn(5, 3)).shape == (5,)
