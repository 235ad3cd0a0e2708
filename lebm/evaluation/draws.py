"""Samples of a model, and checks of images before their features are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.estimators.prior_model import PriorModel
from lebm.metrics.rows import finite_rows
from lebm.samplers.noise import Noise

__all__ = ["CHUNK", "check_images", "sample_chunks"]

CHUNK = 250
"""Samples per noise stream."""

_SLACK = 1e-3  # on a scale of 2; rounding to half precision stays below it


def sample_chunks(
    model: LatentModel,
    n: int,
    seed: int,
    size: int = CHUNK,
    steps: int | None = None,
    shape: Sequence[int] | None = None,
    pool: bool = False,
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Draw ``n`` samples in chunks, each with a noise stream of its own.

    Args:
        model: the model.
        n: number of samples.
        seed: of the noise.
        size: samples per chunk.
        steps: length of the chain; the model's default if ``None``.
        shape: ``(C, H, W)`` that the samples must have; any if ``None``.
        pool: go on from the prior chains that training left in its pool, instead of fresh chains.
        part: ``(k, of)``: draw only the chunks that belong to part k, from 0, of this number of parts.

    Yields:
        The number of the first sample, the samples ``(B, C, H, W)``, clamped to [-1, 1], and which of them
        are finite, ``(B,)`` of ``bool``.

    Raises:
        UserError: if the samples are not images of one or three channels, or have another shape.
    """
    for chunk in range(part[0], -(-n // size), part[1]):
        first, noise = chunk * size, Noise([(seed, "fid", chunk)])
        count = min(size, n - first)
        if pool:
            assert isinstance(model, PriorModel)
            x = model.sample_from_pool(count, generator=noise)
        else:
            x = model.sample(count, steps=steps, generator=noise)
        _check_channels(x, "the model's samples")
        if shape is not None and x.shape[1:] != tuple(shape):  # an extractor would resize them silently
            raise UserError(
                f"the model draws images of shape {tuple(x.shape[1:])}, the data have {tuple(shape)}"
            )
        yield first, x.float().clamp(-1, 1), finite_rows(x)


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
