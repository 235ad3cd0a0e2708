"""An energy at a temperature."""

from __future__ import annotations

import pytest
import torch

from lebm.samplers import Boltzmann, Langevin


def test_the_chain_reaches_the_gaussian_of_its_temperature():
    """E = x^2 / 2 at T: variance T / (1 - s^2 / (4 T)), within its Monte-Carlo error."""
    temperature, step, chains = 0.25, 0.2, 20_000
    target = Boltzmann(lambda x: 0.5 * x.square().sum(1), temperature)
    source = torch.Generator().manual_seed(0)
    x = Langevin(200, step)(target, torch.zeros(chains, 1, dtype=torch.float64), source)
    variance = temperature / (1 - step**2 / (4 * temperature))
    assert (x.var() - variance).abs() < 4 * variance * (2 / chains) ** 0.5


def test_the_plain_chain_at_a_temperature_is_the_released_chain():
    """Drift step s and noise n apart, T = (n / s)^2."""
    drift, noise = 0.5, 0.001
    kicks = torch.randn(6, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = start = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for kick in kicks:
        x = x - 0.5 * drift**2 * x.sin() + noise * kick
    plain = Boltzmann(lambda x: -x.cos().sum(1), (noise / drift) ** 2)
    end = Langevin(6, noise)(plain, start, torch.Generator().manual_seed(1))
    torch.testing.assert_close(end, x)


def test_half_precision_does_not_overflow():
    """The slope of the energy is of order one; only its quotient by T leaves the range of half precision."""
    target = Boltzmann(lambda x: x.half().sum(1), 4e-6)
    state = torch.randn(3, 5)
    torch.testing.assert_close(target(state), -state.half().sum(1).float() / 4e-6)
    torch.testing.assert_close(target.state_gradient(state), torch.full((3, 5), -2.5e5))


def test_refusals():
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        Boltzmann(torch.sum, 0)
