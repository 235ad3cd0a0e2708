"""Density-ratio estimation from samples, without a Trainer: one classifier, a telescope of them, or stages
that follow each other.

Every estimator returns a :class:`~lebm.density_ratio.log_ratio.LogRatio`, a module whose value at ``z`` is
``log p(z) / q(z)`` (p of the positives, q of the negatives), with a
:class:`~lebm.density_ratio.log_ratio.Quality` measured on samples it was not trained on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from lebm.density_ratio.log_ratio import EnergyRatio, Quality, SequentialRatio, assess, logistic_loss
from lebm.density_ratio.log_z import staged_log_z
from lebm.models.energies import Energy
from lebm.models.ratios import RatioPrior, RatioProduct
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.annealed import AnnealedImportanceSampling
from lebm.samplers.metropolis import MALA
from lebm.samplers.noise import RandomSource, uniform

__all__ = ["Source", "Training", "logistic", "sequential", "telescoping"]

SEPARATED = 0.999
"""Above this held-out accuracy a stage is reported as an extrapolation."""

Source = Tensor | Callable[[int, RandomSource], Tensor]
"""Samples ``(N, d)`` in random order, or a function ``(n, generator) -> (n, d)`` that draws fresh ones."""


@dataclass(frozen=True)
class Training:
    """How a classifier is trained: Adam with a cosine decay of the learning rate to zero.

    Attributes:
        steps: optimiser steps, at least 1; of every stage where there are several.
        batch_size: positives a step, at least 1.
        lr: initial learning rate.
        weight_decay: decoupled weight decay.
        odds: positives per negative, in the batches and in the loss. The log-ratio does not depend on it, its
            variance does.
        held_out: share of a sample tensor (its last rows) that is kept for :class:`Quality`, in (0, 1).
        held_out_draws: number of draws kept for it from a source that is a function.
    """

    steps: int = 2000
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.0
    odds: float = 1.0
    held_out: float = 0.2
    held_out_draws: int = 5000

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.negatives) < 1 or not self.odds > 0:
            raise ValueError(
                f"steps, batch_size, batch_size / odds must be at least 1 and odds positive: {self}"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, not {self.held_out}")

    @property
    def negatives(self) -> int:
        """Negatives a step."""
        return round(self.batch_size / self.odds)


def _draw(source: Source, n: int, generator: RandomSource = None) -> Tensor:
    """``n`` samples from a source; from a tensor with replacement."""
    if not isinstance(source, Tensor):
        return source(n, generator)
    position = uniform(generator, (n,), dtype=torch.float64, device=source.device) * source.shape[0]
    return source[position.long()]


def logistic(
    positives: Source,
    negatives: Source,
    energy: Energy,
    training: Training = Training(),
    generator: RandomSource = None,
) -> EnergyRatio:
    """Noise-contrastive estimation of the log-ratio by one classifier (Gutmann & Hyvarinen 2012).

    Args:
        positives: from p.
        negatives: from q.
        energy: the network to train, in place; it needs an output bias, since the constant is part of a
            ratio.
        training: how.
        generator: source of randomness.

    Raises:
        ValueError: if a sample is too small to be split.
    """
    (positives, tested), (negatives, against) = (
        _split(source, training, generator) for source in (positives, negatives)
    )
    _train(energy, positives, negatives, training, generator)
    ratio = EnergyRatio(energy)
    ratio.quality = assess(ratio, tested, against)
    return ratio


def telescoping(
    waymarks: Sequence[Source],
    product: RatioProduct,
    training: Training = Training(),
    generator: RandomSource = None,
) -> EnergyRatio:
    """A ratio as the product of ratios between neighbouring waymarks (Rhodes, Xu & Gutmann 2020), each
    trained by itself.

    Args:
        waymarks: from q, the negatives, to p, the positives; two or more.
        product: gets one stage a pair of neighbours.
        training: of every pair.
        generator: source of randomness.

    Raises:
        ValueError: for fewer than two waymarks, more than the product has stages for, or a sample too small
            to be split.
    """
    if not 2 <= len(waymarks) <= product.max_stages + 1:
        raise ValueError(
            f"{product.max_stages} stages join 2 to {product.max_stages + 1} waymarks, not {len(waymarks)}"
        )
    parts = [_split(source, training, generator) for source in waymarks]
    for (below, _), (above, _) in pairwise(parts):
        _train(product.active, above, below, training, generator)
        product.switch()
    ratio = EnergyRatio(product)
    ratio.quality = assess(ratio, parts[-1][1], parts[0][1])
    return ratio


def sequential(
    positives: Source,
    prior: RatioPrior,
    training: Training = Training(),
    sampler: Adaptive | None = None,
    annealing: AnnealedImportanceSampling | None = None,
    *,
    chains: int = 4096,
    burn_in: int = 50,
    one: float = 0.0,
    generator: RandomSource = None,
) -> SequentialRatio:
    """Stages that follow each other: each classifies the positives from draws of the product so far.

    The first stage's negatives are exact; later ones come from chains that go on from stage to stage, their
    step adapted at every one. ``log Z`` of the product is estimated in the end by annealing over the stages.

    Args:
        positives: from p.
        prior: the base q and the product, all of whose stages are trained unless ``one`` ends it.
        training: of every stage.
        sampler: an exact kernel; its ``steps`` are run on the chains of every batch. ``MALA(2, 0.8)`` by
            default.
        annealing: estimates log Z; 30 levels a stage of ``MALA(2, 0.8)`` by default.
        chains: size of the pool, at least the number of negatives a step.
        burn_in: transitions of the whole pool at the start of a stage.
        one: add no stage after one whose held-out loss is within this many nats of ``2 log 2``.
        generator: source of randomness.

    Raises:
        ValueError: if a sample is too small to be split, or the pool smaller than a batch.
    """
    if chains < training.negatives:
        raise ValueError(
            f"a pool of {chains} chains is smaller than a batch of {training.negatives} negatives"
        )
    kernel = MALA(2, 0.8) if sampler is None else sampler
    product = prior.tilt
    positives, tested = _split(positives, training, generator)
    pool = _Pool(prior, kernel, prior.reference(chains, generator))
    while not product.complete:
        pool.begin(burn_in, generator)
        _train(product.active, positives, pool, training, generator)
        quality = assess(lambda z: -product.active(z), tested, pool.states)
        product.switch()
        _warn_of_separation(product, quality)
        if one > 0 and quality.cross_entropy > 2 * math.log(2) - one:
            break
    prior.remember(
        staged_log_z(prior, annealing or AnnealedImportanceSampling(MALA(2, 0.8), 30), generator=generator)
    )
    ratio = SequentialRatio(prior)
    against = prior.reference(training.held_out_draws, generator)
    ratio.quality = _with_constant(assess(ratio, tested, against), prior)
    return ratio


def _warn_of_separation(product: RatioProduct, quality: Quality) -> None:
    if quality.accuracy > SEPARATED:
        cure = (
            "which later stages must correct"
            if not product.complete
            else "and no stage is left to correct it: raise max_stages"
        )
        told = (
            f"stage {product.finished} tells its held-out samples apart with accuracy {quality.accuracy:.4f}"
        )
        warnings.warn(f"{told}: its ratio is an extrapolation between them, {cure}", stacklevel=3)


class _Pool:
    """Chains under the product so far, as a source of negatives."""

    def __init__(self, prior: RatioPrior, kernel: Adaptive, states: Tensor) -> None:
        self.prior, self.kernel, self.states, self.next = prior, kernel, states, 0

    def begin(self, burn_in: int, generator: RandomSource) -> None:
        if self.prior.tilt.finished:
            target = self.prior.log_density_so_far
            self.kernel.warm_up(target, self.states[:256], generator, steps=60)
            self.states = self.kernel(target, self.states, generator, steps=burn_in)
            if not torch.isfinite(self.states).all():
                raise ValueError(
                    f"chains under the first {self.prior.tilt.finished} stages became non-finite; use a"
                    " smaller step or weight_decay"
                )

    def __call__(self, n: int, generator: RandomSource) -> Tensor:
        if not self.prior.tilt.finished:
            return self.prior.reference(n, generator)
        rows = (self.next + torch.arange(n)) % self.states.shape[0]
        self.next = (self.next + n) % self.states.shape[0]
        self.states[rows] = self.kernel(self.prior.log_density_so_far, self.states[rows], generator)
        return self.states[rows]


def _train(
    energy: nn.Module, positives: Source, negatives: Source, training: Training, generator: RandomSource
) -> None:
    optimizer = torch.optim.AdamW(
        energy.parameters(), lr=training.lr, weight_decay=training.weight_decay, betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    for _ in range(training.steps):
        up, down = (
            _draw(positives, training.batch_size, generator),
            _draw(negatives, training.negatives, generator),
        )
        energies = energy(torch.cat([up, down]))
        loss = logistic_loss(energies[: len(up)], energies[len(up) :], training.odds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _split(source: Source, training: Training, generator: RandomSource) -> tuple[Source, Tensor]:
    """What is trained on, and what is not."""
    if not isinstance(source, Tensor):
        return source, source(training.held_out_draws, generator)
    cut = source.shape[0] - round(training.held_out * source.shape[0])
    if source.dim() != 2 or cut < 1 or source.shape[0] - cut < 2:
        raise ValueError(
            "samples must be (N, d) with at least two rows in each part of the split, not"
            f" {tuple(source.shape)}"
        )
    return source[:cut], source[cut:]


def _with_constant(quality: Quality, prior: RatioPrior) -> Quality:
    """Add the uncertainty of log Z to the interval of the KL."""
    constant = prior.log_constant()
    low = math.hypot(quality.kl - quality.kl_low, constant.high - constant.log_z)
    high = math.hypot(quality.kl_high - quality.kl, constant.log_z - constant.low)
    return replace(quality, kl_low=quality.kl - low, kl_high=quality.kl + high)
