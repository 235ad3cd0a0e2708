"""Normalising constants by annealed importance sampling, from below and from above."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Tensor, nn

from lebm.component import Component
from lebm.errors import at_least
from lebm.samplers.base import LogDensity, Sampler
from lebm.samplers.chains import PersistentChains
from lebm.samplers.importance import Proposal, clean_log_weights, weight_ess
from lebm.samplers.noise import RandomSource


@dataclass
class LogZ:
    """An estimate of a log normalising constant with its confidence interval.

    Attributes:
        estimate: log of the mean weight, negated for reverse weights, with the shape of the log-weights
            without the first dimension.
        low: lower end of the interval.
        high: upper end of the interval.
        ess: effective number of the n weights; if it is small the interval is wider, see
            :meth:`from_log_weights`.

    Example:
        >>> import torch
        >>> from lebm.samplers import LogZ
        >>> log_z = LogZ.from_log_weights(torch.tensor([0.9, 1.0, 1.1]).repeat(50))
        >>> [round(float(value), 3) for value in (log_z.low, log_z.estimate, log_z.high, log_z.ess)]
        [0.99, 1.003, 1.016, 149.009]
    """

    estimate: Tensor
    low: Tensor
    high: Tensor
    ess: Tensor

    @classmethod
    def from_log_weights(cls, log_weights: Tensor, *, reverse: bool = False, level: float = 0.95) -> LogZ:
        r"""Estimate log Z from n independent log-weights ``(n, ...)``.

        The standard error of :math:`\log \bar w` is :math:`\mathrm{sd}(w) / (\bar w \sqrt n)` (delta method).
        The interval is normal.

        If few weights hold most of the sum, this interval is too narrow, because larger weights were not
        sampled. Below 100 effective weights, or n / 20, it is therefore joined with the interval for
        log-normal weights, whose logarithm has the median m of the log-weights :math:`l` and the variance
        :math:`s^2 = 2 E[\max(l - m, 0)^2]` of their upper half. Then :math:`\log Z = m + s^2 / 2`, up to an
        error of at most 1.96 times

        .. math:: \sqrt{\tfrac1n \bigl( \tfrac\pi2 s^2 + \tfrac14 \mathrm{Var}[2 \max(l - m, 0)^2] \bigr)}

        for the level 0.95. No interval covers weights of another shape that no chain has met; for reverse
        weights ``high`` is reliable and ``low`` is not.

        Args:
            log_weights: log-weights whose mean weight is Z, or 1/Z if ``reverse``. A non-finite entry is a
                weight of zero.
            reverse: whether weights are reverse weights.
            level: coverage of the interval, in (0, 1).

        Raises:
            ValueError: for fewer than two weights, or if all weights of an estimate are zero.
        """
        n = log_weights.shape[0]
        log_weights = clean_log_weights(log_weights.double())
        at_least(2, weights=n)
        if torch.isinf(log_weights).all(dim=0).any():
            raise ValueError("all annealed importance weights are zero: no log-density is finite")
        mean = log_weights.logsumexp(0) - math.log(n)
        relative = (log_weights - mean).exp()
        error = relative.std(dim=0) / math.sqrt(n)
        ess, quantile = weight_ess(log_weights), NormalDist().inv_cdf(0.5 + level / 2)
        low, high = mean - quantile * error, mean + quantile * error
        centre, error = _log_normal(log_weights)
        few = ess < few_weights(n)
        low = torch.where(few, torch.minimum(low, centre - quantile * error), low)
        high = torch.where(few, torch.maximum(high, centre + quantile * error), high)
        return cls(-mean, -high, -low, ess) if reverse else cls(mean, low, high, ess)


def few_weights(n: int) -> float:
    """Return the effective number of n weights below which the interval of :class:`LogZ` is wider."""
    return max(100, n / 20)


def _log_normal(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of the mean of log-normal weights and its standard error, from their upper half."""
    finite = torch.where(log_weights.isinf(), torch.nan, log_weights)
    count = finite.isfinite().sum(dim=0)
    median = finite.nanquantile(0.5, dim=0)
    spread = 2 * (finite - median).clamp_min(0).square()
    variance = spread.nanmean(dim=0)
    error = (math.pi / 2 * variance + (spread - variance).square().nanmean(dim=0) / 4) / count
    return median + variance / 2 + (count / len(finite)).log(), error.sqrt()


class AnnealedImportanceSampling(nn.Module, Component):
    r"""Annealed importance sampling (Neal 2001), forward and reverse (Grosse, Ghahramani & Adams 2015).

    The path is :math:`\log \pi_\beta = (1 - \beta) \log p_0 + \beta \log \pi`, and the kernel leaves every
    :math:`\pi_\beta` invariant. A forward chain from :math:`z_0 \sim p_0` has the weight

    .. math:: \log w = \sum_k (\beta_k - \beta_{k-1})\, d(z_{k-1}), \qquad d = \log \pi - \log p_0,
        \qquad E[w] = Z.

    So :math:`\log \bar w` is at most log Z on average. A chain from an exact sample of :math:`\pi` back to
    :math:`p_0` has mean weight 1/Z and bounds log Z from above, if the sample is exact.

    The base needs exact samples and a normalised density.

    Args:
        kernel: exact sampler (``kernel.exact``) without a pool of chains, for example
            ``HMC(steps=1, ...)``, whose ``steps`` run at every level.
        levels: number of steps from :math:`\beta = 0` to 1, at least 1. The gap between the bounds shrinks as
            1 / levels.
        spacing: ``"linear"`` or ``"sigmoid"`` in beta; the latter is denser at both ends.

    Raises:
        ValueError: if the kernel is not exact or has a pool, or an argument is out of range.

    Example:
        >>> import torch
        >>> from lebm.models import StandardNormal
        >>> from lebm.samplers import HMC, AnnealedImportanceSampling
        >>> annealing = AnnealedImportanceSampling(HMC(steps=1, step_size=0.5, leapfrog_steps=3), levels=20)
        >>> log_density = lambda z: -2 * z.square().sum(dim=1)  # log Z = log(pi / 2) = 0.45
        >>> log_z = annealing(log_density, StandardNormal(2), 500, torch.Generator().manual_seed(0))
        >>> round(float(log_z.estimate), 1)
        0.5
    """

    def __init__(self, kernel: Sampler, levels: int = 500, spacing: str = "linear") -> None:
        super().__init__()
        if not kernel.exact or any(isinstance(part, PersistentChains) for part in kernel.modules()):
            raise ValueError(
                f"{type(kernel).__name__} is biased or does not start where it is told to, so it cannot"
                " estimate Z; use MALA or HMC"
            )
        at_least(1, levels=levels)
        if spacing not in ("linear", "sigmoid"):
            raise ValueError(f"spacing must be 'linear' or 'sigmoid', not {spacing!r}")
        self.kernel = kernel
        self.levels = levels
        self.spacing = spacing

    @property
    def betas(self) -> list[float]:
        """Values of beta: ``levels + 1`` values from 0 to 1."""
        grid = [level / self.levels for level in range(self.levels + 1)]
        if self.spacing == "linear":
            return grid
        raw = [1 / (1 + math.exp(-4 * (2 * point - 1))) for point in grid]
        return [(value - raw[0]) / (raw[-1] - raw[0]) for value in raw]

    def log_weights(
        self,
        log_density: LogDensity,
        base: LogDensity,
        start: Tensor,
        generator: RandomSource = None,
        *,
        reverse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Run annealed chains and return one log-weight per row.

        Args:
            log_density: unnormalised log-density with the unknown constant, ``(B, *event) -> (B,)``. It may
                differ between rows, for example a posterior.
            base: normalised log-density, ``(B, *event) -> (B,)``.
            start: samples ``(B, *event)`` of the base, or of the target if ``reverse``.
            generator: source of randomness.
            reverse: whether chains go from the target to the base.

        Returns:
            Log-weights ``(B,)`` in float64, whose mean weight is Z (1/Z if ``reverse``), and the ends of the
            chains, ``(B, *event)``.
        """
        path = self.betas[::-1] if reverse else self.betas
        state = start.detach().clone()
        total = torch.zeros(state.shape[0], dtype=torch.float64, device=state.device)
        for before, after in pairwise(path):
            with torch.no_grad():
                total += (after - before) * (log_density(state) - base(state)).double()
            if 0 < after < 1:  # a move at the end of the path changes no weight
                state = self.kernel(
                    lambda z, b=after: b * log_density(z) + (1 - b) * base(z), state, generator
                )
        return total, state

    def forward(
        self, log_density: LogDensity, base: Proposal, n: int, generator: RandomSource = None
    ) -> LogZ:
        """Estimate log Z from below, by ``n`` chains from the base."""
        start = base.reference(n, generator)
        weights, _ = self.log_weights(log_density, base.log_density, start, generator)
        return LogZ.from_log_weights(weights)

    def bracket(
        self, log_density: LogDensity, base: Proposal, samples: Tensor, generator: RandomSource = None
    ) -> tuple[LogZ, LogZ]:
        """Estimate log Z from below and from above.

        Args:
            log_density: unnormalised log-density of the target.
            base: base with samples and a normalised density.
            samples: exact or long-run samples of the target, ``(n, *event)``; the number of forward chains is
                also n.
            generator: source of randomness.

        Returns:
            An estimate that is at most log Z in expectation, and one that is at least log Z. Their interval
            reaches from ``low`` of the first to ``high`` of the second.
        """
        below = self(log_density, base, samples.shape[0], generator)
        weights, _ = self.log_weights(log_density, base.log_density, samples, generator, reverse=True)
        return below, LogZ.from_log_weights(weights, reverse=True)
