"""How much generated sentences repeat each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import bleu_score

__all__ = ["SentenceDiversity", "distinct", "self_bleu"]


def distinct(sentences: Sequence[Sequence[int]], n: int) -> float:
    """Share of different n-grams among all n-grams of all sentences (Li et al. 2016), in (0, 1]; 0 if there
    is none.

    Args:
        sentences: token numbers of each, without ``<eos>`` and padding.
        n: length of the n-grams, at least 1.
    """
    grams = [
        tuple(sentence[start : start + n]) for sentence in sentences for start in range(len(sentence) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(sentences: Sequence[Sequence[int]], n: int = 4) -> float:
    """BLEU of all sentences together, each with all the others as its references (Zhu et al. 2018), in [0,
    1]; high where they repeat.

    Args:
        sentences: token numbers of each, at least two sentences; the time grows with the square of their
            number.
        n: longest n-gram.

    Raises:
        ValueError: for fewer than two sentences.
    """
    if len(sentences) < 2:
        raise ValueError(
            f"self-BLEU compares sentences with each other: give at least two, not {len(sentences)}"
        )
    texts = [" ".join(map(str, sentence)) for sentence in sentences]
    return float(
        bleu_score(texts, [[*texts[:place], *texts[place + 1 :]] for place in range(len(texts))], n_gram=n)
    )


class SentenceDiversity(Metric):
    """``distinct_1``, ``distinct_2`` and ``self_bleu`` of generated sentences.

    Args:
        compared: self-BLEU looks at the first so many sentences only.
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
        """Take sentences ``(B, T)``, every time of the same T."""
        self.rows.append(x)

    def compute(self) -> dict[str, Tensor]:
        from lebm.models.text_vocabulary import END, PAD

        rows = torch.cat(list(self.rows)) if isinstance(self.rows, list) else self.rows
        sentences = [[token for token in row if token not in (PAD, END)] for row in rows.tolist()]
        figures = {f"distinct_{n}": distinct(sentences, n) for n in (1, 2)}
        figures["self_bleu"] = self_bleu(sentences[: self.compared])
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}
