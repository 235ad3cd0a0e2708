"""Fidelity and diversity by nearest neighbours in a feature space."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["neighbour_rows"]

_CELLS = 2**24  # distances at once, 64 MB


def neighbour_rows(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, Tensor]:
    r"""Per-sample terms whose means are precision, recall, density and coverage.

    With :math:`B(y)` the ball around y that reaches its k-th neighbour among its own kind, precision is the
    share of generated samples inside some real ball and recall the share of real samples inside some
    generated one (Kynkaanniemi et al. 2019, eq. 1); density is the number of real balls a generated sample
    lies in, over k, and coverage the share of real balls that hold a generated sample (Naeem et al. 2020,
    eqs. 2 and 3). Density may exceed 1. Distances are Euclidean; a boundary belongs to its ball.

    Args:
        real: features ``(n, d)``, more than k.
        fake: features ``(m, d)``, more than k.
        k: neighbours, at least 1.

    Returns:
        ``precision`` ``(m,)``, ``recall`` ``(n,)``, ``density`` ``(m,)`` and ``coverage`` ``(n,)``, float64.

    Raises:
        ValueError: for too few samples.
    """
    if k < 1 or min(len(real), len(fake)) <= k:
        raise ValueError(
            f"{k} neighbours need k of at least 1 and more than {k} samples of each kind, not {len(real)} and"
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
