"""One process at a time trains in a run folder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from lebm.errors import UserError
from lebm.run.folder import LOCK, claim


@contextlib.contextmanager
def sole_writer(run_dir: Path, resume: bool) -> Iterator[None]:
    """Claim a run folder and hold the lock of its file ``.lock``, which names the process and the host.

    The system releases the lock of a process that dies. Folders made here are removed if they stay empty.

    Raises:
        UserError: if another process holds the lock, with its number and host; as :func:`claim`; if the
            folder cannot be written. Nothing has been written then.
    """
    missing = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    file, place = run_dir / LOCK, "choose another place with --run_dir"
    with contextlib.ExitStack() as held:
        held.callback(_remove, missing)
        try:
            if not file.exists():
                claim(run_dir, resume)
                run_dir.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(file, timeout=0))
        except Timeout as error:
            holder = file.read_text(errors="replace").strip() or "another process"
            raise UserError(f"{run_dir}: {holder} trains in this folder; wait, or {place}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno != errno.ENOLCK:
                raise UserError(f"{run_dir}: cannot write the run folder ({reason}); {place}") from error
            line = f"no lock on this file system ({reason}); start only one run in this folder"
            print(f"lebm: warning: {run_dir}: {line}", file=sys.stderr)
        claim(run_dir, resume)  # another run may have begun and ended since the first look
        held.callback(_remove, [file])
        with contextlib.suppress(OSError):  # a full disk; the lock holds without the names
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield


def _remove(paths: list[Path]) -> None:
    with contextlib.suppress(OSError):  # a folder with something in it stays, and those around it
        for path in paths:
            path.rmdir() if path.is_dir() else path.unlink()
