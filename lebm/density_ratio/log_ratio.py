"""The result of every ratio estimator: a module that computes the log-ratio, and its quality."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lebm.models.energies import Energy
from lebm.models.priors import EnergyPrior
from lebm.models.ratios import RatioPrior
from lebm.samplers.adaptation import Adaptive
from lebm.samplers.annealed import AnnealedImportanceSampling, LogZ
from lebm.samplers.noise import RandomSource


@dataclass(frozen=True)
class Quality:
    """The quality of a log-ratio on held-out samples.

    Attributes:
        accuracy: accuracy of the classifier ``log-ratio > 0``, with equal weight for both classes, in [0, 1];
            near 1 the ratio is an extrapolation.
        cross_entropy: loss of the classifier in nats per pair; ``2 log 2`` for the ratio one.
        kl: estimate of ``KL(p || q)`` in nats, the mean of the log-ratio over positives.
        kl_low: lower end of the 95% interval of ``kl``, which covers the sampling error but not the error of
            the ratio.
        kl_high: upper end of the interval.

    Example:
        >>> import torch
        >>> from lebm.density_ratio.log_ratio import assess
        >>> generator = torch.Generator().manual_seed(0)
        >>> p, q = (torch.randn(4000, 1, generator=generator) + shift for shift in (1.0, 0.0))
        >>> quality = assess(lambda z: z.squeeze(1) - 0.5, p, q)  # the exact log-ratio
        >>> round(quality.accuracy, 2), round(quality.kl, 1)  # in theory 0.69 and 0.5
        (0.69, 0.5)
    """

    accuracy: float
    cross_entropy: float
    kl: float
    kl_low: float
    kl_high: float


class LogRatio(nn.Module):
    """A log-ratio in nats, ``-E(z) - log Z``, with its measured ``quality``: ``(B, d) -> (B,)``.

    Args:
        energy: trained network or product of networks, ``(B, d) -> (B,)``.
        quality: its quality on held-out samples.
        log_z: log-constant of a product whose stages are ratios to normalised densities.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import LogRatio, Training, logistic
        >>> from lebm.models import MLPEnergy
        >>> p, q = torch.randn(50, 2) + 1, torch.randn(50, 2)
        >>> ratio = logistic(p, q, MLPEnergy(2, [8], output_bias=True), Training(steps=10))
        >>> isinstance(ratio, LogRatio), ratio(torch.zeros(4, 2)).shape, 0 <= ratio.quality.accuracy <= 1
        (True, torch.Size([4]), True)
    """

    def __init__(self, energy: Energy, quality: Quality, log_z: float = 0.0) -> None:
        super().__init__()
        self.energy, self.quality, self.log_z = energy, quality, log_z

    def forward(self, z: Tensor) -> Tensor:
        return -self.energy(z) - self.log_z


def logistic_loss(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Return :math:`E_p[\mathrm{softplus}(E)] + E_q[\mathrm{softplus}(-E)]`, minimal at the log-ratio.

    ``positive: (n,)`` and ``negative: (m,)`` are energies ``-log r``.
    """
    return softplus(positive).mean() + softplus(-negative).mean()


def assess(log_ratio: Callable[[Tensor], Tensor], positives: Tensor, negatives: Tensor) -> Quality:
    """Measure a log-ratio on held-out samples of p, ``(n, d)``, and of q, ``(m, d)``."""
    with torch.no_grad():
        up, down = log_ratio(positives).double(), log_ratio(negatives).double()
        accuracy = 0.5 * ((up > 0).double().mean() + (down <= 0).double().mean())
        half = NormalDist().inv_cdf(0.5 + 0.95 / 2) * up.std() / math.sqrt(up.shape[0])
        kl = up.mean()
        loss = logistic_loss(-up, -down)
    return Quality(*map(float, (accuracy, loss, kl, kl - half, kl + half)))


@torch.no_grad()
def direct_log_z(prior: EnergyPrior, n: int = 20_000, generator: RandomSource = None) -> LogZ:
    """Estimate log Z of a tilted prior from samples of its base alone, ``Z = E[exp(-E(z))]``.

    The interval is narrow if the base is near the prior, see ``ess`` of the estimate.

    Args:
        prior: prior with the base and the energy.
        n: number of samples, at least 2.
        generator: source of randomness.

    Raises:
        ValueError: for fewer than two samples, or if all weights are zero.

    Example:
        >>> import torch
        >>> from lebm.density_ratio import direct_log_z
        >>> from lebm.models import EnergyPrior, MLPEnergy
        >>> log_z = direct_log_z(EnergyPrior(MLPEnergy(2)), 5000, torch.Generator().manual_seed(0))
        >>> bool(log_z.low < log_z.estimate < log_z.high)
        True
    """
    z = prior.reference(n, generator)
    return LogZ.from_log_weights(-prior.energy(z))


def staged_log_z(
    prior: RatioPrior, annealing: AnnealedImportanceSampling, n: int = 512, generator: RandomSource = None
) -> LogZ:
    """Estimate log Z in nats by annealed importance sampling along the stages, from the base to the product.

    The path goes through the product of every number of stages, so neighbouring densities overlap as much as
    in training. A kernel that can adapt adapts its step size to each stage, on chains whose weights are not
    used. Without a finished stage log Z is 0.

    Args:
        prior: prior, whose stage in training is left out.
        annealing: levels and kernel of *each* stage; the kernel is adapted in place.
        n: number of chains, at least 2.
        generator: source of randomness.

    Raises:
        ValueError: for fewer than two chains, or if all weights are zero.

    Example:
        >>> from lebm.density_ratio import staged_log_z
        >>> from lebm.models import MLPEnergy, RatioPrior, RatioProduct
        >>> from lebm.samplers import MALA, AnnealedImportanceSampling
        >>> prior = RatioPrior(RatioProduct(MLPEnergy(2, [8], output_bias=True), max_stages=1))
        >>> prior.tilt.switch()  # a stage without training is the ratio one, so log Z = 0
        >>> staged_log_z(prior, AnnealedImportanceSampling(MALA(1, 0.8), levels=2), n=8).estimate
        tensor(0., dtype=torch.float64)
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
    return LogZ.from_log_weights(total)
