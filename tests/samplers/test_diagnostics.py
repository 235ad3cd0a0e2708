"""Diagnostics against an independent library and against the closed forms of a first-order autoregression."""

from __future__ import annotations

import pytest
import torch
from arviz_stats.base import array_stats
from torch import Tensor

from lebm.samplers import autocorrelation, bulk_ess, split_rhat, tail_ess


def autoregression(rho: float, draws: int, chains: int, event: int, seed: int = 0) -> Tensor:
    """Stationary AR(1) of unit variance, ``(draws, chains, event)``."""
    noise = torch.randn(
        draws, chains, event, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    states = [noise[0]]
    for kick in noise[1:]:
        states.append(rho * states[-1] + (1 - rho**2) ** 0.5 * kick)
    return torch.stack(states)


SETS = {
    "mixing": autoregression(0.5, 200, 4, 3),
    "slow": autoregression(0.95, 501, 3, 2),
    "anticorrelated": autoregression(-0.4, 100, 2, 2),
    "apart": autoregression(0.5, 100, 4, 2) + torch.arange(4.0).reshape(4, 1),
    "unequal scales": autoregression(0.3, 100, 4, 2) * torch.tensor([1.0, 1.0, 1.0, 4.0]).reshape(4, 1),
    "ties": autoregression(0.5, 100, 4, 2).round(),
    "heavy tails": autoregression(0.5, 100, 4, 2) ** 3,
    "one chain": autoregression(0.5, 300, 1, 2),
    "short": autoregression(0.5, 21, 4, 2),
}


@pytest.mark.parametrize("draws", SETS.values(), ids=SETS.keys())
def test_agrees_with_arviz(draws: Tensor) -> None:
    array = draws.permute(2, 1, 0).numpy()  # (event, chain, draw)
    if draws.shape[1] > 1:  # the library declines single chains, which splitting makes two
        torch.testing.assert_close(
            split_rhat(draws), torch.from_numpy(array_stats.rhat(array, method="rank")), rtol=1e-9, atol=0
        )
    torch.testing.assert_close(
        bulk_ess(draws), torch.from_numpy(array_stats.ess(array, method="bulk")), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        tail_ess(draws),
        torch.from_numpy(array_stats.ess(array, method="tail", prob=(0.05, 0.95))),
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_ess_of_an_autoregression(rho: float) -> None:
    """n (1 - rho) / (1 + rho) effective draws; its own scatter is about 5% here."""
    draws = autoregression(rho, 20_000, 4, 3)
    expected = torch.full((3,), 80_000 * (1 - rho) / (1 + rho)).double()
    torch.testing.assert_close(bulk_ess(draws), expected, rtol=0.1, atol=0)


def test_autocorrelation_of_an_autoregression() -> None:
    draws = autoregression(0.8, 20_000, 4, 2)
    found = autocorrelation(draws, max_lag=5)
    expected = 0.8 ** torch.arange(6, dtype=torch.float64)
    torch.testing.assert_close(found, expected.unsqueeze(1).expand(6, 2), atol=0.04, rtol=0)
    assert autocorrelation(draws[:100]).shape == (100, 2)


def test_rhat_tells_good_from_bad() -> None:
    assert (split_rhat(SETS["mixing"]) < 1.03).all()
    assert (split_rhat(SETS["apart"]) > 1.3).all()
    assert (split_rhat(SETS["unequal scales"]) > 1.05).all()
    trend = SETS["mixing"] + torch.linspace(0, 5, 200).reshape(-1, 1, 1)
    assert (split_rhat(trend) > 1.2).all(), "splitting must catch chains that all drift alike"


def test_event_shapes_and_refusals() -> None:
    draws = autoregression(0.5, 20, 2, 6).reshape(20, 2, 2, 3)
    for diagnostic in (split_rhat, bulk_ess, tail_ess):
        assert diagnostic(draws).shape == (2, 3)
        torch.testing.assert_close(diagnostic(draws).flatten(), diagnostic(draws.flatten(2)))
        assert diagnostic(draws[:, :, 0, 0]).shape == ()
    with pytest.raises(ValueError, match="at least 4 draws"):
        bulk_ess(torch.zeros(3, 2, 1))
