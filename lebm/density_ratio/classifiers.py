"""Density ratios by classifiers: one classifier, a telescope of them, or one stage after another.

Every estimator returns a :class:`~lebm.density_ratio.LogRatio` that computes ``log p(z) / q(z)``, where
positives come from p and negatives from q, with its quality on held-out samples.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from lebm.density_ratio.log_ratio import LogRatio, assess, logistic_loss, staged_log_z
from lebm.errors import UserNotice, at_least
from lebm.models.energies import Energy
from lebm.models.ratios import RatioPrior, RatioProduct
from lebm.samplers.annealed import AnnealedImportanceSampling
from lebm.samplers.metropolis import MALA
from lebm.samplers.noise import RandomSource, uniform

SEPARATED = 0.999
"""Accuracy of a stage above which its ratio is an extrapolation."""

HELD_OUT_DRAWS = 5000

Draw = Callable[[int, RandomSource], Tensor]
Source = Tensor | Draw
"""Samples ``(N, d)`` in random order, or a function ``(n, generator) -> (n, d)`` that draws new samples."""


@dataclass(frozen=True)
class Training:
    """Settings of the training of a classifier by AdamW with a cosine decay of the learning rate to zero.

    Attributes:
        steps: optimiser steps of each stage or pair, at least 1.
        batch_size: positives and negatives per step, at least 1 of each.
        lr: initial learning rate.
        weight_decay: decoupled weight decay.
        held_out: share of a sample tensor (its last rows) that only :class:`Quality` uses, in (0, 1). If the
            source is a function, :class:`Quality` uses 5,000 samples of it.

    Raises:
        ValueError: for a value out of range.

    Example:
        >>> from lebm.density_ratio import Training
        >>> Training(steps=500, lr=0.01).batch_size
        256
    """

    steps: int = 2000
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.0
    held_out: float = 0.2

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, batch_size=self.batch_size)
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, not {self.held_out}")


def logistic(
    positives: Source,
    negatives: Source,
    energy: Energy,
    training: Training = Training(),
    generator: RandomSource = None,
) -> LogRatio:
    """Estimate a log-ratio by one classifier: noise-contrastive estimation (Gutmann & Hyvarinen 2012).

    Args:
        positives: samples of p.
        negatives: samples of q.
        energy: network, trained in place, with an output bias, because a ratio includes its constant.
        training: settings of the training.
        generator: source of randomness.

    Raises:
        ValueError: if a sample is too small for the split.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import Training, logistic
        >>> from lebm.models import MLPEnergy
        >>> generator = torch.Generator().manual_seed(0)
        >>> p, q = (torch.randn(500, 1, generator=generator) + shift for shift in (1.0, 0.0))
        >>> energy = MLPEnergy(1, [8], output_bias=True)
        >>> log_ratio = logistic(p, q, energy, Training(steps=100, lr=0.05), generator)
        >>> log_ratio(torch.tensor([[-1.0], [2.0]])).sign().tolist()  # the log-ratio is z - 1/2
        [-1.0, 1.0]
    """
    (up, tested), (down, against) = (_split(source, training, generator) for source in (positives, negatives))
    _train(energy, up, down, training, generator)
    return LogRatio(energy, assess(lambda z: -energy(z), tested, against))


def telescoping(
    waymarks: Sequence[Source],
    product: RatioProduct,
    training: Training = Training(),
    generator: RandomSource = None,
) -> LogRatio:
    """Estimate a ratio as the product of ratios between neighbouring waymarks (Rhodes, Xu & Gutmann 2020).

    Args:
        waymarks: two or more sources, from q, the negatives, to p, the positives.
        product: product that receives one stage per pair of neighbours.
        training: settings for every pair.
        generator: source of randomness.

    Raises:
        ValueError: for fewer than two waymarks, for more pairs of neighbours than stages of the product, or
            if a sample is too small for the split.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import Training, telescoping
        >>> from lebm.models import MLPEnergy, RatioProduct
        >>> waymarks = [torch.randn(500, 2) + shift for shift in (0.0, 3.0, 6.0)]
        >>> product = RatioProduct(MLPEnergy(2, [8], output_bias=True), max_stages=2)
        >>> telescoping(waymarks, product, Training(steps=10))(waymarks[0]).shape
        torch.Size([500])
    """
    if not 2 <= len(waymarks) <= product.max_stages + 1:
        raise ValueError(
            f"{product.max_stages} stages join 2 to {product.max_stages + 1} waymarks, not {len(waymarks)}"
        )
    parts = [_split(source, training, generator) for source in waymarks]
    for (below, _), (above, _) in pairwise(parts):
        _train(product.active, above, below, training, generator)
        product.switch()
    return LogRatio(product, assess(lambda z: -product(z), parts[-1][1], parts[0][1]))


def sequential(
    positives: Source,
    prior: RatioPrior,
    training: Training = Training(),
    annealing: AnnealedImportanceSampling | None = None,
    *,
    chains: int = 4096,
    burn_in: int = 50,
    generator: RandomSource = None,
) -> LogRatio:
    """Estimate a ratio in stages that separate positives from samples of the product of the earlier stages.

    The negatives of the first stage are exact. Later negatives come from chains of MALA that continue from
    stage to stage, with two steps per batch and a step size adapted to each stage. At the end, annealing over
    the stages estimates ``log Z`` of the product.

    Args:
        positives: samples of p.
        prior: prior with the base q and the product, of which all stages are trained.
        training: settings for every stage.
        annealing: estimator of log Z (default: ``MALA(2, 0.8)`` with 30 levels per stage).
        chains: number of chains, at least ``batch_size``.
        burn_in: number of transitions of all chains at the start of a stage.
        generator: source of randomness.

    Raises:
        ValueError: if a sample is too small for the split, there are fewer chains than negatives in a batch,
            or a chain becomes non-finite.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import Training, sequential
        >>> from lebm.models import MLPEnergy, RatioPrior, RatioProduct
        >>> prior = RatioPrior(RatioProduct(MLPEnergy(2, [8], output_bias=True), max_stages=1))
        >>> ratio = sequential(torch.randn(500, 2) + 1, prior, Training(steps=10), chains=256)
        >>> ratio(torch.zeros(4, 2)).shape, prior.tilt.finished
        (torch.Size([4]), 1)
    """
    if chains < training.batch_size:
        raise ValueError(f"{chains} chains are fewer than the {training.batch_size} negatives of a batch")
    kernel, product = MALA(2, 0.8), prior.tilt
    draw, tested = _split(positives, training, generator)
    states, following = prior.reference(chains, generator), 0

    def negatives(n: int, generator: RandomSource) -> Tensor:
        nonlocal following
        if not product.finished:
            return prior.reference(n, generator)
        rows = (following + torch.arange(n)) % chains
        following = (following + n) % chains
        states[rows] = kernel(prior.log_density_so_far(), states[rows], generator)
        return states[rows]

    while not product.complete:
        if product.finished:
            target = prior.log_density_so_far()
            kernel.warm_up(target, states[:256], generator, steps=60)
            states = kernel(target, states, generator, steps=burn_in)
            if not torch.isfinite(states).all():
                raise ValueError(
                    f"chains under the first {product.finished} stages became non-finite; set weight_decay"
                )
        _train(product.active, draw, negatives, training, generator)
        quality = assess(lambda z: -product.active(z), tested, states)
        product.switch()
        if doubt := extrapolation(product, quality.accuracy):
            warnings.warn(doubt, UserNotice, stacklevel=2)
    annealing = annealing or AnnealedImportanceSampling(MALA(2, 0.8), 30)
    constant = staged_log_z(prior, annealing, generator=generator)
    prior.constants[product.finished], log_z = constant, float(constant.estimate)
    against = prior.reference(HELD_OUT_DRAWS, generator)
    quality = assess(lambda z: -product(z) - log_z, tested, against)
    # The interval of the KL divergence also covers the uncertainty of log Z.
    low = math.hypot(quality.kl - quality.kl_low, constant.high - log_z)
    high = math.hypot(quality.kl_high - quality.kl, log_z - constant.low)
    quality = replace(quality, kl_low=quality.kl - low, kl_high=quality.kl + high)
    return LogRatio(product, quality, log_z)


def extrapolation(product: RatioProduct, accuracy: float) -> str:
    """Return the warning of a stage, just finished, whose classes hardly overlap; empty if they overlap."""
    if accuracy <= SEPARATED:
        return ""
    last = "no stage is left to correct it: raise max_stages"
    return (
        f"stage {product.finished} separates its samples with accuracy {accuracy:.4f}, so its ratio is an"
        f" extrapolation; {last if product.complete else 'later stages must correct it'}"
    )


def _train(
    energy: nn.Module, positives: Draw, negatives: Draw, training: Training, generator: RandomSource
) -> None:
    optimizer = torch.optim.AdamW(
        energy.parameters(), lr=training.lr, weight_decay=training.weight_decay, betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    for _ in range(training.steps):
        parts = [draw(training.batch_size, generator) for draw in (positives, negatives)]
        loss = logistic_loss(*energy(torch.cat(parts)).split(training.batch_size))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _split(source: Source, training: Training, generator: RandomSource) -> tuple[Draw, Tensor]:
    """Split a source into training samples, drawn with replacement from a tensor, and the held-out part."""
    if not isinstance(source, Tensor):
        return source, source(HELD_OUT_DRAWS, generator)
    cut = source.shape[0] - round(training.held_out * source.shape[0])
    if source.dim() != 2 or cut < 1 or source.shape[0] - cut < 2:
        raise ValueError(
            "samples must be (N, d) with at least two rows in each part of the split, not"
            f" {tuple(source.shape)}"
        )

    def draw(n: int, generator: RandomSource) -> Tensor:
        position = uniform(generator, (n,), dtype=torch.float64, device=source.device) * cut
        return source[position.long()]

    return draw, source[cut:]
