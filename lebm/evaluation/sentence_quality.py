"""The quality of sampled sentences, and how much a model of sentences uses its latents."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lebm.data.rows import TextRows
from lebm.estimators.base import LatentEstimator
from lebm.evaluation.sentence_bounds import likelihood_of_sentences
from lebm.metrics.text_diversity import SentenceDiversity
from lebm.metrics.text_latents import LatentUse
from lebm.metrics.text_perplexity import Budget, LanguageModelPerplexity
from lebm.models.text_vocabulary import PAD
from lebm.samplers.noise import Noise

__all__ = ["SampleQuality"]


class SampleQuality:
    """Forward and reverse perplexity, diversity of samples, and use of the latents.

    Two language models judge sentences. They are trained here, with the budget of the arguments. The forward
    model learns from ``n`` training sentences and judges ``n`` samples. The reverse model learns from the
    samples and judges the sentences of the batches. Call :meth:`begin`, then :meth:`update` for every batch,
    then :meth:`compute`. It works in one process only.

    Args:
        n: number of samples, and of training sentences for the forward model; at least 2.
        compared: sentences that self-BLEU compares; at least 2.
        steps: training steps of a language model.
        hidden: width of the language models.
        seed: of samples and language models.

    Attributes:
        counts: number of sentences behind each value. For a perplexity, these are the judged sentences.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> from lebm.evaluation.sentence_quality import SampleQuality
        >>> SampleQuality(n=100, steps=5).protocol["language_model"]["steps"]
        5
    """

    def __init__(
        self, n: int = 2000, compared: int = 200, steps: int = 500, hidden: int = 128, seed: int = 0
    ) -> None:
        if min(n, compared) < 2 or min(steps, hidden) < 1:
            raise ValueError("n and compared must be at least 2, steps and hidden at least 1")
        self.n, self.compared, self.seed = n, compared, seed
        self.budget = Budget(steps=steps, hidden=hidden, seed=seed)
        self.counts: dict[str, int] = {}
        self._use: LatentUse | None = None
        self._samples = torch.empty(0)
        self._real: list[Tensor] = []

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings, as plain values."""
        return {
            "samples": self.n,
            "compared": self.compared,
            "language_model": dataclasses.asdict(self.budget),
        }

    def begin(self, model: LatentEstimator) -> None:
        """Forget earlier batches, and draw the samples.

        Raises:
            UserError: if the model is not one of sentences.
        """
        likelihood_of_sentences(model, "SentenceQuality")
        self._use = LatentUse(model.latent_dim).to(model.device)
        self._samples = model.sample(self.n, generator=Noise.shards(self.seed, "sentence quality"))
        self._real = []

    def update(self, model: LatentEstimator, x: Tensor, z: Tensor, index: Tensor) -> None:
        """Take a batch.

        Args:
            model: of sentences.
            x: sentences ``(B, T)``.
            z: a posterior draw for each sentence, ``(B, latent_dim)``.
            index: numbers of the sentences, ``(B,)``, which key the noise of a second draw.
        """
        assert self._use is not None, "begin comes first"
        other = model.encode(x, generator=model.sample_noise("second draw", index))
        likelihood = likelihood_of_sentences(model, "SentenceQuality").given(x)
        with torch.no_grad():
            own, foreign = likelihood(z), likelihood(z.roll(1, 0))
        self._use.update(z, other, own, foreign if len(x) > 1 else foreign[:0])
        self._real.append(x)

    def compute(self, model: LatentEstimator, train: TextRows) -> dict[str, float]:
        """Train the language models, and forget the batches.

        Args:
            model: of sentences.
            train: the training split, from which the forward model learns.

        Returns:
            ``forward_perplexity``, ``reverse_perplexity``, ``distinct_1``, ``distinct_2``, ``self_bleu``,
            ``active_units``, ``posterior_mean_variance`` and ``latent_nats``. ``real_distinct_1``,
            ``real_distinct_2`` and ``real_self_bleu`` are the same of an equal number of real sentences.
        """
        assert self._use is not None, "begin comes first"
        generator = likelihood_of_sentences(model, "SentenceQuality").generator
        size, length = generator.vocabulary_size, generator.max_length
        forward = LanguageModelPerplexity(size, self.budget).to(model.device)
        reverse = LanguageModelPerplexity(size, self.budget).to(model.device)
        varied = SentenceDiversity(self.compared).to(model.device)
        real = SentenceDiversity(self.compared).to(model.device)
        test = torch.cat([_padded(x, length) for x in self._real])
        forward.update(self._learned(train, length).to(model.device), learn=True)
        forward.update(self._samples, learn=False)
        reverse.update(self._samples, learn=True)
        reverse.update(test, learn=False)
        # The numbers are equal, because the share of different words falls with the number of sentences.
        compared = min(len(test), self.n)
        varied.update(self._samples[:compared])
        real.update(test[:compared])
        variety, use = varied.compute(), self._use.compute()
        values = {
            "forward_perplexity": forward.compute(),
            "reverse_perplexity": reverse.compute(),
            **variety,
            **{f"real_{name}": value for name, value in real.compute().items()},
            **use,
        }
        counts = {"forward_perplexity": len(self._samples), "reverse_perplexity": len(test)}
        for name in variety:
            count = min(compared, self.compared) if name == "self_bleu" else compared
            counts[name] = counts[f"real_{name}"] = count
        for name in use:
            counts[name] = int(self._use.compared if name == "latent_nats" else self._use.count)
        self.counts = counts
        self._use, self._real, self._samples = None, [], torch.empty(0)
        return {name: float(value) for name, value in values.items()}

    def _learned(self, train: TextRows, length: int) -> Tensor:
        """``n`` training sentences, chosen by the seed, ``(n, length)``."""
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(len(train), generator=generator)[: self.n]
        return _padded(train.tokens(rows.numpy()), length)


def _padded(x: Tensor, length: int) -> Tensor:
    return pad(x, (0, length - x.shape[1]), value=PAD)
