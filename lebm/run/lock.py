"""One process at a time trains in a run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from lebm.errors import UserError
from lebm.run.folder import LOCK, claim, ordinary

__all__ = ["sole_writer"]

_HELD = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def sole_writer(run_dir: Path, resume: bool) -> Iterator[None]:
    """Claim a run folder and hold its lock, the file ``.lock``, during the block.

    It is a POSIX lock of the system on that file. The system releases it when the process dies, so a killed
    run leaves a file but no lock. Forked processes do not inherit it. The file names the process and the
    host. For a file system without locks there is one line of warning.

    Args:
        run_dir: the folder, there already or not. Folders made here are removed at the end if they are empty.
        resume: whether the run in the folder is to be continued.

    Raises:
        UserError: if another process holds the lock, with its number and host; as :func:`claim`; if the
            folder cannot be written. Nothing has been written then.
    """
    missing = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    try:
        if not (run_dir.is_dir() and ordinary(run_dir, run_dir / LOCK)):
            claim(run_dir, resume)
            run_dir.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(run_dir)
    except OSError as error:
        _remove_empty(missing)
        reason = error.strerror or str(error)
        raise UserError(
            f"{run_dir}: cannot write the run folder ({reason}); choose another place with --run_dir"
        ) from error
    try:
        claim(run_dir, resume)  # another run may have begun and ended since the first look
        with contextlib.suppress(OSError):  # a full disk; the lock holds without the names
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            if _is_at(descriptor, run_dir / LOCK):
                (run_dir / LOCK).unlink()
        os.close(descriptor)
        _remove_empty(missing)


def _locked(run_dir: Path) -> int:
    """An open descriptor of the lock file, locked."""
    path = run_dir / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            if error.errno in _HELD:
                os.close(descriptor)
                raise UserError(
                    f"{run_dir}: {holder} trains in this folder; wait until it ends, or choose another folder"
                    " with --run_dir"
                ) from error
            reason = f"no lock on this file system ({error.strerror})"
            print(f"lebm: warning: {run_dir}: {reason}; start only one run in this folder", file=sys.stderr)
            return descriptor
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its holder has ended and removed it


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, each before the one around it, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
