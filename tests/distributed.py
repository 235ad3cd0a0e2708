"""Runs a function in several processes that form one gloo group, for tests that compare process counts."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

__all__ = ["ChildError", "run_processes"]

# The server imports once; a process costs a fork then. It is a process of its own, so nothing is forked from
# a threaded parent.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch", "lightning.pytorch", "torchmetrics", "lebm.cli.training", "matplotlib.backends.backend_agg"]
)


class ChildError(AssertionError):
    """A process failed or was too slow; the message holds its traceback."""


def run_processes(
    function: Callable[..., Any], *args: Any, world_size: int = 2, timeout: float = 120.0
) -> list[Any]:
    """Call ``function(*args)`` in ``world_size`` processes and return their results in the order of their
    ranks.

    A group exists when the function starts, and ``Trainer(accelerator="cpu", strategy="ddp",
    devices=world_size)`` uses it. With one process the function still runs in a child, without a group, so
    that both sides of a comparison start alike.

    Args:
        function: importable, that is defined at the top of a module; results and arguments are pickled.
        args: its arguments.
        world_size: number of processes.
        timeout: seconds after which all are killed; starting the first of a session takes several.

    Raises:
        ChildError: with the tracebacks of the processes that failed first, or naming those that were still
            running.
    """
    with tempfile.TemporaryDirectory() as folder:
        children = [
            _CONTEXT.Process(
                target=_child, args=(rank, world_size, folder, timeout, function, args), daemon=True
            )
            for rank in range(world_size)
        ]
        for child in children:
            child.start()
        try:
            _wait(children, time.monotonic() + timeout)
        finally:
            running = [rank for rank, child in enumerate(children) if child.is_alive()]
            for child in children:
                child.kill()
                child.join()
        errors = sorted(Path(folder).glob("error-*"))
        if errors:
            raise ChildError("\n".join(f"{file.name}:\n{file.read_text()}" for file in errors))
        if running:
            raise ChildError(f"processes {running} were still running after {timeout:g} s")
        missing = [rank for rank in range(world_size) if not (Path(folder) / f"result-{rank}").exists()]
        if missing:
            raise ChildError(
                f"processes {missing} died without a traceback, exit codes"
                f" {[children[rank].exitcode for rank in missing]}"
            )
        return [pickle.loads((Path(folder) / f"result-{rank}").read_bytes()) for rank in range(world_size)]


def _wait(children: list[Any], deadline: float) -> None:
    """Until all have ended well, or one has failed (the others would wait for it for ever), or time is up."""
    while any(child.is_alive() for child in children) and time.monotonic() < deadline:
        if any(child.exitcode not in (None, 0) for child in children):
            return
        time.sleep(0.02)


def _child(
    rank: int,
    world_size: int,
    folder: str,
    timeout: float,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        if world_size > 1:
            # LOCAL_RANK tells Lightning that the processes exist already.
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), NODE_RANK="0")
            torch.distributed.init_process_group(
                "gloo",
                init_method=f"file://{folder}/rendezvous",
                rank=rank,
                world_size=world_size,
                timeout=timedelta(seconds=timeout),
            )
        result = pickle.dumps(function(*args))
        partial = Path(folder) / f".result-{rank}"
        partial.write_bytes(result)
        partial.rename(Path(folder) / f"result-{rank}")
        if world_size > 1:
            torch.distributed.destroy_process_group()
    except BaseException:
        (Path(folder) / f"error-{rank}").write_text(traceback.format_exc())
        os._exit(1)
