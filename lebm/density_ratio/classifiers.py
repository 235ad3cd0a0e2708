"""Density ratios by classifiers: one classifier, a telescope of them, or one stage after another.

Every estimator returns a :class:`~lebm.density_ratio.log_ratio.LogRatio`. This module computes
``log p(z) / q(z)`` at ``z``, where the positives come from p and the negatives from q. It carries a
:class:`~lebm.density_ratio.log_ratio.Quality`, measured on samples that training does not use.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from lebm.density_ratio.log_ratio import LogRatio, Quality, assess, logistic_loss, staged_log_z
from lebm.errors import UserNotice
from lebm.models.energies import Energy
from lebm.models.ratios import RatioPrior, RatioProduct
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.annealed import AnnealedImportanceSampling
from lebm.samplers.metropolis import MALA
from lebm.samplers.noise import RandomSource, uniform

__all__ = ["Pool", "Source", "Training", "logistic", "sequential", "telescoping"]


class Pool:
    """Chains under the product of the finished stages: a source of negatives.

    Args:
        prior: the base and the product.
        kernel: moves the chains, an exact sampler.
        states: ``(chains, d)``, the starts.
    """

    def __init__(self, prior: RatioPrior, kernel: Adaptive, states: Tensor) -> None:
        self.prior, self.kernel, self.states, self.next = prior, kernel, states, 0

    def begin(self, burn_in: int, generator: RandomSource) -> None:
        """Adapt the step to the finished stages, and move the whole pool ``burn_in`` transitions.

        Raises:
            ValueError: if a chain becomes non-finite.
        """
        if self.prior.tilt.finished:
            target = self.prior.log_density_so_far()
            self.kernel.warm_up(target, self.states[:256], generator, steps=60)
            self.states = self.kernel(target, self.states, generator, steps=burn_in)
            if not torch.isfinite(self.states).all():
                raise ValueError(
                    f"chains under the first {self.prior.tilt.finished} stages became non-finite; use a"
                    " smaller step or weight_decay"
                )

    def __call__(self, n: int, generator: RandomSource) -> Tensor:
        """The next ``n`` chains, moved; before the first stage ends, ``n`` exact draws of the base."""
        if not self.prior.tilt.finished:
            return self.prior.reference(n, generator)
        rows = (self.next + torch.arange(n)) % self.states.shape[0]
        self.next = (self.next + n) % self.states.shape[0]
        self.states[rows] = self.kernel(self.prior.log_density_so_far(), self.states[rows], generator)
        return self.states[rows]


SEPARATED = 0.999
"""Above this held-out accuracy a warning calls the ratio of a stage an extrapolation."""

Source = Tensor | Callable[[int, RandomSource], Tensor]
"""Samples ``(N, d)`` in random order, or a function ``(n, generator) -> (n, d)`` that draws new samples."""


@dataclass(frozen=True)
class Training:
    """How a classifier is trained: AdamW with a cosine decay of the learning rate to zero.

    Attributes:
        steps: optimiser steps, at least 1, of each stage or pair.
        batch_size: positives per step, at least 1.
        lr: initial learning rate.
        weight_decay: decoupled weight decay.
        odds: positives per negative, in the batches and in the loss. The log-ratio does not depend on it, but
            its variance does.
        held_out: share of a sample tensor (its last rows) that :class:`Quality` uses and training does not,
            in (0, 1).
        held_out_draws: number of draws for :class:`Quality` from a source that is a function.

    Raises:
        ValueError: for a value out of range.

    Example:
        >>> from lebm.density_ratio import Training
        >>> Training(batch_size=256, odds=2.0).negatives
        128
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
                f"steps, batch_size and batch_size / odds must be at least 1, and odds positive: {self}"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, not {self.held_out}")

    @property
    def negatives(self) -> int:
        """Negatives per step."""
        return round(self.batch_size / self.odds)


def _draw(source: Source, n: int, generator: RandomSource = None) -> Tensor:
    """``n`` samples from a source; with replacement if the source is a tensor."""
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
) -> LogRatio:
    """Noise-contrastive estimation of the log-ratio by one classifier (Gutmann & Hyvarinen 2012).

    Args:
        positives: from p.
        negatives: from q.
        energy: the network, trained in place. It needs an output bias, because a ratio includes its constant.
        training: settings of the training.
        generator: source of randomness.

    Raises:
        ValueError: if a sample is too small to be split.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import Training, logistic
        >>> from lebm.models import MLPEnergy
        >>> p, q = torch.randn(500, 2) + 5, torch.randn(500, 2) - 5
        >>> ratio = logistic(p, q, MLPEnergy(2, [8], output_bias=True), Training(steps=50, lr=0.05))
        >>> ratio.quality.accuracy > 0.9, ratio(p).shape
        (True, torch.Size([500]))
    """
    (positives, tested), (negatives, against) = (
        _split(source, training, generator) for source in (positives, negatives)
    )
    _train(energy, positives, negatives, training, generator)
    ratio = LogRatio(energy)
    ratio.quality = assess(ratio, tested, against)
    return ratio


def telescoping(
    waymarks: Sequence[Source],
    product: RatioProduct,
    training: Training = Training(),
    generator: RandomSource = None,
) -> LogRatio:
    """A ratio as the product of ratios between neighbouring waymarks (Rhodes, Xu & Gutmann 2020).

    A classifier of its own learns each ratio.

    Args:
        waymarks: two or more sources, from q, the negatives, to p, the positives.
        product: receives one stage per pair of neighbours.
        training: settings for every pair.
        generator: source of randomness.

    Raises:
        ValueError: for fewer than two waymarks, for more than the stages of the product can join, or if a
            sample is too small to be split.

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
    ratio = LogRatio(product)
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
) -> LogRatio:
    """Stages that follow each other: each separates the positives from draws of the product so far.

    The first stage's negatives are exact. Later negatives come from chains that continue from stage to stage.
    Each later stage adapts the step of these chains. At the end, annealing over the stages estimates
    ``log Z`` of the product.

    Args:
        positives: from p.
        prior: the base q and the product. All stages of the product are trained unless ``one`` stops earlier.
        training: settings for every stage.
        sampler: an exact kernel; its ``steps`` run on the chains of every batch. ``MALA(2, 0.8)`` by default.
        annealing: estimates log Z; by default ``MALA(2, 0.8)`` with 30 levels per stage.
        chains: size of the pool, at least the number of negatives per step.
        burn_in: transitions of the whole pool at the start of a stage.
        one: stop after a stage whose held-out loss is within this many nats of ``2 log 2``, the loss of the
            ratio one. 0 trains all stages.
        generator: source of randomness.

    Raises:
        ValueError: if a sample is too small to be split, the pool is smaller than a batch, or a chain becomes
            non-finite.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import Training, sequential
        >>> from lebm.models import MLPEnergy, RatioPrior, RatioProduct
        >>> prior = RatioPrior(RatioProduct(MLPEnergy(2, [8], output_bias=True), max_stages=1))
        >>> ratio = sequential(torch.randn(500, 2) + 1, prior, Training(steps=10), chains=256)
        >>> ratio(torch.zeros(4, 2)).shape, prior.tilt.finished
        (torch.Size([4]), 1)
    """
    if chains < training.negatives:
        raise ValueError(
            f"a pool of {chains} chains is smaller than a batch of {training.negatives} negatives"
        )
    kernel = MALA(2, 0.8) if sampler is None else sampler
    product = prior.tilt
    positives, tested = _split(positives, training, generator)
    pool = Pool(prior, kernel, prior.reference(chains, generator))
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
    ratio = LogRatio(product, prior.log_constant().log_z)
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
        accuracy = f"{quality.accuracy:.4f}"
        warnings.warn(
            f"stage {product.finished} separates its held-out samples with accuracy {accuracy}: its ratio is"
            f" an extrapolation between them, {cure}",
            UserNotice,
            stacklevel=3,
        )


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
    """The part that training uses, and the held-out part."""
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
    """Add the uncertainty of log Z to the interval of the KL divergence."""
    constant = prior.log_constant()
    low = math.hypot(quality.kl - quality.kl_low, constant.high - constant.log_z)
    high = math.hypot(quality.kl_high - quality.kl, constant.log_z - constant.low)
    return replace(quality, kl_low=quality.kl - low, kl_high=quality.kl + high)
