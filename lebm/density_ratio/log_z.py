"""log Z of a product of stages."""

from __future__ import annotations

import torch

from lebm.models.ratios import LogConstant, RatioPrior
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.annealed import AnnealedImportanceSampling, LogZ
from lebm.samplers.noise import RandomSource

__all__ = ["staged_log_z"]


def staged_log_z(
    prior: RatioPrior,
    annealing: AnnealedImportanceSampling,
    n: int = 512,
    generator: RandomSource = None,
    *,
    level: float = 0.95,
) -> LogConstant:
    r"""Annealed importance sampling along the stages: from N(0, I) to the first product, from that to the
    second, and so on.

    The path goes through every prior that the stages were trained against, so neighbouring densities overlap
    as much as they did in training. A kernel that can adapt gets a step of its own at every stage, found on
    chains whose weights are not used.

    Args:
        prior: its finished stages count; the one in training does not.
        annealing: levels and kernel of *each* stage. Its kernel's step is adapted in place, if it can be.
        n: chains, at least 2.
        generator: source of randomness.
        level: coverage of the interval.
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
    estimate = LogZ.from_log_weights(total, level=level)
    return LogConstant(
        product.finished,
        *(float(figure) for figure in (estimate.estimate, estimate.low, estimate.high, estimate.ess)),
    )
