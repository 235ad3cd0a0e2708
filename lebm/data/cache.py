"""Images decoded once: memory-mapped ``uint8`` arrays on disk, written by one process and shared by all.

The folder of a split is ``CACHE/images/<source>/<split and decoding>/``. It holds ``images.npy`` (N, C, H,
W), ``labels.npy`` (N,), ``meta.json`` and, for images that are files, ``names.json``. CACHE is the argument
``cache_dir``, else ``$LEBM_CACHE``, else ``~/.cache/lebm``. The folder is written under a temporary name and
renamed when it is complete. Deleting any part is safe: it is made again. A file whose content has changed is
refused by its checksum, once per process. Folders of older versions have no checksums and are not checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from lebm.data.build import FORMAT, NAMES, Columns, build, checksum
from lebm.data.decoding import Decoding
from lebm.data.sources import Source, find_source, reading, short_hash
from lebm.errors import UserError, UserNotice, one_line
from lebm.files import remove_folder, replaced

__all__ = ["CachedImages", "cache_folder", "open_images", "split_names"]

DEFAULT_SPLITS = ("test", "validation", "train")


@dataclass(frozen=True)
class CachedImages:
    """A decoded split.

    Attributes:
        images: ``(N, C, H, W)`` ``uint8``, read-only, memory-mapped.
        labels: ``(N,)`` ``int64``; -1 for rows without a label.
        label_names: names of the labels, the same for all splits; ``None`` if they have no names.
        has_labels: whether there is a label column with labels.
        split: name of the split.
        skipped: one line per undecodable image that was left out.
        folder: the folder of the cache that holds the split.
        dark: a line about images of a too small range, see ``white_level``, or ``None``.
    """

    images: np.ndarray
    labels: np.ndarray
    label_names: list[str] | None
    has_labels: bool
    split: str
    skipped: list[str]
    folder: Path
    dark: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def file_names(self) -> list[str] | None:
        """The file of each image, below the folder of the data set; ``None`` if the images have no names."""
        file = self.folder / NAMES
        if not file.is_file():
            return None
        names = json.loads(file.read_text())
        return [str(name) for name in names] if len(names) == len(self) else None


def cache_folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """The cache folder, created if it is missing: the argument, else ``$LEBM_CACHE``, else ``~/.cache/lebm``.

    Raises:
        UserError: if it cannot be created or written.
    """
    folder = Path(cache_dir or os.environ.get("LEBM_CACHE") or "~/.cache/lebm").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the image cache {folder} ({error.strerror}); name another folder with LEBM_CACHE"
        ) from error
    return folder


def split_names(
    path: str,
    *,
    config_name: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> list[str]:
    """The names of the splits of a data set. For the arguments and errors see :func:`open_images`."""
    cache = cache_folder(cache_dir)
    return _split_names(find_source(path, config_name, revision), cache)


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

    Args:
        path: a Hub name (``ylecun/mnist``), a folder of parquet files in that layout, a parquet file, a
            folder of images, an image, or ``embedded:mnist``.
        split: name of the split. ``None`` takes the only split; if there are several, it takes the first of
            test, validation and train that exists.
        config_name: configuration (subset) of the data set.
        revision: revision of a Hub data set. Without it, a Hub data set that was decoded
            once is not requested again.
        image_size: see :class:`~lebm.data.decoding.Decoding`, as for ``channels``, ``crop`` and
            ``white_level``.
        image_column: name of the image column; detected if ``None``.
        label_column: name of the label column; detected if ``None``. A data set may have no labels.
        on_error: ``"fail"`` on an undecodable image and on a split whose images all seem to lose their bits,
            or ``"skip"`` the image, and warn of both.
        cache_dir: the cache folder; ``None`` is ``$LEBM_CACHE``, else ``~/.cache/lebm``.

    Returns:
        The decoded split, with ``images`` ``(N, C, H, W)`` ``uint8`` and ``labels`` ``(N,)``.

    Raises:
        UserError: if the data cannot be read or decoded, or the split or a column does not exist; if the
            cache is damaged, with the folder to delete.
        ValueError: for impossible ``image_size``, ``channels``, ``crop`` or ``white_level``.

    Example:
        >>> from lebm.data import open_images
        >>> digits = open_images("embedded:mnist", "test")
        >>> digits.images.shape, digits.images.dtype, digits.labels[:5].tolist()
        ((1000, 1, 28, 28), dtype('uint8'), [1, 5, 8, 6, 8])
    """
    box: Any = tuple(crop) if crop is not None else None
    decoding = Decoding(image_size, channels, box, white_level)
    cache = cache_folder(cache_dir)
    source = find_source(path, config_name, revision)
    columns = Columns(image_column, label_column)
    names = _split_names(source, cache)
    if split is None:
        split = (
            names[0] if len(names) == 1 else next((name for name in DEFAULT_SPLITS if name in names), None)
        )
    if split not in names:
        raise UserError(f"data path {path!r}: no split {split!r}; it has {', '.join(names)}")
    key = short_hash([FORMAT, split, asdict(decoding), image_column, label_column])
    folder = cache / "images" / source.key / key
    cached = _load(folder)
    if cached is None:
        with _writing(folder):
            cached = _load(folder)  # another process may have made it during the wait
            if cached is None:
                _make(folder, source, split, columns, decoding, on_error)
                cached = _load(folder)
    if cached is None:
        raise UserError(
            f"the image cache {folder} cannot be read directly after it was written; is the disk full, or"
            " does another program delete files there?"
        )
    return _accept(cached, path, on_error)


def _accept(cached: CachedImages, path: str, on_error: str) -> CachedImages:
    if on_error == "fail" and (faults := [*cached.skipped, *filter(None, [cached.dark])]):
        raise UserError(faults[0])
    if cached.dark:
        warnings.warn(cached.dark, UserNotice, stacklevel=3)
    if cached.skipped:
        listed = one_line("; ".join(cached.skipped[:3])) + ("; ..." if len(cached.skipped) > 3 else "")
        warnings.warn(
            f"data path {path!r}: left out {len(cached.skipped)} undecodable image(s): {listed}",
            UserNotice,
            stacklevel=3,
        )
    return cached


def _split_names(source: Source, cache: Path) -> list[str]:
    if source.splits is not None:
        return list(source.splits)
    file = cache / "images" / source.key / "splits.json"
    with contextlib.suppress(OSError, ValueError):
        names = json.loads(file.read_text())
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return names
    with _writing(file):
        with reading(source) as reader:
            names = reader.split_names()
        with replaced(file) as unfinished:
            unfinished.write_text(json.dumps(names))
    return names


def _load(folder: Path) -> CachedImages | None:
    """Open a complete folder; ``None`` if it is absent or incomplete.

    Raises:
        UserError: if a checksum is wrong.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
        sizes = {name: (folder / name).stat().st_size for name in meta["sizes"]}
        whole = (
            sizes == meta["sizes"] and list(images.shape) == meta["shape"] and labels.shape == (len(images),)
        )
        if not whole or images.dtype != np.uint8 or labels.dtype != np.int64:
            return None
        changed = [
            name
            for name, expected in meta.get("checksums", {}).items()
            if _checksum(folder / name, (folder / name).stat().st_mtime_ns) != expected
        ]
        cached = CachedImages(
            images,
            labels,
            meta["label_names"],
            bool(meta["has_labels"]),
            str(meta["split"]),
            [str(line) for line in meta["skipped"]],
            folder,
            meta["dark"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    if changed:
        raise UserError(
            f"the image cache is damaged: {folder / changed[0]} is not what was written (its checksum is"
            f" wrong); delete the folder {folder}, and it is made again"
        )
    return cached


@lru_cache(maxsize=64)
def _checksum(file: Path, changed: int) -> int:
    """The checksum of a file that was last changed at that time; a process reads it once."""
    return checksum(file)


def _make(
    folder: Path, source: Source, split: str, columns: Columns, decoding: Decoding, on_error: str
) -> None:
    # This process holds the lock, so unfinished folders are those of killed processes.
    for orphan in folder.parent.glob(f".{folder.name}.*.unfinished"):
        remove_folder(orphan)
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.unfinished")
    unfinished.mkdir()
    try:
        scratch = unfinished / "scratch"
        scratch.mkdir()
        with reading(source, scratch) as reader:
            build(unfinished, reader, split, columns, decoding, on_error)
        remove_folder(scratch)
        remove_folder(folder)  # if there is one, it is damaged: no process could open it
        os.rename(unfinished, folder)
    finally:
        remove_folder(unfinished)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Hold the lock of a target in the cache, and explain why the cache cannot be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            yield
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write the image cache {target.parent} ({reason}); name another folder with LEBM_CACHE"
        ) from error
