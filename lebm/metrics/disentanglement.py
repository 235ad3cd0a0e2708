"""How well single coordinates of a latent correspond to single factors of variation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mutual_information", "mutual_information_gap"]


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information of two discrete variables from their joint counts, in nats.

    Args:
        a: ``(N,)`` of ``long``, from 0.
        b: ``(N,)`` of ``long``, from 0.

    Example:
        >>> import torch
        >>> from lebm.metrics import mutual_information
        >>> a = torch.arange(100) % 2
        >>> mutual_information(a, a), mutual_information(a, torch.zeros_like(a))  # log 2 and 0
        (tensor(0.6931, dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    counts = torch.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns).double()
    joint = counts / counts.sum()
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    return torch.where(joint > 0, joint * (joint / independent.clamp_min(1e-300)).log(), 0.0).sum()


def mutual_information_gap(codes: Tensor, factors: Tensor, bins: int = 20) -> tuple[float, float | None]:
    """MIG (Chen et al. 2018) and MIG-sup (Li et al. 2020), each in [0, 1].

    MIG is high if one coordinate alone holds each factor. For every factor it takes the two coordinates with
    the most mutual information, divides the gap between them by the factor's entropy, and averages over
    factors.

    MIG-sup is high if each coordinate holds one factor alone. Every mutual information is divided by the
    factor's entropy. For every coordinate it takes the gap between the two largest values, and averages over
    coordinates.

    Args:
        codes: ``(N, d)``, d at least 2. Each coordinate is cut into bins of equal width between its extremes.
        factors: ``(N, K)`` of ``long``, from 0; each has at least two values.
        bins: number of bins per coordinate.

    Returns:
        MIG, and MIG-sup or ``None`` for a single factor.

    Raises:
        ValueError: for fewer than two coordinates, or a factor that never varies.

    Example:
        >>> import torch
        >>> from lebm.metrics import mutual_information_gap
        >>> factors = torch.stack([torch.arange(400) % 2, torch.arange(400) // 2 % 2], dim=1)
        >>> [round(gap, 3) for gap in mutual_information_gap(factors.float(), factors)]
        [1.0, 1.0]
    """
    if codes.shape[1] < 2:
        raise ValueError("a mutual information gap needs at least two coordinates")
    low, high = codes.amin(dim=0), codes.amax(dim=0)
    binned = ((codes - low) / (high - low).clamp_min(1e-12) * bins).long().clamp_max(bins - 1)
    entropies = torch.stack([mutual_information(factor, factor) for factor in factors.T])
    if bool((entropies <= 0).any()):
        raise ValueError(f"factor {int(entropies.argmin())} never varies")
    shared = [torch.stack([mutual_information(code, factor) for factor in factors.T]) for code in binned.T]
    table = torch.stack(shared) / entropies
    best = table.topk(2, dim=0).values
    gap = float((best[0] - best[1]).mean())
    if factors.shape[1] < 2:
        return gap, None
    best = table.topk(2, dim=1).values
    return gap, float((best[:, 0] - best[:, 1]).mean())
