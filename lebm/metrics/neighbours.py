"""Fidelity and diversity by nearest neighbours in a feature space."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["neighbour_rows"]

_CELLS = 2**24  # distances in memory at one time, 64 MB


def neighbour_rows(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, Tensor]:
    """Values per sample whose means are precision, recall, density and coverage.

    :math:`B(y)` is the ball around y that reaches the k-th neighbour of y among samples of its own kind.
    Distances are Euclidean, and a ball includes its boundary.

    - Precision is the share of generated samples inside at least one real ball. Recall is the share of real
      samples inside at least one generated ball (Kynkaanniemi et al. 2019, eq. 1).
    - Density is the number of real balls around a generated sample, over k; it may exceed 1. Coverage is
      the share of real balls that hold a generated sample (Naeem et al. 2020, eqs. 2 and 3).

    Args:
        real: features ``(n, d)``, n more than k.
        fake: features ``(m, d)``, m more than k.
        k: neighbours, at least 1.

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
        raise ValueError(
            f"k = {k} must be at least 1 and needs more than {k} samples of each kind, not {len(real)} and"
            f" {len(fake)}"
        )
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    inside = torch.zeros(len(fake), dtype=torch.long, device=real.device)
    recalled, nearest = [], []
    for rows, radius in zip(real.split(_rows(len(fake))), real_radius.split(_rows(len(fake))), strict=True):
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


def _rows(columns: int) -> int:
    return max(1, _CELLS // columns)


def _radius(x: Tensor, k: int) -> Tensor:
    """Distance to the k-th neighbour, the point itself not counted, ``(n,)``."""
    return torch.cat([torch.cdist(rows, x).kthvalue(k + 1, dim=1).values for rows in x.split(_rows(len(x)))])
