"""Files that appear whole or not at all, and their checksum."""

from __future__ import annotations

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

__all__ = ["HUB_NAME", "UNFINISHED", "remove_folder", "replaced", "sha256", "short_hash", "write_text"]

UNFINISHED = ".unfinished"
"""How the name of a file that is still being written ends; a killed process may leave one behind."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""What can be the name of a data set on the Hub."""


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[Path]:
    """A name beside ``path`` to write to. At the end of the block, the file there replaces ``path``.

    The folder is made as needed. A reader sees the old file or the new one, and never half of either, because
    a rename within one folder is one step. If the block raises, then ``path`` is untouched and the new file
    is removed.

    Args:
        path: the file to replace, there already or not.

    Yields:
        The name to write to, in the same folder; ``path`` itself if that is a pipe or a device.

    Raises:
        OSError: if the folder cannot be made or written; it names ``path``.
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
        # A full disk is reported without a name.
        if error.errno and error.filename in (None, str(unfinished)):
            error.filename = str(target)
        raise
    finally:
        # It may be renamed already, or never written, or its folder may have become read-only.
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in one step, as :func:`replaced` does."""
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def remove_folder(folder: str | os.PathLike) -> None:
    """Remove a folder with all that is in it, except what cannot be removed; one that holds weights stays.

    Nothing else in lebm removes a folder that is not empty.
    """
    if not any(file.suffix in (".ckpt", ".safetensors") for file in Path(folder).rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def sha256(file: str | os.PathLike) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def short_hash(value: Any) -> str:
    """A name for plain data: 24 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()
