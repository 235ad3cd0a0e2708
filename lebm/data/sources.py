"""Sources of images: the Hugging Face Hub, local parquet files in its layout, image folders, or the package.

The library ``datasets`` is slow to import, and it is needed only to decode a data set for the first
time. So only the functions that read rows import it. The description of a source (its files, their
content, its name) needs no import.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from lebm.errors import UserError
from lebm.extras import need
from lebm.files import HUB_NAME, replaced, short_hash

__all__ = ["Reader", "Source", "find_source", "reading", "short_hash"]

EMBEDDED = "embedded:"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
SIDECARS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class Source:
    """A readable data set.

    Attributes:
        path: the path as the user wrote it.
        location: the argument for ``datasets``: a Hub name, a folder, or a file.
        key: a name for the content. For local files it depends on their names and bytes, for a Hub data set
            on its name, configuration and revision.
        config_name: configuration (subset) of the data set.
        revision: revision of a Hub data set.
        files: local files; empty for the Hub.
    """

    path: str
    location: str
    key: str
    config_name: str | None = None
    revision: str | None = None
    files: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def is_local(self) -> bool:
        return bool(self.files)


def find_source(
    path: str, cache: Path, config_name: str | None = None, revision: str | None = None
) -> Source:
    """Decide what a path means.

    Args:
        path: ``embedded:mnist``, an existing folder or file, or a Hub name such as ``ylecun/mnist``.
        cache: folder in which digests of files are stored.
        config_name: configuration (subset) of the data set.
        revision: revision of a Hub data set.

    Raises:
        UserError: if the path does not exist or holds nothing readable.
    """
    if path.startswith(EMBEDDED):
        location, files = _embedded(path)
    else:
        location = os.path.expanduser(path)
        if not os.path.exists(location):
            if not HUB_NAME.fullmatch(path):
                raise UserError(
                    f"data path {path!r}: no such file or folder (nor a Hugging Face Hub name such as"
                    " ylecun/mnist)"
                )
            key = short_hash(["hub", path, config_name, revision])
            return Source(path, path, key, config_name, revision)
        location = os.path.abspath(location)
        files = _readable_files(path, Path(location))
    root = Path(location) if os.path.isdir(location) else Path(location).parent
    digests = [
        (str(file.relative_to(root)), digest)
        for file, digest in zip(files, _digests(files, cache), strict=True)
    ]
    return Source(
        path, location, short_hash(["local", digests, config_name]), config_name, None, tuple(files)
    )


def _embedded(path: str) -> tuple[str, list[Path]]:
    folder = Path(str(resources.files("lebm.data.embedded")))
    name = path.removeprefix(EMBEDDED)
    files = sorted(folder.glob(f"{name}_*.parquet"))
    if not name.isidentifier() or not files:
        known = sorted({file.name.split("_")[0] for file in folder.glob("*.parquet")})
        raise UserError(
            f"data path {path!r}: the package has no such data set; it has"
            f" {', '.join(EMBEDDED + name for name in known)}"
        )
    return str(folder), files


def _readable_files(path: str, location: Path) -> list[Path]:
    wanted = (".parquet", *IMAGE_SUFFIXES)
    if location.is_file():
        if location.suffix.lower() not in wanted:
            raise UserError(
                f"data path {path!r}: not a parquet file and not an image ({', '.join(IMAGE_SUFFIXES)})"
            )
        return [location]
    found = (
        Path(folder) / name
        for folder, _, names in os.walk(location, followlinks=True)
        for name in names
        if name[0] != "."
    )
    files = sorted(file for file in found if file.suffix.lower() in wanted or file.name in SIDECARS)
    strange = next((file for file in files if not file.is_file()), None)
    if strange is not None:  # reading a pipe would never end
        raise UserError(f"data path {path!r}: {strange} is not an ordinary file or a link to one")
    if not any(file.suffix.lower() in wanted for file in files):
        raise UserError(
            f"data path {path!r}: the folder has no parquet files and no images ({', '.join(IMAGE_SUFFIXES)})"
        )
    return files


def _are_folders_of_classes(source: Source) -> bool:
    """Whether the files are images ``SPLIT/CLASS/NAME`` of several classes, and nothing else."""
    parts = [file.relative_to(source.location).parts for file in source.files]
    return (
        bool(parts)
        and all(file.suffix.lower() in IMAGE_SUFFIXES for file in source.files)
        and {len(part) for part in parts} == {len(parts[0])}
        and len(parts[0]) > 2
        and len({part[-2] for part in parts}) > 1
    )


def _check_names_of_classes(files: list[Any]) -> None:
    """Refuse parquet files of one split that name classes differently: ``datasets`` takes the first names."""
    import datasets
    from pyarrow import parquet

    named = []
    for file in files:
        features = datasets.Features.from_arrow_schema(parquet.read_schema(str(file)))
        named.append({name: getattr(feature, "names", None) for name, feature in features.items()})
        if named[-1] != named[0]:
            raise UserError(
                f"{file} names its columns or classes differently than {files[0]}: write the split again,"
                " with the same names in all its files"
            )


def _digests(files: list[Path], cache: Path) -> list[str]:
    """Digests of the bytes of the files.

    A stored digest is valid while path, inode, size and times of the file stay the same.
    """
    identity: list[list[Any]] = []
    for file in files:
        stat = file.stat()
        identity.append([str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    memory = cache / "digests" / f"{short_hash(identity)}.json"
    with contextlib.suppress(OSError, ValueError):
        remembered = json.loads(memory.read_text())
        if isinstance(remembered, list) and len(remembered) == len(files):
            return [str(digest) for digest in remembered]
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, files))
    if max(max(entry[3:]) for entry in identity) > time.time_ns() - SETTLED_NS:
        return digests  # a second change within one tick of the clock would not be visible
    # A cache that cannot be written is reported by the code that needs it.
    with contextlib.suppress(OSError), replaced(memory) as unfinished:
        unfinished.write_text(json.dumps(digests))
    return digests


def _digest(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Reader:
    """Reads a source through ``datasets``; :func:`reading` makes it."""

    def __init__(self, source: Source, scratch: str | None) -> None:
        self.source = source
        self._scratch = scratch

    def _arguments(self) -> tuple[str, dict[str, Any]]:
        source = self.source
        if source.is_local and not os.path.isdir(source.location):
            kind = "parquet" if source.location.lower().endswith(".parquet") else "imagefolder"
            return kind, {"data_files": {"train": [source.location]}}
        if source.path.startswith(EMBEDDED):
            return "parquet", {
                "data_files": {file.stem.split("_", 1)[1]: [str(file)] for file in source.files}
            }
        arguments: dict[str, Any] = {"name": source.config_name, "revision": source.revision}
        if _are_folders_of_classes(
            source
        ):  # by itself ``datasets`` leaves a split of one class without labels
            arguments["drop_labels"] = False
        return source.location, {key: value for key, value in arguments.items() if value is not None}

    def split_names(self) -> list[str]:
        """The names of the splits of the source."""
        import datasets

        path, arguments = self._arguments()
        if "data_files" in arguments:
            return list(arguments["data_files"])
        with self._explained():
            name = arguments.pop("name", None)
            return list(datasets.get_dataset_split_names(path, config_name=name, **arguments))

    def split(self, name: str) -> Any:
        """One split as a ``datasets.Dataset``."""
        import datasets

        path, arguments = self._arguments()
        with self._explained():
            files = self.source.files
            if path == self.source.location and files and all(file.suffix == ".parquet" for file in files):
                found = datasets.load_dataset_builder(path, **arguments).config.data_files
                path, arguments = "parquet", {"data_files": found}
            if path == "parquet":  # alone, or the classes of the first split would name those of all
                arguments = {"data_files": {name: arguments["data_files"][name]}}
                _check_names_of_classes(arguments["data_files"][name])
            return datasets.load_dataset(path, split=name, cache_dir=self._scratch, **arguments)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the many errors of ``datasets`` into one line."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            while error.__cause__ is not None and isinstance(error.__cause__, Exception):
                error = error.__cause__  # DatasetGenerationError hides the reason in its cause
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if self.source.is_local:
                raise UserError(f"data path {self.source.path!r}: cannot be read: {reason}") from error
            raise UserError(
                f"data path {self.source.path!r}: no such folder, and it could not be downloaded from the"
                f" Hugging Face Hub ({reason}); give a local folder with --data or"
                " --data.init_args.path"
            ) from error


@contextlib.contextmanager
def reading(source: Source, scratch: Path | None = None) -> Iterator[Reader]:
    """Open a source, and keep ``datasets`` quiet.

    Args:
        source: the source to read.
        scratch: an existing folder for the files that ``datasets`` writes for local sources; the caller
            removes it. Downloads from the Hub stay in the cache of the Hub.

    Raises:
        MissingExtraError: if ``datasets`` is not installed.
    """
    need("datasets", "reading images, tables and the Hub")
    import datasets

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = datasets.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)  # the errors that they log are raised too
    if source.is_local:
        datasets.disable_progress_bars()
    try:
        yield Reader(source, str(scratch) if source.is_local and scratch else None)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
