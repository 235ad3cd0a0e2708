"""Filling one folder of the image cache: find the columns, decode every row, write the rows in order."""

from __future__ import annotations

import itertools
import json
import os
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from lebm.data.decoding import Decoding, Range, UndecodableError
from lebm.data.sources import LABEL_COLUMNS, SPLIT_WORDS, Reader, Source
from lebm.errors import UserError, one_line

__all__ = ["FORMAT", "Columns", "build", "checksum", "labels_of"]

FORMAT = 3  # increase it when decoding changes: then old caches are not read
IMAGE_COLUMNS = ("image", "img", "images", "picture")
ROWS_AT_ONCE = 512
NAMES = "names.json"


@dataclass(frozen=True)
class Columns:
    """Names of the image column and the label column; ``None`` means that the column is detected."""

    image: str | None = None
    label: str | None = None

    def found(self, source: Source, features: Any) -> tuple[str, str | None]:
        """The names of the image column and of the label column, if there is one.

        Raises:
            UserError: if a named column does not exist, or there is no image column.
        """
        import datasets

        names = list(features)
        for argument, name in (("image_column", self.image), ("label_column", self.label)):
            if name is not None and name not in names:
                raise UserError(
                    f"data path {source.path!r}: no column {name!r} ({argument}); it has {', '.join(names)}"
                )
        images = [name for name in names if isinstance(features[name], datasets.Image)]
        image = self.image or next((name for name in (*images, *IMAGE_COLUMNS) if name in names), None)
        if image is None:
            raise UserError(
                f"data path {source.path!r}: no image column among {', '.join(names)}; name it with"
                " image_column"
            )
        classes = [name for name in names if isinstance(features[name], datasets.ClassLabel)]
        # Of images directly in the folders of splits on the Hub, `datasets` makes these folders classes.
        folders = [name for name in classes if SPLIT_WORDS.keys() >= set(features[name].names)]
        detected = (
            name
            for name in (*LABEL_COLUMNS, *classes)
            if name in names and name != image and name not in folders
        )
        return image, self.label or next(detected, None)


def build(
    folder: Path, reader: Reader, split: str, columns: Columns, decoding: Decoding, on_error: str
) -> None:
    """Decode a split into ``folder``.

    Args:
        folder: an existing, empty folder.
        reader: the open source.
        split: name of the split.
        columns: the columns to read.
        decoding: the steps that are applied to each image.
        on_error: ``"fail"`` or ``"skip"``.

    Raises:
        UserError: for an undecodable image or only dark images under ``"fail"``, images of different shapes,
            unusable labels, or no images.
    """
    import datasets

    source, data = reader.source, reader.split(split)
    image_column, label_column = columns.found(source, data.features)
    labels, names = labels_of(reader, data, split, label_column, named=columns.label is not None)
    try:
        data = data.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    except Exception as error:  # pyarrow and datasets raise many kinds
        raise UserError(f"data path {source.path!r}: column {image_column!r} holds no images") from error
    kept: list[int] = []
    names_of_files: list[str] = []
    skipped: list[str] = []
    brightest = Range(0, 255)
    with open(folder / "images.npy", "w+b") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such images are refused later
        shape: tuple[int, ...] | None = None
        for row, path, decoded in _decoded(data, image_column, decoding):
            name = f" ({path})" if path else ""
            where = f"data path {source.path!r}, split {split!r}, row {row}{name}"
            if isinstance(decoded, UndecodableError):
                skipped.append(f"{where}: the image cannot be used: {decoded}")
                if on_error == "fail":
                    raise UserError(f"{skipped[-1]} (on_error=skip would leave it out)")
                continue
            image, found = decoded
            if shape is None:
                shape = image.shape
                _write_header(file, 0, shape)
            elif image.shape != shape:
                raise UserError(
                    f"{where}: {_shape(image.shape)}, but those before are {_shape(shape)}; set image_size"
                    " and channels"
                )
            brightest = max(brightest, found, key=lambda part: part.brightest / part.white)
            file.write(image.data)
            kept.append(row)
            names_of_files.append(_below(path, source))
        if shape is None:
            raise UserError(
                f"data path {source.path!r}, split {split!r}: {skipped[0] if skipped else 'no rows'}"
            )
        dark = None
        if decoding.white_level is None and brightest.is_lost:
            dark = f"data path {source.path!r}, split {split!r}, {len(kept)} images: {brightest}"
            if on_error == "fail":
                raise UserError(dark)
        _write_header(file, len(kept), shape)
        file.flush()
        os.fsync(file.fileno())
    if any(names_of_files):
        (folder / NAMES).write_text(json.dumps(names_of_files))
    np.save(folder / "labels.npy", np.full(len(kept), -1, dtype=np.int64) if labels is None else labels[kept])
    meta = {
        "shape": [len(kept), *shape],
        "sizes": {name: (folder / name).stat().st_size for name in ("images.npy", "labels.npy")},
        "checksums": {file.name: checksum(file) for file in sorted(folder.glob("*.*"))},
        "label_names": names,
        "has_labels": labels is not None,
        "split": split,
        "skipped": skipped,
        "dark": dark,
        "source": source.path,
        "decoding": asdict(decoding),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def checksum(file: Path) -> int:
    """The CRC-32 of a file. It finds damage and no intent: who can write the file can write the checksum."""
    found = 0
    with open(file, "rb") as content:
        while block := content.read(1 << 20):
            found = zlib.crc32(block, found)
    return found


def _below(path: str, source: Source) -> str:
    """The path of an image below the folder of its source, so that the folder may be moved."""
    folder = Path(source.location) if os.path.isdir(source.location) else Path(source.location).parent
    whole = Path(path)
    return str(whole.relative_to(folder)) if path and whole.is_relative_to(folder) else path


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} pixels with {shape[0]} channel{'s' if shape[0] > 1 else ''}"


def _write_header(file: BinaryIO, rows: int, shape: tuple[int, ...]) -> None:
    """Write a ``.npy`` header.

    NumPy reserves space for a longer first axis, so the final header fits over the first one.
    """
    file.seek(0)
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (rows, *shape)}
    )


def _decoded(
    data: Any, column: str, decoding: Decoding
) -> Iterator[tuple[int, str, tuple[np.ndarray, Range] | UndecodableError]]:
    """Per row, in order: its number, the path of its file and the image with its range, or the error that
    says why there is no image.

    The path is empty if the image has none.
    """

    def decode(item: dict[str, Any] | None) -> tuple[str, tuple[np.ndarray, Range] | UndecodableError]:
        item = item or {}
        name = item.get("path") or ""
        try:
            content = item.get("bytes")
            return name, decoding.with_range(item.get("path") if content is None else content)
        except UndecodableError as error:
            return name, error

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        batches = (batch[column] for batch in data.iter(batch_size=ROWS_AT_ONCE))
        decoded = itertools.chain.from_iterable(map(partial(pool.map, decode), batches))
        for row, (name, image) in enumerate(decoded):
            yield row, name, image


def labels_of(
    reader: Reader, data: Any, split: str, column: str | None, named: bool
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels of a split as ``int64`` and the names of the classes, in one numbering for all splits.

    The names are those that the first split declares, or its words in alphabetical order; then come the names
    that only later splits have. -1 is a row without a label: a negative number, an empty cell, an empty word.

    Both are ``None`` without a column. They are also ``None`` for a detected column (``named`` is false) in
    which no row has a class label.

    Args:
        reader: the open source of the split.
        data: the split, a ``datasets.Dataset``.
        split: name of the split.
        column: name of the label column.
        named: whether the user named the column.

    Raises:
        UserError: for values that are not class labels, numbers without a name, and a column that holds words
            in one split and numbers in another.
    """
    if column is None:
        return None, None
    where = f"data path {reader.source.path!r}, split {split!r}: column {column!r} holds"
    values = [None if value == "" or value != value else value for value in data[column][:]]
    if all(isinstance(value, float) and value.is_integer() for value in values if value is not None):
        values = [None if value is None else int(value) for value in values]  # integers with empty cells
    labelled = sum(isinstance(value, int | str) for value in values)
    others = sum(value is not None for value in values) - labelled
    if (others and (named or labelled)) or (named and not labelled):
        found = f"class labels in {labelled} of {len(values)} rows only" if labelled else "no class labels"
        raise UserError(f"{where} {found} (whole numbers or strings); set label_column")
    names = list(
        dict.fromkeys(name for other in reader.split_names() for name in _names(reader, other, column))
    )
    numbers = {name: number for number, name in enumerate(names)}
    own = getattr(data.features[column], "names", None)

    def number(value: Any) -> int:
        if not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
            return -1
        if isinstance(value, str):
            return numbers[value]
        if not names and value < 2**63:
            return value
        if own is None or value >= len(own):
            listed = one_line(", ".join(names[:10])) or "numbers below 2**63"
            raise UserError(f"{where} the number {value}, which is not one of the classes ({listed})")
        return numbers[own[value]]

    labels = np.array([number(value) for value in values], dtype=np.int64)
    return (labels, names or None) if (labels >= 0).any() else (None, None)


def _names(reader: Reader, split: str, column: str) -> list[str]:
    """The names of the classes in a column of a split; empty for numbers and for a split without it."""
    data = reader.split(split)
    feature = data.features.get(column)
    if getattr(feature, "dtype", None) in ("string", "large_string"):
        return sorted(word for word in data.unique(column) if word)
    return list(getattr(feature, "names", None) or [])
