"""How much generated sentences repeat each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import bleu_score
from torchmetrics.utilities import dim_zero_cat

from lebm.models.text_vocabulary import END, PAD

__all__ = ["SentenceDiversity", "distinct", "self_bleu"]


def distinct(sentences: Sequence[Sequence[int]], n: int) -> float:
    """Share of different n-grams among all n-grams of all sentences (Li et al. 2016).

    Args:
        sentences: token numbers of each, without ``<eos>`` and padding.
        n: length of the n-grams, at least 1.

    Returns:
        A number in (0, 1]; 0 if there is no n-gram.

    Example:
        >>> from lebm.metrics.text_diversity import distinct
        >>> distinct([[4, 5, 6], [4, 5]], n=1)
        0.6
    """
    grams = [
        tuple(sentence[start : start + n]) for sentence in sentences for start in range(len(sentence) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(sentences: Sequence[Sequence[int]], n: int = 4) -> float:
    """BLEU of each sentence with all others as its references (Zhu et al. 2018), over all sentences together.

    Args:
        sentences: token numbers of each, at least two sentences. The time grows with the square of their
            number.
        n: longest n-gram.

    Returns:
        A number in [0, 1], high for sentences that repeat each other.

    Raises:
        ValueError: for fewer than two sentences.

    Example:
        >>> from lebm.metrics.text_diversity import self_bleu
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


class SentenceDiversity(Metric):
    """``distinct_1``, ``distinct_2`` and ``self_bleu`` of generated sentences.

    Args:
        compared: number of sentences, the first ones, that self-BLEU uses; at least 2.

    Raises:
        ValueError: if ``compared`` is below 2.

    Example:
        >>> import torch
        >>> from lebm.metrics.text_diversity import SentenceDiversity
        >>> diversity = SentenceDiversity()
        >>> diversity.update(torch.tensor([[4, 5, 6, 3], [4, 5, 3, 0]]))  # 3 is <eos>, 0 is padding
        >>> float(diversity.compute()["distinct_1"])
        0.6
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, compared: int = 200) -> None:
        super().__init__()
        if compared < 2:
            raise ValueError(f"compared must be at least 2, not {compared}")
        self.compared = compared
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, x: Tensor) -> None:
        """Add sentences ``(B, T)``; all batches have the same T."""
        self.rows.append(x)

    def compute(self) -> dict[str, Tensor]:
        rows = dim_zero_cat(self.rows).tolist()
        sentences = [[token for token in row if token not in (PAD, END)] for row in rows]
        values = {f"distinct_{n}": distinct(sentences, n) for n in (1, 2)}
        values["self_bleu"] = self_bleu(sentences[: self.compared])
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
