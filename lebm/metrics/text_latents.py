"""Whether a model of sentences uses its latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["LatentUse"]


class LatentUse(Metric):
    r"""Active coordinates, and how many nats the latent is worth to the generator.

    From two independent posterior draws ``z, z'`` of every observation: their covariance over observations is
    :math:`\mathrm{Var}_x(E[z \mid x])`, since the noise of the draws is independent, so ``active_units`` counts the coordinates where
    it exceeds a threshold (Burda et al. 2016) without knowing posterior means. ``latent_nats`` is
    :math:`E[\log p(x \mid z) - \log p(x \mid z^*)]` with :math:`z^*` the latent of another observation: near 0, the generator ignores
    what it is told (posterior collapse).

    Args:
        latent_dim: number of latent coordinates.
        threshold: least variance of an active coordinate.
    """

    full_state_update = False
    count: Tensor
    first: Tensor
    second: Tensor
    product: Tensor
    gain: Tensor
    compared: Tensor

    def __init__(self, latent_dim: int, threshold: float = 0.01) -> None:
        super().__init__()
        self.threshold = threshold
        for name in ("first", "second", "product"):
            self.add_state(name, torch.zeros(latent_dim, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("count", "gain", "compared"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, z: Tensor, other: Tensor, own: Tensor, foreign: Tensor) -> None:
        """Take a batch.

        Args:
            z: posterior draws ``(B, d)``.
            other: independent draws for the same observations ``(B, d)``.
            own: ``log p(x | z)``, ``(B,)``.
            foreign: ``log p(x | z*)``, ``(B,)``; no rows where a batch has one observation only.
        """
        z, other = z.double(), other.double()
        self.count = self.count + len(z)
        self.first = self.first + z.sum(dim=0)
        self.second = self.second + other.sum(dim=0)
        self.product = self.product + (z * other).sum(dim=0)
        if len(foreign):
            self.gain = self.gain + (own.double() - foreign.double()).sum()
            self.compared = self.compared + len(foreign)

    def compute(self) -> dict[str, Tensor]:
        covariance = self.product / self.count - (self.first / self.count) * (self.second / self.count)
        return {
            "active_units": (covariance > self.threshold).sum().double(),
            "posterior_mean_variance": covariance.mean(),
            "latent_nats": self.gain / self.compared.clamp_min(1),
        }
