"""Sources of images: the Hugging Face Hub, local parquet files in its layout, image folders, or the package.

A local source is a list of files made by :func:`find_source`. Their names and times are the key of the cache.
Each image is one row. Only the functions that read rows import the library ``datasets``, because this is
slow.
"""

import contextlib
import glob
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lebm.errors import UserNotice, data_error, printable
from lebm.extras import need
from lebm.files import EMBEDDED, HUB_NAME, embedded, short_hash

IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
    *(".pbm", ".pgm", ".ppm", ".pnm"),
)
OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".tga", ".exr", ".dcm", ".zip", ".tar", ".gz")
"""Images and archives that are not read, with a message."""
SIDECARS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "digit")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_WORD = "|".join(SPLIT_WORDS)
_NAMES = (
    re.compile(rf"(?:.*[-._ 0-9])?({_WORD})(?:[-._ 0-9].*)?", re.I | re.S),
    re.compile(f"({_WORD})", re.I),
)
"""Names that contain a split name, such as ``train2017`` and ``my_test``, and names that equal one."""
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}\b")
_CARD = re.compile(r"---.*^configs:", re.M | re.S)  # a README.md with configurations as on the Hub

Splits = dict[str, dict[Path, str | None]]


@dataclass(frozen=True)
class Source:
    """A readable data set.

    Attributes:
        path: the path as given by the user.
        location: the argument for ``datasets``: a Hub name, a folder, or a file.
        key: a key of the content: names, sizes and times of local files, or name, configuration and revision
            of a Hub data set.
        files: local files, including metadata; empty for the Hub.
        splits: the files of each split, each with its class folder or ``None``; ``None`` if ``datasets``
            finds them (the Hub, or a folder with ``metadata.csv`` or with configurations in ``README.md``).
    """

    path: str
    location: str
    key: str
    config_name: str | None = None
    revision: str | None = None
    files: tuple[Path, ...] = field(default=(), repr=False)
    splits: Splits | None = field(default=None, repr=False)


def located(path: str) -> str:
    """Return the absolute path of a local file or folder, and any other name unchanged."""
    place = os.path.expanduser(path)
    return os.path.abspath(place) if os.path.exists(place) and not path.startswith(EMBEDDED) else path


def is_own(data: str | None, path: Any) -> bool:
    """Return whether the data that a user names, if any, are the data of a run at ``path``."""
    return data is None or located(data) == located(str(path or ""))


def find_source(path: str, config_name: str | None = None, revision: str | None = None) -> Source:
    """Return the source at a path, with its files; arguments as in :class:`Source`."""
    location = located(path)
    splits: Splits | None = None
    if path.startswith(EMBEDDED):
        files = embedded(path, "data path")
        root = files[0].parent
        location = str(root)
        splits = {file.stem.split("_", 1)[1]: {file: None} for file in files}
    elif os.path.isdir(location):
        root = Path(location)
        rows, described = _readable_files(path, root)
        files = sorted([*rows, *described], key=str)
        splits = None if described else _splits(path, root, rows)
    elif os.path.exists(location):
        root, files = Path(location).parent, [Path(location)]
        if not location.lower().endswith((".parquet", *IMAGE_SUFFIXES)):
            known = f"not a parquet file and not an image ({', '.join(IMAGE_SUFFIXES)})"
            raise data_error(path, f"{known}; vectors are read from .npy and .npz files")
        splits = {"train": {files[0]: None}}
    elif HUB_NAME.fullmatch(path):
        return Source(path, path, short_hash(["hub", path, config_name, revision]), config_name, revision)
    else:
        raise data_error(path, "no such file or folder (nor a Hugging Face Hub name such as ylecun/mnist)")
    stats = ((str(file.relative_to(root)), file.stat()) for file in files)
    content = [[name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in stats]
    key = short_hash(["files", content, config_name])
    return Source(path, location, key, config_name, None, tuple(files), splits)


def _readable_files(path: str, root: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of a folder that hold rows, and the files that tell ``datasets`` how to read them.

    Hidden files and folders are skipped, and links are followed.
    """
    names = glob.iglob(os.path.join(glob.escape(str(root)), "**"), recursive=True)
    found = sorted((Path(name) for name in names if not os.path.isdir(name)), key=str)
    images = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
    described = [file for file in found if images and file.name in SIDECARS]
    card = root / "README.md"
    if card in found and _CARD.match(card.read_text(encoding="utf-8", errors="replace")):
        described.append(card)
    tables = [file for file in found if _is_table(file) and file not in described]
    rows, others = (images, tables) if len(images) > len(tables) else (tables, images)
    if not rows:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise data_error(path, f"the folder has no parquet files and no images ({suffixes})")
    kind = "images" if rows is images else "parquet"
    _say_unread(path, root, others, f"most files of the folder are {kind}")
    unknown = [file for file in found if file.suffix.lower() in OTHER_SUFFIXES]
    _say_unread(path, root, unknown, "lebm reads PNG, JPEG, BMP, GIF, WebP, TIFF and PPM")
    return rows, described


def _splits(path: str, root: Path, files: list[Path]) -> Splits:
    """Return the files of each split, with their class folders if there are classes.

    A split is a folder called ``train``, ``validation``, ``test`` or the like. A name that only contains such
    a word, such as ``train2017``, counts if then every file is in a split. The names of parquet files count
    too. Folders are classes if there are several, all at the same depth below their splits.
    """
    for names in _NAMES:
        found = {file: _split_of(file.relative_to(root), names) for file in files}
        if all(split for split, _ in found.values()):
            break
    if not any(split for split, _ in found.values()):
        found = {file: ("train", folders) for file, (_, folders) in found.items()}
    inner = [folders for split, folders in found.values() if split]
    same_depth = len(set(map(len, inner))) == 1
    labelled = same_depth and len({folders[-1:] for folders in inner}) > 1
    known = {split for split, _ in found.values() if split}
    splits: Splits = {split: {} for split in (*SPLIT_WORDS.values(), *sorted(known)) if split in known}
    for file, (split, folders) in found.items():
        if split:
            splits[split][file] = folders[-1] if labelled else None
    unread = [file for file, (split, _) in found.items() if split is None]
    _say_unread(path, root, unread, f"they are in none of its splits ({', '.join(splits)})")
    if not (same_depth or _is_table(files[0])):
        notice(path, "its folders are not classes, because its images are not all as deep")
    return splits


def _split_of(file: Path, names: re.Pattern[str]) -> tuple[str | None, tuple[str, ...]]:
    """Return the split of a file, by its path below the root, and the folders between split and file."""
    folders = file.parent.parts
    if _is_table(file) and (shard := _SHARD.match(file.name)):
        return shard[1], ()
    for number, part in enumerate((*folders, file.stem) if _is_table(file) else folders):
        if word := names.fullmatch(part):
            return SPLIT_WORDS[word[1].lower()], folders[number + 1 :]
    return None, folders


def _is_table(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def notice(path: str, text: str) -> None:
    """Warn about the data at a path."""
    warnings.warn(f"data path {path!r}: {text}", UserNotice, stacklevel=3)


def _say_unread(path: str, root: Path, files: list[Path], why: str) -> None:
    if files:
        listed = ", ".join(str(file.relative_to(root)) for file in files[:3]) + (", ..." if files[3:] else "")
        notice(path, f"{len(files)} file(s) are not read, because {why}: {printable(listed)}")


@dataclass(frozen=True)
class Reader:
    """A reader of a source through ``datasets``, made by :func:`reading`."""

    source: Source
    scratch: str | None

    def split_names(self) -> list[str]:
        """Return the names of the splits of the source."""
        import datasets

        source = self.source
        if source.splits is not None:
            return list(source.splits)
        where = source.location, source.config_name
        with self._explained():
            return list(map(str, datasets.get_dataset_split_names(*where, revision=source.revision)))

    def split(self, name: str) -> Any:
        """Return a split as a ``datasets.Dataset``; image files have one row per file, in order."""
        import datasets

        source = self.source
        more: dict[str, Any] = {"split": name, "cache_dir": self.scratch, "revision": source.revision}
        with self._explained():
            if source.splits is None:
                rows = datasets.load_dataset(source.location, source.config_name, **more)
                read = sum(part.num_examples for part in (rows.info.splits or {}).values())
                images = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in source.files)
                if read < images and any(file.name in SIDECARS for file in source.files):
                    lost = f"{images - read} of {images} images are not read"
                    notice(source.path, f"{lost}, because the metadata files do not name them")
                return rows
            classes = source.splits[name]
            if any(map(_is_table, classes)):
                patterns = [glob.escape(str(file)) for file in classes]
                return datasets.load_dataset("parquet", data_files={name: patterns}, **more)
            columns: dict[str, list] = {"image": [str(file) for file in classes]}
            features = datasets.Features({"image": datasets.Image()})
            if any(classes.values()):
                every = {name for files in source.splits.values() for name in files.values()}
                columns["label"] = list(classes.values())
                features["label"] = datasets.ClassLabel(names=sorted(filter(None, every)))
            return datasets.Dataset.from_dict(columns, features=features)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Convert the many errors of ``datasets`` to one line."""
        try:
            yield
        except Exception as error:
            while error.__cause__ is not None and isinstance(error.__cause__, Exception):
                error = error.__cause__  # DatasetGenerationError hides the reason in its cause
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            problem = f"cannot be read: {reason}"
            if not self.source.files:
                hub = f"it could not be downloaded from the Hugging Face Hub ({reason})"
                way = "name a local folder with --data or --data.init_args.path"
                problem = f"no such folder, and {hub}; {way}"
            raise data_error(self.source.path, problem) from error


@contextlib.contextmanager
def reading(source: Source, folder: Path | None = None) -> Iterator[Reader]:
    """Open a source without messages of ``datasets``.

    For local sources ``datasets`` writes to a temporary folder in ``folder``, by default in the folder of the
    system. Downloads stay in the cache of the Hub.
    """
    need("datasets", "reading images, tables and the Hub")
    import datasets

    with contextlib.ExitStack() as after:
        for name in ("datasets", "huggingface_hub"):
            logger = logging.getLogger(name)
            after.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)  # logged errors are raised too
        scratch = None
        if source.files:
            # a network file system keeps open files
            scratch = after.enter_context(tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True))
            if datasets.is_progress_bar_enabled():
                after.callback(datasets.enable_progress_bars)
            datasets.disable_progress_bars()
        yield Reader(source, scratch)
