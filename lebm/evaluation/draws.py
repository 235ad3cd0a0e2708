"""Samples of a model, and checks of images before their features are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lebm.errors import UserError
from lebm.estimators.latent_model import LatentModel
from lebm.estimators.prior_model import PriorModel
from lebm.metrics.rows import finite_rows
from lebm.models.frozen import frozen
from lebm.samplers.chains import PersistentChains
from lebm.samplers.noise import Noise, RandomSource

__all__ = ["CHUNK", "check_images", "has_pool", "pool_latents", "sample_chunks"]

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
        if pool:
            x = model.observe(pool_latents(model, count, noise), generator=noise)
        else:
            x = model.sample(count, steps=steps, generator=noise)
        _check_channels(x, "the model's samples")
        # Otherwise an extractor would resize them silently.
        if shape is not None and x.shape[1:] != tuple(shape):
            raise UserError(
                f"the model samples images of shape {tuple(x.shape[1:])}, but the data have {tuple(shape)}"
            )
        yield first, x.float().clamp(-1, 1), finite_rows(x)


def has_pool(model: LatentModel) -> bool:
    """Return whether :func:`pool_latents` can draw from the model."""
    chains = getattr(model, "prior_sampler", None)
    return isinstance(chains, PersistentChains) and not chains.is_empty


def pool_latents(model: LatentModel, n: int, generator: RandomSource = None) -> Tensor:
    """Draw ``n`` latents of the prior from the pool of chains of training, ``(n, latent_dim)``.

    Rows of the pool are drawn with replacement, and each continues for the kernel's own steps.

    Raises:
        UserError: if the prior is not sampled by a :class:`~lebm.samplers.PersistentChains`, or its pool is
            empty.
    """
    if not isinstance(model, PriorModel) or not has_pool(model):
        raise UserError("prior_sampler has no pool of chains: train with PersistentChains")
    chains, space = model.prior_sampler, model.space
    assert isinstance(chains, PersistentChains)  # checked by has_pool
    with torch.inference_mode(False), torch.no_grad(), frozen(model.prior):
        start = chains.pooled(n, generator).to(model.device)
        return space.latents(chains.kernel(space.target(), start, generator))


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
