"""Sources of sentences: text files with one per line, parquet files or the Hub, or the package."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lebm.data.sources import EMBEDDED, Source, find_source, reading
from lebm.data.splits import VALIDATION_SPLITS
from lebm.errors import UserError

__all__ = ["LONGEST_LINE", "Sentences", "open_text", "text_splits"]

TEXT_COLUMNS = ("text", "sentence", "sentences", "premise", "content", "question")
LONGEST_LINE = 1_000_000
"""In bytes. A longer line is not a sentence: the file probably has no line breaks."""


@dataclass(frozen=True)
class Sentences:
    """The sentences of one split, in order.

    Attributes:
        texts: the sentences that are not empty.
        rows: the row (or line, from 0) of each sentence in its source.
        empty: number of empty rows; they are left out.
        skipped: number of rows that were left out because they could not be read.
    """

    texts: list[str]
    rows: list[int]
    empty: int = 0
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.texts)


def text_splits(path: str, config_name: str | None = None, revision: str | None = None) -> list[str]:
    """The names of the splits of a source of sentences.

    Raises:
        UserError: if there is nothing readable.
    """
    files = _text_files(path)
    if files:
        return list(files)
    with reading(_source(path, config_name, revision)) as reader:
        return reader.split_names()


_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx")


def open_text(
    path: str,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    on_error: str = "fail",
) -> Sentences:
    """Read one split of sentences.

    Args:
        path: a text file; a folder with ``train.txt`` and the like; parquet; a Hub name; or
            ``embedded:verses``.
        split: name of the split. ``None`` takes the only split; if there are several, it takes ``test``.
        config_name: configuration (subset) of a Hub data set.
        revision: revision of a Hub data set.
        text_column: column of the sentences; detected if ``None``.
        on_error: ``"fail"`` on a line that is not UTF-8 or longer than ``LONGEST_LINE``
            bytes, or ``"skip"`` it.

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
    files = _text_files(path)
    names = list(files) or text_splits(path, config_name, revision)
    if split is None:
        split = names[0] if len(names) == 1 else "test"
    if split not in names:
        raise UserError(f"data path {path!r}: no split {split!r}; it has {', '.join(names)}")
    if files:
        found = _lines(files[split], on_error)
    else:
        found = _column(_source(path, config_name, revision), split, text_column, on_error)
    if not found.texts:
        raise UserError(
            f"data path {path!r}: the split {split!r} holds no sentences (one per line is expected)"
        )
    return found


def _text_files(path: str) -> dict[str, Path]:
    """The text file of each split; empty if the path does not lead to text files."""
    location = Path(os.path.expanduser(path))
    if location.is_file() and location.suffix.lower() in _TABLES:
        raise UserError(
            f"data path {path!r}: a table must be parquet; or give a text file, one sentence per line"
        )
    if location.is_file() and location.suffix.lower() != ".parquet":
        return {"train": location}
    names = ("train", *VALIDATION_SPLITS, "test")
    return {name: location / f"{name}.txt" for name in names if (location / f"{name}.txt").is_file()}


def _source(path: str, config_name: str | None, revision: str | None) -> Source:
    if not path.startswith(EMBEDDED) and Path(path).is_dir() and not any(Path(path).rglob("*.parquet")):
        raise UserError(
            f"data path {path!r}: the folder has neither train.txt, validation.txt and test.txt nor parquet"
            " files"
        )
    return find_source(path, config_name, revision)


def _lines(file: Path, on_error: str) -> Sentences:
    with file.open("rb") as lines:
        return _gathered(
            enumerate(part for line in lines for part in line.rstrip(b"\r\n").split(b"\r")),
            f"{file}: line",
            1,
            on_error,
        )


def _column(source: Source, split: str, column: str | None, on_error: str) -> Sentences:
    with tempfile.TemporaryDirectory() as scratch, reading(source, Path(scratch)) as reader:
        table = reader.split(split)
        column = column or next((name for name in TEXT_COLUMNS if name in table.column_names), None)
        if column not in table.column_names:
            known = ", ".join(table.column_names)
            raise UserError(
                f"data path {source.path!r}: no text column {repr(column) + ' ' if column else ''}found; set"
                f" text_column to one of {known}"
            )
        values: list[Any] = table[column][:]
    if any(value is not None and not isinstance(value, str) for value in values):
        raise UserError(
            f"data path {source.path!r}: the column {column!r} does not hold text; set text_column"
        )
    return _gathered(
        ((number, (value or "").encode("utf-8", "surrogatepass")) for number, value in enumerate(values)),
        f"{source.path} ({split}): row",
        0,
        on_error,
    )


def _gathered(lines: Iterable[tuple[int, bytes]], where: str, first: int, on_error: str) -> Sentences:
    texts, rows, empty, skipped = [], [], 0, 0
    for number, line in lines:
        if number == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
        reason = ""
        if len(line) > LONGEST_LINE:
            reason = (
                f"has {len(line):,} bytes, and no sentence is longer than {LONGEST_LINE:,}: write one"
                " sentence per line"
            )
        else:
            try:
                text = " ".join(line.decode("utf-8").split())
            except UnicodeDecodeError as error:
                reason = (
                    f"is not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x}): convert the file"
                )
        if reason and on_error == "fail":
            raise UserError(f"{where} {number + first} {reason}, or leave such lines out with on_error: skip")
        if reason:
            skipped += 1
        elif text:
            texts.append(text)
            rows.append(number)
        else:
            empty += 1
    return Sentences(texts, rows, empty, skipped)
