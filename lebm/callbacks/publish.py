"""Pictures, histograms and tables of a run, in files and loggers.

Every process may call these functions, but only the first one acts. A ``fast_dev_run`` writes and logs
nothing.

Example:
    >>> import torch
    >>> from lightning.pytorch import Trainer
    >>> from lebm.callbacks import publish_histogram, publish_image, publish_table
    >>> from lebm.plots import image_grid
    >>> trainer = Trainer(accelerator="cpu", logger=False, default_root_dir="runs/a")
    >>> publish_image(trainer, "black", image_grid(torch.zeros(4, 1, 8, 8))).as_posix()
    'runs/a/images/black/validate.png'
    >>> publish_histogram(trainer, "scores", torch.tensor([0.5, 2.0]))
    >>> publish_table(trainer, "scores", ["row", "score"], [[3, 0.5]])
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lebm.callbacks.base import fitting
from lebm.plots.grids import write_png


def _acts(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]


def publish_image(trainer: Trainer, name: str, picture: np.ndarray) -> Path | None:
    """Write a picture into the run folder, and log it as ``images/<name>`` to loggers that support images.

    The picture is ``(height, width, 3)`` of ``uint8``. The files are ``images/<name>/<when>.png``, whose path
    is returned, and ``latest.png`` beside it, in the trainer's ``default_root_dir``. ``<when>`` is
    ``epoch-0003-step-00001200`` in training, and ``validate`` or ``test`` otherwise. Epochs count from 1.
    """
    if not _acts(trainer):
        return None
    key, step = f"images/{name}", trainer.global_step
    folder = Path(trainer.default_root_dir) / key
    path = write_png(folder / f"{moment(trainer)}.png", picture)
    write_png(folder / "latest.png", picture)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key, [picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, picture, global_step=step, dataformats="HWC")
    return path


def publish_histogram(trainer: Trainer, name: str, values: Tensor) -> None:
    """Log a histogram to TensorBoard and Weights & Biases as ``histograms/<name>``.

    There must be at least one value; the values are finite and of any shape.
    """
    if not _acts(trainer):
        return
    key = f"histograms/{name}"
    numbers: Any = values.detach().double().flatten().cpu().numpy()
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            logger.log_metrics({key: wandb.Histogram(numbers)}, trainer.global_step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(key, numbers, global_step=trainer.global_step)


def takes_tables(trainer: Trainer) -> bool:
    """Return whether :func:`publish_table` would log a table, so that its rows are worth computing."""
    return _acts(trainer) and any(isinstance(logger, WandbLogger) for logger in trainer.loggers)


def publish_table(trainer: Trainer, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Log a table to Weights & Biases, the only logger with tables, as ``tables/<name>``.

    Each row has one value per column; an array ``(height, width, 3)`` of ``uint8`` is a picture.
    """
    if not takes_tables(trainer):
        return
    import wandb

    data = [[wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row] for row in rows]
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(f"tables/{name}", columns=list(columns), data=data, step=trainer.global_step)


def moment(trainer: Trainer) -> str:
    """Return the current epoch, from 1, and step, or the kind of pass, as part of a file name."""
    if fitting(trainer):
        epoch = trainer.fit_loop.epoch_progress.current.ready  # current_epoch is too high after the last one
        return f"epoch-{epoch:04d}-step-{trainer.global_step:08d}"
    return "test" if trainer.state.fn == TrainerFn.TESTING else "validate"
