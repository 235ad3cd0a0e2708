"""log Z of tilted mixtures against quadrature."""

from __future__ import annotations

import torch

from lebm.density_ratio import direct_log_z, staged_log_z
from lebm.models import EnergyPrior, MLPEnergy, RatioPrior, RatioProduct
from lebm.samplers import MALA, AnnealedImportanceSampling
from tests.estimators.test_prior_chains import Waves, base, grid


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quadrature(prior: EnergyPrior) -> float:
    z, chance = grid(prior.base)
    return float((chance.double() @ (-prior.energy(z)).double().exp()).log())


def test_draws_of_the_base_give_log_z_with_an_interval_that_holds() -> None:
    prior = EnergyPrior(Waves(), base())
    truth = quadrature(prior)
    assert abs(truth) > 0.05
    exact = direct_log_z(prior, 200_000, source())
    assert exact.low < truth < exact.high
    assert exact.high - exact.low < 0.02
    generator, repeats = source(1), 400
    found = [direct_log_z(prior, 500, generator) for _ in range(repeats)]
    covered = sum(bool(each.low < truth < each.high) for each in found) / repeats
    assert abs(covered - 0.95) < 4 * (0.95 * 0.05 / repeats) ** 0.5
    z = prior.base.reference(200_000, source(2))
    weight = (-prior.energy(z)).exp()
    share = float(weight.mean() ** 2 / weight.square().mean())
    assert abs(float(exact.ess) / 200_000 - share) < 0.01


def test_stages_on_a_mixture_have_the_constant_of_quadrature() -> None:
    torch.manual_seed(0)
    prior = RatioPrior(RatioProduct(MLPEnergy(2, [8], output_bias=True), 2), base())
    for _ in range(2):
        torch.nn.init.normal_(prior.tilt.active.net[-1].weight, std=0.3)
        prior.tilt.switch()
    truth = quadrature(prior)
    assert abs(truth) > 0.05
    kernel = AnnealedImportanceSampling(MALA(2, 0.5), 20)
    staged = staged_log_z(prior, kernel, 1000, source())
    direct = direct_log_z(prior, 20_000, source())
    for found in (staged, direct):
        half = 3.29 / 1.96 * (found.high - found.low) / 2  # an interval of 99.9%
        assert abs(found.estimate - truth) < half < 0.1
    prior.constants[2] = staged
    z, _ = grid(prior.base)
    cell = (24 / 480) ** 2
    total = float(prior.log_prob(z).detach().double().exp().sum() * cell)
    assert abs(total - 1) < 0.1
    torch.testing.assert_close(
        prior.log_prob(z[:9]), prior.base.log_density(z[:9]) - prior.energy(z[:9]) - staged.estimate
    )
