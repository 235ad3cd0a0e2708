"""Samples of a model, in chunks or from the pool of training."""

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

__all__ = ["CHUNK", "drawn", "has_pool", "pool_latents", "sample_chunks"]

CHUNK = 250
"""Number of samples per noise stream."""


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
    """Draw ``n`` samples of the ``shape`` of the data in chunks of ``size``, each with its own noise stream.

    Args:
        model: model to sample.
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
        x = drawn(model, count, noise, steps, pool)
        # Otherwise an extractor would resize them silently.
        if x.shape[1:] != tuple(shape):
            found = f"the model samples images of shape {tuple(x.shape[1:])}"
            raise UserError(f"{found}, but the data have {tuple(shape)}")
        yield first, x.float().clamp(-1, 1), finite_rows(x)


def drawn(model: LatentModel, n: int, noise: Noise, steps: int | None, pool: bool) -> Tensor:
    """Draw ``n`` samples by fresh chains, or by the pool of training."""
    if not pool:
        return model.sample(n, steps=steps, generator=noise)
    return model.observe(pool_latents(model, n, noise), generator=noise)


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
    chains, space = getattr(model, "prior_sampler", None), getattr(model, "space", None)
    if not isinstance(model, PriorModel) or not isinstance(chains, PersistentChains) or chains.is_empty:
        raise UserError("prior_sampler has no pool of chains: train with PersistentChains")
    with torch.inference_mode(False), torch.no_grad(), frozen(model.prior):
        start = chains.pooled(n, generator).to(model.device)
        return space.latents(chains.kernel(space.target(), start, generator))
