"""The log-constant of a model's prior, by annealed importance sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lebm.density_ratio.log_z import direct_log_z
from lebm.estimators.latent_model import LatentModel
from lebm.evaluation.marginal_likelihood import prior_log_z
from lebm.models.priors import EnergyPrior
from lebm.samplers.annealed import AnnealedImportanceSampling, LogZ
from lebm.samplers.metropolis import HMC
from lebm.samplers.noise import Noise

__all__ = ["LONG_RUN", "annealing", "long_run", "model_log_z"]

DIRECT = 40
"""Draws of the base per annealed chain, in the estimate without chains: about equal in time."""
FEWEST = 100
"""Smallest effective number of draws of the base for which their estimate counts."""
LONG_RUN = 10
"""Length of the prior chain that replaces exact draws, as a multiple of its length in training."""


def annealing(levels: int, device: torch.device | str = "cpu") -> AnnealedImportanceSampling:
    """Annealing by HMC with three leapfrog steps and an adapted step size; 1 level is importance sampling.

    Example:
        >>> from lebm.evaluation.log_z import annealing
        >>> annealing(20).levels
        20
    """
    kernel = HMC(1, 0.3, leapfrog_steps=3).to(device)
    return AnnealedImportanceSampling(kernel, levels, "sigmoid" if levels > 1 else "linear")


def long_run(model: LatentModel, n: int, noise: Noise) -> Tensor:
    """Draws of a model's prior by a chain ``LONG_RUN`` times as long as in training, ``(n, latent_dim)``."""
    length = model.chain_steps("prior")
    return model.sample_latent(n, steps=None if length is None else LONG_RUN * length, generator=noise)


def model_log_z(
    model: LatentModel, levels: int, chains: int, noise: Callable[[str], Noise]
) -> tuple[LogZ, LogZ | None]:
    """``log Z`` of a model's prior from below and from above; both are zero for a normalised prior.

    Args:
        model: the model of the prior.
        levels: annealing levels.
        chains: number of annealed chains.
        noise: gives the noise of each purpose, ``"long run"`` and ``"log z"``.

    Returns:
        The two estimates with their intervals; see :func:`~lebm.evaluation.marginal_likelihood.prior_log_z`.
        Where draws of the base alone give a narrower interval, both are that estimate.
    """
    prior = model.latent_prior
    if prior is None or prior.is_exact:
        return prior_log_z(None, annealing(1, model.device), chains)
    draws, kernel = long_run(model, chains, noise("long run")), annealing(levels, model.device)
    below, above = prior_log_z(prior, kernel, chains, noise("log z"), long_run=draws)
    if isinstance(prior, EnergyPrior):
        direct = direct_log_z(prior, DIRECT * chains, noise("direct log z"))
        sides = [below] if above is None else [below, above]
        annealed = max(side.high for side in sides) - min(side.low for side in sides)
        if direct.ess >= FEWEST and direct.high - direct.low < annealed:
            return direct, direct
    return below, above
