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

__all__ = ["CHUNK", "check_images", "drawn", "sample_chunks"]

CHUNK = 250
"""Number of samples per noise stream."""

_SLACK = 1e-3  # larger than the rounding of half precision


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
    """Draw ``n`` samples in chunks, each with a separate noise stream.

    Args:
        model: model to sample.
        n: number of samples.
        seed: seed of the noise.
        size: number of samples per chunk.
        steps: length of the chain; the model's default if ``None``.
        shape: expected shape ``(C, H, W)`` of a sample; any if ``None``.
        pool: whether the prior chains of the pool of training are continued, instead of fresh chains.
        part: pair ``(k, of)``: only the chunks of part k, from 0, of this number of parts are drawn.

    Yields:
        The number of the first sample, the samples ``(B, C, H, W)``, clamped to [-1, 1], and the mask of the
        finite samples, ``(B,)`` of ``bool``.

    Raises:
        UserError: if the samples are not images of one or three channels, or have another shape.
    """
    for chunk in range(part[0], -(-n // size), part[1]):
        first, noise = chunk * size, Noise([(seed, "fid", chunk)])
        count = min(size, n - first)
        x = drawn(model, count, noise, steps, pool)
        _check_channels(x, "the model's samples")
        # Otherwise an extractor would resize them silently.
        if shape is not None and x.shape[1:] != tuple(shape):
            raise UserError(
                f"the model samples images of shape {tuple(x.shape[1:])}, but the data have {tuple(shape)}"
            )
        yield first, x.float().clamp(-1, 1), finite_rows(x)


def drawn(model: LatentModel, n: int, noise: Noise, steps: int | None, pool: bool) -> Tensor:
    """Draw ``n`` samples by fresh chains, or by the pool of training, which only a ``PriorModel`` has."""
    if not pool:
        return model.sample(n, steps=steps, generator=noise)
    assert isinstance(model, PriorModel)
    return model.observe(model.pool_latents(n, generator=noise), generator=noise)


def check_images(x: Tensor, what: str) -> None:
    """Reject images for which a feature extractor would return wrong features without an error.

    Raises:
        UserError: for a shape other than ``(B, 1 or 3, H, W)``, pixels outside [-1, 1], or non-finite pixels
            of the images named ``what``.
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
