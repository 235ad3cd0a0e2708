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
from lebm.data.sources import LABEL_COLUMNS, SPLIT_WORDS, Source
from lebm.errors import UserError

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
    folder: Path, source: Source, data: Any, split: str, columns: Columns, decoding: Decoding, on_error: str
) -> None:
    """Decode a split into ``folder``.

    Args:
        folder: an existing, empty folder.
        source: the source, for messages.
        data: the split, a ``datasets.Dataset``.
        split: name of the split.
        columns: the columns to read.
        decoding: the steps that are applied to each image.
        on_error: ``"fail"`` or ``"skip"``.

    Raises:
        UserError: for an undecodable image or only dark images under ``"fail"``, images of different shapes,
            unusable labels, or no images.
    """
    import datasets

    image_column, label_column = columns.found(source, data.features)
    labels, names = labels_of(source, data, label_column, named=columns.label is not None)
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
    source: Source, data: Any, column: str | None, named: bool
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels as ``int64`` and the names of the classes; strings are numbered in alphabetical order.

    Both are ``None`` without a column. They are also ``None`` for a detected column (``named`` is false) in
    which no row has a class label.
    """
    if column is None:
        return None, None
    values = np.asarray(data[column])
    names = getattr(data.features[column], "names", None)
    if values.ndim == 1 and values.dtype.kind in "iub":
        return values.astype(np.int64), list(names) if names else None
    if values.ndim == 1 and (values.dtype.kind == "U" or all(isinstance(value, str) for value in values)):
        unique, numbers = np.unique(values.astype(str), return_inverse=True)
        return numbers.astype(np.int64), [str(name) for name in unique]
    labelled = sum(isinstance(value, int | str | np.integer) for value in values)
    if not named and not labelled:
        return None, None
    found = f"class labels in {labelled} of {len(values)} rows only" if labelled else "no class labels"
    raise UserError(
        f"data path {source.path!r}: column {column!r} holds {found} (whole numbers or strings); set"
        " label_column"
    )
