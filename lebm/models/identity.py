"""A generator that generates nothing, so that latent and data space are one."""

from __future__ import annotations

from torch import Tensor

from lebm.models.generators import Generator

__all__ = ["IdentityGenerator"]


class IdentityGenerator(Generator):
    """``g(z) = z``, without parameters: the prior is then a density of the (noise-blurred) data themselves.

    Args:
        latent_dim: number of coordinates, at least 1.

    Shapes: ``(B, latent_dim) -> (B, latent_dim)``.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, not {latent_dim}")
        self.latent_dim = latent_dim
        self.out_shape = (latent_dim,)

    def forward(self, z: Tensor) -> Tensor:
        return z
