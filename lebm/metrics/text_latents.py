"""Whether a model of sentences uses its latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["LatentUse"]


class LatentUse(Metric):
    r"""Active coordinates, and how many nats the latent is worth to the generator.

    The metric uses two independent posterior draws ``z, z'`` of every observation. The noise of the draws is
    independent, so their covariance over observations is :math:`\mathrm{Var}_x(E[z \mid x])`.
    ``active_units`` counts the coordinates where it exceeds a threshold (Burda et al. 2016); posterior means
    are not needed. ``posterior_mean_variance`` is its mean over coordinates.

    ``latent_nats`` is :math:`E[\log p(x \mid z) - \log p(x \mid z^*)]`, where :math:`z^*` is the latent of
    another observation. Near 0, the generator ignores its latent (posterior collapse).

    Args:
        latent_dim: number of latent coordinates.
        threshold: least variance of an active coordinate.

    Example:
        >>> import torch
        >>> from lebm.metrics.text_latents import LatentUse
        >>> use = LatentUse(latent_dim=2)
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # the second coordinate ignores the observation
        >>> use.update(z, z, own=torch.zeros(2), foreign=torch.full((2,), -3.0))
        >>> {name: float(value) for name, value in use.compute().items()}
        {'active_units': 1.0, 'posterior_mean_variance': 0.5, 'latent_nats': 3.0}
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
        """Add a batch.

        Args:
            z: posterior draws ``(B, d)``.
            other: independent posterior draws for the same observations, ``(B, d)``.
            own: ``log p(x | z)``, ``(B,)``.
            foreign: ``log p(x | z*)``, ``(B,)``; no rows if the batch has a single observation.
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
