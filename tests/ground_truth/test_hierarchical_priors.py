"""Hierarchies of Gaussians, their noise, and what chains in noise space converge to."""

from __future__ import annotations

import math

import pytest
import torch

from lebm.checkpoint.rebuild import build
from lebm.component import describe
from lebm.models import (
    EnergyPrior,
    GaussianChain,
    GaussianMixture,
    HierarchicalPrior,
    LayerEnergies,
    MLPEnergy,
    StandardNormal,
)
from lebm.models.chain_space import ChainSpace, NoiseSpace, redraw
from lebm.models.encoders import DiagonalGaussian
from lebm.models.hierarchical import LatentLayout
from lebm.models.hierarchical_priors import GaussianHierarchy
from lebm.samplers import MALA, Langevin
from tests.estimators.linear_gaussian import QuadraticEnergy
from tests.ground_truth.monte_carlo import second_moments, z_scores

DIMS = [2, 1, 2]


def chain() -> GaussianChain:
    torch.manual_seed(0)
    return GaussianChain(DIMS, hidden=[8]).double()


class Pair(GaussianHierarchy):
    """Two layers of one coordinate: ``z_2 ~ N(0, 1)``, ``z_1 ~ N(a z_2, s(z_2)^2)`` with ``log s = b z_2``;
    jointly Gaussian if b is 0.
    """

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.layout, self.latent_dim = LatentLayout([1, 1]), 2
        self.register_buffer("a", torch.tensor(a, dtype=torch.float64))
        self.b = b

    def conditionals(self, z: torch.Tensor) -> DiagonalGaussian:
        top = z[:, 1:]
        zero = torch.zeros_like(top)
        return DiagonalGaussian(torch.cat([self.a * top, zero], 1), torch.cat([self.b * top, zero], 1))

    def place(self, noise: torch.Tensor) -> torch.Tensor:
        top = noise[:, 1:]
        return torch.cat([self.a * top + (self.b * top).exp() * noise[:, :1], top], dim=1)


def zero_energy() -> LayerEnergies:
    energy = LayerEnergies([MLPEnergy(1, [2]), MLPEnergy(1, [2])]).double()
    for parameter in energy.parameters():
        parameter.data.zero_()
    return energy


def test_noise_and_latents_are_one_to_one() -> None:
    base, noise = chain(), torch.randn(50, 5, dtype=torch.float64)
    z = base.place(noise)
    torch.testing.assert_close(base.noise_of(z), noise)
    # the density of z is that of the noise over the volume of the map
    jacobian = torch.func.vmap(torch.func.jacrev(lambda eps: base.place(eps.unsqueeze(0)).squeeze(0)))(noise)
    expected = StandardNormal(5).double().log_density(noise) - jacobian.det().abs().log()
    torch.testing.assert_close(base.log_density(z), expected)
    assert base.is_exact
    assert torch.equal(base.energy(z), torch.zeros(50).double())


def test_standard_deviations_are_floored_and_bounded() -> None:
    base = GaussianChain([1, 1], hidden=[], floor=0.01, limit=5.0)
    with torch.no_grad():
        base.nets[0][0].weight.copy_(torch.tensor([[0.0], [1e4]]))
    scales = base.given(0, torch.tensor([[-1.0], [1.0]])).log_scale.exp().flatten()
    torch.testing.assert_close(
        scales, torch.tensor([0.01 + torch.tensor(-5.0).exp(), 0.01 + torch.tensor(5.0).exp()])
    )
    with pytest.raises(ValueError, match="a chain needs two layers"):
        GaussianChain([3])


def test_the_released_top_layer_is_wider_and_nothing_is_bounded() -> None:
    base = GaussianChain([1, 2], hidden=[], floor=0.01, limit=None, top_floor=True).double()
    with torch.no_grad():
        base.nets[0][0].weight.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0]]))
        base.nets[0][0].bias.zero_()
    z = torch.tensor([[0.3, 1.0, -0.5]], dtype=torch.float64)
    lower, upper = math.exp(10.0) + 0.01, 1.01
    expected = sum(
        -0.5 * (value / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
        for value, scale in ((0.3, lower), (1.0, upper), (-0.5, upper))
    )
    assert float(base.log_density(z)) == pytest.approx(expected, rel=1e-12)
    noise = torch.randn(50, 3, dtype=torch.float64)
    placed = base.place(noise)
    torch.testing.assert_close(placed[:, 1:], 1.01 * noise[:, 1:])
    torch.testing.assert_close(base.noise_of(placed), noise)


@pytest.mark.parametrize("exact", [True, False])
def test_in_noise_space_only_the_exact_target_keeps_the_standard_normal(exact: bool) -> None:
    """No energy: noise must stay N(0, I). Under the released target its density is that of the latents, whose
    top is then N(-b, 1).
    """
    prior = HierarchicalPrior(zero_energy(), Pair(0.7, 0.6))
    start = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = MALA(150, 0.9)
    noise = kernel(NoiseSpace(prior, exact).target(), start, torch.Generator().manual_seed(1))
    off = z_scores(noise, torch.zeros(2).double())
    spread = z_scores(second_moments(noise), torch.eye(2).double())
    if exact:
        assert max(off, spread) < 4
        return
    assert off > 20
    # -|e|^2 / 2 - b e_2 is a shifted Gaussian
    assert z_scores(noise, torch.tensor([0.0, -0.6]).double()) < 4


def test_both_spaces_sample_the_same_prior() -> None:
    """A quadratic energy on a linear hierarchy makes the prior Gaussian: precision of the reference plus that
    of the energy.
    """
    energy = QuadraticEnergy(2).double()
    with torch.no_grad():
        energy.matrix.copy_(torch.tensor([[0.8, 0.3], [0.3, 0.5]]))
        energy.vector.copy_(torch.tensor([0.5, -1.0]))
    prior = HierarchicalPrior(energy, Pair(0.7, 0.0))
    reference = torch.tensor([[1.0, 0.7], [0.7, 1.49]]).double()  # (z_2, z_1)
    reference = reference.flip(0, 1)
    covariance = torch.linalg.inv(torch.linalg.inv(reference) + energy.matrix.detach())
    mean = covariance @ energy.vector.detach()
    for space in (ChainSpace(prior), NoiseSpace(prior)):
        start = space.reference(6000, torch.Generator().manual_seed(0))
        state = MALA(80, 0.9)(space.target(), start, torch.Generator().manual_seed(1))
        z = space.latents(state).detach()
        assert z_scores(z, mean) < 4
        assert z_scores(second_moments(z, mean), covariance) < 4


@pytest.mark.parametrize("space", [ChainSpace, NoiseSpace])
def test_a_lower_layer_is_redrawn_from_its_conditional(space: type[ChainSpace]) -> None:
    energy = QuadraticEnergy(2).double()
    with torch.no_grad():
        energy.matrix.copy_(torch.tensor([[0.8, 0.3], [0.3, 0.5]]))
    prior = HierarchicalPrior(energy, Pair(0.7, 0.0))
    z = torch.tensor([[9.0, 1.3]], dtype=torch.float64).expand(6000, -1)
    drawn = redraw(
        space(prior), MALA(60, 0.9), z, torch.tensor([True, False]), torch.Generator().manual_seed(0)
    ).detach()
    torch.testing.assert_close(drawn[:, 1], z[:, 1])
    precision = 1.0 + 0.8
    mean = (0.7 * 1.3 - 0.3 * 1.3) / precision
    assert z_scores(drawn[:, 0], mean) < 4
    assert z_scores((drawn[:, 0] - mean).square(), 1 / precision) < 4


def test_without_energy_lower_layers_are_redrawn_without_a_chain() -> None:
    z = torch.full((6000, 2), 1.3, dtype=torch.float64)
    lower, upper = torch.tensor([True, False]), torch.tensor([False, True])
    drawn = redraw(ChainSpace(Pair(0.7, 0.0)), Langevin(0, 0.1), z, lower, torch.Generator().manual_seed(0))
    assert z_scores(drawn[:, 0], 0.7 * 1.3) < 4
    # an upper layer given a lower one is no draw of the reference: there a chain runs
    drawn = redraw(ChainSpace(Pair(0.7, 0.0)), MALA(60, 0.9), z, upper, torch.Generator().manual_seed(0))
    assert z_scores(drawn[:, 1], 0.7 * 1.3 / 1.49) < 4
    assert torch.equal(redraw(ChainSpace(Pair(0.7, 0.0)), MALA(1, 0.9), z, ~(lower | upper)), z)
    plain = StandardNormal(2).double()
    drawn = redraw(ChainSpace(plain), Langevin(0, 0.1), z, upper, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, 0], z[:, 0])
    assert z_scores(drawn[:, 1], 0.0) < 4


def test_a_mixture_is_redrawn_as_a_whole_or_by_a_chain() -> None:
    """Its layers depend on each other, so one layer needs a chain, which starts at a draw of the mixture."""
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixture = GaussianMixture(2, 1).double()
    mixture.fit(noise.cumsum(dim=1) * torch.tensor([2.0, 1.0]) + 3, torch.Generator().manual_seed(0))
    z, every = torch.full((6000, 2), 4.0, dtype=torch.float64), torch.tensor([True, True])
    drawn = redraw(ChainSpace(mixture), Langevin(0, 0.1), z, every, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, mixture.reference(6000, torch.Generator().manual_seed(1)))
    upper = torch.tensor([False, True])
    start = redraw(ChainSpace(mixture), Langevin(0, 0.1), z, upper, torch.Generator().manual_seed(1))
    assert torch.equal(start, torch.stack([z[:, 0], drawn[:, 1]], dim=1))
    (mean,), (covariance,) = mixture.mean, mixture.factor @ mixture.factor.transpose(1, 2)
    gain = covariance[0, 1] / covariance[0, 0]
    end = redraw(ChainSpace(mixture), MALA(60, 0.9), z, upper, torch.Generator().manual_seed(1))
    assert torch.equal(end[:, 0], z[:, 0])
    expected = mean[1] + gain * (4.0 - mean[0])
    assert z_scores(end[:, 1], float(expected)) < 4
    assert z_scores((end[:, 1] - expected).square(), float(covariance[1, 1] - gain * covariance[0, 1])) < 4


def test_starts_are_what_they_are_called() -> None:
    tilt = LayerEnergies([MLPEnergy(size, [4]) for size in DIMS])
    normal, ancestral = (
        HierarchicalPrior(tilt, chain().float(), start=start) for start in ("normal", "ancestral")
    )  # type: ignore[arg-type]
    draws = [prior.reference(3, torch.Generator().manual_seed(0)) for prior in (normal, ancestral)]
    torch.testing.assert_close(normal.base.place(draws[0]), draws[1])
    with pytest.raises(ValueError, match="start must be"):
        HierarchicalPrior(tilt, chain(), start="zero")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes 4 latent coordinates but the base has 5"):
        HierarchicalPrior(MLPEnergy(4), chain())


def test_a_description_rebuilds_the_prior() -> None:
    prior = HierarchicalPrior(
        LayerEnergies([MLPEnergy(size, [4]) for size in DIMS]), GaussianChain(DIMS, hidden=[8])
    )
    again = build(describe(prior), HierarchicalPrior)
    again.load_state_dict(prior.state_dict())
    z = torch.randn(4, 5)
    assert torch.equal(again.log_density(z), prior.log_density(z))
    assert not isinstance(again, EnergyPrior)
