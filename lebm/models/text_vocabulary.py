"""From sentences to token numbers and back; a vocabulary is plain text and fits into a checkpoint."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lebm.errors import UserError

__all__ = ["END", "PAD", "START", "UNKNOWN", "Vocabulary", "pad_rows"]

PAD, START, UNKNOWN, END = 0, 1, 2, 3
SPECIAL = ("<pad>", "<bos>", "<unk>", "<eos>")
BYTES = 256

# The mark of unknown words in prepared corpora, a word with its inner apostrophes and hyphens, or a sign.
WORD = r"<unk>|\w+(?:['’-]\w+)*|[^\w\s]"
_NO_SPACE_BEFORE = re.compile(r" (?=[,.;:!?)\]}’”%])")
_NO_SPACE_AFTER = re.compile(r"(?<=[(\[{“$]) ")


class Vocabulary:
    """The tokens of a training split, made by the ``tokenizers`` library.

    ``<pad>``, ``<bos>``, ``<unk>`` and ``<eos>`` are tokens 0 to 3. In a sentence their names are ordinary
    text, except ``<unk>``: prepared corpora write it for unknown words.

    Args:
        text: the text that :meth:`to_json` returns.

    Raises:
        UserError: if the text is not such a vocabulary.

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
        except Exception as error:  # the library raises bare Exception
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
            size: largest number of tokens, the four special tokens included. The most frequent
                words or byte pairs are used.
            kind: ``"word"`` (words and single signs; all others are unknown) or ``"bpe"`` (byte pairs;
                nothing is unknown).
            lowercase: whether all letters become lower case.

        Raises:
            ValueError: if ``size`` leaves no room for words.
        """
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        least = len(SPECIAL) + (BYTES if kind == "bpe" else 1)
        if size < least:
            raise ValueError(f"vocabulary_size must be at least {least} for tokenizer {kind!r}, not {size}")
        normalizer = normalizers.Sequence(
            [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
        )
        if kind == "word":
            splitter = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
            counts = Counter(
                word
                for sentence in sentences
                for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(sentence))
            )
            words = sorted(
                (word for word in counts if word not in SPECIAL), key=lambda word: (-counts[word], word)
            )
            numbers = {word: number for number, word in enumerate([*SPECIAL, *words][:size])}
            tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=SPECIAL[UNKNOWN]))
            tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
        else:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.normalizer = normalizer
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
            )
            tokenizer.train_from_iterator(sentences, trainer)
        return cls(tokenizer.to_str())

    def to_json(self) -> str:
        """The whole vocabulary as text."""
        return self._tokenizer.to_str()

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return Vocabulary, (self.to_json(),)

    def encode(self, sentences: Sequence[str], max_length: int) -> list[list[int]]:
        """Token numbers of each sentence, at most ``max_length`` per sentence.

        A sentence that fits ends with ``<eos>``. A longer sentence is cut and has no ``<eos>``, because it
        does not end there.
        """
        rows = []
        for encoding in self._tokenizer.encode_batch(list(sentences), add_special_tokens=False):
            tokens = encoding.ids
            rows.append([*tokens, END] if len(tokens) < max_length else tokens[:max_length])
        return rows

    def decode(self, tokens: Tensor) -> list[str]:
        """Sentences from token numbers ``(B, T)``, each up to its first ``<eos>`` or ``<pad>``.

        Numbers without a meaning become ``<unk>``.
        """
        from tokenizers import models

        words = isinstance(self._tokenizer.model, models.WordLevel)
        sentences = []
        for row in tokens.tolist():
            stop = next((length for length, token in enumerate(row) if token in (END, PAD)), len(row))
            kept = [token if token < len(self) and token != START else UNKNOWN for token in row[:stop]]
            if words:
                sentences.append(
                    _joined([self._tokenizer.id_to_token(token) or SPECIAL[UNKNOWN] for token in kept])
                )
            else:
                sentences.append(self._tokenizer.decode(kept, skip_special_tokens=False))
        return sentences


def _joined(words: Sequence[str]) -> str:
    """Words as text, with spaces where printed text has them."""
    return _NO_SPACE_AFTER.sub("", _NO_SPACE_BEFORE.sub("", " ".join(words)))


def pad_rows(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows as ``(B, T)`` of ``int64``, filled up with ``<pad>``; T is the length of the longest row."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], dtype=torch.int64)
