"""A generator without a network: latent space and data space are the same."""

from __future__ import annotations

from torch import Tensor

from lebm.models.generators import Generator

__all__ = ["IdentityGenerator"]


class IdentityGenerator(Generator):
    """The identity ``g(z) = z``, without parameters.

    With this generator the prior is a density of the data themselves, blurred by the noise of the likelihood.

    Args:
        latent_dim: number of coordinates, at least 1.

    Shapes: ``(B, latent_dim) -> (B, latent_dim)``.

    Raises:
        ValueError: if ``latent_dim`` is below 1.

    Example:
        >>> import torch
        >>> from lebm.models import IdentityGenerator
        >>> generator = IdentityGenerator(latent_dim=2)
        >>> generator(torch.tensor([[0.5, -1.0]]))
        tensor([[ 0.5000, -1.0000]])
        >>> generator.out_shape
        (2,)
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, not {latent_dim}")
        self.latent_dim = latent_dim
        self.out_shape = (latent_dim,)

    def forward(self, z: Tensor) -> Tensor:
        return z
