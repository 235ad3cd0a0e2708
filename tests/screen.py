"""What commands show in a terminal and in a pipe: run in a process of their own, with nothing patched."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from tests.distributed import _CONTEXT

__all__ = ["Shown", "shown", "visible"]

Shown = tuple[int, str]
"""Exit status of the last command that ran, and all that the commands printed."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(commands: Sequence[str], folder: Path, terminal: bool, timeout: float = 120.0) -> Shown:
    """Run commands one after the other until one fails, with the output in a terminal or in a pipe.

    Args:
        commands: the words after ``lebm``, without quotes.
        folder: the working folder.
        terminal: whether standard output and error are a terminal, of 80 columns.
        timeout: seconds after which the process is killed.
    """
    reader, writer = pty.openpty() if terminal else os.pipe()
    output = Connection(writer)
    process = _CONTEXT.Process(
        target=_run, args=(output, list(commands), str(folder), os.environ["LEBM_CACHE"]), daemon=True
    )
    process.start()
    output.close()
    killer = threading.Timer(timeout, process.kill)
    killer.start()
    parts = []
    try:
        while part := os.read(reader, 1 << 16):
            parts.append(part)
    except OSError:  # how a terminal ends whose other side is closed
        pass
    killer.cancel()
    os.close(reader)
    process.join()
    return process.exitcode or 0, b"".join(parts).decode().replace("\r\n", "\n")


def visible(text: str) -> list[str]:
    """The lines that a terminal shows in the end, of a text that redraws its last line."""
    lines = (_CONTROL.sub("", re.split(r"\r|\x1b\[2K", line)[-1]) for line in text.split("\n"))
    return [line for line in lines if line]


def _run(output: Connection, commands: list[str], folder: str, cache: str) -> None:
    import torch

    from lebm.__main__ import main

    torch.set_num_threads(1)
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1) for number in (1, 2))
    os.environ.update(TERM="xterm", LEBM_CACHE=cache)
    os.chdir(folder)
    status = 0
    try:
        for command in commands:
            print(f"$ lebm {command}")
            if status := main(command.split()):
                break
    except BaseException:
        status = 1
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
