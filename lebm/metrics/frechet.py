"""Frechet distance of feature distributions, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["FrechetDistance", "frechet_distance"]


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> Tensor:
    r"""Squared 2-Wasserstein distance of two Gaussians (Heusel et al. 2017, eq. 6).

    .. math:: |\mu_a - \mu_b|^2 + \mathrm{tr}\,\Sigma_a + \mathrm{tr}\,\Sigma_b
        - 2\,\mathrm{tr}\,(R \Sigma_b R)^{1/2}, \qquad R = \Sigma_a^{1/2}

    The symmetric form has real eigenvalues. Rounding can only make them negative, and negative eigenvalues
    are set to zero. Covariances may be rank deficient.

    Args:
        mean_a: mean of the first Gaussian, ``(d,)``.
        covariance_a: its covariance, ``(d, d)``, symmetric.
        mean_b: mean of the second Gaussian, ``(d,)``.
        covariance_b: its covariance, ``(d, d)``, symmetric.

    Returns:
        A scalar, non-negative up to rounding.

    Example:
        >>> import torch
        >>> from lebm.metrics import frechet_distance
        >>> frechet_distance(torch.zeros(2), torch.eye(2), torch.ones(2), 4 * torch.eye(2))  # 2 + 2
        tensor(4.)
    """
    values, vectors = torch.linalg.eigh(covariance_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root @ covariance_b @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    return (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross


class FrechetDistance(Metric):
    """Streaming Frechet distance between real and generated features.

    The states are sums in float64 that add up over processes. So neither the batch size nor the number of
    processes matters. On the same features the value equals that of torchmetrics'
    ``FrechetInceptionDistance``; here it comes from a symmetric eigenproblem.

    Args:
        num_features: length ``d`` of a feature vector.
        reset_real_features: whether ``reset`` clears the real features too.

    Example:
        >>> import torch
        >>> from lebm.metrics import FrechetDistance
        >>> distance = FrechetDistance(num_features=2)
        >>> distance.update(torch.eye(2), real=True)
        >>> distance.update(torch.eye(2) + 1, real=False)
        >>> round(float(distance.compute()), 6)
        2.0
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    def __init__(self, num_features: int, reset_real_features: bool = False) -> None:
        super().__init__()
        self.reset_real_features = reset_real_features
        shapes = {"sum": (num_features,), "outer": (num_features, num_features)}
        for name in ("real", "fake"):
            for part, shape in shapes.items():
                zeros = torch.zeros(shape, dtype=torch.float64)
                self.add_state(f"{name}_{part}", zeros, dist_reduce_fx="sum")
            self.add_state(f"{name}_count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, features: Tensor, real: bool) -> None:
        """Add features ``(B, d)``, finite; ``B`` may be zero."""
        name = "real" if real else "fake"
        features = features.double()
        # Out of place, because a state made in inference mode cannot be changed outside it.
        setattr(self, f"{name}_sum", getattr(self, f"{name}_sum") + features.sum(dim=0))
        setattr(self, f"{name}_outer", torch.addmm(getattr(self, f"{name}_outer"), features.T, features))
        setattr(self, f"{name}_count", getattr(self, f"{name}_count") + features.shape[0])

    def compute(self) -> Tensor:
        """The distance, a float64 scalar.

        Raises:
            ValueError: with fewer than two real or two generated samples.
        """
        return frechet_distance(*self._moments("real"), *self._moments("fake"))

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        total, outer, count = (getattr(self, f"{name}_{part}") for part in ("sum", "outer", "count"))
        if count < 2:
            raise ValueError(f"a Frechet distance needs at least two {name} samples, not {int(count)}")
        mean = total / count
        return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)

    def reset(self) -> None:
        kept = (
            {}
            if self.reset_real_features
            else {f"real_{part}": getattr(self, f"real_{part}") for part in ("sum", "outer", "count")}
        )
        super().reset()
        for name, value in kept.items():
            setattr(self, name, value)
