"""Histograms, ROC and precision-recall curves as short lists of numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lebm.metrics.anomaly import ranking

__all__ = ["histogram", "ranking_curves"]

POINTS = 120


def histogram(groups: dict[str, Tensor], bins: int = 50) -> dict[str, Any]:
    """Histograms of several groups of values over the same bins, as the share of each bin.

    The bins span all values but the lowest and the highest 0.5 % of all groups together. The outermost bins
    count the values beyond them.

    Args:
        groups: values ``(N,)`` by name.
        bins: number of bins.

    Returns:
        ``low`` and ``high``, the ends of the bins, and ``shares``, a list per group.

    Example:
        >>> import torch
        >>> from lebm.evaluation.curves import histogram
        >>> histogram({"normal": torch.tensor([0.0, 0.0, 1.0, 1.0])}, bins=2)
        {'low': 0.0, 'high': 1.0, 'shares': {'normal': [0.5, 0.5]}}
    """
    pooled = torch.cat([values.double() for values in groups.values()]).sort().values
    low, high = (float(pooled[round(share * (len(pooled) - 1))]) for share in (0.005, 0.995))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    shares = {}
    for name, values in groups.items():
        counts = torch.histc(values.double().clamp(low, high), bins, low, high)
        shares[name] = [round(float(count) / max(1, len(values)), 6) for count in counts]
    return {"low": low, "high": high, "shares": shares}


def ranking_curves(score: Tensor, anomaly: Tensor) -> dict[str, list[list[float]]]:
    """The ROC curve and the precision-recall curve, with at most 120 points each and both ends.

    Args:
        score: ``(N,)``, high for anomalies.
        anomaly: ``(N,)`` of ``bool``, both kinds present.

    Returns:
        ``roc``, pairs of false and true positive rate, and ``pr``, pairs of recall and precision.
    """
    true, false = ranking(score, anomaly)
    hit, alarm, precision = true / true[-1], false / false[-1], true / (true + false)
    roc, pr = torch.stack([alarm, hit], dim=1), torch.stack([hit, precision], dim=1)
    start = torch.zeros(1, 2, dtype=torch.float64)
    return {"roc": _thinned(torch.cat([start, roc])), "pr": _thinned(pr)}


def _thinned(points: Tensor) -> list[list[float]]:
    """Points at about equal distances along the curve."""
    steps = points.diff(dim=0).abs().sum(dim=1)
    length = torch.cat([torch.zeros(1, dtype=steps.dtype), steps.cumsum(0)])
    grid = torch.linspace(0, float(length[-1]), POINTS, dtype=steps.dtype)
    kept = torch.searchsorted(length, grid).clamp(max=len(points) - 1).unique()
    return [[round(float(value), 5) for value in point] for point in points[kept]]
