"""The likelihood of a sentence: one categorical distribution a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lebm.errors import UserError
from lebm.models.likelihoods import Likelihood
from lebm.models.sequence_generators import NEVER_WRITTEN, SequenceGenerator
from lebm.models.text_vocabulary import END, PAD, START, UNKNOWN, Vocabulary, pad_rows
from lebm.samplers.noise import RandomSource, uniform

__all__ = ["CategoricalLikelihood", "sentence_likelihood"]


class CategoricalLikelihood(Likelihood):
    """``log p(x | z) = sum_t log p(x_t | x_<t, z)`` over the words of a sentence and its ``<eos>``.

    Sentences are ``(B, T)`` of ``int64``, filled up with ``<pad>`` after their ends, which counts for
    nothing.

    Args:
        generator: the network.
        word_dropout: share of the words that the generator is told as ``<unk>`` while it is trained (Bowman
            et al. 2016), which makes it rely on z; in [0, 1). The words it has to predict, and chains, are
            left alone.

    Raises:
        ValueError: if ``word_dropout`` is out of range.
    """

    generator: SequenceGenerator

    def __init__(self, generator: SequenceGenerator, word_dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= word_dropout < 1:
            raise ValueError(f"word_dropout must be in [0, 1), not {word_dropout}")
        self.generator = generator
        self.word_dropout = word_dropout
        self.latent_dim = generator.latent_dim
        self.vocabulary: Vocabulary | None = None

    # Densities

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return self.given(x)(z)

    def given(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        previous, place = _moved_right(x), _words(x)
        return lambda z: self._log_prob(self.generator.features(z, previous), x, place)

    def training_log_prob(self, x: Tensor, z: Tensor, generator: RandomSource = None) -> Tensor:
        """:meth:`log_prob` with dropout: of words from ``generator``, of network entries from torch's own
        generator.
        """
        previous = _moved_right(x)
        if self.word_dropout:
            # for all positions a sentence can have, so that the numbers do not depend on how far this batch
            # is padded
            chance = uniform(
                generator, (len(x), self.generator.max_length), dtype=torch.float32, device=x.device
            )
            dropped = chance[:, : x.shape[1]] < self.word_dropout
            previous = torch.where(dropped & (previous > END), UNKNOWN, previous)
        return self._log_prob(self.generator.features(z, previous, dropping=self.training), x, _words(x))

    def _log_prob(self, features: Tensor, x: Tensor, place: Tensor) -> Tensor:
        logits = self.generator.output(features.flatten(0, 1)[place])
        surprise = cross_entropy(logits, x.flatten()[place] - NEVER_WRITTEN, reduction="none")
        return -surprise.new_zeros(x.numel()).index_copy(0, place, surprise).view(x.shape).sum(dim=1)

    # Sentences

    def mean(self, z: Tensor) -> Tensor:
        """The sentence of the most likely next words, ``(B, max_length)``."""
        return self._write(z, lambda logits, place: logits.argmax(dim=1))

    def sample(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        """A draw from ``p(x | z)``, word after word, ``(B, max_length)``."""
        chance = uniform(generator, (len(z), self.generator.max_length), dtype=torch.float64, device=z.device)

        def draw(logits: Tensor, place: int) -> Tensor:
            cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
            threshold = chance[:, place : place + 1] * cumulative[:, -1:]
            return (
                torch.searchsorted(cumulative, threshold, right=True)
                .squeeze(1)
                .clamp(max=logits.shape[1] - 1)
            )

        return self._write(z, draw)

    def draw(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        return self.sample(z, generator)

    def _write(self, z: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Word after word until all sentences have ended."""
        words = z.new_full((len(z), self.generator.max_length), PAD, dtype=torch.int64)
        latest, state = words.new_full((len(z),), START), None
        going = torch.ones_like(latest, dtype=torch.bool)
        for place in range(self.generator.max_length):
            features, state = self.generator.step(z, latest, state)
            latest = torch.where(going, choose(self.generator.output(features), place) + NEVER_WRITTEN, PAD)
            words[:, place] = latest
            going = going & (latest != END)
            if not going.any():
                break
        return words

    # The vocabulary

    def adopt(self, vocabulary: Vocabulary) -> None:
        """Take the words of the data; checkpoints carry them from then on.

        Raises:
            UserError: if there are more words than the generator knows.
        """
        if len(vocabulary) > self.generator.vocabulary_size:
            raise UserError(
                f"the data have {len(vocabulary)} tokens but the generator's vocabulary_size is"
                f" {self.generator.vocabulary_size}"
            )
        self.vocabulary = vocabulary

    def read(self, sentences: Sequence[str]) -> Tensor:
        """Sentences as observations, ``(B, T)``."""
        assert self.vocabulary is not None
        return pad_rows(self.vocabulary.encode(sentences, self.generator.max_length))

    def spell(self, x: Tensor) -> list[str]:
        """Observations ``(B, T)`` as sentences."""
        assert self.vocabulary is not None
        return self.vocabulary.decode(x)

    def get_extra_state(self) -> dict[str, Any]:
        return {"vocabulary": None if self.vocabulary is None else self.vocabulary.to_json()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        text = state["vocabulary"]
        stored = None if text is None else Vocabulary(text)
        if self.vocabulary is not None and stored is not None and stored != self.vocabulary:
            raise UserError(
                "the checkpoint was trained with another vocabulary than these data give; use the data,"
                " tokenizer and vocabulary_size of its run, or lebm score for other sentences"
            )
        self.vocabulary = stored if self.vocabulary is None else self.vocabulary


def sentence_likelihood(model: torch.nn.Module) -> CategoricalLikelihood | None:
    """The likelihood of a model of sentences; ``None`` for a model of something else.

    Raises:
        UserError: if a model of sentences never saw data.
    """
    found = next((module for module in model.modules() if isinstance(module, CategoricalLikelihood)), None)
    if found is not None and found.vocabulary is None:
        raise UserError(
            "this model of sentences has no vocabulary yet: it gets the one of the data it is trained on"
        )
    return found


def _moved_right(x: Tensor) -> Tensor:
    """What a generator is told: ``<bos>`` and all words but the last."""
    return torch.cat([torch.full_like(x[:, :1], START), x[:, :-1]], dim=1)


def _words(x: Tensor) -> Tensor:
    """Numbers of the positions that hold a word, in the flattened batch."""
    return (x != PAD).flatten().nonzero().squeeze(1)
