"""Images between two latents."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer

from lebm.callbacks.base import Batch, EvaluationCallback, Outputs
from lebm.callbacks.publish import publish_image
from lebm.estimators.latent_model import LatentModel
from lebm.plots import between, decoded, image_grid

__all__ = ["InterpolationGrid"]


class InterpolationGrid(EvaluationCallback):
    """Shows decoded points between the latents of two images, in ``images/interpolation``.

    Both ends of a row are reconstructions of images from the first validation or test batch. Between them the
    latents lie on a great circle, see :func:`~lebm.plots.between`.

    Args:
        pairs: number of rows.
        columns: images per row, the two ends included.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> from lebm.callbacks import InterpolationGrid
        >>> InterpolationGrid(pairs=3).columns
        10
    """

    def __init__(self, pairs: int = 6, columns: int = 10) -> None:
        super().__init__()
        if pairs < 1 or columns < 2:
            raise ValueError(f"pairs must be at least 1 and columns at least 2, not {pairs} and {columns}")
        self.pairs = pairs
        self.columns = columns
        self._shown = False

    def begin(self, trainer: Trainer, model: LatentModel, stage: str, batch: Batch) -> None:
        self._shown = False

    def collect(
        self, trainer: Trainer, model: LatentModel, stage: str, outputs: Outputs, batch: Batch
    ) -> None:
        z = self.output(outputs, "z")[: 2 * self.pairs]
        if self._shown or not trainer.is_global_zero or len(z) < 2:
            return
        self._shown = True
        ends = zip(*z[: len(z) // 2 * 2].chunk(2), strict=True)
        path = torch.cat([between(first, last, self.columns) for first, last in ends])
        publish_image(trainer, "interpolation", image_grid(decoded(model.decode, path), self.columns))
