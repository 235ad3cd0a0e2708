"""Figures of sentences against counting and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from lebm.metrics.text_likelihood import Budget, diversity, language_model_perplexity, latent_use


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Diversity


def test_distinct_counts() -> None:
    assert diversity(torch.tensor([[4, 5, 4, 3], [4, 3, 0, 0]]))["distinct_1"] == 2 / 4
    assert diversity(torch.tensor([[4, 5, 4, 5, 3], [4, 5, 3, 0, 0]]))["distinct_2"] == 2 / 4
    assert diversity(torch.tensor([[4, 3], [5, 3]]))["distinct_2"] == 0


def test_self_bleu_of_copies_and_of_strangers() -> None:
    def self_bleu(*sentences: list[int]) -> float:
        return diversity(torch.tensor(sentences))["self_bleu"]

    assert self_bleu(*[[4, 5, 6, 7, 8]] * 3) == pytest.approx(1)
    assert self_bleu([4, 5, 6, 7], [8, 9, 10, 11]) == 0
    # two of three sentences share all their n-grams with another one, and there is no brevity penalty
    assert self_bleu([4, 5, 6, 7], [4, 5, 6, 7], [8, 9, 10, 11]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="at least two"):
        self_bleu([4])


def test_diversity_ignores_ends_and_padding() -> None:
    found = diversity(torch.tensor([[4, 5, 6, 7, 3], [4, 5, 3, 0, 0], [9, 3, 0, 0, 0]]), compared=2)
    assert found["distinct_1"] == pytest.approx(5 / 7)
    assert found["distinct_2"] == pytest.approx(3 / 4)


# Perplexity


def test_perplexity_of_a_source_of_known_entropy() -> None:
    """Sentences of three fair choices among four words, then <eos>: no model can do better than 4^(3/4) a
    token.
    """
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(4, 8, (1000, 3), generator=generator)
    x = torch.cat([words, torch.full((1000, 1), 3)], dim=1)
    budget = Budget(steps=150, lr=2e-2, embedding=8, hidden=16, dropout=0.0)
    assert language_model_perplexity(x[:500], x[500:], 8, budget) == pytest.approx(4 ** (3 / 4), rel=0.02)


def test_forward_is_blind_to_missing_words_and_reverse_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.cat([torch.randint(4, 8, (400, 3), generator=generator), torch.full((400, 1), 3)], dim=1)
    narrow = torch.cat([torch.randint(4, 6, (400, 3), generator=generator), torch.full((400, 1), 3)], dim=1)
    figures = {}
    budget = Budget(steps=80, lr=2e-2, embedding=8, hidden=16, dropout=0.0)
    for name, learned, judged in (("forward", real, narrow), ("reverse", narrow, real)):
        figures[name] = language_model_perplexity(learned, judged, 8, budget)
    assert figures["forward"] < 3.2
    assert figures["reverse"] > 5


def test_the_judge_depends_on_its_budget_and_data_alone() -> None:
    x = torch.randint(4, 8, (50, 4), generator=torch.Generator().manual_seed(0))
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        values.append(language_model_perplexity(x, x, 8, Budget(steps=3, embedding=4, hidden=4)))
        assert torch.equal(torch.get_rng_state(), before)
    assert values[0] == values[1]


# Latents


def test_use_of_latents_by_a_linear_gaussian() -> None:
    """z | x ~ N(a x, 1 - a^2) a coordinate, x ~ N(0, 1): the variance of posterior means is a^2."""
    a = numbers(0.9, 0.5, 0.0)
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    draws = [
        a * x + (1 - a.square()).sqrt() * torch.randn(n, 3, dtype=torch.float64, generator=generator)
        for _ in range(2)
    ]
    first, second = (draw.split(n // 4) for draw in draws)
    gains = [*torch.full((3, n // 4), 2.0).double(), numbers()]  # the last batch has no other latent
    found = latent_use(first, second, gains)
    assert found["active_units"] == 2
    # the covariance of two unit normals has a standard error of at most sqrt(2 / n); the mean of three
    # coordinates less
    assert found["posterior_mean_variance"] == pytest.approx(
        float(a.square().mean()), abs=5 * math.sqrt(2 / n)
    )
    assert found["latent_nats"] == pytest.approx(2)
