"""Pictures: from images in [-1, 1] to files and loggers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

__all__ = ["image_grid", "pair_grid", "publish_image", "write_png"]

_MAGENTA = (255, 0, 255)


def image_grid(x: Tensor, columns: int = 8) -> np.ndarray:
    """Lay images out in rows, first image top left, with a white line of 2 pixels between and around several.

    All images share one fixed scale: values are clamped to [-1, 1], and -1 is black and 1 white. Nothing is stretched to an
    image's own extremes. Non-finite pixels are magenta.

    Args:
        x: ``(B, C, H, W)`` in [-1, 1] with one (grey) or three channels.
        columns: images a row, at least 1.

    Returns:
        ``(height, width, 3)`` of ``uint8``.

    Raises:
        ValueError: for another shape, or no image at all.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not x.shape[0]:
        raise ValueError(f"a picture needs images of shape (B, 1 or 3, H, W) with B at least 1, not {tuple(x.shape)}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}")
    x = x.detach().cpu().float()
    levels = ((x.nan_to_num().clamp(-1, 1) + 1) * 127.5).round().expand(-1, 3, -1, -1)
    broken = ~torch.isfinite(x).all(dim=1, keepdim=True)
    levels = torch.where(broken, torch.tensor(_MAGENTA).float().reshape(1, 3, 1, 1), levels)
    grid = make_grid(levels, nrow=min(columns, x.shape[0]), padding=2, pad_value=255)
    return grid.to(torch.uint8).permute(1, 2, 0).numpy()


def pair_grid(above: Tensor, below: Tensor, columns: int = 8) -> np.ndarray:
    """Two sets of images ``(B, C, H, W)`` as :func:`image_grid`, each row of the first followed by its row of the second."""
    columns = min(columns, above.shape[0])
    white = above.new_ones((-above.shape[0] % columns, *above.shape[1:]))
    pairs = [torch.cat([images, white]).split(columns) for images in (above, below)]
    return image_grid(torch.cat([row for pair in zip(*pairs, strict=True) for row in pair]), columns)


def write_png(path: str | Path, picture: np.ndarray) -> Path:
    """Write ``(height, width, 3)`` of ``uint8`` as PNG, making folders as needed; a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        Image.fromarray(picture).save(partial, format="PNG")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def publish_image(trainer: Trainer, name: str, picture: np.ndarray) -> Path | None:
    """Write ``<run>/images/<name>/<when>.png`` and ``latest.png`` beside it, and hand the picture to every logger that takes images.

    ``when`` is ``epoch-0003-step-00001200`` in training, ``validate`` or ``test`` otherwise. Call it on every process; only the
    first one acts. Nothing is written in a ``fast_dev_run``.

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
    """The name of the present place in a run, for files."""
    if trainer.state.fn == TrainerFn.FITTING:
        return f"epoch-{trainer.current_epoch:04d}-step-{trainer.global_step:08d}"
    return "test" if trainer.state.fn == TrainerFn.TESTING else "validate"


def _log_image(logger: Any, key: str, picture: np.ndarray, step: int) -> None:
    if hasattr(logger, "log_image"):
        logger.log_image(key, [picture], step=step)
    elif hasattr(getattr(logger, "experiment", None), "add_image"):
        logger.experiment.add_image(key, picture, global_step=step, dataformats="HWC")
