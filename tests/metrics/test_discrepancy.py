"""The maximum mean discrepancy against its closed form for Gaussians."""

from __future__ import annotations

import pytest
import torch

from lebm.metrics import maximum_mean_discrepancy


def closed_form(shift: float, d: int, width: float) -> float:
    """Between N(0, I) and N(m, I), |m| = shift: E k = (w^2 / (w^2 + 2))^(d/2) exp(-|m|^2 / 2(w^2 + 2))."""
    peak = (width**2 / (width**2 + 2)) ** (d / 2)
    return 2 * peak * (1 - torch.exp(torch.tensor(-(shift**2) / (2 * (width**2 + 2)))).item())


@pytest.mark.parametrize("width", [0.8, 2.0])
def test_equals_its_expectation_for_gaussians(width):
    generator = torch.Generator().manual_seed(0)
    estimates = []
    for _ in range(20):
        a = torch.randn(400, 3, generator=generator)
        b = torch.randn(400, 3, generator=generator) + torch.tensor([1.0, 0.0, 0.0])
        estimates.append(maximum_mean_discrepancy(a, b, width))
    values = torch.stack(estimates)
    assert (values.mean() - closed_form(1.0, 3, width)).abs() < 4 * values.std() / 20**0.5
    assert values.mean() > 4 * values.std() / 20**0.5


def test_is_unbiased_at_zero_and_uses_the_median_of_the_second():
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 200, 2, generator=generator) for _ in range(40)]
    values = torch.stack([maximum_mean_discrepancy(a, b) for a, b in pairs])
    assert values.mean().abs() < 4 * values.std() / 40**0.5
    assert (values < 0).any()
    a, b = pairs[0]
    assert maximum_mean_discrepancy(a, b) == maximum_mean_discrepancy(a, b, float(torch.pdist(b).median()))
    assert maximum_mean_discrepancy(a + 1e4, b + 1e4) == pytest.approx(float(values[0]), abs=2e-4)
    with pytest.raises(ValueError, match="at least two points"):
        maximum_mean_discrepancy(a[:1], b)
