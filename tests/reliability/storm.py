"""Writers of checkpoints that are killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import torch

from lebm import checkpoint
from lebm.checkpoint.writing import AtomicCheckpointIO

__all__ = ["kill_storm"]


def _write_for_ever(folder: Path, numbers: int, start: int) -> None:
    """Two files a step, as a run does; tensors hold their step, so that a mixture of two would be seen."""
    torch.set_num_threads(1)
    io, step = AtomicCheckpointIO(), start
    while True:
        step += 1
        content = {
            "lebm_format": 1,
            "global_step": step,
            "state_dict": {"w": torch.full((numbers,), float(step))},
        }
        for name in ("step=00000000.ckpt", "last.ckpt"):
            io.save_checkpoint(content, folder / name)


def kill_storm(run: Path, kills: int, numbers: int, temporary: Path, seed: int = 0) -> dict[str, int]:
    """Kill a forked writer at random moments; after each kill the newest checkpoint must be whole and no
    older than before.

    Args:
        run: a run folder.
        kills: number of SIGKILLs.
        numbers: float32 values in a checkpoint.
        temporary: ``$TMPDIR`` of the writers.
        seed: of the moments.

    Returns:
        Counts: ``kills``, ``unreadable``, ``lost`` (a step older than one seen before), ``orphans`` removed,
            and ``steps`` written.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True)
    moments = random.Random(seed)
    counts = {"kills": 0, "unreadable": 0, "lost": 0, "orphans": 0, "steps": 0}
    first = {"lebm_format": 1, "global_step": 0, "state_dict": {"w": torch.zeros(numbers)}}
    started = time.monotonic()
    AtomicCheckpointIO().save_checkpoint(first, folder / "last.ckpt")
    one = time.monotonic() - started
    seen = 0
    for _ in range(kills):
        writer = os.fork()
        if writer == 0:
            os.environ["TMPDIR"] = str(temporary)
            try:
                _write_for_ever(folder, numbers, seen)
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0, 4 * one))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        counts["kills"] += 1
        try:
            _, content = checkpoint.newest(run)
            step = content["global_step"]
            whole = bool((content["state_dict"]["w"] == step).all())
        except ValueError:
            whole, step = False, seen
        counts["unreadable"] += not whole
        counts["lost"] += step < seen
        seen = max(seen, step)
        counts["orphans"] += len(list(folder.glob(".*.unfinished")))
        AtomicCheckpointIO.clean(folder)
    counts["steps"] = seen
    return counts
