"""Where the chains of dual-MCMC teaching start."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from lebm.samplers.base import Sampler
from lebm.samplers.chains import PersistentChains
from lebm.samplers.noise import RandomSource, normal, uniform

__all__ = ["ImageStart", "LatentStart", "are_revisions", "check_starts", "start_of_images"]

ImageStart = Literal["generator", "likelihood", "noise"]
LatentStart = Literal["encoder", "prior"]


def start_of_images(kind: ImageStart, generated: Tensor, sigma: float, noise: RandomSource) -> Tensor:
    """The generator's images ``(B, *event)``, a draw of ``N(., sigma^2 I)`` around them, or uniform noise in
    [-1, 1].
    """
    place: dict[str, Any] = {"dtype": generated.dtype, "device": generated.device}
    if kind == "noise":
        return 2 * uniform(noise, generated.shape, **place) - 1
    if kind == "likelihood":
        return generated + sigma * normal(noise, generated.shape, **place)
    return generated


def are_revisions(kind: ImageStart, sampler: Sampler) -> bool:
    """Whether the chain's images belong to the latents of this batch."""
    return kind != "noise" and not isinstance(sampler, PersistentChains)


def check_starts(images: ImageStart, latents: LatentStart, posterior_sampler: Sampler) -> None:
    """Refuse starts that there are not.

    Raises:
        ValueError: naming the argument.
    """
    if images not in ("generator", "likelihood", "noise") or latents not in ("encoder", "prior"):
        raise ValueError(f"unknown start of a chain: image_start {images!r}, latent_start {latents!r}")
    if isinstance(posterior_sampler, PersistentChains):
        raise ValueError(
            "posterior chains belong to the images of one batch and cannot persist: posterior_sampler must"
            " not be a pool"
        )
