"""log Z of a product of stages."""

from __future__ import annotations

import torch

from lebm.models.priors import EnergyPrior
from lebm.models.ratios import LogConstant, RatioPrior
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.annealed import AnnealedImportanceSampling, LogZ
from lebm.samplers.noise import RandomSource

__all__ = ["direct_log_z", "staged_log_z"]


@torch.no_grad()
def direct_log_z(
    prior: EnergyPrior, n: int = 20_000, generator: RandomSource = None, *, level: float = 0.95
) -> LogZ:
    """log Z of a tilted prior from draws of its base alone, ``Z = E[exp(-E(z))]``.

    It is narrow where the base is near the prior; see ``ess`` of the estimate.

    Args:
        prior: the base with its energy.
        n: number of draws, at least 2.
        generator: source of randomness.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: for fewer than two draws, or if all weights are zero.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import direct_log_z
        >>> from lebm.models import EnergyPrior, MLPEnergy
        >>> log_z = direct_log_z(EnergyPrior(MLPEnergy(2)), 5000, torch.Generator().manual_seed(0))
        >>> bool(log_z.low < log_z.estimate < log_z.high)
        True
    """
    z = prior.reference(n, generator)
    return LogZ.from_log_weights(-prior.energy(z), level=level)


def staged_log_z(
    prior: RatioPrior,
    annealing: AnnealedImportanceSampling,
    n: int = 512,
    generator: RandomSource = None,
    *,
    level: float = 0.95,
) -> LogConstant:
    """Annealed importance sampling along the stages, from the base to the first product, and so on.

    The path goes through every prior that the stages were trained against. So neighbouring densities overlap
    as much as they did in training. A kernel that can adapt finds a step for each stage, on chains whose
    weights are not used.

    Args:
        prior: its finished stages count; the stage in training does not.
        annealing: levels and kernel of *each* stage. A kernel that can adapt is adapted in place.
        n: number of chains, at least 2.
        generator: source of randomness.
        level: coverage of the interval, in (0, 1).

    Returns:
        The estimate of log Z in nats with its interval; 0 if no stage is finished.

    Raises:
        ValueError: for fewer than two chains, or if all weights are zero.

    Example:
        >>> from lebm.density_ratio import staged_log_z
        >>> from lebm.models import MLPEnergy, RatioPrior, RatioProduct
        >>> from lebm.samplers import MALA, AnnealedImportanceSampling
        >>> prior = RatioPrior(RatioProduct(MLPEnergy(2, [8], output_bias=True), max_stages=1))
        >>> prior.tilt.switch()  # a stage without training is the ratio one, so log Z = 0
        >>> staged_log_z(prior, AnnealedImportanceSampling(MALA(1, 0.8), levels=2), n=8).log_z
        0.0
    """
    product = prior.tilt
    state = prior.reference(n, generator)
    total = torch.zeros(n, dtype=torch.float64, device=state.device)
    for stage in range(product.finished):
        before, after = prior.log_density_after(stage), prior.log_density_after(stage + 1)
        if isinstance(annealing.kernel, Adaptive):
            annealing.kernel.warm_up(after, state[: min(n, 128)], generator, steps=60)
        weights, state = annealing.log_weights(after, before, state, generator)
        total += weights
    if product.finished == 0:
        return prior.log_constant()
    return as_constant(product.finished, LogZ.from_log_weights(total, level=level))


def as_constant(stage: int, log_z: LogZ) -> LogConstant:
    """An estimate as plain numbers, for the product of the first ``stage`` stages."""
    return LogConstant(stage, *(float(each) for each in (log_z.estimate, log_z.low, log_z.high, log_z.ess)))
