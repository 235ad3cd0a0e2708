"""How far single coordinates of a latent stand for single factors of variation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mutual_information", "mutual_information_gap"]


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information of two discrete variables from their joint counts, in nats.

    Args:
        a: ``(N,)`` of ``long``, from 0.
        b: the same.
    """
    columns = int(b.max()) + 1
    counts = (
        torch.bincount(a * columns + b, minlength=(int(a.max()) + 1) * columns).reshape(-1, columns).double()
    )
    joint = counts / counts.sum()
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    return torch.where(joint > 0, joint * (joint / independent.clamp_min(1e-300)).log(), 0.0).sum()


def mutual_information_gap(codes: Tensor, factors: Tensor, bins: int = 20) -> tuple[float, float | None]:
    """MIG (Chen et al. 2018) and MIG-sup (Li et al. 2020), each in [0, 1], higher for one coordinate a factor
    and one factor a coordinate.

    MIG is the gap between the two coordinates that know most of a factor, over the factor's entropy, averaged
    over factors. MIG-sup turns the two around: the gap between the two factors, each over its entropy, that a
    coordinate knows most of, averaged over coordinates.

    Args:
        codes: ``(N, d)``, d at least 2; cut into ``bins`` of equal width between its extremes.
        factors: ``(N, K)`` of ``long``, from 0; each with at least two values.
        bins: of each coordinate.

    Returns:
        MIG, and MIG-sup or ``None`` for a single factor.

    Raises:
        ValueError: for fewer than two coordinates, or a factor that never varies.
    """
    if codes.shape[1] < 2:
        raise ValueError("a gap needs at least two coordinates")
    low, high = codes.amin(dim=0), codes.amax(dim=0)
    places = ((codes - low) / (high - low).clamp_min(1e-12) * bins).long().clamp_max(bins - 1)
    entropies = torch.stack([mutual_information(factor, factor) for factor in factors.T])
    if bool((entropies <= 0).any()):
        raise ValueError(f"factor {int(entropies.argmin())} never varies")
    table = (
        torch.stack(
            [torch.stack([mutual_information(place, factor) for factor in factors.T]) for place in places.T]
        )
        / entropies
    )
    best = table.topk(2, dim=0).values
    gap = float((best[0] - best[1]).mean())
    if factors.shape[1] < 2:
        return gap, None
    best = table.topk(2, dim=1).values
    return gap, float((best[:, 0] - best[:, 1]).mean())
