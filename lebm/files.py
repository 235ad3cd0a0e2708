"""Files that are written whole or not at all, and their checksums."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lebm.errors import UserError

UNFINISHED = ".unfinished"
"""Suffix of files that are being written; a killed process may leave one behind."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""Pattern of data set names on the Hub."""
EMBEDDED = "embedded:"
"""Prefix of a data set of the package."""


def embedded(path: str, where: str) -> list[Path]:
    """Return the files of a data set of the package.

    Raises:
        UserError: if the data set does not exist; the message begins with ``where``.
    """
    known: dict[str, list[Path]] = {}
    for file in sorted((Path(__file__).parent / "data" / "embedded").glob("*.parquet")):
        known.setdefault(EMBEDDED + file.stem.split("_")[0], []).append(file)
    if path not in known:
        raise UserError(f"{where} {path!r}: no such packaged data set; choose from {', '.join(known)}")
    return known[path]


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; at the end of the block this file replaces ``path``.

    The folder is created as needed. A reader sees the old file or the new one, because a rename within one
    folder is atomic. If the block raises, ``path`` is untouched and the new file is removed.

    Yields:
        The name to write to, in the same folder; ``path`` itself if it is a pipe or a device.

    Raises:
        OSError: if the folder cannot be created or written; it names ``path``.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        yield unfinished
        os.replace(unfinished, target)
    except OSError as error:
        # The error of a full disk has no file name.
        if error.errno and error.filename in (None, str(unfinished)):
            error.filename = str(target)
        raise
    finally:
        # The file may be renamed, never written, or in a folder that is now read-only.
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in one step, as :func:`replaced` does."""
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def remove_folder(folder: str | os.PathLike) -> None:
    """Remove a folder and its files where possible, unless it holds weights.

    No other function of lebm removes a folder that is not empty.
    """
    if not any(file.suffix in (".ckpt", ".safetensors") for file in Path(folder).rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def sha256(file: str | os.PathLike) -> str:
    """Return the SHA-256 digest of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def short_hash(value: Any) -> str:
    """Return a key for plain data: 24 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()
