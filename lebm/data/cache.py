"""The cache of decoded images: memory-mapped ``uint8`` arrays on disk, shared by all processes.

The folder of a split is ``CACHE/images/<source>/<split and decoding>/``. It holds ``images.npy`` (N, C, H,
W), ``labels.npy`` (N,), ``meta.json`` and, for image files, ``names.json``. CACHE is the argument
``cache_dir``, else ``$LEBM_CACHE``, else ``~/.cache/lebm``. One process writes the folder under a temporary
name and renames it when it is complete. Any part may be deleted, because it is made again.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from lebm.data.decoding import Decoding, UndecodableError, content_of
from lebm.data.sources import LABEL_COLUMNS, SPLIT_WORDS, Reader, Source, find_source, notice, reading
from lebm.data.splits import existing_split
from lebm.errors import UserError, data_error, one_line
from lebm.files import remove_folder, replaced, short_hash

FORMAT = 4  # increased when decoding changes, so old caches are not read
IMAGE_COLUMNS = ("image", "img", "images", "picture")
ROWS_AT_ONCE = 512
NAMES = "names.json"


def columns_of(
    source: Source, features: Any, image: str | None = None, label: str | None = None
) -> tuple[str, str | None]:
    """Return the names of the image column and of the label column, if any; detected if not named."""
    import datasets

    names, path = list(features), source.path
    for argument, name in (("image_column", image), ("label_column", label)):
        if name is not None and name not in names:
            raise data_error(path, f"no column {name!r} ({argument}); it has {', '.join(names)}")
    images = [name for name in names if isinstance(features[name], datasets.Image)]
    image = image or next((name for name in (*images, *IMAGE_COLUMNS) if name in names), None)
    if image is None:
        raise data_error(path, f"no image column among {', '.join(names)}; name it with image_column")
    classes = [name for name in names if isinstance(features[name], datasets.ClassLabel)]
    # On the Hub, `datasets` takes the folders of the splits as classes if images are directly in them.
    folders = [name for name in classes if SPLIT_WORDS.keys() >= set(features[name].names)]
    candidates = [name for name in names if name != image and name not in folders]
    return image, label or next((name for name in (*LABEL_COLUMNS, *classes) if name in candidates), None)


def build(
    folder: Path,
    reader: Reader,
    split: str,
    columns: tuple[str | None, str | None],
    decoding: Decoding,
    on_error: str,
) -> None:
    """Decode a split into the empty ``folder``."""
    import datasets

    source, data = reader.source, reader.split(split)
    of = f"data path {source.path!r}, split {split!r}"
    image_column, label_column = columns_of(source, data.features, *columns)
    labels, names = labels_of(reader, data, split, label_column, named=columns[1] is not None)
    try:
        data = data.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    except Exception as error:  # pyarrow and datasets raise many kinds
        raise data_error(source.path, f"column {image_column!r} holds no images") from error
    root = source.location if os.path.isdir(source.location) else os.path.dirname(source.location)
    kept: dict[int, str] = {}  # file names by row, below the root, so that the folder may be moved
    skipped: list[str] = []
    brightest, deep = 0, False
    with open(folder / "images.npy", "w+b") as file:
        shape: tuple[int, ...] | None = None
        for row, (path, decoded) in enumerate(_decoded(data, image_column, decoding)):
            where = f"{of}, row {row}" + (f" ({path})" if path else "")
            try:
                image, is_deep = decoded.result()
            except UndecodableError as error:
                skipped.append(f"{where}: the image cannot be used: {error}")
                if on_error == "fail":
                    raise UserError(f"{skipped[-1]} (to skip it, set on_error to skip)") from error
                continue
            if shape is None:
                shape = image.shape
                _write_header(file, 0, shape)
            elif image.shape != shape:
                sizes = [f"{w}x{h} pixels with {c} channel{'s'[: c > 1]}" for c, h, w in (image.shape, shape)]
                problem = f"{sizes[0]}, but those before are {sizes[1]}; set image_size and channels"
                raise UserError(f"{where}: {problem}")
            brightest, deep = max(brightest, int(image.max())), deep or is_deep
            file.write(image.data)
            kept[row] = str(Path(path)).removeprefix(f"{root}{os.sep}") if path else ""
        if shape is None:
            raise UserError(f"{of}: {skipped[0] if skipped else 'no rows'}")
        if decoding.white_level is None and (brightest < 64 if deep else brightest == 1):
            raise UserError(
                f"{of}, {len(kept)} images: the brightest pixel would be {brightest} of 255; set white_level"
                " to the value of white in the files (4095 for 12 bits, 65535 for 16)"
            )
        _write_header(file, len(kept), shape)
        file.flush()
        os.fsync(file.fileno())
    if any(kept.values()):
        (folder / NAMES).write_text(json.dumps(list(kept.values())))
    np.save(folder / "labels.npy", labels[list(kept)])
    meta = {"label_names": names, "split": split, "skipped": skipped}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def _write_header(file: BinaryIO, rows: int, shape: tuple[int, ...]) -> None:
    """Write a ``.npy`` header; NumPy reserves space, so the final header fits over the first one."""
    file.seek(0)
    content = {"descr": "|u1", "fortran_order": False, "shape": (rows, *shape)}
    np.lib.format.write_array_header_1_0(file, content)


def _decoded(
    data: Any, column: str, decoding: Decoding
) -> Iterator[tuple[str, Future[tuple[np.ndarray, bool]]]]:
    """Yield for each row the path of its file, if any, and the result of ``decoding``."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        for batch in data.iter(batch_size=ROWS_AT_ONCE):
            items = [item or {} for item in batch[column]]
            results = [pool.submit(decoding, content_of(item)) for item in items]
            yield from zip((item.get("path") or "" for item in items), results, strict=True)


def labels_of(
    reader: Reader, data: Any, split: str, column: str | None, named: bool
) -> tuple[np.ndarray, list[str] | None]:
    """Return labels of a split as ``int64`` and the class names, in one numbering for all splits.

    The names come from the declaration of the first split, or its words in alphabetical order, followed by
    names that only later splits have. The label -1 is a row without a label: a negative number, an empty cell
    or an empty string. All labels are -1 without a column, and for a column that is not ``named`` and has no
    labels.
    """
    if column is None:
        return np.full(len(data), -1, dtype=np.int64), None
    where = f"data path {reader.source.path!r}, split {split!r}: column {column!r} holds"
    values: list[Any] = [None if value == "" or value != value else value for value in data[column][:]]
    if all(isinstance(value, float) and value.is_integer() for value in values if value is not None):
        values = [None if value is None else int(value) for value in values]  # integers with empty cells
    labelled = sum(isinstance(value, int | str) for value in values)
    others = sum(value is not None for value in values) - labelled
    if (others and (named or labelled)) or (named and not labelled):
        found = f"class labels in {labelled} of {len(values)} rows only" if labelled else "no class labels"
        raise UserError(f"{where} {found} (whole numbers or strings); set label_column")
    every: list[str] = []
    for other in map(reader.split, reader.split_names()):
        feature = other.features.get(column)
        if getattr(feature, "dtype", None) in ("string", "large_string"):
            every += sorted(word for word in other.unique(column) if word)
        else:
            every += getattr(feature, "names", None) or []
    names = list(dict.fromkeys(every))
    numbers: dict[Any, int] = {name: number for number, name in enumerate(names)}
    own = getattr(data.features[column], "names", None) or []
    numbers |= {place: numbers[name] for place, name in enumerate(own)}
    labels = np.full(len(values), -1, dtype=np.int64)
    for row, value in enumerate(values):
        if isinstance(value, str) or (isinstance(value, int) and value >= 0):
            if value not in numbers if names else value >= 2**63:  # type: ignore[operator]
                listed = one_line(", ".join(names[:10])) or "numbers below 2**63"
                raise UserError(f"{where} the number {value}, which is not one of the classes ({listed})")
            labels[row] = numbers.get(value, value)
    return labels, names or None if (labels >= 0).any() else None


@dataclass(frozen=True)
class CachedImages:
    """A decoded split.

    Attributes:
        images: ``(N, C, H, W)`` ``uint8``, read-only, memory-mapped.
        labels: ``(N,)`` ``int64``; -1 for rows without a label.
        label_names: names of the labels in all splits; ``None`` without names.
        skipped: one line per undecodable image.
        folder: the folder of the cache that holds the split.
    """

    images: np.ndarray
    labels: np.ndarray
    label_names: list[str] | None
    split: str
    skipped: list[str]
    folder: Path

    @property
    def has_labels(self) -> bool:
        """Whether any row has a label."""
        return bool((self.labels >= 0).any())

    def __len__(self) -> int:
        return len(self.images)

    def file_names(self) -> list[str] | None:
        """Return the file of each image relative to its folder; ``None`` without names."""
        file = self.folder / NAMES
        return list(map(str, json.loads(file.read_text()))) if file.is_file() else None


def cache_folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """Return the cache folder: the argument, ``$LEBM_CACHE`` or ``~/.cache/lebm``."""
    return Path(cache_dir or os.environ.get("LEBM_CACHE") or "~/.cache/lebm").expanduser()


def split_names(
    path: str, config_name: str | None = None, revision: str | None = None, cache_dir: str | None = None
) -> list[str]:
    """Return the split names of a data set, with the arguments and errors of :func:`open_images`."""
    return _split_names(find_source(path, config_name, revision), cache_folder(cache_dir))


def open_images(
    path: str,
    split: str | None = None,
    *,
    config_name: str | None = None,
    revision: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    crop: tuple[int, int, int, int] | None = None,
    white_level: float | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    on_error: str = "fail",
    cache_dir: str | os.PathLike | None = None,
) -> CachedImages:
    """Open one split of images. The first call decodes it; later calls read the cache.

    The other arguments are those of :class:`~lebm.data.ImageData`.

    Args:
        path: a Hub name (``ylecun/mnist``), a folder of parquet files in that layout, a parquet file, a
            folder of images, an image, or ``embedded:mnist``.
        split: name of the split. ``None`` takes the only split; if there are several, it takes the first of
            test, validation and train that exists.
        on_error: ``"fail"`` on an undecodable image, or ``"skip"`` it and warn.

    Returns:
        The decoded split, with ``images`` ``(N, C, H, W)`` ``uint8`` and ``labels`` ``(N,)``.

    Raises:
        UserError: if the data cannot be read or decoded, or a split or column does not exist.
        ValueError: for impossible ``image_size``, ``channels``, ``crop`` or ``white_level``.

    Example:
        >>> from lebm.data import open_images
        >>> digits = open_images("embedded:mnist", "test")
        >>> digits.images.shape, digits.images.dtype, digits.labels[:5].tolist()
        ((1000, 1, 28, 28), dtype('uint8'), [1, 5, 8, 6, 8])
    """
    decoding = Decoding(image_size, channels, crop, white_level)
    cache = cache_folder(cache_dir)
    source = find_source(path, config_name, revision)
    split = existing_split(path, _split_names(source, cache), split)
    key = short_hash([FORMAT, split, asdict(decoding), image_column, label_column])
    folder = cache / "images" / source.key / key
    cached = _load(folder)
    if cached is None:
        columns = image_column, label_column
        with _writing(folder):
            if _load(folder) is None:  # another process may have made it meanwhile
                unfinished = folder.with_name(f".{folder.name}.unfinished")
                remove_folder(unfinished)  # of a killed process, because this process holds the lock
                unfinished.mkdir(exist_ok=True)
                try:
                    with reading(source, unfinished) as reader:
                        build(unfinished, reader, split, columns, decoding, on_error)
                    remove_folder(folder)  # an existing folder is damaged
                    os.rename(unfinished, folder)
                finally:
                    remove_folder(unfinished)
        cached = _load(folder)
    assert cached is not None
    if cached.skipped and on_error == "fail":
        raise UserError(cached.skipped[0])
    if cached.skipped:
        listed = one_line("; ".join(cached.skipped[:3])) + ("; ..." if len(cached.skipped) > 3 else "")
        notice(path, f"left out {len(cached.skipped)} undecodable image(s): {listed}")
    return cached


def _split_names(source: Source, cache: Path) -> list[str]:
    if source.splits is not None:
        return list(source.splits)
    file = cache / "images" / source.key / "splits.json"
    with contextlib.suppress(OSError, ValueError):
        return list(map(str, json.loads(file.read_text())))
    with _writing(file):
        with reading(source) as reader:
            names = reader.split_names()
        with replaced(file) as unfinished:
            unfinished.write_text(json.dumps(names))
    return names


def _load(folder: Path) -> CachedImages | None:
    """Open a folder; return ``None`` if it is absent or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        found = {name: meta[name] for name in ("label_names", "split", "skipped")}
        images, labels = np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy")
        return CachedImages(images=images, labels=labels, folder=folder, **found)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Hold the lock of a target in the cache, and report why the cache cannot be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            yield
    except OSError as error:
        problem = f"cannot write the image cache {target.parent} ({error.strerror or error})"
        raise UserError(f"{problem}; set LEBM_CACHE to another folder") from error
