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
"""Number of samples per noise stream."""

_SLACK = 1e-3  # larger than the rounding of half precision


def sample_chunks(
    model: LatentModel,
    n: int,
    seed: int,
    shape: Sequence[int],
    size: int = CHUNK,
    steps: int | None = None,
    pool: bool = False,
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Draw ``n`` samples in chunks, each with a separate noise stream.

    Args:
        model: model to sample.
        n: number of samples.
        seed: seed of the noise.
        shape: shape ``(C, H, W)`` of the data, which a sample must have.
        size: number of samples per chunk.
        steps: length of the chain; the model's default if ``None``.
        pool: whether the prior chains of the pool of training are continued, instead of fresh chains.
        part: pair ``(k, of)``: only the chunks of part k, from 0, of this number of parts are drawn.

    Yields:
        The number of the first sample, the samples ``(B, C, H, W)``, clamped to [-1, 1], and the mask of the
        finite samples, ``(B,)`` of ``bool``.

    Raises:
        UserError: if the samples have another shape.
    """
    for chunk in range(part[0], -(-n // size), part[1]):
        first, noise = chunk * size, Noise([(seed, "fid", chunk)])
        count = min(size, n - first)
        if pool:
            assert isinstance(model, PriorModel)
            x = model.observe(model.pool_latents(count, generator=noise), generator=noise)
        else:
            x = model.sample(count, steps=steps, generator=noise)
        # Otherwise an extractor would resize them silently.
        if x.shape[1:] != tuple(shape):
            raise UserError(
                f"the model samples images of shape {tuple(x.shape[1:])}, but the data have {tuple(shape)}"
            )
        yield first, x.float().clamp(-1, 1), finite_rows(x)


def check_images(x: Tensor, what: str) -> None:
    """Reject images for which a feature extractor would return wrong features without an error.

    Raises:
        UserError: for a shape other than ``(B, 1 or 3, H, W)``, pixels outside [-1, 1], or non-finite pixels
            of the images named ``what``.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise UserError(
            f"a distance between images: {what} are not images of 1 or 3 channels but {tuple(x.shape)}"
        )
    if not bool(torch.isfinite(x).all()) or bool((x.abs() > 1 + _SLACK).any()):
        raise UserError(
            f"a distance between images: {what} must be finite and in [-1, 1]; scale them in the data module"
        )
