"""Writing checkpoints so that a kill at any moment leaves the last one intact."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

__all__ = ["AtomicCheckpointIO"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, then renames.

    Lightning's own writer goes through the system's temporary folder and *copies* from there if that is another file system,
    so a kill during the copy leaves a broken file. A rename within one folder is atomic.
    """

    SUFFIX = ".unfinished"

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{self.SUFFIX}")
        try:
            with open(unfinished, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def clean(cls, folder: str | os.PathLike) -> list[Path]:
        """Remove what killed writers left behind in a folder of checkpoints; returns what was removed."""
        orphans = sorted(Path(folder).glob(f".*{cls.SUFFIX}"))
        for orphan in orphans:
            orphan.unlink(missing_ok=True)
        return orphans
