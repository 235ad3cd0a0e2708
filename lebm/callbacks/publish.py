"""Pictures of a run: their files and their way to the loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lebm.plots.grids import write_png

__all__ = ["moment", "publish_image"]


def publish_image(trainer: Trainer, name: str, picture: np.ndarray) -> Path | None:
    """Write ``<run>/images/<name>/<when>.png`` and ``latest.png`` beside it, and hand the picture to every
    logger that takes images.

    ``when`` is ``epoch-0003-step-00001200`` in training, ``validate`` or ``test`` otherwise. Call it on every
    process; only the first one acts. Nothing is written in a ``fast_dev_run``.

    Args:
        trainer: whose ``default_root_dir`` is the run folder.
        name: what the picture shows; also ``images/<name>`` in the loggers.
        picture: ``(height, width, 3)`` of ``uint8``.

    Returns:
        The file, or ``None`` where nothing was written.
    """
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    folder = Path(trainer.default_root_dir) / "images" / name
    path = write_png(folder / f"{moment(trainer)}.png", picture)
    write_png(folder / "latest.png", picture)
    for logger in trainer.loggers:
        _log_image(logger, f"images/{name}", picture, trainer.global_step)
    return path


def moment(trainer: Trainer) -> str:
    """The present epoch and step, or the kind of pass, as part of a file name."""
    if trainer.state.fn == TrainerFn.FITTING:
        return f"epoch-{trainer.current_epoch:04d}-step-{trainer.global_step:08d}"
    return "test" if trainer.state.fn == TrainerFn.TESTING else "validate"


def _log_image(logger: Any, key: str, picture: np.ndarray, step: int) -> None:
    if hasattr(logger, "log_image"):
        logger.log_image(key, [picture], step=step)
    elif hasattr(getattr(logger, "experiment", None), "add_image"):
        logger.experiment.add_image(key, picture, global_step=step, dataformats="HWC")
