"""Metrics of sentences: perplexity under language models, diversity, and use of the latents."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.functional.text import bleu_score

from lebm.models.sequence_generators import RecurrentGenerator
from lebm.models.text_likelihood import END, PAD, CategoricalLikelihood

__all__ = ["Budget", "diversity", "language_model_perplexity", "latent_use"]


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
    size, budget, device = vocabulary_size, budget or Budget(), learned.device
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(budget.seed)
        widths, dropout = (budget.embedding, budget.hidden), budget.dropout
        network = RecurrentGenerator(1, size, learned.shape[1], *widths, dropout=dropout)
        model = CategoricalLikelihood(network).to(device).train()
        optimizer = torch.optim.Adam(model.parameters(), budget.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, budget.steps)
        generator = torch.Generator().manual_seed(budget.seed)
        nothing = torch.zeros(budget.batch_size, 1, device=device)
        for _ in range(budget.steps):
            chosen = torch.randint(len(learned), (budget.batch_size,), generator=generator)
            rows = learned[chosen.to(device)].clone()
            rows = rows[:, : int((rows != PAD).sum(dim=1).max())]
            loss = -model.training_log_prob(rows, nothing).sum() / (rows != PAD).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    model.eval().requires_grad_(False)
    with torch.no_grad():
        parts = [model.log_prob(rows, rows.new_zeros(len(rows), 1).float()) for rows in judged.split(128)]
    surprise = -sum(float(part.double().sum()) for part in parts)
    return math.exp(surprise / max(1, int((judged != PAD).sum())))


def diversity(x: Tensor, compared: int = 200) -> dict[str, float]:
    """Return ``distinct_1``, ``distinct_2`` and ``self_bleu`` of sentences ``x``, ``(N, T)``.

    ``distinct_n`` is the share of distinct n-grams among all n-grams of all sentences (Li et al. 2016), 0
    without n-grams. ``self_bleu`` is the corpus BLEU of each of the first ``compared`` sentences with all
    others as references (Zhu et al. 2018), in [0, 1], high for sentences that repeat each other. Its time
    grows with the square of ``compared``.

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
        grams = [tuple(row[start : start + n]) for row in sentences for start in range(len(row) - n + 1)]
        values[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else 0.0
    texts = [" ".join(map(str, sentence)) for sentence in sentences[:compared]]
    if len(texts) < 2:
        raise ValueError(f"self-BLEU compares sentences with each other: give at least two, not {len(texts)}")
    others = [[*texts[:row], *texts[row + 1 :]] for row in range(len(texts))]
    return {**values, "self_bleu": float(bleu_score(texts, others))}


def latent_use(
    first: Sequence[Tensor], second: Sequence[Tensor], gains: Sequence[Tensor]
) -> dict[str, float]:
    r"""Return the number of active coordinates, and the gain of the generator from the latent in nats.

    For two independent posterior samples ``z, z'`` of every observation, the covariance over observations is
    :math:`\mathrm{Var}_x(E[z \mid x])`. ``active_units`` counts the coordinates where it exceeds 0.01
    (Burda et al. 2016), and ``posterior_mean_variance`` is its mean over coordinates.

    ``latent_nats`` is the mean of :math:`\log p(x \mid z) - \log p(x \mid z^*)`, where :math:`z^*` is the
    latent of another observation. It is near 0 if the generator ignores its latent (posterior collapse).

    Args:
        first: posterior samples ``(B, d)`` of each batch.
        second: independent second samples of the same shapes.
        gains: gains ``(B,)`` of each batch, in float64; empty for an observation that is alone in its batch.

    Example:
        >>> import torch
        >>> from lebm.metrics.text_likelihood import latent_use
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # the second coordinate ignores the observation
        >>> latent_use([z], [z], [torch.tensor([3.0, 3.0])])
        {'active_units': 1.0, 'posterior_mean_variance': 0.5, 'latent_nats': 3.0}
    """
    count, compared = sum(map(len, first)), sum(map(len, gains))
    zero = torch.zeros_like(first[0][0], dtype=torch.float64)
    products = sum(((a.double() * b.double()).sum(dim=0) for a, b in zip(first, second, strict=True)), zero)
    means = [sum((z.double().sum(dim=0) for z in draws), zero) / count for draws in (first, second)]
    covariance = products / count - means[0] * means[1]
    return {
        "active_units": float((covariance > 0.01).sum()),
        "posterior_mean_variance": float(covariance.mean()),
        "latent_nats": float(sum(gain.sum() for gain in gains)) / max(1, compared),
    }
