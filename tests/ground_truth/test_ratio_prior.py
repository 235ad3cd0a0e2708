"""A product of linear ratios is a shifted Gaussian, stage by stage."""

from __future__ import annotations

import torch

from lebm.models import MLPEnergy, RatioPrior, RatioProduct, StandardNormal


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
    torch.testing.assert_close(prior.log_density_so_far(z), expected)
    torch.testing.assert_close(prior.log_density(z), expected)
    torch.testing.assert_close(prior.log_density.state_gradient(z), slopes.sum(dim=0) - z)
