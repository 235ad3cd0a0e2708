"""Writer of checkpoints that leaves the last one intact if the process is killed at any moment."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lebm.checkpoint import SEALED_FORMAT, read
from lebm.checkpoint.reading import seal
from lebm.errors import CheckpointWriteError
from lebm.files import UNFINISHED, replaced


class AtomicCheckpointIO(TorchCheckpointIO):
    """A writer that adds a checksum, flushes to disk beside the target, then renames.

    Files are read through :func:`lebm.checkpoint.read`. Lightning's own writer copies from the temporary
    folder of the system, so a killed process may leave a broken file.
    """

    def __init__(self) -> None:
        super().__init__()
        self._used: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointWriteError: with file and reason; the earlier file is untouched.
        """
        target = Path(path)
        if "lebm_format" in checkpoint:
            checkpoint = {**checkpoint, "lebm_format": SEALED_FORMAT}
        try:
            if target.parent in self._used and not target.parent.is_dir():
                raise FileNotFoundError(2, "the folder has been removed since the last checkpoint")
            with replaced(target) as unfinished, open(unfinished, "w+b") as file:
                torch.save(checkpoint, file)
                seal(file)
                file.flush()
                os.fsync(file.fileno())
            self._used.add(target.parent)
            descriptor = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):  # torch wraps errors of the system
                raise
            raise CheckpointWriteError(
                f"cannot write the checkpoint {target} ({cause.strerror or cause}); earlier checkpoints are"
                " untouched, so fix it and continue with --resume"
            ) from error

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        """Remove a ``.ckpt`` file from a folder to which this object has written; keep all other files.

        The checkpoints of a copied run name the files of the original.
        """
        file = Path(path)
        folders = {folder.resolve() for folder in self._used}
        if file.suffix == ".ckpt" and file.parent.resolve() in folders and not file.is_dir():
            file.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return the verified content of a checkpoint on the CPU; tensors and plain values only."""
        content = read(Path(path), described=False)
        if "state_dict" not in content:  # bare weights, which a process that Lightning has forked leaves to
            self._used.add(Path(path).parent)  # its parent; that reads the file, and then removes it
        return content

    @staticmethod
    def clean(folder: str | os.PathLike) -> None:
        """Remove the unfinished files of killed writers from a folder of checkpoints."""
        for orphan in Path(folder).glob(f".*{UNFINISHED}"):
            with contextlib.suppress(OSError):  # a read-only folder is cleaned at the next start
                orphan.unlink()
