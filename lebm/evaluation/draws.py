"""Samples of a model, and checks of images before their features are computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.estimators.prior_model import PriorModel
from lebm.metrics.rows import finite_rows
from lebm.samplers.noise import Noise

__all__ = ["CHUNK", "check_images", "drawn_images"]

CHUNK = 250
"""Samples per noise stream."""

_SLACK = 1e-3  # on a scale of 2; rounding to half precision stays below it


def drawn_images(
    model: LatentModel,
    count: int,
    chunk: int,
    seed: int,
    steps: int | None = None,
    shape: Sequence[int] | None = None,
    pool: bool = False,
) -> tuple[Tensor, Tensor]:
    """``count`` samples ``(count, C, H, W)``, clamped to [-1, 1], and which of them are finite.

    Args:
        model: the model.
        count: number of samples in this chunk.
        chunk: number of the chunk, which has its own noise stream.
        seed: of the noise.
        steps: length of the chain; the model's default if ``None``.
        shape: ``(C, H, W)`` that the samples must have; any if ``None``.
        pool: go on from the prior chains that training left in its pool, instead of fresh chains.

    Raises:
        UserError: if the samples are not images of one or three channels, or have another shape.
    """
    noise = Noise([(seed, "fid", chunk)])
    if pool:
        assert isinstance(model, PriorModel)
        x = model.sample_from_pool(count, generator=noise)
    else:
        x = model.sample(count, steps=steps, generator=noise)
    _check_channels(x, "the model's samples")
    if shape is not None and x.shape[1:] != tuple(shape):  # an extractor would resize them silently
        raise UserError(f"the model draws images of shape {tuple(x.shape[1:])}, the data have {tuple(shape)}")
    return x.float().clamp(-1, 1), finite_rows(x)


def check_images(x: Tensor, what: str) -> None:
    """Refuse images for which a feature extractor would return wrong features without an error.

    Raises:
        UserError: naming them as ``what``, for a shape other than ``(B, 1 or 3, H, W)``, for pixels outside
            [-1, 1], and for non-finite pixels.
    """
    _check_channels(x, what)
    if not bool(torch.isfinite(x).all()) or bool((x.abs() > 1 + _SLACK).any()):
        raise UserError(
            f"a distance between images: {what} must be finite and in [-1, 1]; scale them in the data module"
        )


def _check_channels(x: Tensor, what: str) -> None:
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise UserError(
            f"a distance between images: {what} are not images of 1 or 3 channels but {tuple(x.shape)}"
        )
