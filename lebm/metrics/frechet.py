"""Distances between sets of features: Fréchet distance, precision and recall, and MMD."""

import torch
from torch import Tensor
from torchmetrics import Metric


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> Tensor:
    r"""Return the squared 2-Wasserstein distance of two Gaussians (Heusel et al. 2017, eq. 6).

    .. math:: |\mu_a - \mu_b|^2 + \mathrm{tr}\,\Sigma_a + \mathrm{tr}\,\Sigma_b
        - 2\,\mathrm{tr}\,(R \Sigma_b R)^{1/2}, \qquad R = \Sigma_a^{1/2}

    The symmetric form has real eigenvalues, of which negative ones, due to rounding, are set to zero.
    Covariances may be rank deficient.

    Args:
        mean_a: mean of the first Gaussian, ``(d,)``.
        covariance_a: covariance of the first Gaussian, ``(d, d)``, symmetric.
        mean_b: mean of the second Gaussian, ``(d,)``.
        covariance_b: covariance of the second Gaussian, ``(d, d)``, symmetric.

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
    """Streaming Fréchet distance between real and generated features.

    The states are sums in float64, so the value depends on neither the batch size nor the number of
    processes. It equals the value of torchmetrics' ``FrechetInceptionDistance`` on the same features.
    ``reset`` keeps the real features.

    Args:
        num_features: length ``d`` of a feature vector.

    Example:
        >>> import torch
        >>> from lebm.metrics import FrechetDistance
        >>> distance = FrechetDistance(num_features=2)
        >>> distance.update(torch.eye(2), real=True)
        >>> distance.update(torch.eye(2) + 1, real=False)
        >>> round(float(distance.compute()), 6)
        2.0
    """

    full_state_update = False

    def __init__(self, num_features: int) -> None:
        super().__init__()
        shapes = {"sum": (num_features,), "outer": (num_features, num_features), "count": ()}
        for name in ("real", "fake"):
            for part, shape in shapes.items():
                zeros = torch.zeros(shape, dtype=torch.float64)
                self.add_state(f"{name}_{part}", zeros, dist_reduce_fx="sum")

    def update(self, features: Tensor, real: bool) -> None:
        """Add features ``(B, d)``, finite; ``B`` may be zero."""
        name = "real" if real else "fake"
        features = features.double()
        # Out of place, because a state of inference mode cannot be changed outside it.
        setattr(self, f"{name}_sum", getattr(self, f"{name}_sum") + features.sum(dim=0))
        setattr(self, f"{name}_outer", torch.addmm(getattr(self, f"{name}_outer"), features.T, features))
        setattr(self, f"{name}_count", getattr(self, f"{name}_count") + features.shape[0])

    def compute(self) -> Tensor:
        """Return the distance, a float64 scalar.

        Raises:
            ValueError: with fewer than two real or two generated samples.
        """
        return frechet_distance(*self._moments("real"), *self._moments("fake"))

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        total, outer, count = (getattr(self, f"{name}_{part}") for part in ("sum", "outer", "count"))
        if count < 2:
            raise ValueError(f"a Fréchet distance needs at least two {name} samples, not {int(count)}")
        mean = total / count
        return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)

    def reset(self) -> None:
        kept = {name: getattr(self, name) for name in ("real_sum", "real_outer", "real_count")}
        super().reset()
        for name, value in kept.items():
            setattr(self, name, value)


_CELLS = 2**24  # distances in memory at one time, 64 MB


def neighbour_rows(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, Tensor]:
    """Return values per sample whose means are precision, recall, density and coverage.

    The ball of a sample reaches its k-th neighbour among samples of its own kind, in Euclidean distance,
    boundary included.

    - Precision is the share of generated samples inside at least one real ball. Recall is the share of real
      samples inside at least one generated ball (Kynkaanniemi et al. 2019, eq. 1).
    - Density is the number of real balls around a generated sample, over k; it may exceed 1. Coverage is
      the share of real balls that hold a generated sample (Naeem et al. 2020, eqs. 2 and 3).

    Args:
        real: features ``(n, d)``, n more than k.
        fake: features ``(m, d)``, m more than k.
        k: number of neighbours, at least 1.

    Returns:
        ``precision`` ``(m,)``, ``recall`` ``(n,)``, ``density`` ``(m,)`` and ``coverage`` ``(n,)``, float64.

    Raises:
        ValueError: for too few samples.

    Example:
        >>> import torch
        >>> from lebm.metrics import neighbour_rows
        >>> generator = torch.Generator().manual_seed(0)
        >>> real, fake = torch.randn(100, 2, generator=generator), torch.randn(100, 2, generator=generator)
        >>> {name: round(float(rows.mean()), 2) for name, rows in neighbour_rows(real, fake).items()}
        {'precision': 1.0, 'recall': 1.0, 'density': 1.04, 'coverage': 0.94}
    """
    if k < 1 or min(len(real), len(fake)) <= k:
        raise ValueError(f"k = {k} must be at least 1 and below both {len(real)} and {len(fake)} samples")
    centre = real.mean(dim=0)  # subtracted, because distances far from the origin are rounded
    real, fake = real - centre, fake - centre
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    inside = torch.zeros(len(fake), dtype=torch.long, device=real.device)
    recalled, nearest = [], []
    size = max(1, _CELLS // len(fake))
    for rows, radius in zip(real.split(size), real_radius.split(size), strict=True):
        distance = torch.cdist(rows, fake)
        inside += (distance <= radius[:, None]).sum(dim=0)
        recalled.append((distance <= fake_radius).any(dim=1))
        nearest.append(distance.amin(dim=1))
    return {
        "precision": (inside > 0).double(),
        "recall": torch.cat(recalled).double(),
        "density": inside.double() / k,
        "coverage": (torch.cat(nearest) <= real_radius).double(),
    }


def _radius(x: Tensor, k: int) -> Tensor:
    """Return the distance to the k-th neighbour, without the point itself, ``(n,)``."""
    parts = x.split(max(1, _CELLS // len(x)))
    return torch.cat([torch.cdist(rows, x).kthvalue(k + 1, dim=1).values for rows in parts])


def maximum_mean_discrepancy(a: Tensor, b: Tensor, width: float | None = None) -> Tensor:
    r"""Return the squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, eq. 3).

    .. math:: \mathrm{MMD}^2 = E[k(a, a')] + E[k(b, b')] - 2 E[k(a, b)],
        \qquad k(u, v) = \exp(-|u - v|^2 / 2 w^2)

    The estimate is unbiased, so it is zero in expectation for equal densities and can be negative.

    Args:
        a: points ``(n, d)``, n at least 2.
        b: points ``(m, d)``, m at least 2.
        width: width w of the kernel; the median distance between points of ``b`` if ``None``, so that values
            with the same reference can be compared.

    Returns:
        A scalar.

    Raises:
        ValueError: for fewer than two points.

    Example:
        >>> import torch
        >>> from lebm.metrics import maximum_mean_discrepancy
        >>> a, b = torch.zeros(4, 2), torch.ones(4, 2)
        >>> maximum_mean_discrepancy(a, b, width=1.0)  # 2 - 2 / e
        tensor(1.2642)
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a discrepancy needs at least two points of each kind, not {len(a)} and {len(b)}")
    a, b = a - b.mean(dim=0), b - b.mean(dim=0)  # distances far from the origin are rounded
    if width is None:
        width = float(torch.pdist(b).median().clamp_min(1e-12))

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (-0.5 * (torch.cdist(u, v) / width).square()).exp()

    within = [(kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return within[0] + within[1] - 2 * kernel(a, b).mean()
