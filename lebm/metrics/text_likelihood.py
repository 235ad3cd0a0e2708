"""Metrics of sentences: likelihood and perplexity, diversity, and use of the latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.text import bleu_score

from lebm.models.sequence_generators import RecurrentGenerator
from lebm.models.text_likelihood import END, PAD, CategoricalLikelihood
from lebm.samplers.annealed import LogZ

__all__ = ["Budget", "LatentUse", "SentenceLikelihood", "diversity", "language_model_perplexity", "self_bleu"]

QUANTILE = NormalDist().inv_cdf(0.975)


class SentenceLikelihood(Metric):
    """Mean ``-log p(x)`` per sentence in nats, and perplexity per token (``<eos>`` included).

    The estimate of a sentence is ``log ∫ p~(x, z) dz - log Z``, whose first part is low on average, so the
    mean is an upper bound of the negative log-likelihood, up to the error of log Z.

    The 95% intervals describe the error of the estimates for these sentences, not the variation between test
    sets. The errors of single sentences are independent, and the error of log Z is added in full, because all
    sentences share it.

    Attributes:
        log_z: log-constant of the prior with its interval, equal on all processes. Set it before
            :meth:`compute` (default: 0, for a normalised prior).

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
        """Add unnormalised estimates ``(B,)`` with intervals, and the tokens per sentence ``(B,)``."""
        error = (estimate.high - estimate.low) / (2 * QUANTILE)
        self.total = self.total + estimate.estimate.sum().to(self.total)
        self.variance = self.variance + error.square().sum().to(self.variance)
        self.sentences = self.sentences + estimate.estimate.numel()
        self.tokens = self.tokens + tokens.sum().to(self.tokens)
        self.worst = torch.minimum(self.worst, estimate.ess.min().to(self.worst))

    def compute(self) -> dict[str, Tensor]:
        """Return ``nll`` and ``perplexity``, each also with ``_low`` and ``_high``, and ``least_ess`` over
        sentences.
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


@dataclass(frozen=True)
class Budget:
    """Size and training of a language model; perplexities can be compared for equal budgets only.

    Attributes:
        steps: number of steps of Adam.
        batch_size: sentences per step, drawn with replacement.
        lr: initial learning rate, which falls to zero along a cosine.
        embedding: width of the word embeddings.
        hidden: width of the LSTM.
        dropout: dropout of embeddings and features, in [0, 1).
        seed: seed of weights, batches and dropout.
    """

    steps: int = 500
    batch_size: int = 64
    lr: float = 5e-3
    embedding: int = 64
    hidden: int = 128
    dropout: float = 0.2
    seed: int = 0


def _trained(x: Tensor, vocabulary_size: int, budget: Budget) -> CategoricalLikelihood:
    """Return a one-layer LSTM without latent; equal sentences ``x: (N, T)`` and budgets give equal models."""
    if not len(x):
        raise ValueError("a language model needs sentences for its training")
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(budget.seed)
        network = RecurrentGenerator(
            1, vocabulary_size, x.shape[1], budget.embedding, budget.hidden, dropout=budget.dropout
        )
        model = CategoricalLikelihood(network).to(x.device).train()
        optimizer = torch.optim.Adam(model.parameters(), budget.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, budget.steps)
        generator = torch.Generator().manual_seed(budget.seed)
        nothing = torch.zeros(budget.batch_size, 1, device=x.device)
        for _ in range(budget.steps):
            rows = x[torch.randint(len(x), (budget.batch_size,), generator=generator).to(x.device)].clone()
            rows = rows[:, : int((rows != PAD).sum(dim=1).max())]
            loss = -model.training_log_prob(rows, nothing).sum() / (rows != PAD).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def language_model_perplexity(
    learned: Tensor, judged: Tensor, vocabulary_size: int, budget: Budget | None = None
) -> float:
    """Return the perplexity per token (``<eos>`` included) under a language model of other sentences.

    The *forward* perplexity, of samples under a model of the data, is low for fluent samples, even if they
    are all equal. The *reverse* perplexity, of test data under a model of the samples, is low only if the
    samples cover the data.

    Args:
        learned: training sentences ``(N, T)``.
        judged: evaluated sentences ``(M, T)``.
        vocabulary_size: number of tokens.
        budget: size and training of the language model.

    Raises:
        ValueError: without training sentences.

    Example:
        >>> import torch
        >>> from lebm.metrics.text_likelihood import Budget, language_model_perplexity
        >>> words = torch.tensor([[4, 5, 3]] * 16)
        >>> language_model_perplexity(words, words[:1], 8, Budget(steps=30, hidden=8)) < 8  # of guessing
        True
    """
    model, surprise = _trained(learned, vocabulary_size, budget or Budget()), 0.0
    for rows in judged.split(128):
        nothing = torch.zeros(len(rows), 1, device=rows.device)
        with torch.no_grad():
            surprise -= float(model.log_prob(rows, nothing).double().sum())
    return math.exp(surprise / max(1, int((judged != PAD).sum())))


def self_bleu(sentences: Sequence[Sequence[int]], n: int = 4) -> float:
    """Return the corpus BLEU of each sentence with all others as references (Zhu et al. 2018).

    Args:
        sentences: token numbers of at least two sentences. Time grows with the square of their number.
        n: longest n-gram.

    Returns:
        A number in [0, 1], high for sentences that repeat each other.

    Raises:
        ValueError: for fewer than two sentences.

    Example:
        >>> from lebm.metrics.text_likelihood import self_bleu
        >>> round(self_bleu([[4, 5, 6, 7], [4, 5, 6, 7]]), 3), self_bleu([[4, 5, 6, 7], [8, 9, 10, 11]])
        (1.0, 0.0)
    """
    if len(sentences) < 2:
        raise ValueError(
            f"self-BLEU compares sentences with each other: give at least two, not {len(sentences)}"
        )
    texts = [" ".join(map(str, sentence)) for sentence in sentences]
    others = [[*texts[:row], *texts[row + 1 :]] for row in range(len(texts))]
    return float(bleu_score(texts, others, n_gram=n))


def diversity(x: Tensor, compared: int = 200) -> dict[str, float]:
    """Return ``distinct_1``, ``distinct_2`` and ``self_bleu`` of sentences ``x``, ``(N, T)``.

    ``distinct_n`` is the share of distinct n-grams among all n-grams of all sentences (Li et al. 2016), 0
    without n-grams. :func:`self_bleu` uses the first ``compared`` sentences.

    Raises:
        ValueError: for fewer than two sentences.

    Example:
        >>> import torch
        >>> from lebm.metrics.text_likelihood import diversity
        >>> diversity(torch.tensor([[4, 5, 6, 3], [4, 5, 3, 0]]))["distinct_1"]  # 3 is <eos>, 0 is padding
        0.6
    """
    sentences = [[token for token in row if token not in (PAD, END)] for row in x.tolist()]
    values = {}
    for n in (1, 2):
        starts = [(row, start) for row in sentences for start in range(len(row) - n + 1)]
        grams = [tuple(row[start : start + n]) for row, start in starts]
        values[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else 0.0
    return {**values, "self_bleu": self_bleu(sentences[:compared])}


class LatentUse(Metric):
    r"""Number of active coordinates, and the gain of the generator from the latent in nats.

    For two independent posterior samples ``z, z'`` of every observation, the covariance over observations is
    :math:`\mathrm{Var}_x(E[z \mid x])`. ``active_units`` counts the coordinates where it exceeds a threshold
    (Burda et al. 2016), and ``posterior_mean_variance`` is its mean over coordinates.

    ``latent_nats`` is :math:`E[\log p(x \mid z) - \log p(x \mid z^*)]`, where :math:`z^*` is the latent of
    another observation. It is near 0 if the generator ignores its latent (posterior collapse).

    Args:
        latent_dim: number of latent coordinates.
        threshold: smallest variance of an active coordinate.

    Example:
        >>> import torch
        >>> from lebm.metrics.text_likelihood import LatentUse
        >>> use = LatentUse(latent_dim=2)
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # the second coordinate ignores the observation
        >>> use.update(z, z, own=torch.zeros(2), foreign=torch.full((2,), -3.0))
        >>> {name: float(value) for name, value in use.compute().items()}
        {'active_units': 1.0, 'posterior_mean_variance': 0.5, 'latent_nats': 3.0}
    """

    full_state_update = False
    count: Tensor
    first: Tensor
    second: Tensor
    product: Tensor
    gain: Tensor
    compared: Tensor

    def __init__(self, latent_dim: int, threshold: float = 0.01) -> None:
        super().__init__()
        self.threshold = threshold
        for name in ("first", "second", "product"):
            self.add_state(name, torch.zeros(latent_dim, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("count", "gain", "compared"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, z: Tensor, other: Tensor, own: Tensor, foreign: Tensor) -> None:
        """Add two posterior samples ``(B, d)`` per observation, and ``log p(x | z)`` and ``log p(x | z*)``.

        ``own`` and ``foreign`` are ``(B,)``; ``foreign`` is empty if the batch has a single observation.
        """
        z, other = z.double(), other.double()
        self.count = self.count + len(z)
        self.first = self.first + z.sum(dim=0)
        self.second = self.second + other.sum(dim=0)
        self.product = self.product + (z * other).sum(dim=0)
        if len(foreign):
            self.gain = self.gain + (own.double() - foreign.double()).sum()
            self.compared = self.compared + len(foreign)

    def compute(self) -> dict[str, Tensor]:
        covariance = self.product / self.count - (self.first / self.count) * (self.second / self.count)
        return {
            "active_units": (covariance > self.threshold).sum().double(),
            "posterior_mean_variance": covariance.mean(),
            "latent_nats": self.gain / self.compared.clamp_min(1),
        }
