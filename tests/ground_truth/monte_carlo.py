"""Draws against known expectations, with tolerances from the Monte-Carlo error of the draws."""

from __future__ import annotations

from torch import Tensor


def z_scores(draws: Tensor, expected: Tensor | float) -> Tensor:
    """How many standard errors the mean over independent draws ``(n, ...)`` is off, largest over the rest."""
    draws = draws.double()
    error = draws.std(dim=0) / draws.shape[0] ** 0.5
    return ((draws.mean(dim=0) - expected) / error).abs().max()


def second_moments(draws: Tensor, mean: Tensor | None = None) -> Tensor:
    """``(n, d, d)`` outer products around a known mean: their mean is the covariance."""
    centred = draws.double() if mean is None else draws.double() - mean
    return centred.unsqueeze(2) * centred.unsqueeze(1)
