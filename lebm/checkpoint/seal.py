"""The checksum over every byte of a checkpoint."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

__all__ = ["is_sealed", "seal"]

# A zip archive may end with a comment; its length is stored in the two bytes before it.
_MARK = b"lebm sha256 "
_COMMENT = len(_MARK) + 64
_BLOCK = 1 << 20


def seal(file: BinaryIO) -> None:
    """Append the checksum of all bytes written so far, as the comment of the zip archive that they are.

    Args:
        file: open for reading and writing, holding what ``torch.save`` wrote.
    """
    file.seek(-2, os.SEEK_END)
    file.write(_COMMENT.to_bytes(2, "little"))
    file.write(_MARK + _digest(file, file.tell()))


def is_sealed(file: BinaryIO) -> bool:
    """Whether the file ends with a checksum, which then was found to be right.

    Raises:
        ValueError: if the checksum is wrong.
    """
    size = file.seek(0, os.SEEK_END)
    if size < _COMMENT + 2:
        return False
    file.seek(size - _COMMENT)
    mark, stored = file.read(len(_MARK)), file.read()
    if mark != _MARK:
        return False
    if stored != _digest(file, size - _COMMENT):
        raise ValueError("its checksum is wrong")
    return True


def _digest(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(min(_BLOCK, size)):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest().encode()
