"""A product of linear ratios is a shifted Gaussian, stage by stage; one of networks, against quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from lebm.density_ratio import staged_log_z
from lebm.models import MLPEnergy, RatioPrior, RatioProduct, StandardNormal
from lebm.samplers import MALA, AnnealedImportanceSampling


def test_the_density_after_each_stage_holds_exactly_the_stages_before() -> None:
    slopes = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 0.1]], dtype=torch.float64)
    product = RatioProduct(MLPEnergy(2, [], output_bias=True), max_stages=3).double()
    for slope in slopes:
        with torch.no_grad():
            product.active.net[-1].weight.copy_(-slope)  # the energy is minus the log-ratio
        product.switch()
    prior = RatioPrior(product)
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for stage in range(4):
        expected = StandardNormal(2).log_density(z) + z @ slopes[:stage].sum(dim=0)
        torch.testing.assert_close(prior.log_density_after(stage)(z), expected)
    torch.testing.assert_close(prior.log_density_so_far()(z), expected)
    torch.testing.assert_close(prior.log_density(z), expected)
    torch.testing.assert_close(prior.target().state_gradient(z), slopes.sum(dim=0) - z)


EDGE, CELLS, FINE = 6.0, 48, 10  # the square [-6, 6]^2, coarse cells a side, points a side of each cell


@pytest.fixture(scope="module")
def prior() -> RatioPrior:
    """Two stages of random networks in two dimensions, far from Gaussian, with estimates of log Z."""
    source = torch.Generator().manual_seed(3)
    prior = RatioPrior(RatioProduct(MLPEnergy(2, [16], "tanh", output_bias=True), max_stages=2)).double()
    for _ in range(2):
        with torch.no_grad():
            for parameter in prior.tilt.active.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64))
        prior.tilt.switch()
        annealing = AnnealedImportanceSampling(MALA(2, 0.5), 20)
        prior.constants[prior.tilt.finished] = staged_log_z(prior, annealing, 1000, source)
    return prior


@pytest.fixture(scope="module")
def grid() -> tuple[Tensor, float]:
    """Midpoints ``(n, 2)`` in the order of the coarse cells, and the log-area of a point."""
    count = CELLS * FINE
    axis = (torch.arange(count, dtype=torch.float64) + 0.5) * (2 * EDGE / count) - EDGE
    points = torch.cartesian_prod(axis, axis).reshape(CELLS, FINE, CELLS, FINE, 2).transpose(1, 2)
    return points.reshape(-1, 2), 2 * math.log(2 * EDGE / count)


def test_log_z_of_each_stage_is_that_of_quadrature(prior: RatioPrior, grid: tuple[Tensor, float]) -> None:
    points, area = grid
    for stage in (1, 2):
        with torch.no_grad():
            truth = float(prior.log_density_after(stage)(points).logsumexp(0)) + area
        found = prior.constants[stage]
        assert found.low < truth < found.high
        assert found.high - found.low < 0.4
        assert abs(truth) > 0.5  # an error that forgets it would be seen


def test_the_density_is_normalised_over_the_plane(prior: RatioPrior, grid: tuple[Tensor, float]) -> None:
    points, area = grid
    with torch.no_grad():
        mass = float(prior.log_prob(points).logsumexp(0)) + area
    found = prior.log_constant()
    assert found.estimate - found.high < mass < found.estimate - found.low
    assert abs(mass) < 0.2


def test_draws_have_the_density(prior: RatioPrior, grid: tuple[Tensor, float]) -> None:
    """The counts of 20,000 independent chains in the cells, by the chi-square statistic."""
    points, _ = grid
    n, source = 20_000, torch.Generator().manual_seed(5)
    with torch.no_grad():
        mass = prior.log_prob(points).exp().reshape(CELLS, CELLS, -1).sum(dim=2)
    draws = MALA(60, 0.6)(prior.log_density_so_far(), prior.reference(n, source), source)
    column, row = ((draws + EDGE) / (2 * EDGE) * CELLS).long().clamp(0, CELLS - 1).T
    counts = torch.bincount(column * CELLS + row, minlength=CELLS**2).double()
    expected = (n * mass / mass.sum()).flatten()
    often = expected > 10  # the rest is one cell
    counts, expected = (torch.cat([v[often], v[~often].sum(0, keepdim=True)]) for v in (counts, expected))
    statistic = float(((counts - expected).square() / expected).sum())
    assert len(expected) > 100
    assert statistic < chi2.ppf(0.9999, len(expected) - 1)
    wrong = n * torch.softmax(-0.5 * points.square().sum(1), 0).reshape(CELLS**2, -1).sum(1)
    wrong = torch.cat([wrong[often], wrong[~often].sum(0, keepdim=True)])
    assert float(((counts - wrong).square() / wrong).sum()) > 10 * len(expected)  # those of N(0, I) differ
