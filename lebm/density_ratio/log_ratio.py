"""What every ratio estimator returns: a module that is the log-ratio, and a measure of how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchmetrics.functional.classification import binary_calibration_error

from lebm.models.energies import Energy
from lebm.models.ratios import RatioPrior

__all__ = ["EnergyRatio", "LogRatio", "Quality", "SequentialRatio", "assess", "logistic_loss"]


@dataclass(frozen=True)
class Quality:
    """How good a log-ratio is on held-out samples.

    Attributes:
        accuracy: of the classifier ``f > 0`` with both classes alike, in [0, 1]; near 1 the ratio is an
            extrapolation.
        calibration_error: expected calibration error of its probabilities (15 bins), in [0, 1].
        cross_entropy: its loss, in nats a pair, ``2 log 2`` for the ratio one.
        kl: estimate of ``KL(p || q)`` in nats, the mean of the log-ratio over positives.
        kl_low: lower end of its interval; sampling error only, not the error of the ratio itself.
        kl_high: upper end.
    """

    accuracy: float
    calibration_error: float
    cross_entropy: float
    kl: float
    kl_low: float
    kl_high: float


class LogRatio(nn.Module):
    """``module(z: (B, d)) -> (B,)``, the log-ratio in nats; ``quality`` says how far to trust it."""

    quality: Quality


class EnergyRatio(LogRatio):
    """The log-ratio ``-E(z)``.

    Args:
        energy: the trained network or product of networks.
    """

    def __init__(self, energy: Energy) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, z: Tensor) -> Tensor:
        return -self.energy(z)


class SequentialRatio(LogRatio):
    """The log-ratio of a product of stages to its base, normalised where log Z is known.

    Args:
        prior: the product, with its constant.
    """

    def __init__(self, prior: RatioPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, z: Tensor) -> Tensor:
        return self.raw(z) - self.prior.log_constant().log_z

    def raw(self, z: Tensor) -> Tensor:
        """The plain sum of the stages' logits, which misses log Z."""
        return -self.prior.tilt.so_far(z)


def logistic_loss(positive: Tensor, negative: Tensor, odds: float = 1.0) -> Tensor:
    r"""Logistic loss of energies ``-log r``, whose minimum is the log-ratio for any prior odds :math:`\nu`:

    .. math:: \tfrac{2}{1 + \nu} \bigl( \nu\, E_p[\mathrm{softplus}(E - \log\nu)] + E_q[\mathrm{softplus}(\log\nu - E)] \bigr),

    which is the sum of the two binary cross-entropies at :math:`\nu = 1`.

    Args:
        positive: ``(n,)`` energies of positives.
        negative: ``(m,)`` energies of negatives.
        odds: positives per negative.
    """
    shift = math.log(odds)
    return 2 / (1 + odds) * (odds * softplus(positive - shift).mean() + softplus(shift - negative).mean())


def assess(
    log_ratio: Callable[[Tensor], Tensor], positives: Tensor, negatives: Tensor, level: float = 0.95
) -> Quality:
    """Measure a log-ratio on samples it has not seen.

    Args:
        log_ratio: ``(n, d) -> (n,)``.
        positives: ``(n, d)``.
        negatives: ``(m, d)``.
        level: coverage of the interval.

    Raises:
        ValueError: for fewer than two positives, or no negatives.
    """
    if positives.shape[0] < 2 or negatives.shape[0] < 1:
        raise ValueError(
            f"a ratio is assessed on some held-out samples of both kinds, not {positives.shape[0]} and"
            f" {negatives.shape[0]}"
        )
    with torch.no_grad():
        up, down = log_ratio(positives).double(), log_ratio(negatives).double()
        accuracy = 0.5 * ((up > 0).double().mean() + (down <= 0).double().mean())
        # The classes count alike, so the larger sample is thinned to the size of the smaller.
        n = min(up.shape[0], down.shape[0])
        probability = torch.cat([up[:n], down[:n]]).sigmoid()
        label = torch.cat([torch.ones(n), torch.zeros(n)]).long().to(probability.device)
        calibration = binary_calibration_error(probability.float(), label, n_bins=15)
        half = NormalDist().inv_cdf(0.5 + level / 2) * up.std() / math.sqrt(up.shape[0])
        kl = up.mean()
        loss = logistic_loss(-up, -down)
        figures = [accuracy, calibration, loss, kl, kl - half, kl + half]
    return Quality(*(float(figure) for figure in figures))
