"""The known targets are what they say: their exact draws have the expected moments and their densities match
by quadrature.
"""

import pytest
import torch

from tests.ground_truth.monte_carlo import z_scores
from tests.ground_truth.targets import TARGETS, Target

each = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


@each
def test_exact_draws_have_the_expected_moments(target: Target) -> None:
    draws = target.exact(40_000, torch.Generator().manual_seed(0))
    assert z_scores(target.features(draws), target.expected) < 4


@pytest.mark.parametrize("name", ["mixture", "banana", "funnel"])
def test_densities_have_the_expected_moments(name: str) -> None:
    target = TARGETS[name]
    x, y = torch.linspace(-8, 8, 801, dtype=torch.float64), torch.linspace(-30, 30, 3001, dtype=torch.float64)
    grid = torch.cartesian_prod(x, y)
    weight = target.log_density(grid).exp()
    moments = (target.features(grid) * weight.unsqueeze(1)).sum(0) / weight.sum()
    torch.testing.assert_close(moments, target.expected, atol=5e-3, rtol=0)
