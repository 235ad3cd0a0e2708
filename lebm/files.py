"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from lebm.errors import UserError

__all__ = ["UNFINISHED", "inside", "ordinary", "replaced"]

UNFINISHED = ".unfinished"
"""How the name of a file that is still being written ends; a killed process may leave one behind."""


def inside(run: Path, path: Path) -> Path:
    """A path in a run folder, if no link and no ``..`` leads out of the folder.

    Args:
        run: the run folder, which may have come from anywhere.
        path: what is to be read or written there.

    Raises:
        UserError: if it leads out.
    """
    if not path.resolve().is_relative_to(run.resolve()):
        raise UserError(f"{path}: a link out of the run folder, which is not followed")
    return path


def ordinary(run: Path, path: Path) -> bool:
    """Whether there is a file to read in a run folder.

    Raises:
        UserError: if it is a pipe or a device, or lies outside the folder.
    """
    if not os.path.lexists(path):
        return False
    inside(run, path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not an ordinary file")
    return path.is_file()


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[Path]:
    """A name beside ``path`` to write to. At the end of the block, the file there replaces ``path``.

    The folder is made as needed. A reader sees the old file or the new one, and never half of either, because
    a rename within one folder is one step. If the block raises, then ``path`` is untouched and the new file
    is removed.

    Args:
        path: the file to replace, there already or not.

    Yields:
        The name to write to, in the same folder.

    Raises:
        OSError: if the folder cannot be made or written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        yield unfinished
        os.replace(unfinished, target)
    finally:
        with contextlib.suppress(
            OSError
        ):  # renamed already, never written, or its folder has become read-only
            unfinished.unlink()
