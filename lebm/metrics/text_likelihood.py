"""Negative log-likelihood and perplexity of a corpus, from estimates per sentence with their errors."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor
from torchmetrics import Metric

from lebm.samplers.annealed import LogZ

__all__ = ["SentenceLikelihood"]

QUANTILE = NormalDist().inv_cdf(0.975)


class SentenceLikelihood(Metric):
    """Mean ``-log p(x)`` per sentence in nats, and perplexity per token (``<eos>`` included).

    The estimate of a sentence is ``log ∫ p~(x, z) dz - log Z``. Its first part is low on average. So the mean
    is an upper bound of the negative log-likelihood, up to the error of log Z, which all sentences share.

    The intervals cover 95%. They describe the error of the estimates for these sentences, and not how another
    test set would differ. The errors of single sentences are independent. The error of log Z is added in
    full, because all sentences share it.

    Attributes:
        log_z: the prior's log-constant with its interval, the same on every process. Set it before
            :meth:`compute`; the default is that of a normalised prior.

    Example:
        >>> import torch
        >>> from lebm.metrics.text_likelihood import SentenceLikelihood
        >>> from lebm.samplers import LogZ
        >>> exact = torch.tensor([-6.0, -10.0])
        >>> likelihood = SentenceLikelihood()
        >>> likelihood.update(LogZ(exact, exact, exact, ess=torch.ones(2)), tokens=torch.tensor([3, 5]))
        >>> round(float(likelihood.compute()["nll"]), 2), round(float(likelihood.compute()["perplexity"]), 2)
        (8.0, 7.39)
    """

    full_state_update = False
    total: Tensor
    variance: Tensor
    sentences: Tensor
    tokens: Tensor
    worst: Tensor

    def __init__(self) -> None:
        super().__init__()
        zero = torch.zeros((), dtype=torch.float64)
        self.log_z = LogZ(zero, zero, zero, zero)  # the constant of a normalised prior
        for name in ("total", "variance", "sentences", "tokens"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("worst", torch.tensor(math.inf, dtype=torch.float64), dist_reduce_fx="min")

    def update(self, estimate: LogZ, tokens: Tensor) -> None:
        """Add unnormalised estimates ``(B,)`` with their intervals, and the tokens per sentence ``(B,)``."""
        error = (estimate.high - estimate.low) / (2 * QUANTILE)
        self.total = self.total + estimate.estimate.sum().to(self.total)
        self.variance = self.variance + error.square().sum().to(self.variance)
        self.sentences = self.sentences + estimate.estimate.numel()
        self.tokens = self.tokens + tokens.sum().to(self.tokens)
        self.worst = torch.minimum(self.worst, estimate.ess.min().to(self.worst))

    def compute(self) -> dict[str, Tensor]:
        """``nll`` and ``perplexity``, each also with ``_low`` and ``_high``, and ``least_ess``.

        ``least_ess`` is the least effective number of samples of any sentence.
        """
        log_z = self.log_z
        middle = log_z.estimate.to(self.total) - self.total / self.sentences
        half = QUANTILE * self.variance.sqrt() / self.sentences
        below = (log_z.estimate - log_z.low).clamp_min(0).to(self.total)
        above = (log_z.high - log_z.estimate).clamp_min(0).to(self.total)
        nll = {"nll": middle, "nll_low": middle - half - below, "nll_high": middle + half + above}
        per_token = self.sentences / self.tokens
        perplexity = {
            name.replace("nll", "perplexity"): (value * per_token).exp() for name, value in nll.items()
        }
        return {**nll, **perplexity, "least_ess": self.worst}
