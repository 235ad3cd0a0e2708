"""The likelihood of a sentence: one categorical distribution per word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from lebm.errors import UserError
from lebm.models.likelihoods import Likelihood
from lebm.models.sequence_generators import NEVER_WRITTEN, SequenceGenerator
from lebm.samplers.noise import RandomSource, uniform

PAD, START, UNKNOWN, END = 0, 1, 2, 3
SPECIAL = ("<pad>", "<bos>", "<unk>", "<eos>")
BYTES = 256

# <unk> of prepared corpora, a word with its inner apostrophes and hyphens, or a sign.
WORD = r"<unk>|\w+(?:['’-]\w+)*|[^\w\s]"
_NO_SPACE_BEFORE = re.compile(r" (?=[,.;:!?)\]}’”%])")
_NO_SPACE_AFTER = re.compile(r"(?<=[(\[{“$]) ")


class Vocabulary:
    """The tokens of a training split, computed by the ``tokenizers`` library.

    ``<pad>``, ``<bos>``, ``<unk>`` and ``<eos>`` are tokens 0 to 3. In a sentence their names are ordinary
    text, except for ``<unk>``, which stands for unknown words in prepared corpora.

    Args:
        text: output of :meth:`to_json`.

    Raises:
        UserError: if the text is not a vocabulary of lebm.

    Example:
        >>> import torch
        >>> from lebm.models import Vocabulary
        >>> vocabulary = Vocabulary.learn(["the cat sat.", "the dog sat."], size=50)
        >>> rows = vocabulary.encode(["The cat sat."], max_length=10)
        >>> rows, vocabulary.decode(torch.tensor(rows))
        ([[6, 7, 5, 4, 3]], ['the cat sat.'])
    """

    def __init__(self, text: str) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(f"not a readable vocabulary: {str(error).splitlines()[0]}") from error
        if [self._tokenizer.id_to_token(number) for number in range(len(SPECIAL))] != list(SPECIAL):
            raise UserError(f"not a vocabulary of lebm: its first tokens must be {', '.join(SPECIAL)}")
        self._tokenizer.encode_special_tokens = True

    @classmethod
    def learn(
        cls,
        sentences: Iterable[str],
        size: int,
        kind: Literal["word", "bpe"] = "word",
        lowercase: bool = True,
    ) -> Vocabulary:
        """Build a vocabulary; the same sentences give the same vocabulary.

        Args:
            sentences: the training split.
            size: largest number of tokens, the four special tokens included; the most frequent words or byte
                pairs are used.
            kind: ``"word"`` (words and single signs; other words are unknown) or ``"bpe"`` (byte pairs,
                without unknown words).
            lowercase: whether text is converted to lower case.

        Raises:
            ValueError: if ``size`` is too small for any word.
        """
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        least = len(SPECIAL) + (BYTES if kind == "bpe" else 1)
        if size < least:
            raise ValueError(f"vocabulary_size must be at least {least} for tokenizer {kind!r}, not {size}")
        lower = [normalizers.Lowercase()] if lowercase else []
        normalizer = normalizers.Sequence([normalizers.NFC(), *lower])
        if kind == "word":
            splitter = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
            counts = Counter(
                word
                for sentence in sentences
                for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(sentence))
            )
            words = sorted(counts.keys() - set(SPECIAL), key=lambda word: (-counts[word], word))
            numbers = {word: number for number, word in enumerate([*SPECIAL, *words][:size])}
            tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=SPECIAL[UNKNOWN]))
            tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
        else:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.normalizer, tokenizer.decoder = normalizer, decoders.ByteLevel()
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
            )
            tokenizer.train_from_iterator(sentences, trainer)
        return cls(tokenizer.to_str())

    def to_json(self) -> str:
        """Return the whole vocabulary as text."""
        return self._tokenizer.to_str()

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_json() == other.to_json()

    def __reduce__(self) -> Any:
        return Vocabulary, (self.to_json(),)

    def encode(self, sentences: Sequence[str], max_length: int) -> list[list[int]]:
        """Return the token numbers of each sentence, at most ``max_length`` per sentence.

        A sentence that fits ends with ``<eos>``; a longer sentence is cut and has no ``<eos>``.
        """
        encodings = self._tokenizer.encode_batch(list(sentences), add_special_tokens=False)
        return [[*encoding.ids, END][:max_length] for encoding in encodings]

    def decode(self, tokens: Tensor) -> list[str]:
        """Return the sentences of token numbers ``(B, T)``, each up to its first ``<eos>`` or ``<pad>``.

        Numbers outside the vocabulary become ``<unk>``.
        """
        from tokenizers import models

        words = isinstance(self._tokenizer.model, models.WordLevel)
        sentences = []
        for row in tokens.tolist():
            stop = next((length for length, token in enumerate(row) if token in (END, PAD)), len(row))
            kept = [token if token < len(self) and token != START else UNKNOWN for token in row[:stop]]
            if words:
                text = " ".join(self._tokenizer.id_to_token(token) or SPECIAL[UNKNOWN] for token in kept)
                sentences.append(_NO_SPACE_AFTER.sub("", _NO_SPACE_BEFORE.sub("", text)))
            else:
                sentences.append(self._tokenizer.decode(kept, skip_special_tokens=False))
        return sentences


class CategoricalLikelihood(Likelihood):
    """The model ``log p(x | z) = sum_t log p(x_t | x_<t, z)`` over the words of a sentence and its ``<eos>``.

    Sentences have the shape ``(B, T)``, ``int64``, padded with ``<pad>``, which adds nothing to the sum.

    Args:
        generator: the network.
        word_dropout: share of the input words that become ``<unk>`` in training, in [0, 1) (Bowman et al.
            2016). It makes the generator rely on z. The predicted words do not change, and chains run without
            word dropout.

    Attributes:
        vocabulary: the words of the data; ``None`` until :meth:`adopt` or a checkpoint sets it.

    Raises:
        ValueError: if ``word_dropout`` is out of range.

    Example:
        >>> import torch
        >>> from lebm.models import CategoricalLikelihood, RecurrentGenerator
        >>> likelihood = CategoricalLikelihood(RecurrentGenerator(4, vocabulary_size=50, max_length=12))
        >>> sentences = torch.tensor([[5, 6, 3], [7, 3, 0]])  # 3 is <eos> and 0 is <pad>
        >>> likelihood.log_prob(sentences, torch.zeros(2, 4)).shape
        torch.Size([2])
        >>> likelihood.sample(torch.zeros(2, 4)).shape
        torch.Size([2, 12])
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

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return self.given(x)(z)

    def given(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        previous, words = _moved_right(x), _words(x)
        return lambda z: self._log_prob(self.generator.features(z, previous), x, words)

    def training_log_prob(self, x: Tensor, z: Tensor, generator: RandomSource = None) -> Tensor:
        """Return :meth:`log_prob` with dropout, ``(B,)``.

        Word dropout uses ``generator``, dropout inside the network the default generator of torch.
        """
        previous = _moved_right(x)
        if self.word_dropout:
            # Drawn for all max_length positions, so that they do not depend on the padding of this batch.
            shape = (len(x), self.generator.max_length)
            chance = uniform(generator, shape, dtype=torch.float32, device=x.device)
            dropped = chance[:, : x.shape[1]] < self.word_dropout
            previous = torch.where(dropped & (previous > END), UNKNOWN, previous)
        return self._log_prob(self.generator.features(z, previous, dropping=self.training), x, _words(x))

    def _log_prob(self, features: Tensor, x: Tensor, words: Tensor) -> Tensor:
        logits = self.generator.output(features.flatten(0, 1)[words])
        surprise = cross_entropy(logits, x.flatten()[words] - NEVER_WRITTEN, reduction="none")
        return -surprise.new_zeros(x.numel()).index_copy(0, words, surprise).view(x.shape).sum(dim=1)

    def mean(self, z: Tensor) -> Tensor:
        """Return the sentences of the most likely next words, ``(B, max_length)``."""
        return self._write(z, lambda logits, position: logits.argmax(dim=1))

    def sample(self, z: Tensor, generator: RandomSource = None) -> Tensor:
        """Draw from ``p(x | z)``, word by word, ``(B, max_length)``."""
        chance = uniform(generator, (len(z), self.generator.max_length), dtype=torch.float64, device=z.device)

        def draw(logits: Tensor, position: int) -> Tensor:
            cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
            threshold = chance[:, position : position + 1] * cumulative[:, -1:]
            word = torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
            return word.clamp(max=logits.shape[1] - 1)

        return self._write(z, draw)

    draw = sample

    def _write(self, z: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Choose word by word until all sentences have ended."""
        words = z.new_full((len(z), self.generator.max_length), PAD, dtype=torch.int64)
        latest, state = words.new_full((len(z),), START), None
        going = torch.ones_like(latest, dtype=torch.bool)
        for position in range(self.generator.max_length):
            features, state = self.generator.step(z, latest, state)
            chosen = choose(self.generator.output(features), position) + NEVER_WRITTEN
            latest = torch.where(going, chosen, PAD)
            words[:, position] = latest
            going = going & (latest != END)
            if not going.any():
                break
        return words

    def adopt(self, vocabulary: Vocabulary) -> None:
        """Set the vocabulary of the data, which checkpoints then contain.

        Raises:
            UserError: if it has more tokens than the generator.
        """
        if len(vocabulary) > self.generator.vocabulary_size:
            raise UserError(
                f"the data have {len(vocabulary)} tokens but the generator's vocabulary_size is"
                f" {self.generator.vocabulary_size}"
            )
        self.vocabulary = vocabulary

    def read(self, sentences: Sequence[str]) -> Tensor:
        """Convert sentences to observations, ``(B, T)`` of ``int64``."""
        assert self.vocabulary is not None
        rows = self.vocabulary.encode(sentences, self.generator.max_length)
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)

    def spell(self, x: Tensor) -> list[str]:
        """Convert observations ``(B, T)`` to sentences."""
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


def _moved_right(x: Tensor) -> Tensor:
    """Return the input of a generator: ``<bos>`` and all words but the last."""
    return torch.cat([torch.full_like(x[:, :1], START), x[:, :-1]], dim=1)


def _words(x: Tensor) -> Tensor:
    """Return the indices of the positions that hold a word, in the flattened batch."""
    return (x != PAD).flatten().nonzero().squeeze(1)
