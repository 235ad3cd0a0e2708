"""Perplexity of sentences under a recurrent language model, which is trained here with a fixed budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lebm.models.sequence_generators import RecurrentGenerator
from lebm.models.text_likelihood import CategoricalLikelihood
from lebm.models.text_vocabulary import PAD

__all__ = ["Budget", "LanguageModelPerplexity", "train_language_model"]


@dataclass(frozen=True)
class Budget:
    """The size and training of the language model; perplexities are comparable only for the same budget.

    Attributes:
        steps: of Adam.
        batch_size: sentences per step, drawn with replacement.
        lr: learning rate; it falls to zero along a cosine.
        embedding: width of a word's embedding.
        hidden: width of the LSTM.
        dropout: of embeddings and features.
        seed: of weights, batches and dropout.
    """

    steps: int = 500
    batch_size: int = 64
    lr: float = 5e-3
    embedding: int = 64
    hidden: int = 128
    dropout: float = 0.2
    seed: int = 0


def train_language_model(x: Tensor, vocabulary_size: int, budget: Budget) -> CategoricalLikelihood:
    """A one-layer LSTM without latent, trained on sentences ``x`` ``(N, T)``.

    The same data and budget give the same model.

    Raises:
        ValueError: if there are no sentences.
    """
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


class LanguageModelPerplexity(Metric):
    """Perplexity per token, ``<eos>`` included, under a language model trained on other sentences.

    A model that learns from data and judges samples gives the *forward* perplexity. It is low for fluent
    samples, even if they are all the same. A model that learns from samples and judges test data gives the
    *reverse* perplexity. It is low only if the samples cover the data.

    Args:
        vocabulary_size: number of tokens.
        budget: of the language model; :meth:`compute` trains it.

    Example:
        >>> import torch
        >>> from lebm.metrics.text_perplexity import Budget, LanguageModelPerplexity
        >>> metric = LanguageModelPerplexity(vocabulary_size=8, budget=Budget(steps=30, hidden=8))
        >>> metric.update(torch.tensor([[4, 5, 3]] * 16), learn=True)
        >>> metric.update(torch.tensor([[4, 5, 3]]), learn=False)
        >>> bool(metric.compute() < 8)  # better than guessing
        True
    """

    full_state_update = False
    learned: list[Tensor]
    judged: list[Tensor]

    def __init__(self, vocabulary_size: int, budget: Budget | None = None) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.budget = budget or Budget()
        self.add_state("learned", [], dist_reduce_fx="cat")
        self.add_state("judged", [], dist_reduce_fx="cat")

    def update(self, x: Tensor, learn: bool) -> None:
        """Add sentences ``(B, T)`` to learn from or to judge; all batches have the same T."""
        (self.learned if learn else self.judged).append(x)

    def compute(self) -> Tensor:
        model = train_language_model(dim_zero_cat(self.learned), self.vocabulary_size, self.budget)
        return perplexity(model, dim_zero_cat(self.judged))


@torch.no_grad()
def perplexity(model: CategoricalLikelihood, x: Tensor, batch_size: int = 128) -> Tensor:
    """``exp`` of the mean of ``-log p`` per token of sentences ``(N, T)`` under a language model."""
    surprise, tokens = 0.0, 0
    for rows in x.split(batch_size):
        surprise -= float(model.log_prob(rows, torch.zeros(len(rows), 1, device=x.device)).double().sum())
        tokens += int((rows != PAD).sum())
    return torch.tensor(math.exp(surprise / max(1, tokens)), dtype=torch.float64)
