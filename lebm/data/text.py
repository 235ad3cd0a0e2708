"""Sentences for every method: text files with one sentence per line, parquet, the Hub and the package."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lebm.data.loader import ShardedBatchSampler
from lebm.data.module import SplitData
from lebm.data.rows import LengthBatchSampler, Rows, TextRows
from lebm.data.sources import find_source, reading
from lebm.data.splits import VALIDATION_SPLITS, check_size, chosen_splits, existing_split
from lebm.errors import UserError, at_least, data_error
from lebm.models.text_likelihood import END, UNKNOWN, CategoricalLikelihood, Vocabulary

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what Python makes of bytes that are not UTF-8
TEXT_COLUMNS = ("text", "sentence", "sentences", "premise", "content", "question")


@dataclass(frozen=True)
class Sentences:
    """The sentences of one split, in order.

    Attributes:
        texts: the sentences that are not empty.
        rows: the row (or line, from 0) of each sentence in its source.
        empty: number of skipped empty rows.
        skipped: number of skipped unreadable rows.
    """

    texts: list[str]
    rows: list[int]
    empty: int = 0
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.texts)


def text_splits(path: str, config_name: str | None = None, revision: str | None = None) -> list[str]:
    """Return the split names of a source of sentences."""
    files = _text_files(path)
    if files:
        return list(files)
    with reading(find_source(path, config_name, revision)) as reader:
        return reader.split_names()


def open_text(
    path: str,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    on_error: str = "fail",
) -> Sentences:
    """Read one split of sentences; the other arguments are those of :class:`TextData`.

    Args:
        path: a text file; a folder with ``train.txt`` and the like; parquet; a Hub name; or
            ``embedded:verses``.
        split: name of the split. ``None`` takes the only split; if there are several, it takes the first of
            test, validation and train that exists.

    Returns:
        The sentences, with the number of each row.

    Raises:
        UserError: if the source cannot be read; the message has one line and names file and line.

    Example:
        >>> from lebm.data import open_text
        >>> verses = open_text("embedded:verses", "test")
        >>> len(verses), verses.texts[0][:16]
        (300, 'Rejoice over her')
    """
    split = existing_split(path, text_splits(path, config_name, revision), split)
    files = _text_files(path)
    if files:
        where, first = f"{files[split]}: line", 1
        with files[split].open(encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = list(file)
    else:
        where, first = f"{path} ({split}): row", 0
        with reading(find_source(path, config_name, revision)) as reader:
            table = reader.split(split)
            column = text_column or next((name for name in TEXT_COLUMNS if name in table.column_names), None)
            if column not in table.column_names:
                missing = f"no text column {column!r} found" if column else "no text column found"
                known = ", ".join(table.column_names)
                raise data_error(path, f"{missing}; set text_column to one of {known}")
            lines = ["" if value is None else value for value in table[column][:]]
        if not all(isinstance(value, str) for value in lines):
            raise data_error(path, f"the column {column!r} does not hold text; set text_column")
    found: dict[int, str] = {}  # sentences by row
    for row, line in enumerate(lines):
        if not _NOT_UTF8.search(line):
            found[row] = " ".join(line.split())
        elif on_error == "fail":
            hint = "convert the file, or skip such lines with on_error: skip"
            raise UserError(f"{where} {row + first} is not UTF-8: {hint}")
    texts = {row: text for row, text in found.items() if text}
    if not texts:
        raise data_error(path, f"the split {split!r} holds no sentences (one per line is expected)")
    return Sentences([*texts.values()], [*texts], len(found) - len(texts), len(lines) - len(found))


def _text_files(path: str) -> dict[str, Path]:
    """Return the text file of each split; empty if the path does not lead to text files."""
    location = Path(os.path.expanduser(path))
    if location.is_file() and location.suffix.lower() in _TABLES:
        raise data_error(path, "not a parquet table or a text file with one sentence per line")
    if location.is_file() and location.suffix.lower() != ".parquet":
        return {"train": location}
    names = ("train", *VALIDATION_SPLITS, "test")
    files = {name: location / f"{name}.txt" for name in names if (location / f"{name}.txt").is_file()}
    if location.is_dir() and not files and not any(location.rglob("*.parquet")):
        wanted = "neither train.txt, validation.txt and test.txt nor parquet files"
        raise data_error(path, f"the folder has {wanted}")
    return files


class TextData(SplitData):
    """A data module with batches ``{"x", "index"}`` of sentences.

    ``x`` is ``(B, T)`` ``int64`` token numbers, padded with 0 to the longest sentence of the batch. The
    vocabulary is learned from the training rows, given to the model at setup, and stored in checkpoints. A
    sentence of at most ``max_length - 1`` tokens ends with ``<eos>``; a longer sentence is cut to
    ``max_length`` tokens without ``<eos>``. Empty lines are skipped.

    Args:
        path: a folder with ``train.txt``, ``validation.txt`` and ``test.txt``, one sentence per line; a text
            file; parquet files or a Hub name with a text column; or ``embedded:verses``.
        config_name: configuration (subset) of a Hub data set.
        revision: revision of a Hub data set, which fixes the content.
        tokenizer: ``word`` (words and single signs, as in the papers) or ``bpe`` (byte pairs; no word is
            unknown).
        vocabulary_size: largest number of tokens, including four special tokens; equal to the generator's.
        lowercase: whether all letters become lower case.
        max_length: largest number of tokens in a sentence; equal to the generator's.
        batch_size: sentences of a training step over all processes together, whose number must divide it.
        eval_batch_size: sentences of an evaluation batch; ``null`` is ``batch_size``.
        by_length: whether the sentences of a training batch have similar lengths.
        text_column: column of the sentences; detected if ``null``.
        train_split: name of the split for training.
        test_split: name of the split for testing; ``null`` for none.
        validation_size: number of training sentences for validation, or a share of them above 0 and below 1,
            chosen by a seeded permutation, if the source has no validation split.
        seed: seed of the permutations and of the order of training.
        limit_train: number of training sentences, chosen at random; ``null`` for all.
        limit_eval: number of validation sentences, and of test sentences, chosen at random; ``null`` for all.
        on_error: ``fail`` for an error on a line that is not UTF-8, ``skip`` to skip it.

    Raises:
        UserError: in :meth:`setup`, if the data cannot be read or do not fit the arguments.
        ValueError: for arguments out of range.

    Example:
        >>> from lebm.data import TextData
        >>> data = TextData("embedded:verses", max_length=30, batch_size=20, limit_train=200)
        >>> data.setup()
        >>> len(data.train), data.train.tokens([0, 1]).shape
        (200, torch.Size([2, 18]))
    """

    noun = "sentences"
    described = (
        *("path", "tokenizer", "lowercase", "max_length", "batch_size", "by_length"),
        *("validation_size", "seed", "limit_train", "limit_eval"),
    )
    ordering = ("sizes", "batch_size", "seed", "by_length", "max_length")

    train: TextRows
    validation: TextRows | None
    test: TextRows | None
    vocabulary: Vocabulary | None = None

    def __init__(
        self,
        path: str,
        config_name: str | None = None,
        revision: str | None = None,
        tokenizer: Literal["word", "bpe"] = "word",
        vocabulary_size: int = 10000,
        lowercase: bool = True,
        max_length: int = 40,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        by_length: bool = True,
        text_column: str | None = None,
        train_split: str = "train",
        test_split: str | None = "test",
        validation_size: int | float = 0,
        seed: int = 0,
        limit_train: int | None = None,
        limit_eval: int | None = None,
        on_error: Literal["fail", "skip"] = "fail",
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        at_least(1, limit_train=limit_train, limit_eval=limit_eval)
        at_least(1, max_length=max_length, vocabulary_size=vocabulary_size)
        check_size("validation_size", validation_size)
        self.path, self.train_split, self.test_split = path, train_split, test_split
        self.tokenizer: Literal["word", "bpe"] = tokenizer
        self.vocabulary_size, self.lowercase, self.max_length = vocabulary_size, lowercase, max_length
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.by_length, self.validation_size, self.seed = by_length, validation_size, seed
        self.limit_train, self.limit_eval = limit_train, limit_eval
        self._where: dict[str, Any] = {"config_name": config_name, "revision": revision}
        self._how: dict[str, Any] = {"text_column": text_column, "on_error": on_error}

    # Reading

    def prepare_data(self) -> None:
        """Download data from the Hub if needed; Lightning calls this in one process per machine."""
        self._sentences()

    def _sentences(self) -> dict[str, Sentences]:
        names = text_splits(self.path, **self._where)
        chosen = chosen_splits(self.path, names, self.train_split, self.test_split)
        return {part: open_text(self.path, name, **self._where, **self._how) for part, name in chosen.items()}

    def setup(self, stage: str | None = None) -> None:
        """Read and encode the splits in the first call, and give the vocabulary to the model."""
        if self._used is None:
            self._read()
        if self.trainer is not None:
            assert self.vocabulary is not None
            for module in self.trainer.lightning_module.modules():
                if isinstance(module, CategoricalLikelihood):
                    module.adopt(self.vocabulary)

    def _read(self) -> None:
        sentences = self._sentences()
        kept = self._divided({part: np.arange(len(found)) for part, found in sentences.items()}, self.seed)
        texts = {
            part: [sentences.get(part, sentences["train"]).texts[row] for row in rows]
            for part, rows in kept.items()
        }
        how = self.vocabulary_size, self.tokenizer, self.lowercase
        self.vocabulary = self.vocabulary or Vocabulary.learn(texts["train"], *how)
        encoded = {part: self.vocabulary.encode(lines, self.max_length) for part, lines in texts.items()}
        splits = {part: TextRows(rows) for part, rows in encoded.items()}
        self.train, self.validation, self.test = splits["train"], splits.get("validation"), splits.get("test")
        self._used = {
            **self._where,
            "vocabulary": len(self.vocabulary),
            "tokens": {part: int(split.lengths.sum()) for part, split in splits.items()},
            "unknown": {
                part: round(sum(row.count(UNKNOWN) for row in rows) / sum(map(len, rows)), 5)
                for part, rows in encoded.items()
            },
            "cut": {
                part: round(sum(row[-1] != END for row in rows) / len(rows), 5)
                for part, rows in encoded.items()
            },
            "empty": {part: found.empty for part, found in sentences.items()},
            "skipped": {part: found.skipped for part, found in sentences.items()},
        }

    def rows(self, split: str | None = None, limit: int | None = None) -> Rows:
        if split is None and self.test_split in text_splits(self.path, **self._where):
            split = self.test_split
        found = open_text(self.path, split, **self._where, **self._how)
        if self.vocabulary is None:
            self.setup()
        assert self.vocabulary is not None
        encoded = self.vocabulary.encode(found.texts[:limit], self.max_length)
        unknown, total = sum(row.count(UNKNOWN) for row in encoded), sum(map(len, encoded))
        notes = [f"{unknown} of {total} tokens unknown"] if unknown else []
        left_out = {"empty": found.empty, "unreadable": found.skipped}
        notes += [f"{count} {what} lines left out" for what, count in left_out.items() if count]
        source = f"{self.path} ({', '.join(notes)})" if notes else self.path
        return Rows(TextRows(encoded), source, np.arange(len(encoded)), {"index": found.rows})

    def _training_sampler(self, **sharing: int) -> ShardedBatchSampler:
        if not self.by_length:
            return super()._training_sampler(**sharing)
        return LengthBatchSampler(self.train.lengths, self.batch_size, seed=self.seed, **sharing)
